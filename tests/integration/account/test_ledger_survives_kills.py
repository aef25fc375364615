"""Killed at any moment, the ledger loses nothing and books nothing twice.

Clients keep their ids and send them again until answered. At the end every answer that anyone ever
got is what the rows say, every id has its row, and the books fit.
"""

from __future__ import annotations

import asyncio
import random
import sys
from asyncio.subprocess import PIPE, Process
from functools import partial

import pytest

from common.clock import SystemClock
from common.ids import IdFactory
from services.account.config import AccountSettings
from services.account.flows.drain_buffers import drain_buffers
from services.account.store.buffers import BufferStore
from tests.conftest import StartServers
from tests.integration.account.conftest import (
    LedgerKit,
    NewKit,
    close_kit,
    open_kit,
    prepare_ledger_schema,
)
from tests.integration.account.invariants import find_broken
from tests.integration.account.load import Load, Verdict, send, through, verdict_of

Heard = dict[str, Verdict]
"""Every answer that anyone got."""


async def test_killing_the_writing_process_loses_and_doubles_nothing(new_kit: NewKit) -> None:
    await _kill_writers(await new_kit(), count=500, kills=4)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_killing_the_writing_process_again_and_again_loses_nothing(new_kit: NewKit) -> None:
    kit = await new_kit()
    for _ in range(5):
        await _kill_writers(kit, count=3000, kills=12)


async def test_killing_postgresql_loses_and_doubles_nothing(start_servers: StartServers) -> None:
    await _kill_postgresql(start_servers, count=600, kills=2)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_killing_postgresql_again_and_again_loses_nothing(
    start_servers: StartServers,
) -> None:
    await _kill_postgresql(start_servers, count=8000, kills=10)


async def _kill_writers(kit: LedgerKit, *, count: int, kills: int) -> None:
    load = Load(IdFactory(SystemClock()).new("tst"), count)
    await kit.open(load.specs)
    heard: Heard = {}
    answers_before_kill = len(load.ids) // (kills * 2)
    for _ in range(kills):
        writer = await _start_writer(kit.url, load)
        # Two at once half of the time: the other one is not killed with it.
        other = await _start_writer(kit.url, load) if random.random() < 0.5 else None  # noqa: S311
        await _listen(writer, heard, answers_before_kill)
        writer.kill()
        await writer.wait()
        if other is not None:
            other.kill()
            await _listen(other, heard, None)
            await other.wait()
    last = await _start_writer(kit.url, load)
    await _listen(last, heard, None)
    assert await last.wait() == 0
    assert set(heard) == set(load.ids)
    await assert_kept(kit, heard)


async def _start_writer(url: str, load: Load) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.account.load", url, load.seed, str(load.count)),
        stdout=PIPE,
    )


async def _listen(writer: Process, heard: Heard, answers_max: int | None) -> None:
    """Note answers, until so many were heard or the writer ends."""
    assert writer.stdout is not None
    answers = 0
    async for line in writer.stdout:
        words = line.decode().split()
        if len(words) == 3 and line.endswith(b"\n"):
            note(heard, (words[0], words[1], int(words[2])))
            answers += 1
            if answers == answers_max:
                return


def note(heard: Heard, verdict: Verdict) -> None:
    """Note an answer; the same id has the same one for ever."""
    assert heard.setdefault(verdict[0], verdict) == verdict, "two answers under one id"


async def assert_kept(kit: LedgerKit, heard: Heard) -> None:
    """Every answer is what the rows say, and the books are whole."""
    stored = await kit.reading.read_transfers(0, list(heard))
    kept = {one: verdict_of(row.answer(replayed=True)) for one, row in stored.items()}
    assert kept == heard
    await drain_buffers(BufferStore(kit.pool), 0)
    assert await find_broken(kit.pool) == []
    await kit.assert_books_fit()


async def _kill_postgresql(start_servers: StartServers, *, count: int, kills: int) -> None:
    servers = await start_servers("postgres")
    url = await prepare_ledger_schema(servers.postgres_url)
    # Small batches, so that there are many commits to be killed in.
    settings = AccountSettings(batch_transfers_max=16)
    kit = await open_kit(url, settings)
    load = Load(IdFactory(SystemClock()).new("tst"), count)
    await kit.open(load.specs)
    heard: Heard = {}

    sending = asyncio.create_task(send(through(kit.ledger), load, partial(note, heard)))
    for number in range(1, kills + 1):
        while len(heard) < len(load.ids) * number // (kills + 1):
            assert not sending.done()
            await asyncio.sleep(0.001)
        await servers.kill("postgres")
        await servers.restart("postgres")
    await sending
    await close_kit(kit)
    # A new writer, and a pool whose connections did not die.
    after = await open_kit(url)
    assert set(heard) == set(load.ids)
    await assert_kept(after, heard)
    await close_kit(after)
