"""The mesh for clients: one long-lived stream for many calls, and errors that say what happened.

`connect` gives a channel for the generated stubs; `errors.decode` reads a failed call.
"""

from __future__ import annotations

from paymesh.mesh.connect import connect as connect
from paymesh.mesh.stream_channel import StreamChannel as StreamChannel
from paymesh.mesh.stream_channel import StreamSettings as StreamSettings
