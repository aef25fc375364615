"""Waiting without sleeping for fixed times, and looking at processes from outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from common.embedded import process_table
from common.embedded.process_table import Identity

WaitUntil = Callable[[Callable[[], bool]], Awaitable[None]]
_TIMEOUT_SECONDS = 20.0


async def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


@pytest.fixture
def wait_until() -> WaitUntil:
    """A function that waits until a condition holds, and fails the test when it never does."""
    return _wait_until


@pytest.fixture
def identities_below() -> Callable[[int], list[Identity]]:
    """A function that names a process and everything below it."""

    def below(pid: int) -> list[Identity]:
        return identify_all([pid, *process_table.descendants(pid)])

    return below


def identify_all(pids: Iterable[int]) -> list[Identity]:
    """The identities of those that run."""
    found = [process_table.identify(pid) for pid in pids]
    return [each for each in found if each is not None]


@pytest.fixture
def repository() -> Path:
    """The folder from which `common` is imported."""
    return Path(__file__).resolve().parents[3]
