"""Clients that never lose their ids: a fixed set of transfers, sent until each has its answer.

Run as a program it is the writing process that tests kill:
`python -m tests.integration.account.load URL SEED COUNT` prints `READY`, then a line with id and
verdict for each answer, and `DONE`.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from common.errors import OverloadedError, UnavailableError
from common.ids import derive
from services.account.domain.accounts import AccountSpec
from services.account.domain.transfers import Transfer, TransferKind, TransferResult
from services.account.flows.post_transfers import Ledger

_USERS = 12
_CALLERS = 48


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
            AccountSpec(account[name], f"owner-{name}", kind, "USD") for name, kind in kinds.items()
        ] + [AccountSpec(user, f"user-{user}", "user_available", "USD") for user in users]
        for number in range(self.count):
            user = chance.choice(users)
            first = self._transfer(number, "in", account["receivable"], user, 100)
            self.calls.append([first])
            amount = chance.randint(1, 120)  # some are refused for funds
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
    ) -> Transfer:
        return Transfer(
            derive("tfr", self.seed, number, step),
            kind,
            debit,
            credit,
            "USD",
            amount,
            linked=linked,
            movement="load.move",
            reference_id="load",
        )

    @property
    def ids(self) -> list[str]:
        """Every id of the load."""
        return [transfer.id for call in self.calls for transfer in call]


async def send(ledger: Ledger, load: Load, answered: Callable[[TransferResult], None]) -> None:
    """Send all calls, some at a time; one that came to nobody knows what is sent again."""
    waiting = list(enumerate(load.calls))
    random.Random().shuffle(waiting)  # noqa: S311 - clients come in any order

    async def caller() -> None:
        while waiting:
            _, call = waiting.pop()
            while True:
                try:
                    results = await ledger.post(call)
                    break
                except (OverloadedError, UnavailableError):
                    await asyncio.sleep(0.01)
            for result in results:
                answered(result)

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))


async def _main(url: str, seed: str, count: int) -> None:
    from tests.integration.account.conftest import close_kit, open_kit

    kit = await open_kit(url)
    print("READY", flush=True)
    await send(kit.ledger, Load(seed, count), _print)
    await close_kit(kit)
    print("DONE", flush=True)


def _print(result: TransferResult) -> None:
    print(result.transfer_id, result.reason or "BOOKED", result.booked_minor, flush=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
