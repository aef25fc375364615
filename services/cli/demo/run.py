"""`paymesh demo`: boots everything, replays the purchases, proves the books."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

from paymesh.edge import RequestSigner, generate_key
from paymesh.member.v1 import (
    AddMerchantKeyRequest,
    MemberServiceStub,
    RegisterMerchantRequest,
)
from rich.console import Console

from common.errors import PaymeshError
from services.cli.demo import settings
from services.cli.demo.faults import NO_FAULTS, FaultPlan, add_kills, plan_faults
from services.cli.demo.merchant_api import ShopError
from services.cli.demo.purchases import CURRENCY, Purchase, read_purchases
from services.cli.demo.replay import Replay
from services.cli.demo.report import write_report
from services.cli.demo.saboteur import NotRecoveredError
from services.cli.deployment import ROOT, TOPOLOGY_DEFAULT, Deployment, Plan
from services.cli.operator import Operator, operate

INPUT_DEFAULT: Final = ROOT / "data" / "cdnow_sample.txt"
REPORT_FILE: Final = ROOT / "build" / "demo-report.json"

_SERVER_VARIABLES: Final = ("PAYMESH_POSTGRES_URL", "PAYMESH_REDIS_URL", "PAYMESH_AMQP_URL")


@dataclass(frozen=True)
class Wishes:
    """What the demo is asked to do."""

    input_file: Path = INPUT_DEFAULT
    limit: int | None = None
    topology: Path = TOPOLOGY_DEFAULT
    seed: int | None = None
    """Seed of the faults; None for none."""
    kills: Sequence[str] = field(default_factory=tuple)
    """Further kills, `SERVICE@ORDER` each."""
    report_file: Path = REPORT_FILE
    """Where the figures go."""

    @property
    def is_under_fire(self) -> bool:
        """Whether anything goes wrong on purpose."""
        return self.seed is not None or bool(self.kills)

    @property
    def command(self) -> str:
        """What to type to do the same again."""
        words = ["paymesh demo"]
        if self.seed is not None:
            words.append(f"--faults {self.seed}")
        words += [f"--kill {kill}" for kill in self.kills]
        if self.limit is not None:
            words.append(f"--limit {self.limit}")
        if self.input_file != INPUT_DEFAULT:
            words.append(f"--input {self.input_file}")
        if self.topology != TOPOLOGY_DEFAULT:
            words.append(f"--topology {self.topology}")
        return " ".join(words)


async def run_demo(wishes: Wishes, console: Console) -> int:
    """Run the demo; return the exit status: 0 when everything holds.

    Raises:
        KillError: a wished kill names no service or purchase that there is.
    """
    begun_at = monotonic()
    purchases, refused = _read(wishes.input_file, wishes.limit, console)
    faults = _plan(wishes, len(purchases))
    console.print(f"paymesh demo: {len(purchases):,} purchases")
    async with (
        Deployment(_deployment_plan(wishes, console)) as deployment,
        operate(deployment.environment) as operator,
    ):
        console.print(f"  everything serves after {monotonic() - begun_at:.1f} s")
        merchant_id, signer = await register_merchant(operator)
        replay = Replay(deployment, operator, faults, console, is_under_fire=wishes.is_under_fire)
        try:
            report = await replay.run(merchant_id, signer, purchases)
            write_report(report, wishes.report_file)
            problems = report.problems
        except (NotRecoveredError, PaymeshError, ShopError) as error:
            problems = [f"{type(error).__name__}: {error}"]
    if refused:
        console.print(f"{refused} lines of the input could not be read (see above)")
    for problem in problems[:20]:
        console.print(f"  wrong: {problem}", highlight=False)
    if problems:
        console.print(f"demo: FAILED; again with: {wishes.command}", highlight=False)
        return 1
    console.print("demo: all holds")
    return 0


def _plan(wishes: Wishes, purchases: int) -> FaultPlan:
    plan = NO_FAULTS if wishes.seed is None else plan_faults(wishes.seed, purchases)
    return add_kills(plan, wishes.kills, purchases)


def _deployment_plan(wishes: Wishes, console: Console) -> Plan:
    def say(words: str) -> None:
        console.print(f"  {words}")

    if not wishes.is_under_fire:
        return Plan(
            instance="demo",
            topology=wishes.topology,
            fresh_database=True,
            settings=settings.QUIET,
            say=say,
        )
    configured = [name for name in _SERVER_VARIABLES if os.environ.get(name)]
    if configured:
        say(f"on private servers, though {', '.join(configured)} are set: only those are killed")
    return Plan(
        instance="demo",
        topology=wishes.topology,
        fresh_database=True,
        private_servers=True,
        settings=settings.UNDER_FIRE,
        files=settings.under_fire_files(),
        say=say,
    )


def _read(file: Path, limit: int | None, console: Console) -> tuple[list[Purchase], int]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        purchases, unreadable = read_purchases(lines, limit)
    for one in unreadable:
        console.print(f"  line {one.line} cannot be read: {one.reason}", highlight=False)
    return purchases, len(unreadable)


async def register_merchant(operator: Operator) -> tuple[str, RequestSigner]:
    """Register the shop as a merchant, with a key of its own making."""
    members = operator.stub(MemberServiceStub, "member")
    answer = await members.RegisterMerchant(
        RegisterMerchantRequest(
            request_id="demo-merchant",
            merchant_no="cdnow",
            name="CDNOW",
            currency_codes=[CURRENCY],
        )
    )
    private_key, public_key = generate_key()
    key = await members.AddMerchantKey(
        AddMerchantKeyRequest(
            request_id="demo-key",
            merchant_id=answer.merchant.id,
            public_key=public_key,
            mode="LIVE",
        )
    )
    return answer.merchant.id, RequestSigner(key.key.id, private_key)
