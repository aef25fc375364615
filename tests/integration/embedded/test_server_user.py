"""PostgreSQL refuses root, so root runs it in a user namespace, or as nobody; users just run it."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import asyncpg
import pytest

from common.embedded import server_user
from common.embedded.cluster import Servers

NOBODY = pwd.getpwnam("nobody")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def user_of(pid: int) -> int:
    """The user id that a process runs under."""
    return Path(f"/proc/{pid}").stat().st_uid


async def start_and_ask(folder: Path) -> None:
    """Start PostgreSQL twice on the same data, the second time after a kill -9."""
    async with Servers("one", private=True, local_folder=folder, only=["postgres"]) as servers:
        connection = await asyncpg.connect(servers.postgres_url)
        await connection.execute("CREATE TABLE kept ()")
        await connection.close()
        await servers.kill("postgres")
        await servers.restart("postgres")
        connection = await asyncpg.connect(servers.postgres_url)
        assert await connection.fetchval("SELECT to_regclass('kept') IS NOT NULL")
        await connection.close()


@as_root
async def test_starting_as_root_without_namespaces_runs_as_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that forbids user namespaces; the checkout is closed to other users."""
    monkeypatch.setattr(server_user, "namespaces_allowed", lambda: False)
    (tmp_path / "closed").mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", None)
    async with Servers(
        "one", private=True, local_folder=tmp_path / "closed", only=["postgres"]
    ) as servers:
        assert user_of(servers.pid("postgres")) == NOBODY.pw_uid
        home = (servers.folder / "postgres").resolve().parents[1]
    await start_and_ask(tmp_path / "closed")
    shutil.rmtree(home)


@as_root
@pytest.mark.skipif(not server_user.namespaces_allowed(), reason="user namespaces are forbidden")
async def test_starting_as_an_ordinary_user_needs_no_tricks(
    tmp_path: Path, repository: Path
) -> None:
    """All three servers under another user id, to which the files of this checkout belong."""
    program = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from common.embedded.cluster import Servers\n"
        "async def main():\n"
        "    assert os.geteuid() == 1000\n"
        "    async with Servers('one', private=True, local_folder=Path(sys.argv[1])) as servers:\n"
        "        print(servers.environment)\n"
        "asyncio.run(main())"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [
            *("unshare", "--user", "--map-user=1000", "--map-group=1000", "--"),
            *(sys.executable, "-c", program, str(tmp_path)),
        ],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(repository), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "amqp://" in done.stdout
