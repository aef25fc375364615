"""Which services there are, and where a process finds them.

A service's wiring is imported only when a process hosts it, so that one service's process does not
carry another's code.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from common.service import ServiceSource

SERVICES: Final = (
    "account",
    "member",
    "settlement",
    "routing",
    "risk",
    "channel",
    "trade",
    "payment",
    "notify",
    "edge",
    "sandbox",
)
"""Every service; those that are called come before those that call them."""

_ROOT: Final = Path(__file__).parents[1]

_ALONE: Final = {
    "account": {
        "PAYMESH_TOPOLOGY_PATH": str(_ROOT.parent / "topology" / "ledger" / "ledger.toml"),
        "PAYMESH_AMQP_URL": "none",
    },
}
"""Services that are of use without any other, and the settings that they then begin with."""


class ServiceNameError(Exception):
    """There is no service of this name; the message lists those there are."""


def find_source(name: str) -> ServiceSource:
    """Return a service's source; raises ServiceNameError."""
    if name not in SERVICES:
        raise ServiceNameError(f"there is no service {name}; there are {', '.join(SERVICES)}")
    wiring = importlib.import_module(f"services.{name}.wiring")
    migrations = _ROOT / name / "migrations"
    return ServiceSource(name, wiring.wire, migrations if migrations.is_dir() else None)


def stand_alone(names: Sequence[str]) -> None:
    """Let this process's settings be those of a service that stands alone, where none are given.

    Raises:
        ServiceNameError: it is of no use without others.
    """
    alone = " ".join(names)
    if alone not in _ALONE:
        raise ServiceNameError(f"{alone} needs others; alone can be: {', '.join(_ALONE)}")
    for variable, value in _ALONE[alone].items():
        if not os.environ.get(variable):
            os.environ[variable] = value
