"""Vouchers through the contract: by hand, from events, taken back, listed; the trial balance."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import hosted_services
import pytest
from hosted_services import HostedKit, calling, hosting, operator_call
from ledger_rpc import LedgerRpc, service_call
from paymesh.account.v1 import (
    VOUCHER_SOURCE_EVENT,
    VOUCHER_SOURCE_JOURNAL,
    VOUCHER_SOURCE_MANUAL,
    VOUCHER_SOURCE_REVERSAL,
    AccountServiceStub,
    BookVoucherRequest,
    CreateTransfersRequest,
    GeneralLedgerServiceStub,
    GetTrialBalanceRequest,
    GetVoucherRequest,
    ListStoryRequest,
    ListSubjectsRequest,
    ListVouchersRequest,
    ReverseVoucherRequest,
    ReverseVoucherResponse,
    Voucher,
    VoucherLine,
    VoucherRequested,
)

import services.account.wiring
from common.context import ActorType, CallContext, Mode, Principal
from common.errors import RemoteError
from common.events.consumer import Consumer
from common.events.event import NewEvent
from common.ids import derive
from services.account.chart_files import read_chart
from services.account.domain.accounts import Side
from services.account.domain.rules import Rule, RuleLine
from services.account.events import VoucherListener
from services.account.flows.book_voucher import VoucherParts
from services.account.flows.make_vouchers import make_vouchers
from services.account.store.charts import ChartStore
from services.account.store.register import RegisterStore
from services.account.store.vouchers import VoucherStore

ACCOUNTANT = operator_call("operator", "accountant")
RENT, OWED = "6602", "2241.07"


@dataclass
class GeneralLedger:
    """The inner books as an accountant sees them, and the events that they hear."""

    kit: HostedKit
    stub: GeneralLedgerServiceStub
    outer: LedgerRpc
    consumer: Consumer
    parts: VoucherParts
    today: date
    number: int = 0

    def request_id(self) -> str:
        """Return a request id of its own."""
        self.number += 1
        return f"request-{self.number}"

    async def call(
        self, work: Callable[[], Awaitable[Any]], context: CallContext = ACCOUNTANT
    ) -> Any:
        """Call as an accountant, or as somebody else."""
        return await calling(context, work)

    async def book(self, context: CallContext = ACCOUNTANT, **changes: Any) -> Voucher:
        """Book a voucher by hand: rent that is owed, unless said otherwise."""
        request = self.order(**changes)
        answer = await self.call(lambda: self.stub.BookVoucher(request), context)
        voucher: Voucher = answer.voucher
        return voucher

    def order(self, **changes: Any) -> BookVoucherRequest:
        """Return an order for a voucher by hand."""
        fields: dict[str, Any] = {
            "request_id": self.request_id(),
            "summary": "Rent of January",
            "currency_code": "USD",
            "lines": lines((RENT, 500, 0), (OWED, 0, 500)),
        }
        return BookVoucherRequest(**(fields | changes))

    async def reverse(
        self, voucher_id: str, request_id: str = "", reason: str = "was wrong"
    ) -> ReverseVoucherResponse:
        """Take a voucher back."""
        request = ReverseVoucherRequest(
            request_id=request_id or self.request_id(), voucher_id=voucher_id, reason=reason
        )
        answer: ReverseVoucherResponse = await self.call(lambda: self.stub.ReverseVoucher(request))
        return answer

    async def get(self, voucher_id: str, context: CallContext = ACCOUNTANT) -> Voucher:
        """Read a voucher."""
        request = GetVoucherRequest(id=voucher_id)
        voucher: Voucher = (await self.call(lambda: self.stub.GetVoucher(request), context)).voucher
        return voucher

    async def register(self, **changes: Any) -> list[Voucher]:
        """Read the whole register of the current day, page by page."""
        fields: dict[str, Any] = {
            "from_on": self.today.isoformat(),
            "to_on": self.today.isoformat(),
        }
        found: list[Voucher] = []
        token = ""
        while True:
            request = ListVouchersRequest(**(fields | changes), page_token=token)
            answer = await self.call(lambda r=request: self.stub.ListVouchers(r))
            found += answer.vouchers
            token = answer.next_page_token
            if not token:
                return found

    async def balances(self, **days: str) -> dict[str, tuple[int, int, int, int]]:
        """Return opening, debits, credits and closing of each subject, in dollars."""
        request = GetTrialBalanceRequest(**days)
        answer = await self.call(lambda: self.stub.GetTrialBalance(request))
        assert not any(answer.difference_minor.values())
        return {
            one.subject_code: (
                one.opening_minor,
                one.debits_minor,
                one.credits_minor,
                one.closing_minor,
            )
            for one in answer.balances
            if one.currency_code == "USD"
        }

    async def make(self) -> None:
        """Let the vouchers of the journal be made."""
        last = (await self.rows("SELECT max(written_in)::text::bigint AS last FROM transfers"))[0]

        async def is_made() -> bool:
            pool, store = self.parts.pool, self.parts.vouchers
            return not (await make_vouchers(pool, store, 0, up_to=last["last"])).has_more

        await hosted_services.until(is_made)

    async def rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        """Return what a query finds."""
        return await self.kit.rows("account", query, *arguments)

    async def run(self, query: str, *arguments: object) -> None:
        """Change rows as no caller could."""
        async with self.parts.pool.acquire() as connection:
            await connection.execute(query, *arguments)

    async def forget_rules(self) -> None:
        """Take the rules away that a test has added."""
        await self.run("DELETE FROM accounting_rule_lines WHERE movement = 'test.move'")
        await self.run("DELETE FROM accounting_rules WHERE movement = 'test.move'")

    async def hear(self, *events: NewEvent) -> None:
        """Hear of events."""
        await self.consumer.handle([hosted_services.heard(event) for event in events])

    def event(self, noun: str = "", **changes: Any) -> NewEvent:
        """Return the news that a service wants a voucher."""
        aggregate = noun or self.kit.ids.new("set")
        on: date | None = changes.pop("business_date", self.today)
        fields: dict[str, Any] = {
            "summary": "Tax on the day's fees",
            "currency_code": "USD",
            "lines": lines(("6403", 40, 0), ("2221.01", 0, 40)),
            "reference_id": aggregate,
        }
        return NewEvent(
            event_id=derive("evt", aggregate, "voucher"),
            type="settlement.voucher.requested.v1",
            aggregate_id=aggregate,
            aggregate_version=1,
            payload=VoucherRequested(**(fields | changes)).SerializeToString(),
            principal=Principal(
                mode=Mode.TEST, actor_type=ActorType.SERVICE, actor_id="settlement"
            ),
            occurred_at=self.kit.clock.now(),
            biz_trace_id=f"biz_{aggregate}",
            business_date=on,
        )

    async def of_event(self, event: NewEvent) -> list[dict[str, Any]]:
        """Return the vouchers of an event."""
        return await self.rows(
            "SELECT business_date, value_on, number FROM vouchers WHERE source_id = $1",
            event.event_id,
        )


def lines(*told: tuple[str, int, int]) -> list[VoucherLine]:
    """Return lines by subject, debit and credit."""
    return [
        VoucherLine(subject_code=code, debit_minor=debit, credit_minor=credit)
        for code, debit, credit in told
    ]


@pytest.fixture(scope="module")
async def hosted(database_url: str) -> AsyncIterator[GeneralLedger]:
    async with hosting(database_url, [services.account.wiring], {}) as kit:
        pool = kit.pools["account"]
        parts = VoucherParts(pool, read_chart(), VoucherStore(pool), RegisterStore(pool))
        outer = LedgerRpc(
            kit,
            AccountServiceStub(kit.channel("payment", "account")),
            AccountServiceStub(kit.channel("operator", "account")),
        )
        (row,) = await kit.rows("account", "SELECT business_date FROM business_dates")
        yield GeneralLedger(
            kit,
            GeneralLedgerServiceStub(kit.channel("operator", "account")),
            outer,
            kit.consumer("account", "account.vouchers", VoucherListener(parts).handle),
            parts,
            row["business_date"],
        )


@pytest.fixture
async def books(hosted: GeneralLedger) -> GeneralLedger:
    """Inner books without vouchers; request ids begin anew with them."""
    for table in ("voucher_reversals", "voucher_lines", "vouchers", "voucher_numbers"):
        await hosted.run(f"DELETE FROM {table}")  # noqa: S608 - names of ours
    await hosted.run("DELETE FROM subject_balances")
    await hosted.run("UPDATE business_days SET state = 'OPEN', cut_at = NULL, watermark = NULL,"
                     " closed_at = NULL")  # fmt: skip
    return hosted


async def test_booking_by_hand_gives_the_next_number_of_the_day(books: GeneralLedger) -> None:
    first = await books.book(value_on=(books.today - timedelta(days=9)).isoformat())
    second = await books.book()
    assert (first.number, second.number) == (1, 2)
    assert first == await books.get(first.id)
    assert first.source == VOUCHER_SOURCE_MANUAL
    assert first.business_date == books.today.isoformat()
    assert first.value_on == (books.today - timedelta(days=9)).isoformat()
    assert (first.actor, first.rule, first.summary) == ("OPERATOR:ada", "", "Rent of January")
    assert list(first.lines) == lines((RENT, 500, 0), (OWED, 0, 500))
    assert await books.balances() == {RENT: (0, 1000, 0, 1000), OWED: (0, 0, 1000, 1000)}


async def test_booking_again_under_the_same_request_answers_as_the_first_time(
    books: GeneralLedger,
) -> None:
    first = await books.book(request_id="rent")
    assert await books.book(request_id="rent") == first
    # Also on the next day, when its register begins anew.
    await books.run("UPDATE business_dates SET business_date = business_date + 1")
    try:
        assert await books.book(request_id="rent") == first
    finally:
        await books.run("UPDATE business_dates SET business_date = business_date - 1")
    assert len(await books.register()) == 1
    audits = await books.rows("SELECT subject FROM audit WHERE action = 'voucher.book'")
    assert [row["subject"] for row in audits].count(f"voucher {first.id}") == 1


_OTHER = {
    "summary": {"summary": "Rent of February"},
    "currency_code": {"currency_code": "EUR"},
    "lines": {"lines": lines((RENT, 501, 0), (OWED, 0, 501))},
    "value_on": {"value_on": "2020-01-01"},
}


@pytest.mark.parametrize("field", _OTHER)
async def test_booking_other_things_under_the_same_request_is_refused(
    books: GeneralLedger, field: str
) -> None:
    await books.book(request_id="rent")
    assert await _refusal(books.book(request_id="rent", **_OTHER[field])) == ("ID_CONFLICT", field)
    assert len(await books.register()) == 1


_WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown subject": (
        {"lines": lines(("9999", 5, 0), (OWED, 0, 5))},
        *("SUBJECT_UNKNOWN", "lines[0].subject_code"),
    ),
    "hostile subject": (
        {"lines": lines(("';--", 5, 0), (OWED, 0, 5))},
        *("SUBJECT_UNKNOWN", "lines[0].subject_code"),
    ),
    "subject of accounts": (
        {"lines": lines((RENT, 5, 0), ("2202.01", 0, 5))},
        *("SUBJECT_CONTROLLED", "lines[1].subject_code"),
    ),
    "subject with others below": (
        {"lines": lines((RENT, 5, 0), ("2241", 0, 5))},
        *("FIELD_INVALID", "lines[1].subject_code"),
    ),
    "debits that are not the credits": (
        {"lines": lines((RENT, 5, 0), (OWED, 0, 4))},
        *("VOUCHER_UNBALANCED", ""),
    ),
    "two debits": (
        {"lines": lines((RENT, 5, 0), (OWED, 5, 0))},
        *("VOUCHER_UNBALANCED", ""),
    ),
    "a line on both sides": (
        {"lines": lines((RENT, 5, 5), (OWED, 5, 5))},
        *("FIELD_INVALID", "lines[0]"),
    ),
    "a line without an amount": (
        {"lines": lines((RENT, 0, 0), (OWED, 0, 0))},
        *("FIELD_INVALID", "lines[0]"),
    ),
    "one line": ({"lines": lines((RENT, 5, 0))}, "FIELD_INVALID", "lines"),
    "an amount below zero": (
        {"lines": lines((RENT, -5, 0), (OWED, 0, -5))},
        *("FIELD_INVALID", "lines[0].debit_minor"),
    ),
    "an amount too large": (
        {"lines": lines((RENT, 10**15 + 1, 0), (OWED, 0, 10**15 + 1))},
        *("FIELD_INVALID", "lines[0].debit_minor"),
    ),
    "unknown currency": ({"currency_code": "QQQ"}, "CURRENCY_UNKNOWN", "currency_code"),
    "no summary": ({"summary": ""}, "FIELD_INVALID", "summary"),
    "a summary with NUL": ({"summary": "a\0b"}, "FIELD_INVALID", "summary"),
    "a request id with NUL": ({"request_id": "a\0b"}, "FIELD_INVALID", "request_id"),
    "a day that is none": ({"value_on": "2026-02-30"}, "FIELD_INVALID", "value_on"),
    "a day to come": ({"value_on": "9998-12-31"}, "FIELD_INVALID", "value_on"),
}


@pytest.mark.parametrize("case", _WRONG)
async def test_booking_what_is_wrong_names_the_reason_and_the_field(
    books: GeneralLedger, case: str
) -> None:
    changes, reason, field = _WRONG[case]
    assert await _refusal(books.book(**changes)) == (reason, field)
    assert await books.register() == []


async def test_booking_without_the_role_is_refused(books: GeneralLedger) -> None:
    refused = await _refusal(books.book(operator_call("operator")))
    assert refused[0] == "PERMISSION_DENIED"
    assert await books.register() == []


async def test_an_unbalanced_voucher_names_the_difference(books: GeneralLedger) -> None:
    with pytest.raises(RemoteError) as raised:
        await books.book(lines=lines((RENT, 7, 0), (OWED, 0, 4)))
    assert raised.value.metadata["difference_minor"] == "3"


async def test_taking_a_voucher_back_exchanges_its_sides_once(books: GeneralLedger) -> None:
    voucher = await books.book()
    made = await books.reverse(voucher.id, "undo")
    assert not made.HasField("replacement")
    assert list(made.reversal.lines) == lines((OWED, 500, 0), (RENT, 0, 500))
    assert made.reversal.source == VOUCHER_SOURCE_REVERSAL
    assert made.reversal.source_id == voucher.id
    assert (await books.get(voucher.id)).reversed_by_id == made.reversal.id
    assert await books.balances() == {RENT: (0, 500, 500, 0), OWED: (0, 500, 500, 0)}
    # Again, by the same request, by another, and the reversal itself.
    assert await books.reverse(voucher.id, "undo") == made
    with pytest.raises(RemoteError) as raised:
        await books.reverse(voucher.id)
    assert raised.value.remote_reason == "VOUCHER_REVERSED"
    assert raised.value.metadata["reversed_by_id"] == made.reversal.id
    assert (await _refusal(books.reverse(made.reversal.id)))[0] == "STATE_CONFLICT"
    assert len(await books.register()) == 2


async def test_taking_back_under_a_request_that_took_another_back_is_refused(
    books: GeneralLedger,
) -> None:
    first, second = await books.book(), await books.book()
    await books.reverse(first.id, "undo")
    assert await _refusal(books.reverse(second.id, "undo")) == ("ID_CONFLICT", "voucher_id")
    again = books.reverse(first.id, "undo", reason="for another reason")
    assert await _refusal(again) == ("ID_CONFLICT", "reason")


async def test_taking_back_what_is_not_there_is_not_found(books: GeneralLedger) -> None:
    assert (await _refusal(books.reverse("vch_00000000000000000000000000")))[0] == "NOT_FOUND"
    assert (await _refusal(books.reverse("vch_0")))[0] == "FIELD_INVALID"


def _with_memo(movement: str, version: int) -> Rule:
    rule = read_chart().rules_latest[movement if movement != "test.move" else "*"]
    memo = (RuleLine(Side.DEBIT, None, RENT), RuleLine(Side.CREDIT, None, OWED))
    return Rule(movement, version, "With a memo", (*rule.lines, *memo))


async def test_taking_a_journal_voucher_back_makes_it_anew_by_the_latest_rule(
    books: GeneralLedger,
) -> None:
    """The proof compares what accounts moved, so the transfer never stands without a voucher."""
    await books.outer.open_cast()
    result = (await books.outer.post(books.outer.move("in", amount=80)))[0]
    await books.make()
    voucher = await books.get(f"vch_{result.transfer_id[4:]}")
    assert (voucher.source, voucher.rule) == (VOUCHER_SOURCE_JOURNAL, "*")
    assert (await _refusal(books.reverse(voucher.id)))[0] == "STATE_CONFLICT"
    try:
        for rule in (_with_memo("test.move", 1), _with_memo("test.move", 2)):
            chart = read_chart()
            await ChartStore(books.parts.pool).put(
                type(chart)(chart.subjects, chart.kinds, (*chart.rules, rule), chart.profit_subject)
            )
            made = await books.reverse(voucher.id)
            replaced = made.replacement
            assert (replaced.source, replaced.source_id) == (
                VOUCHER_SOURCE_JOURNAL,
                result.transfer_id,
            )
            assert (replaced.rule, replaced.rule_version) == ("test.move", rule.version)
            assert {line.subject_code for line in replaced.lines} == {
                *("1122.01", "2203.01"),
                *(RENT, OWED),
            }
            voucher = replaced
    finally:
        await books.forget_rules()
    balances = await books.balances()
    assert {code: balance[3] for code, balance in balances.items()} == {
        "1122.01": 80,
        "2203.01": 80,
        RENT: 80,
        OWED: 80,
    }
    assert [one.number for one in await books.register()] == [1, 2, 3, 4, 5]


async def test_an_event_makes_one_voucher_however_often_it_comes(books: GeneralLedger) -> None:
    event = books.event()
    await books.hear(event, event)
    await books.hear(event)
    # Also when the inbox has forgotten it.
    await books.run("DELETE FROM inbox WHERE event_id = $1", event.event_id)
    await books.hear(event)
    assert len(await books.of_event(event)) == 1
    assert await books.rows("SELECT 1 FROM inbox_parked WHERE event_id = $1", event.event_id) == []
    (voucher,) = await books.register()
    assert voucher.source == VOUCHER_SOURCE_EVENT
    assert voucher.source_id == event.event_id
    assert (voucher.biz_trace_id, voucher.actor) == (event.biz_trace_id, "SERVICE:settlement")


async def test_an_event_of_a_closed_day_is_booked_on_the_current_one(
    books: GeneralLedger,
) -> None:
    yesterday, long_ago = books.today - timedelta(days=1), date(2001, 5, 5)
    for state in ("CUTTING", "CLOSED"):
        await books.run(
            "INSERT INTO business_days (book, business_date, opened_at, cut_at, watermark,"
            " closed_at, state) VALUES (0, $1, now(), now(), '1',"
            " CASE WHEN $2 = 'CLOSED' THEN now() END, $2) ON CONFLICT (book, business_date)"
            " DO UPDATE SET state = excluded.state, closed_at = excluded.closed_at",
            *(yesterday, state),
        )
        event = books.event(business_date=yesterday)
        await books.hear(event)
        (row,) = await books.of_event(event)
        if state == "CUTTING":
            assert (row["business_date"], row["value_on"]) == (yesterday, None)
        else:
            assert (row["business_date"], row["value_on"]) == (books.today, yesterday)
    # A day that the book never had, and no day at all.
    for on, value_on in ((long_ago, long_ago), (None, None)):
        event = books.event(business_date=on)
        await books.hear(event)
        (row,) = await books.of_event(event)
        assert (row["business_date"], row["value_on"]) == (books.today, value_on)


async def test_an_event_that_no_voucher_may_be_made_of_is_parked_with_the_reason(
    books: GeneralLedger,
) -> None:
    good = books.event()
    wrong = {
        "no subject 9999": books.event(lines=lines(("9999", 4, 0), ("2221.01", 0, 4))),
        "accounts add up to it": books.event(lines=lines(("2203.01", 4, 0), ("2221.01", 0, 4))),
        "differ by 1": books.event(lines=lines(("6403", 5, 0), ("2221.01", 0, 4))),
        "differ by 0": books.event(lines=[]),
        "summary": books.event(summary="a\0b"),
    }
    await books.hear(*wrong.values(), good)
    for reason, event in wrong.items():
        assert await books.of_event(event) == []
        (parked,) = await books.rows(
            "SELECT last_error FROM inbox_parked WHERE event_id = $1", event.event_id
        )
        assert reason in parked["last_error"]
    assert len(await books.of_event(good)) == 1


async def test_listing_the_register_pages_by_number_and_filters(books: GeneralLedger) -> None:
    booked = [await books.book() for _ in range(7)]
    await books.hear(books.event())
    back = await books.reverse(booked[2].id)
    whole = await books.register(page_size=3)
    assert [one.number for one in whole] == list(range(1, 10))
    assert [one.id for one in whole[:7]] == [one.id for one in booked]
    assert whole[2].reversed_by_id == back.reversal.id
    by_hand = await books.register(source=VOUCHER_SOURCE_MANUAL, page_size=3)
    assert [one.number for one in by_hand] == list(range(1, 8))
    tax = await books.register(subject_code="2221.01")
    assert [one.source for one in tax] == [VOUCHER_SOURCE_EVENT]
    assert await books.register(subject_code="1002.01") == []
    before = (books.today - timedelta(days=1)).isoformat()
    assert await books.register(from_on=before, to_on=before) == []
    assert len(await books.register(from_on="0001-01-01", to_on="9999-12-31")) == 9


async def test_listing_backwards_or_with_anothers_token_is_refused(books: GeneralLedger) -> None:
    for _ in range(2):
        await books.book()
    assert await _refusal(books.register(to_on="1999-01-01")) == ("FIELD_INVALID", "to_on")
    today = books.today.isoformat()
    request = ListVouchersRequest(from_on=today, to_on=today, page_size=1)
    token = (await books.call(lambda: books.stub.ListVouchers(request))).next_page_token
    other = ListVouchersRequest(from_on=today, to_on=today, subject_code=RENT, page_token=token)
    refused = await _refusal(books.call(lambda: books.stub.ListVouchers(other)))
    assert refused[0] == "PAGE_TOKEN_INVALID"


async def test_nobody_sees_the_vouchers_of_another_world(books: GeneralLedger) -> None:
    voucher = await books.book()
    live = CallContext(
        principal=Principal(
            mode=Mode.LIVE,
            actor_type=ActorType.OPERATOR,
            actor_id="ada",
            roles=("operator", "accountant"),
        )
    )
    assert (await _refusal(books.get(voucher.id, live)))[0] == "NOT_FOUND"
    request = ReverseVoucherRequest(request_id="r", voucher_id=voucher.id, reason="x")
    refused = await _refusal(books.call(lambda: books.stub.ReverseVoucher(request), live))
    assert refused[0] == "NOT_FOUND"
    balance = await books.call(lambda: books.stub.GetTrialBalance(GetTrialBalanceRequest()), live)
    assert not balance.balances
    # The other world's register begins with its own first number.
    assert (await books.book(live)).number == 1


async def test_the_trial_balance_opens_with_what_was_before(books: GeneralLedger) -> None:
    yesterday = (books.today - timedelta(days=1)).isoformat()
    await books.book()
    await books.run("UPDATE subject_balances SET business_date = business_date - 1")
    await books.book(lines=lines((OWED, 200, 0), ("2241.07", 0, 200)))
    await books.book(lines=lines((RENT, 30, 0), (OWED, 0, 30)))
    assert await books.balances() == {RENT: (500, 30, 0, 530), OWED: (500, 200, 230, 530)}
    assert await books.balances(from_on=yesterday, to_on=yesterday) == {
        RENT: (0, 500, 0, 500),
        OWED: (0, 0, 500, 500),
    }
    refused = await _refusal(books.balances(from_on="2026-02-30"))
    assert refused == ("FIELD_INVALID", "from_on")


async def test_listing_subjects_tells_the_chart_by_code(books: GeneralLedger) -> None:
    request = ListSubjectsRequest()
    subjects = list((await books.call(lambda: books.stub.ListSubjects(request))).subjects)
    assert [one.code for one in subjects] == sorted(read_chart().subjects)
    by_code = {one.code: one for one in subjects}
    assert list(by_code["2202.01"].account_kinds) == ["merchant_pending"]
    assert by_code["2202.01"].parent_code == "2202"
    assert not by_code[RENT].account_kinds
    assert all(re.fullmatch(r"[0-9]{4}(\.[0-9]{2})*", one.code) for one in subjects)


async def _refusal(call: Awaitable[Any]) -> tuple[str, str]:
    """Return the reason of a refused call, and the field that it names."""
    with pytest.raises(RemoteError) as raised:
        await call
    return raised.value.remote_reason, raised.value.metadata.get("field", "")


async def test_a_story_tells_its_vouchers_with_numbers_and_lines(books: GeneralLedger) -> None:
    """Of the journal, of events, and what took them back; also found by a voucher's own id."""
    await books.outer.open_cast()
    story = books.kit.ids.new("biz")
    call = replace(operator_call("operator", "accountant"), biz_trace_id=story)
    moved = books.outer.move("in", amount=80)
    request = CreateTransfersRequest(transfers=[moved, books.outer.move("hold", kind=2)])
    service = replace(service_call(), biz_trace_id=story)
    await books.call(lambda: books.outer.payment.CreateTransfers(request), service)
    await books.make()
    by_hand = await books.book(call)
    back = await books.reverse(by_hand.id)
    rent = f"{RENT} Dr 500 / {OWED} Cr 500"
    on = books.today.isoformat()
    told = {
        f"vch_{moved.id[4:]}": "Movement without a rule of its own:"
        f" no. 1 of {on}, 1122.01 Dr 80 / 2203.01 Cr 80",
        by_hand.id: f"Rent of January: no. 2 of {on}, {rent}",
        back.reversal.id: f"Rent of January: no. 3 of {on}, {OWED} Dr 500 / {RENT} Cr 500",
    }
    for wanted in (
        ListStoryRequest(biz_trace_id=story),
        ListStoryRequest(subject_id=by_hand.id),
        ListStoryRequest(subject_id=f"vch_{moved.id[4:]}"),
    ):
        answer = await books.call(lambda r=wanted: books.outer.operator.ListStory(r))
        assert answer.biz_trace_id == story
        vouchers = [item for item in answer.items if item.kind == "voucher"]
        assert {i.subject.removeprefix("voucher "): i.summary for i in vouchers} == told


async def test_a_story_tells_what_stands_in_the_place_of_a_voucher(books: GeneralLedger) -> None:
    await books.outer.open_cast()
    story = books.kit.ids.new("biz")
    moved = books.outer.move("in", amount=80)
    request = CreateTransfersRequest(transfers=[moved])
    service = replace(service_call(), biz_trace_id=story)
    await books.call(lambda: books.outer.payment.CreateTransfers(request), service)
    await books.make()
    chart = read_chart()
    await ChartStore(books.parts.pool).put(
        replace(chart, rules=(*chart.rules, _with_memo("test.move", 1)))
    )
    try:
        made = await books.reverse(f"vch_{moved.id[4:]}")
    finally:
        await books.forget_rules()
    wanted = ListStoryRequest(biz_trace_id=story)
    answer = await books.call(lambda: books.outer.operator.ListStory(wanted))
    vouchers = [i.subject for i in answer.items if i.kind == "voucher"]
    assert vouchers[0] == f"voucher vch_{moved.id[4:]}"
    assert set(vouchers[1:]) == {
        f"voucher {made.reversal.id}",
        f"voucher {made.replacement.id}",
    }
