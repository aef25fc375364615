"""Did they hear of it: webhooks to merchants, signed as Standard Webhooks v1 says.

Owns the merchants' addresses with their secrets, the webhooks, and their way to each address.
Invariants: an event becomes one webhook with one id, however often it is told; each address of
its merchant gets one delivery of it, written in the transaction in which the event is heard; a
delivery is sent at least once, always under the same `webhook-id`, until it is taken or parked;
no connection is made to an address that is not the public's, unless the installation allows it.
Called by edge (for merchants) and operators; calls nobody but the merchants.
"""
