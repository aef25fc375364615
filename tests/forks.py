"""What the tests' process tells libraries that prepare for being forked: not to.

Tests start programs, and uvloop starts one by a fork that runs what libraries registered for
children which go on in Python: gRPC wakes its threads there, OpenTelemetry asks detectors of
resources in new ones. A child that was about to become another program crashed there once in some
dozens of starts. The platform's own processes are not concerned: a guardian that knows neither
library starts them.
"""

from __future__ import annotations

import os


def expect_programs_only() -> None:
    """Let nothing be run in a forked child. Comes before the first channel and tracer."""
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    os.register_at_fork = _ignore  # type: ignore[assignment]


def _ignore(**_hooks: object) -> None:
    """Nobody is called."""
