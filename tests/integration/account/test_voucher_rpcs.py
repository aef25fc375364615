"""Vouchers by hand and from events, through the contract: booked, refused, taken back."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from typing import Any

import pytest
from general_ledger_rpc import (
    OWED,
    RENT,
    GeneralLedger,
    lines,
    refusal,
    with_memo,
)
from hosted_services import operator_call, until
from paymesh.account.v1 import (
    VOUCHER_SOURCE_EVENT,
    VOUCHER_SOURCE_JOURNAL,
    VOUCHER_SOURCE_MANUAL,
    VOUCHER_SOURCE_REVERSAL,
)

from common.context import ActorType, CallContext, Mode, Principal
from common.errors import RemoteError
from services.account.chart_files import read_chart
from services.account.store.charts import ChartStore


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


async def test_one_request_id_of_two_people_or_in_two_worlds_is_two_requests(
    books: GeneralLedger,
) -> None:
    """Whoever books under "rent" is not told what another did under it, nor kept from it."""
    people = [operator_call("operator", "accountant"), _accountant("bob", Mode.TEST)]
    booked = [await books.book(one, request_id="rent") for one in people]
    assert [one.number for one in booked] == [1, 2]
    live = await books.book(_accountant("bob", Mode.LIVE), request_id="rent")
    assert live.number == 1
    assert await books.book(people[1], request_id="rent") == booked[1]
    assert len({live.id, *(one.id for one in booked)}) == 3


def _accountant(name: str, mode: Mode) -> CallContext:
    principal = Principal(
        mode=mode,
        actor_type=ActorType.OPERATOR,
        actor_id=name,
        roles=("operator", "accountant"),
    )
    return CallContext(principal=principal)


async def test_booking_with_the_wide_space_of_chinese_texts_keeps_it(books: GeneralLedger) -> None:
    booked = await books.book(summary="房租\u3000十一月")
    assert (await books.get(booked.id)).summary == "房租\u3000十一月"


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
    assert await refusal(books.book(request_id="rent", **_OTHER[field])) == ("ID_CONFLICT", field)
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
    assert await refusal(books.book(**changes)) == (reason, field)
    assert await books.register() == []


async def test_booking_without_the_role_is_refused(books: GeneralLedger) -> None:
    refused = await refusal(books.book(operator_call("operator")))
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
    assert (await refusal(books.reverse(made.reversal.id)))[0] == "STATE_CONFLICT"
    assert len(await books.register()) == 2


async def test_many_that_take_one_voucher_back_at_once_take_it_back_once(
    books: GeneralLedger,
) -> None:
    voucher = await books.book()
    answers = await asyncio.gather(
        *(books.reverse(voucher.id) for _ in range(5)), return_exceptions=True
    )
    refused = [one.remote_reason for one in answers if isinstance(one, RemoteError)]
    assert refused == ["VOUCHER_REVERSED"] * 4
    assert [one.number for one in await books.register()] == [1, 2]


async def test_one_order_that_comes_many_times_at_once_is_booked_once(
    books: GeneralLedger,
) -> None:
    answers = await asyncio.gather(*(books.book(request_id="rent") for _ in range(5)))
    assert len({one.id for one in answers}) == 1
    assert [one.number for one in await books.register()] == [1]


async def test_vouchers_of_all_sources_at_once_leave_no_gap(books: GeneralLedger) -> None:
    await books.outer.open_cast()
    await asyncio.gather(
        *(books.book() for _ in range(6)),
        *(books.hear(books.event()) for _ in range(6)),
        *(books.outer.post(books.outer.move(n)) for n in range(6)),
        books.make(),
    )
    await books.make()
    assert [one.number for one in await books.register()] == list(range(1, 19))


async def test_taking_back_under_a_request_that_took_another_back_is_refused(
    books: GeneralLedger,
) -> None:
    first, second = await books.book(), await books.book()
    await books.reverse(first.id, "undo")
    assert await refusal(books.reverse(second.id, "undo")) == ("ID_CONFLICT", "voucher_id")
    again = books.reverse(first.id, "undo", reason="for another reason")
    assert await refusal(again) == ("ID_CONFLICT", "reason")


async def test_taking_back_what_is_not_there_is_not_found(books: GeneralLedger) -> None:
    assert (await refusal(books.reverse("vch_00000000000000000000000000")))[0] == "NOT_FOUND"
    assert (await refusal(books.reverse("vch_0")))[0] == "FIELD_INVALID"
    # Nor in a book that was never opened.
    elsewhere = "vch_00000000000100000000000000"
    assert (await refusal(books.reverse(elsewhere)))[0] == "NOT_FOUND"
    assert (await refusal(books.get(elsewhere)))[0] == "NOT_FOUND"


async def test_taking_a_journal_voucher_back_makes_it_anew_by_the_latest_rule(
    books: GeneralLedger,
) -> None:
    """The proof compares what accounts moved, so the transfer never stands without a voucher."""
    await books.outer.open_cast()
    result = (await books.outer.post(books.outer.move("in", amount=80)))[0]
    await books.make()
    voucher = await books.get(f"vch_{result.transfer_id[4:]}")
    assert (voucher.source, voucher.rule) == (VOUCHER_SOURCE_JOURNAL, "*")
    assert (await refusal(books.reverse(voucher.id)))[0] == "STATE_CONFLICT"
    try:
        for rule in (with_memo("test.move", 1), with_memo("test.move", 2)):
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


async def test_an_event_that_several_hear_at_once_while_one_is_killed_makes_one_voucher(
    books: GeneralLedger,
) -> None:
    """Redelivered before the first has ended, whose session then dies before its commit."""
    events = [books.event() for _ in range(3)]
    blocker = await books.parts.pool.connect()
    hearing = []
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND query LIKE '%voucher_cursors%'"
    )
    try:
        await blocker.execute("BEGIN")
        await blocker.execute("SELECT 1 FROM voucher_cursors WHERE book = 0 FOR UPDATE")
        hearing.append(asyncio.create_task(books.hear(*events)))
        # Not by the blocker: its transaction keeps the list of sessions that it saw first.
        first = await until(lambda: books.rows(waiting))
        hearing += [asyncio.create_task(books.hear(*events)) for _ in range(3)]
        await blocker.execute("SELECT pg_terminate_backend($1)", first[0]["pid"])
        await blocker.execute("ROLLBACK")
        async with asyncio.timeout(60):
            await asyncio.gather(*hearing)
    finally:
        await blocker.close()
        await asyncio.gather(*hearing, return_exceptions=True)
    assert [len(await books.of_event(event)) for event in events] == [1, 1, 1]
    assert [one.number for one in await books.register()] == [1, 2, 3]
    assert (await books.balances())["6403"] == (0, 120, 0, 120)


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
