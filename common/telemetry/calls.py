"""The figures of calls: how many, how long, how they ended."""

from __future__ import annotations

from typing import Final

from common.telemetry import metrics

_SERVED: Final = metrics.histogram("rpc.server.duration", "Time to answer a call")
_MADE: Final = metrics.histogram("rpc.client.duration", "Time until a call was answered")


def observe_call(side: str, path: str, peer: str, reason: str, seconds: float) -> None:
    """Count one call that has ended (`common.mesh.middleware.telemetry.Observe`)."""
    service, _, method = path.lstrip("/").partition("/")
    instrument = _SERVED if side == "server" else _MADE
    instrument.record(
        seconds,
        {"rpc.service": service, "rpc.method": method, "paymesh.peer": peer, "reason": reason},
    )
