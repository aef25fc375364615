"""Charges, refunds and callbacks in PostgreSQL: batches in, an outcome for each item out.

Intents are inserted with `ON CONFLICT DO NOTHING`; news is decided in the domain while the rows are
locked in the order of their keys, then written set by set, with history and events in the same
transaction. Single callers meet in the coalescers of `writer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Generic

from common.db.history import HistoryRow, add_history
from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Connection, Record
from common.events.event import NewEvent
from common.events.outbox import Outbox
from services.channel.domain import (
    Charge,
    ChargeState,
    Refund,
    RefundState,
    Verdict,
    charge_differs,
    refund_differs,
)
from services.channel.store.news import (
    CHARGES,
    QUESTIONED,
    REFUNDS,
    Announce,
    Heard,
    Judge,
    KeptCallback,
    Noun,
    Told,
    kept_callback_from,
    notice_columns,
)
from services.channel.store.rows import (
    charge_change_columns,
    charge_columns,
    charge_from,
    refund_change_columns,
    refund_columns,
    refund_from,
)

_SQL: Final = load_queries("services.channel")


@dataclass(frozen=True, slots=True)
class Opened(Generic[Noun]):
    """What became of an intent."""

    noun: Noun
    """The row as it is."""
    is_new: bool
    """This call stored it (or took up one that was surely never sent) and has to send it."""
    differs: str = ""
    """The field in which the row under this reference differs; empty for none."""


@dataclass(frozen=True, slots=True)
class RefundOpened(Opened[Refund]):
    """What became of a refund's intent, which can be refused by the charge."""

    charge: Charge | None = None
    """The charge; None when there is none under that reference."""
    refundable_minor: int | None = None
    """What is left to give back, where that was too little; nothing was written then."""


class ChannelStore:
    """Reads and writes of the schema `channel`."""

    def __init__(self, pool: Pool, outbox: Outbox, announce: Announce) -> None:
        self._pool = pool
        self._outbox = outbox
        self._announce = announce

    # Intents.

    async def open_charges(self, charges: Sequence[Charge]) -> list[Opened[Charge]]:
        """Store intents; each reference once, whoever comes first."""
        async with self._pool.transaction() as connection:
            ordered = sorted(charges, key=lambda one: one.reference)
            rows = await connection.fetch(_SQL["insert_charges"], *charge_columns(ordered))
            inserted = {row["reference"] for row in rows}
            stored = await self._lock_others(connection, "lock_charges", charges, inserted)
            known = {row["reference"]: charge_from(row) for row in stored}
            answers: list[Opened[Charge]] = []
            again: list[Charge] = []
            for one in charges:
                if one.reference in inserted:
                    inserted.discard(one.reference)
                    known[one.reference] = one
                    answers.append(Opened(one, is_new=True))
                    continue
                now, differs = known[one.reference], charge_differs(known[one.reference], one)
                if not differs and now.state is ChargeState.NOT_SENT:
                    now = known[one.reference] = _sent_again(now, one.updated_at)
                    again.append(now)
                    answers.append(Opened(now, is_new=True))
                else:
                    answers.append(Opened(now, is_new=False, differs=differs))
            if again:
                await connection.execute(_SQL["update_charges"], *charge_change_columns(again))
            await add_history(connection, _births("charge", answers))
        return answers

    async def open_refunds(self, refunds: Sequence[Refund]) -> list[RefundOpened]:
        """Store intents of refunds, which together never exceed what the charge received."""
        async with self._pool.transaction() as connection:
            references = sorted({one.charge_reference for one in refunds})
            # The charges are locked first, so that two refunds of one charge see each other.
            rows = await connection.fetch(_SQL["lock_charges"], references)
            charges = {row["reference"]: charge_from(row) for row in rows}
            rows = await connection.fetch(_SQL["sum_refunds"], references)
            given = {row["charge_reference"]: row["amount_minor"] for row in rows}
            rows = await connection.fetch(
                _SQL["lock_refunds"], sorted({one.reference for one in refunds})
            )
            known = {row["reference"]: refund_from(row) for row in rows}
            new: list[Refund] = []
            again: list[Refund] = []
            answers = []
            for one in refunds:
                answer = _decide_refund(one, known, charges, given)
                answers.append(answer)
                if answer.is_new:
                    (again if one.reference in known else new).append(answer.noun)
                    known[one.reference] = answer.noun
                    spent = given.get(one.charge_reference, 0) + one.amount.amount_minor
                    given[one.charge_reference] = spent
            if new:
                rows = await connection.fetch(_SQL["insert_refunds"], *refund_columns(new))
                if len(rows) != len(new):
                    # The same reference for another charge, at this moment: come again and see it.
                    raise ReferenceTakenError
            if again:
                await connection.execute(_SQL["update_refunds"], *refund_change_columns(again))
            await add_history(connection, _births("refund", answers))
        return answers

    async def _lock_others(
        self, connection: Connection, query: str, items: Sequence[Charge], inserted: set[str]
    ) -> list[Record]:
        """Lock the rows that were there before, in a new statement that sees them."""
        others = sorted({one.reference for one in items if one.reference not in inserted})
        return await connection.fetch(_SQL[query], others) if others else []

    # News.

    async def hear_charges(self, told: Sequence[Told]) -> list[Heard[Charge]]:
        """Let news reach its charges, in the order of arrival; all in one transaction."""
        return await self._hear(told, "charge", charge_from, CHARGES, charge_change_columns)

    async def hear_refunds(self, told: Sequence[Told]) -> list[Heard[Refund]]:
        """Let news reach its refunds, in the order of arrival; all in one transaction."""
        return await self._hear(told, "refund", refund_from, REFUNDS, refund_change_columns)

    async def _hear(
        self,
        told: Sequence[Told],
        noun: str,
        read: Callable[[Record], Noun],
        judge: Judge[Noun],
        columns: Callable[[Sequence[Noun]], list[list[Any]]],
    ) -> list[Heard[Noun]]:
        async with self._pool.transaction() as connection:
            references = sorted({one.reference for one in told})
            rows = await connection.fetch(_SQL[f"lock_{noun}s"], references)
            before = {row["reference"]: read(row) for row in rows}
            taken = await self._taken_notices(connection, told)
            now = dict(before)
            answers: list[Heard[Noun]] = []
            history: list[HistoryRow] = []
            events: list[NewEvent] = []
            notices: list[tuple[Told, Verdict, Noun | None]] = []
            for one in told:
                known = now.get(one.reference)
                after, verdict = judge.judge(known, one, taken)
                answers.append(Heard(after, verdict))
                is_doubted = verdict is Verdict.DOUBTED
                if is_doubted and after == known:
                    continue  # it comes again, when the channel was asked
                if one.notice is not None and verdict is not Verdict.REPEATED:
                    notices.append((one, verdict, after))
                if after is None or known is None or after == known:
                    continue
                now[one.reference] = after
                if verdict is Verdict.CHANGED:
                    history.append(_move(noun, known, after, one))
                if is_doubted or (verdict is Verdict.CHANGED and one.publish):
                    events.append(self._announce.changed(after, one))
            changed = [after for key, after in now.items() if after != before[key]]
            if changed:
                await connection.execute(_SQL[f"update_{noun}s"], *columns(changed))
            if notices:
                events += await self._keep_notices(connection, notices)
            await add_history(connection, history)
            await self._outbox.add(connection, events)
        if events:
            self._outbox.notify()
        return answers

    async def _keep_notices(
        self, connection: Connection, notices: Sequence[tuple[Told, Verdict, Noun | None]]
    ) -> list[NewEvent]:
        """Write callbacks; return what is to be told of those that are questioned."""
        stories = [
            (told, verdict, "" if noun is None else noun.owner.biz_trace_id)
            for told, verdict, noun in notices
        ]
        rows = await connection.fetch(_SQL["insert_callbacks"], *notice_columns(stories))
        # A copy that another process took at this moment was dropped, and is told there.
        kept = {row["callback_id"] for row in rows}
        return [
            self._announce.questioned(noun, told, verdict)
            for told, verdict, noun in notices
            if verdict in QUESTIONED and told.notice and told.notice.callback_id in kept
        ]

    async def _taken_notices(
        self, connection: Connection, told: Sequence[Told]
    ) -> set[tuple[str, str]]:
        """Which callbacks of the batch were taken before. Read after the rows are locked."""
        notices = [one.notice for one in told if one.notice is not None]
        if not notices:
            return set()
        rows = await connection.fetch(
            _SQL["find_callbacks"],
            [one.channel for one in notices],
            [one.notice_id for one in notices],
        )
        return {(row["channel"], row["notice_id"]) for row in rows}

    # Reads.

    async def find_charges(self, references: Sequence[str]) -> dict[str, Charge]:
        """Return the charges that exist."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(_SQL["find_charges"], list(references))
        return {row["reference"]: charge_from(row) for row in rows}

    async def find_refunds(self, references: Sequence[str]) -> dict[str, Refund]:
        """Return the refunds that exist."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(_SQL["find_refunds"], list(references))
        return {row["reference"]: refund_from(row) for row in rows}

    async def find_callback(self, callback_id: str) -> KeptCallback | None:
        """Return a callback that was not simply believed; None for any other."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(_SQL["find_kept_callback"], callback_id)
        return None if row is None else kept_callback_from(row)

    @property
    def pool(self) -> Pool:
        """Connections to the schema, for what all services tell alike (common.story)."""
        return self._pool

    async def list_facts(self, kind: str, after: str, limit: int) -> list[Record]:
        """Return a page of one kind of facts, behind a key; `kind` is a key of FACT_QUERIES."""
        async with self._pool.acquire() as connection:
            return await connection.fetch(_SQL[FACT_QUERIES[kind]], after, limit)


FACT_QUERIES: Final = {
    "charge": "list_charge_facts",
    "refund": "list_refund_facts",
    "unfinished": "list_unfinished",
}
"""Kinds of facts, and the queries that list them."""


class ReferenceTakenError(ConnectionError):
    """A reference was taken by another transaction between reading and writing.

    A ConnectionError, so that the batch is read back and flushed anew.
    """


def _decide_refund(
    asked: Refund,
    known: dict[str, Refund],
    charges: dict[str, Charge],
    given: dict[str, int],
) -> RefundOpened:
    charge = charges.get(asked.charge_reference)
    stored = known.get(asked.reference)
    if stored is not None:
        differs = refund_differs(stored, asked)
        if differs or stored.state is not RefundState.NOT_SENT:
            return RefundOpened(stored, is_new=False, differs=differs, charge=charge)
    if charge is None or charge.received is None:
        return RefundOpened(asked, is_new=False, charge=charge)
    asked = replace(
        asked,
        channel=charge.channel,
        owner=replace(asked.owner, biz_trace_id=charge.owner.biz_trace_id),
    )
    left = charge.received.amount_minor - given.get(asked.charge_reference, 0)
    if (
        charge.received.currency_code != asked.amount.currency_code
        or asked.amount.amount_minor > left
    ):
        return RefundOpened(asked, is_new=False, charge=charge, refundable_minor=left)
    noun = asked if stored is None else _sent_again(stored, asked.updated_at)
    return RefundOpened(noun, is_new=True, charge=charge)


def _sent_again(noun: Noun, at: datetime) -> Noun:
    state = ChargeState.UNKNOWN if isinstance(noun, Charge) else RefundState.UNKNOWN
    again: Noun = replace(noun, state=state, version=noun.version + 1, updated_at=at)
    return again


def _births(
    noun: str, answers: Sequence[Opened[Charge]] | Sequence[RefundOpened]
) -> list[HistoryRow]:
    return [
        HistoryRow(
            noun=noun,
            id=answer.noun.reference,
            version=answer.noun.version,
            from_state="" if answer.noun.version == 1 else "NOT_SENT",
            to_state=answer.noun.state,
            actor=answer.noun.owner.actor,
            reason=f"intent for {answer.noun.channel}",
            cause="",
            biz_trace_id=answer.noun.owner.biz_trace_id,
            at=answer.noun.updated_at,
        )
        for answer in answers
        if answer.is_new
    ]


def _move(noun: str, before: Charge | Refund, after: Charge | Refund, told: Told) -> HistoryRow:
    code = after.refusal.code or after.refusal.reason
    return HistoryRow(
        noun=noun,
        id=after.reference,
        version=after.version,
        from_state=before.state,
        to_state=after.state,
        actor=told.actor,
        reason=f"{told.way}: {code}" if code else told.way,
        cause=told.cause,
        biz_trace_id=after.owner.biz_trace_id,
        at=told.at,
    )
