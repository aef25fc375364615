"""Which services there are, and where a process finds them.

A service's wiring is imported only when a process hosts it, so that one service's process does not
carry another's code.
"""

from __future__ import annotations

import importlib
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


class ServiceNameError(Exception):
    """There is no service of this name; the message lists those there are."""


def find_source(name: str) -> ServiceSource:
    """Return a service's source; raises ServiceNameError."""
    if name not in SERVICES:
        raise ServiceNameError(f"there is no service {name}; there are {', '.join(SERVICES)}")
    wiring = importlib.import_module(f"services.{name}.wiring")
    migrations = _ROOT / name / "migrations"
    return ServiceSource(name, wiring.wire, migrations if migrations.is_dir() else None)
