"""A plug-in of pytest that writes down what became of each test, for the runner to read.

Named by `-p tests.mutations.outcomes`; the file by PAYMESH_TEST_OUTCOMES.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

VARIABLE = "PAYMESH_TEST_OUTCOMES"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write a line for each phase of each test."""
    line = {"node": report.nodeid, "phase": report.when, "outcome": report.outcome}
    with Path(os.environ[VARIABLE]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
