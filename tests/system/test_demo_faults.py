"""The demo with everything going wrong ends like the quiet one.

The demo judges itself: every order ended, the books balance, the outside parties agree to the cent,
every webhook that is owed was delivered. A seed that fails here is repeated by the command that the
demo prints. All of it is long; before anything lands, CI runs the same by command line.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from services.cli.demo.faults import KillError
from services.cli.demo.run import Wishes, run_demo


async def _run(wishes: Wishes, folder: Path) -> dict[str, Any]:
    """Run the demo, which has to pass; return its report."""
    output, file = io.StringIO(), folder / "report.json"
    status = await run_demo(replace(wishes, report_file=file), Console(file=output, width=120))
    assert status == 0, output.getvalue()
    report: dict[str, Any] = orjson.loads(file.read_bytes())
    assert report["unfinished"] == 0
    assert report["sandbox_difference_minor"] == 0
    assert report["trial_balance_difference_minor"] == 0
    assert report["proof_holds"] is True
    assert report["days_closed"] > 0
    assert report["vouchers"] > 0
    assert report["webhooks_received_unique"] == report["webhooks_expected"]
    return report


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_short_replay_under_fire_ends_like_the_quiet_one(tmp_path: Path) -> None:
    report = await _run(Wishes(limit=30, seed=3), tmp_path)
    assert report["orders_by_state"] == {"COMPLETED": 30}
    assert sum(report["faults_injected"].values()) > 10
    assert sum(report["kills"].values()) >= 5
    assert sum(report["pauses"].values()) == 2


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [11, 12])
async def test_replay_under_fire_meets_every_server_and_ends_like_the_quiet_one(
    seed: int, tmp_path: Path
) -> None:
    report = await _run(Wishes(limit=300, seed=seed), tmp_path)
    assert all(report["kills"][server] for server in ("postgres", "redis", "amqp"))
    assert report["exceptions_resolved"] == sum(report["exceptions_by_kind"].values()) > 0
    assert report["recovered_unknown"] > 0


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_chosen_kills_happen_and_nothing_else_does(tmp_path: Path) -> None:
    kills = ("payment@10", "account@20", "channel@30", "trade@40", "postgres@50")
    report = await _run(Wishes(limit=60, kills=kills), tmp_path)
    names = {kill.partition("@")[0] for kill in kills}
    assert {name for name, count in report["kills"].items() if count} == names
    assert sum(report["faults_injected"].values()) == 0
    assert sum(report["pauses"].values()) == 0


async def test_kill_at_no_place_is_refused_before_anything_starts() -> None:
    with pytest.raises(KillError, match="payment@31"):
        await run_demo(Wishes(limit=30, kills=("payment@31",)), Console(file=io.StringIO()))
