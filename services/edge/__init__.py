"""The door for merchants and channels: REST in, calls of the contracts out.

Owns the record of what was refused at the door, and nothing else: every order, payment and key
lives in the service that answers for it. Invariants: a request reaches a service only when its
signature, clock, nonce and body have been proven; the principal of a call is made here, from the
key, and never taken from a body; an answer says nothing about the inside of the platform.
Merchants and channels call it over HTTP; operators read its refusals over gRPC.
"""
