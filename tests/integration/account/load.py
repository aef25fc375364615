"""Clients that never lose their ids: a fixed set of transfers, sent until each has its answer.

Run as a program it is the writing process that tests kill:
`python -m tests.integration.account.load URL SEED COUNT` prints `READY`, then a line with id and
verdict for each answer, and `DONE`.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from common.errors import PaymeshError, Retry
from common.ids import derive
from services.account.domain.accounts import AccountSpec
from services.account.domain.transfers import Transfer, TransferKind, TransferResult
from services.account.flows.post_transfers import Ledger

_USERS = 12
_CALLERS = 48

Verdict = tuple[str, str, int]
"""Id, `BOOKED` or a reason, and what was booked."""
Post = Callable[[list[Transfer]], Awaitable[Iterable[Verdict]]]
"""Sends one call."""


@dataclass
class Load:
    """What the clients of one run want booked; the same for the same seed."""

    seed: str
    """An id: the parent of all others."""
    count: int
    specs: list[AccountSpec] = field(default_factory=list)
    calls: list[list[Transfer]] = field(default_factory=list)

    def __post_init__(self) -> None:
        chance = random.Random(self.seed)  # noqa: S311 - a test's plan
        account = {name: derive("acc", self.seed, name) for name in ("receivable", "shop", "fee")}
        kinds = {
            "receivable": "channel_receivable",
            "shop": "merchant_pending",
            "fee": "platform_fee",
        }
        users = [derive("acc", self.seed, "user", number) for number in range(_USERS)]
        self.specs = [
            # What everybody pays is buffered.
            AccountSpec(account[name], f"owner-{name}", kind, "USD", is_buffered=name == "fee")
            for name, kind in kinds.items()
        ] + [AccountSpec(user, f"user-{user}", "user_available", "USD") for user in users]
        for number in range(self.count):
            user = chance.choice(users)
            first = self._transfer(number, "in", account["receivable"], user, 100)
            self.calls.append([first])
            amount = chance.randint(1, 120)  # some are refused for funds
            if number % 5 == 0:
                every = self._transfer(number, "tip", user, account["fee"], amount, balancing=True)
                self.calls.append([every])
            if number % 3 == 0:
                hold = self._transfer(
                    number, "hold", user, account["shop"], amount, kind=TransferKind.PENDING
                )
                end = TransferKind.VOID if number % 2 else TransferKind.POST
                last = Transfer(
                    derive("tfr", self.seed, number, "end"),
                    end,
                    pending_id=hold.id,
                    movement="load.move",
                    reference_id="load",
                )
                self.calls += [[hold, last]]
            else:
                self.calls.append(
                    [
                        self._transfer(number, "pay", user, account["shop"], amount, linked=True),
                        self._transfer(number, "fee", account["shop"], account["fee"], 1),
                    ]
                )

    def _transfer(
        self,
        number: int,
        step: str,
        debit: str,
        credit: str,
        amount: int,
        *,
        kind: TransferKind = TransferKind.SINGLE,
        linked: bool = False,
        balancing: bool = False,
    ) -> Transfer:
        is_hold = kind == TransferKind.PENDING
        return Transfer(
            derive("tfr", self.seed, number, step),
            kind,
            debit,
            credit,
            "USD",
            amount,
            linked=linked,
            balancing_debit=balancing,
            # Some holds are over before anybody ends them.
            timeout_seconds=1 if is_hold and number % 12 == 0 else 0,
            movement="load.move",
            reference_id="load",
        )

    @property
    def ids(self) -> list[str]:
        """Every id of the load."""
        return [transfer.id for call in self.calls for transfer in call]


def through(ledger: Ledger) -> Post:
    """Send to a ledger of this process."""

    async def post(call: list[Transfer]) -> Iterable[Verdict]:
        return [verdict_of(result) for result in await ledger.post(call)]

    return post


def verdict_of(result: TransferResult) -> Verdict:
    """Return what became of a transfer."""
    return result.transfer_id, result.reason or "BOOKED", result.booked_minor


async def send(post: Post, load: Load, answered: Callable[[Verdict], None]) -> None:
    """Send all calls, some at a time; one that came to nobody knows what is sent again."""
    waiting = list(load.calls)
    random.Random().shuffle(waiting)  # noqa: S311 - clients come in any order

    async def caller() -> None:
        while waiting:
            call = waiting.pop()
            while True:
                try:
                    verdicts = await post(call)
                    break
                except PaymeshError as error:
                    if error.retry not in (Retry.SAME_ID, Retry.AFTER_DELAY):
                        raise
                    await asyncio.sleep(0.01)
            for verdict in verdicts:
                answered(verdict)

    async with asyncio.TaskGroup() as group:
        for _ in range(_CALLERS):
            group.create_task(caller())


async def _main(url: str, seed: str, count: int) -> None:
    from tests.integration.account.conftest import close_kit, open_kit

    kit = await open_kit(url)
    print("READY", flush=True)
    await send(through(kit.ledger), Load(seed, count), _print)
    await close_kit(kit)
    print("DONE", flush=True)


def _print(verdict: Verdict) -> None:
    print(*verdict, flush=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
