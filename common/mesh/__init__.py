"""The mesh: any process serves any set of services, and a call travels by one of three ways.

Local when both sides share a process, by stream between services, plain gRPC for anyone else: the
same stubs, the same middleware, the same errors. Which way is configuration (`topology/*.toml`).
"""
