"""The ledger against a plain model, exactly, also when several writers work at once.

Each step posts one batch from each of one to three writers. A flush is a transaction, so what all
were answered must be what the model answers in some order of the batches: that is tried, and the
model goes on from the order that fits. After each step the sums are compared to the last cent.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import secrets
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from common.clock import SystemClock
from common.ids import IdFactory, derive
from services.account.domain.accounts import AccountSpec
from services.account.domain.transfers import Transfer, TransferKind
from tests.integration.account.conftest import LedgerKit, NewKit
from tests.integration.account.plain_model import Answer, PlainAccount, PlainLedger

T = TypeVar("T")

ACCOUNTS = {
    "R": ("channel_receivable", PlainAccount(grows_by_debit=True, limit=None), 0),
    "A": ("user_available", PlainAccount(grows_by_debit=False), 0),
    "B": ("merchant_pending", PlainAccount(grows_by_debit=False), 0),
    "C": ("credit", PlainAccount(grows_by_debit=False, limit=50), 50),
    "D": ("merchant_receivable", PlainAccount(grows_by_debit=True), 0),
}
_NUMBERS = st.integers(0, 40)
_PAIRS = st.permutations(sorted(ACCOUNTS)).map(lambda names: names[:2])
_FIRST = st.fixed_dictionaries(
    {
        "number": _NUMBERS,
        "kind": st.sampled_from(["SINGLE", "SINGLE", "PENDING"]),
        "pair": st.one_of(_PAIRS, st.just(["R", "A"])),
        "amount": st.integers(1, 100),
    }
)
_LATER = st.fixed_dictionaries(
    {
        "number": _NUMBERS,
        "kind": st.sampled_from(["POST", "POST", "VOID"]),
        "pending": _NUMBERS,
        "amount": st.integers(0, 60),
        "keep_rest": st.booleans(),
    }
)
_CHAIN = st.one_of(
    *[st.lists(st.one_of(_FIRST, _FIRST, _LATER), min_size=1, max_size=1)] * 4,
    st.lists(st.one_of(_FIRST, _LATER), min_size=2, max_size=4),
)
_BATCH = st.lists(_CHAIN, min_size=1, max_size=6)
_BATCHES = st.lists(_BATCH, min_size=1, max_size=3)


class _World:
    """The real ledger, seen by the machine's thread."""

    def __init__(self, writers: list[LedgerKit], loop: asyncio.AbstractEventLoop) -> None:
        self.writers = writers
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the test's own loop and wait."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


def _differences(
    batches: list[list[list[dict[str, Any]]]],
    observed: list[list[Answer]],
    told: dict[int, list[Answer]],
) -> list[str]:
    return [
        f"  batch {place} observed {got}, model {wanted}: {one}"
        for place, batch in enumerate(batches)
        for one, got, wanted in zip(
            (one for chain in batch for one in chain), observed[place], told[place], strict=True
        )
        if got != wanted
    ]


def _machine(world: _World) -> type[RuleBasedStateMachine]:  # noqa: C901 - a class in a closure
    class LedgerMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self._parent = IdFactory(SystemClock()).new("tst")
            self._tenant = secrets.token_hex(6)
            self._ids = {name: derive("acc", self._parent, name) for name in ACCOUNTS}
            self._model = PlainLedger({n: copy.copy(a) for n, (_, a, _) in ACCOUNTS.items()})
            self._sent: list[list[dict[str, Any]]] = []
            self._history: list[str] = []
            self._steps = 0
            specs = [
                AccountSpec(
                    self._ids[name], f"o-{name}", kind, "USD", limit, tenant_id=self._tenant
                )
                for name, (kind, _, limit) in ACCOUNTS.items()
            ]
            world.run(world.writers[0].open(specs))

        @rule(batches=_BATCHES)
        def post_new(self, batches: list[list[list[dict[str, Any]]]]) -> None:
            self._post([[self._plain(chain) for chain in batch] for batch in batches])

        @rule(data=st.data(), batch=_BATCH)
        def post_with_repeats(self, data: st.DataObject, batch: list[list[dict[str, Any]]]) -> None:
            plain = [self._plain(chain) for chain in batch]
            if self._sent:
                repeats = data.draw(st.lists(st.sampled_from(self._sent), max_size=4))
                plain = [*repeats, *plain, *repeats[:1]]
            # Every writer sends the same: each id is booked by one of them, all hear of it.
            self._post([plain] * 2)

        def _plain(self, chain: list[dict[str, Any]]) -> list[dict[str, Any]]:
            made = []
            for place, one in enumerate(chain):
                debit, credit = one.get("pair", ("", ""))
                is_void = one["kind"] == "VOID"
                pending = one.get("pending")
                if pending == one["number"]:
                    pending = (pending + 1) % 41
                made.append(
                    {
                        "id": self._transfer_id(one["number"]),
                        "kind": one["kind"],
                        "debit": debit,
                        "credit": credit,
                        "amount": 0 if is_void else one["amount"],
                        "pending": "" if pending is None else self._transfer_id(pending),
                        "keep_rest": not is_void and one.get("keep_rest", False),
                        "linked": place < len(chain) - 1,
                    }
                )
            self._sent.append(made)
            return made

        def _transfer_id(self, number: int) -> str:
            return derive("tfr", self._parent, number)

        def _post(self, batches: list[list[list[dict[str, Any]]]]) -> None:
            world.run(self._post_all(batches))

        async def _post_all(self, batches: list[list[list[dict[str, Any]]]]) -> None:
            calls = [
                writer.ledger.post([self._transfer(one) for chain in batch for one in chain])
                for writer, batch in zip(world.writers, batches, strict=False)
            ]
            observed: list[list[Answer]] = [
                [(r.reason or "BOOKED", r.booked_minor) for r in results]
                for results in await asyncio.gather(*calls)
            ]
            self._model = self._find_order(batches, observed)
            await self._compare_sums()

        def _find_order(
            self, batches: list[list[list[dict[str, Any]]]], observed: list[list[Answer]]
        ) -> PlainLedger:
            told = []
            for order in itertools.permutations(range(len(batches))):
                model = copy.deepcopy(self._model)
                answers = {place: model.post(batches[place]) for place in order}
                if all(answers[place] == observed[place] for place in order):
                    self._history += [
                        f"{one['id']} step {self._steps} batch {place} {got}: {chain}"
                        for place in order
                        for (chain, one), got in zip(
                            ((c, one) for c in batches[place] for one in c),
                            observed[place],
                            strict=True,
                        )
                    ]
                    self._steps += 1
                    return model
                told += [f"order {order}:", *_differences(batches, observed, answers)]
            before = [line for line in self._history if any(line[:30] in one for one in told)]
            raise AssertionError("\n".join(["no order fits", *told, "before:", *before]))

        async def _compare_sums(self) -> None:
            accounts = await world.writers[0].accounts.read(0, list(self._ids.values()))
            for name, plain in self._model.accounts.items():
                account = accounts[self._ids[name]]
                assert (
                    account.debits_posted_minor,
                    account.credits_posted_minor,
                    account.debits_pending_minor,
                    account.credits_pending_minor,
                ) == (plain.debits, plain.credits, plain.held_debits, plain.held_credits), name
                if plain.limit is not None:
                    assert account.available_minor + plain.limit >= 0

        def _transfer(self, one: dict[str, Any]) -> Transfer:
            is_first = one["kind"] in ("SINGLE", "PENDING")
            return Transfer(
                id=one["id"],
                kind=TransferKind(one["kind"]),
                debit_account_id=self._ids.get(one["debit"], ""),
                credit_account_id=self._ids.get(one["credit"], ""),
                currency_code="USD" if is_first else "",
                amount_minor=one["amount"],
                pending_id=one["pending"],
                keep_rest=one["keep_rest"],
                linked=one["linked"],
                movement="model.move",
                reference_id="model",
                tenant_id=self._tenant,
            )

    return LedgerMachine


async def test_posting_from_several_writers_answers_like_the_plain_model(new_kit: NewKit) -> None:
    writers = [await new_kit() for _ in range(3)]
    world = _World(writers, asyncio.get_running_loop())
    chosen = settings(
        max_examples=25,
        stateful_step_count=15,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # No shrinking: what writers do at once does not happen twice in the same way.
        phases=[Phase.generate],
        print_blob=True,
    )
    await asyncio.to_thread(run_state_machine_as_test, _machine(world), settings=chosen)
    await writers[0].assert_books_fit()
