"""What docs/ledger.md says is so: its blocks run as they stand, and its table names each answer."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from common.mesh.middleware.authorisation import load_access
from common.mesh.topology import load_topology
from common.reasons import CODES
from tests.system.lone_ledger import ROOT, SECRET, LoneLedger

PAGE = (ROOT / "docs" / "ledger.md").read_text("utf-8")
ACCOUNT = ROOT / "services" / "account"
ADDRESS = "127.0.0.1:7105"


def blocks(language: str) -> list[str]:
    """The page's blocks of code."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
async def ledger(
    database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LoneLedger]:
    async with LoneLedger(database_url, tmp_path_factory.mktemp("ledger") / "log") as running:
        yield running


async def test_running_the_pages_program_holds_what_it_asserts(
    ledger: LoneLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYMESH_MESH_SECRET", SECRET)
    source = "\n".join(blocks("python"))
    assert ADDRESS in source
    program = compile(
        source.replace(ADDRESS, ledger.address),
        "docs/ledger.md",
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
    )
    names: dict[str, Any] = {}
    await eval(program, names)  # noqa: S307 - our own page
    assert names["statement"].entries_count == 1_004


async def test_calling_without_the_client_package_answers(ledger: LoneLedger) -> None:
    (commands,) = [block for block in blocks("sh") if "buf curl" in block]
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-e",
        "-c",
        commands.replace(ADDRESS, ledger.address),
        cwd=ROOT,
        env={
            **os.environ,
            "PAYMESH_MESH_SECRET": SECRET,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert re.search(r'"businessDate": "\d{4}-\d{2}-\d{2}"', out.decode())


def test_table_of_answers_names_each_reason_that_a_transfer_can_get() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| ([A-Z][A-Za-z ]+?) \|", PAGE, re.MULTILINE))
    sources = [ACCOUNT / "flows" / "post_transfers.py"]
    sources += [
        ACCOUNT / "domain" / f"{name}.py"
        for name in ("bookings", "decisions", "requests", "statuses")
    ]
    code = "".join(source.read_text("utf-8") for source in sources)
    said = set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"', code)) & set(CODES)
    assert set(rows) == said
    for verb, reason in re.findall(r'_(refuse|reject)\(\s*"([A-Z_]+)"', code):
        assert rows[reason] == ("REFUSED" if verb == "refuse" else "INVALID"), reason


def test_access_of_the_ledger_alone_names_methods_of_the_account_service() -> None:
    folder = ROOT / "topology" / "ledger"
    topology = load_topology(folder / "ledger.toml", {})
    assert topology.port_of("account") == int(ADDRESS.rpartition(":")[2])
    contract = (ROOT / "proto/paymesh/account/v1/account_service.proto").read_text("utf-8")
    contract += (ROOT / "proto/paymesh/account/v1/general_ledger_service.proto").read_text("utf-8")
    methods = set(re.findall(r"rpc (\w+)\(", contract))
    for rule in load_access(folder / "access.toml").rules:
        for method in rule.methods:
            assert method.endswith("*") or method.rpartition("/")[2] in methods, method
