"""The `paymesh` command: the only place that knows several services' wirings."""

from services.cli.main import app

__all__ = ["app"]
