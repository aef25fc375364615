"""The supervisor starts, restarts and stops children, and nothing outlives a run.

The deaths are real ones: a helper process (`run_everything.py`) starts servers and children as a
run does, and is killed with a signal that it cannot catch.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from common.embedded import leftovers, process_table
from common.embedded.process_table import Identity
from common.embedded.processes import ProcessStartError
from common.embedded.supervisor import Child, Restart, Supervisor
from tests.integration.embedded.conftest import WaitUntil

# A child that notes its start and its end, and that has a child of its own.
SCRIPT = """
import os, signal, subprocess, sys, time
def note(what):
    with open(sys.argv[1], "a") as file:
        file.write(f"{what} {sys.argv[2]}\\n")
def end(*_):
    note("end")
    helper.kill()
    helper.wait()
    sys.exit(0)
helper = subprocess.Popen(["sleep", "600"], start_new_session=True)
signal.signal(signal.SIGTERM, end)
note("start")
while True:
    time.sleep(60)
"""
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").close()
time.sleep(600)
"""


class Notes:
    """What the children wrote down."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[str]:
        """The notes so far, in order."""
        return self.path.read_text().splitlines() if self.path.exists() else []

    def child(self, name: str, stage: int = 0, restart: Restart = Restart.ALWAYS) -> Child:
        """A child that is ready when it has noted its start."""
        starts_before = self.lines().count(f"start {name}")

        async def ready() -> bool:
            return self.lines().count(f"start {name}") > starts_before

        argv = [sys.executable, "-S", "-c", SCRIPT, str(self.path), name]
        return Child(name=name, argv=argv, ready=ready, stage=stage, restart=restart)


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


@contextlib.asynccontextmanager
async def supervised(tmp_path: Path, *children: Child) -> AsyncIterator[Supervisor]:
    folders = {"run_folder": tmp_path / "run", "log_folder": tmp_path / "log"}
    async with Supervisor(children, **folders) as supervisor:
        yield supervisor


async def test_starting_and_stopping_goes_stage_by_stage(tmp_path: Path, notes: Notes) -> None:
    children = [notes.child("edge", stage=2), notes.child("a", stage=1), notes.child("b", stage=1)]
    async with supervised(tmp_path, *children):
        started = notes.lines()
    ended = notes.lines()[len(started) :]
    assert sorted(started[:2]) == ["start a", "start b"]
    assert started[2:] == ["start edge"]
    assert ended[0] == "end edge"
    assert sorted(ended[1:]) == ["end a", "end b"]


async def test_killing_a_child_starts_it_again(
    tmp_path: Path, notes: Notes, wait_until: WaitUntil
) -> None:
    async with supervised(tmp_path, notes.child("a")) as supervisor:
        first = supervisor.pid("a")
        assert first is not None
        below = process_table.descendants(first)
        assert below
        await supervisor.kill("a")
        await wait_until(lambda: notes.lines().count("start a") == 2)
        await supervisor.wait_ready("a")
        assert supervisor.restarts("a") == 1
        assert supervisor.pid("a") not in (None, first)
        # Its helper had a session of its own, and still ended with it.
        await wait_until(lambda: all(process_table.identify(pid) is None for pid in below))


async def test_ending_well_is_final_for_children_that_restart_on_failure(
    tmp_path: Path, notes: Notes, wait_until: WaitUntil
) -> None:
    child = notes.child("a", restart=Restart.ON_FAILURE)
    async with supervised(tmp_path, child) as supervisor:
        await supervisor.kill("a", signal.SIGTERM)
        await wait_until(lambda: supervisor.pid("a") is None)
    assert notes.lines() == ["start a", "end a"]


async def test_killing_a_child_more_often_than_it_may_crash_does_not_give_it_up(
    tmp_path: Path, notes: Notes
) -> None:
    async with supervised(tmp_path, notes.child("a")) as supervisor:
        for count in range(12):
            await supervisor.kill("a")
            await asyncio.wait_for(supervisor.wait_restarted("a", count), 20)
        assert supervisor.restarts("a") == 12
        assert supervisor.pid("a") is not None


async def test_dying_again_and_again_gives_the_child_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.embedded.supervisor._BACK_OFF_MAX_SECONDS", 0.01)
    async with supervised(tmp_path, Child(name="a", argv=["false"])) as supervisor:
        assert "a ended with status 1" in await supervisor.wait_failed()
        assert supervisor.restarts("a") == 10


async def test_failing_to_start_says_why_and_stops_the_others(tmp_path: Path, notes: Notes) -> None:
    async def never() -> bool:
        return False

    argv = [sys.executable, "-S", "-c", "raise SystemExit('no key configured')"]
    broken = Child(name="broken", argv=argv, ready=never, stage=1)
    with pytest.raises(ProcessStartError, match=r"(?s)broken ended with status 1.*no key"):
        async with supervised(tmp_path, notes.child("a"), broken):
            pass
    assert notes.lines() == ["start a", "end a"]


async def test_starting_a_program_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProcessStartError, match=r"missing: .*No such file"):
        async with supervised(tmp_path, Child(name="missing", argv=["/no/such/program"])):
            pass


async def test_ignoring_the_request_to_end_gets_a_child_killed(tmp_path: Path) -> None:
    ready_file = tmp_path / "ready"

    async def ready() -> bool:
        return ready_file.exists()

    argv = [sys.executable, "-S", "-c", STUBBORN, str(ready_file)]
    child = Child(name="a", argv=argv, ready=ready, stop_timeout_seconds=0.2)
    async with supervised(tmp_path, child) as supervisor:
        pid = supervisor.pid("a")
        assert pid is not None
    assert process_table.identify(pid) is None


async def test_killing_the_guardian_ends_its_children_and_tells(
    tmp_path: Path, notes: Notes, wait_until: WaitUntil
) -> None:
    async with supervised(tmp_path, notes.child("a")) as supervisor:
        pid = supervisor.pid("a")
        guardian = process_table.read_pid_file(tmp_path / "run/services-guardian.pid")
        assert pid is not None
        assert guardian is not None
        everything = [pid, *process_table.descendants(pid)]
        guardian.send(signal.SIGKILL)
        await supervisor.wait_failed()
        await wait_until(lambda: all(process_table.identify(each) is None for each in everything))


def start_run(repository: Path, local_folder: Path, *servers: str) -> subprocess.Popen[str]:
    """Start the helper, wait until all of it runs, and leave it to its fate."""
    helper = repository / "tests/integration/embedded/run_everything.py"
    run = subprocess.Popen(
        [sys.executable, str(helper), str(local_folder), *servers],
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    return run


def reap(run: subprocess.Popen[str]) -> None:
    assert run.stdout is not None
    run.stdout.close()
    run.wait()


@pytest.mark.parametrize("doomed", ["the run", "the run and its guardians"])
async def test_killing_a_run_ends_everything_that_it_started(
    tmp_path: Path,
    repository: Path,
    identities_below: Callable[[int], list[Identity]],
    wait_until: WaitUntil,
    doomed: str,
) -> None:
    """Servers, services, and the processes that those started: with the run and with kill -9."""
    run = await asyncio.to_thread(start_run, repository, tmp_path, "postgres", "redis", "amqp")
    everything = identities_below(run.pid)
    names = {command_of(each.pid) for each in everything}
    assert {"postgres", "valkey-server", "beam.smp", "epmd", "sleep"} <= names
    guardians = [
        found
        for path in (tmp_path / "run/run").glob("*guardian.pid")
        if (found := process_table.read_pid_file(path)) is not None
    ]
    assert len(guardians) == 2

    run.kill()
    if doomed == "the run and its guardians":
        for guardian in guardians:
            guardian.send(signal.SIGKILL)
    await asyncio.to_thread(reap, run)

    if doomed == "the run and its guardians":
        # The kernel ends what the guardians had started; what that had started in turn is found
        # by its mark when the folder is used again, or by `make stop`.
        helpers = [each for each in everything if command_of(each.pid) == "sleep"]
        await wait_until(lambda: not any(e.is_alive() for e in everything if e not in helpers))
        await asyncio.to_thread(leftovers.end_leftovers, tmp_path / "run/run")
    await wait_until(lambda: not any(each.is_alive() for each in everything))


async def test_stopping_ends_a_run_from_outside_and_nothing_else(
    tmp_path: Path, repository: Path, wait_until: WaitUntil
) -> None:
    """What `make stop` does, with a pid file beside that names a process that is not ours."""
    run = await asyncio.to_thread(start_run, repository, tmp_path, "redis")
    folder = tmp_path / "run"
    noted = [process_table.read_pid_file(path) for path in (folder / "run").glob("*.pid")]
    stranger = process_table.identify(os.getpid())
    assert stranger is not None
    (folder / "run/old.pid").write_text(
        f'{{"pid": {os.getpid()}, "started_ticks": 1, "boot_id": "{stranger.boot_id}"}}'
    )
    ended = asyncio.create_task(asyncio.to_thread(leftovers.stop_instance, folder))
    await asyncio.to_thread(reap, run)
    assert any(re.fullmatch(rf"process {run.pid}", each) for each in await ended)
    await wait_until(lambda: not any(each is not None and each.is_alive() for each in noted))
    assert not list((folder / "run").glob("*.pid"))


def test_starting_after_a_broken_run_ends_what_it_left(tmp_path: Path) -> None:
    """Processes of an earlier run that nobody ended: by its pid file, and by its mark."""
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    noted = subprocess.Popen(["sleep", "600"], start_new_session=True)
    process_table.write_pid_file(run_folder / "postgres.pid", noted.pid)
    mark = f"{run_folder.resolve()}/services-guardian/"
    marked = subprocess.Popen(["sleep", "600"], env={**os.environ, process_table.MARK: mark})
    reaper = threading.Thread(target=lambda: (noted.wait(), marked.wait()))
    reaper.start()
    assert leftovers.end_leftovers(run_folder) == ["postgres", f"process {marked.pid}"]
    reaper.join()
    assert (noted.returncode, marked.returncode) == (-signal.SIGKILL, -signal.SIGKILL)


async def test_stopping_ends_what_forked_away(tmp_path: Path, wait_until: WaitUntil) -> None:
    """A double fork takes a process away from its parent, but not from the guardian."""
    child = Child(
        name="a", argv=["sh", "-c", "(setsid sleep 600 & setsid sleep 600 &) ; sleep 600"]
    )
    async with supervised(tmp_path, child) as supervisor:
        pid = supervisor.pid("a")
        assert pid is not None
        mark = f"{(tmp_path / 'run').resolve()}/"
        await wait_until(lambda: "sleep" in {command_of(each) for each in pids_marked(mark)})
    assert not pids_marked(mark)


def pids_marked(mark: str) -> list[int]:
    """Pids of the running processes that a guardian of the folder started, directly or not."""
    return [each.pid for each in process_table.marked(mark)]


def command_of(pid: int) -> str:
    """The name of the program, empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""
