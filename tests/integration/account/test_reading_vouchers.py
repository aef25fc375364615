"""The register, the trial balance, the chart and stories, read through the contract."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, timedelta

from general_ledger_rpc import (
    OWED,
    RENT,
    GeneralLedger,
    lines,
    refusal,
    with_memo,
)
from hosted_services import operator_call
from ledger_rpc import service_call
from paymesh.account.v1 import (
    VOUCHER_SOURCE_EVENT,
    VOUCHER_SOURCE_MANUAL,
    CreateTransfersRequest,
    GetTrialBalanceRequest,
    ListStoryRequest,
    ListSubjectsRequest,
    ListVouchersRequest,
    ReverseVoucherRequest,
)

from common.context import ActorType, CallContext, Mode, Principal
from services.account.chart_files import read_chart
from services.account.store.charts import ChartStore


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
    assert await refusal(books.register(to_on="1999-01-01")) == ("FIELD_INVALID", "to_on")
    today = books.today.isoformat()
    request = ListVouchersRequest(from_on=today, to_on=today, page_size=1)
    token = (await books.call(lambda: books.stub.ListVouchers(request))).next_page_token
    other = ListVouchersRequest(from_on=today, to_on=today, subject_code=RENT, page_token=token)
    refused = await refusal(books.call(lambda: books.stub.ListVouchers(other)))
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
    assert (await refusal(books.get(voucher.id, live)))[0] == "NOT_FOUND"
    request = ReverseVoucherRequest(request_id="r", voucher_id=voucher.id, reason="x")
    refused = await refusal(books.call(lambda: books.stub.ReverseVoucher(request), live))
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
    refused = await refusal(books.balances(from_on="2026-02-30"))
    assert refused == ("FIELD_INVALID", "from_on")


async def test_the_trial_balance_tells_of_a_subject_that_only_newer_files_have(
    books: GeneralLedger,
) -> None:
    """Processes with older and newer files run side by side while a rollout lasts."""
    await books.run(
        "INSERT INTO subjects (code, parent_code, name, class, normal_side)"
        " VALUES ('6604', '', 'Research', 'EXPENSE', 'DEBIT')"
    )
    try:
        await books.book()
        await books.run("UPDATE subject_balances SET subject_code = '6604' WHERE debits_minor > 0")
        assert await books.balances() == {"6604": (0, 500, 0, 500), OWED: (0, 0, 500, 500)}
        request = GetTrialBalanceRequest()
        answer = await books.call(lambda: books.stub.GetTrialBalance(request))
        assert [one.subject_name for one in answer.balances] == ["Other creditors", "Research"]
    finally:
        await books.empty()
        await books.run("DELETE FROM subjects WHERE code = '6604'")


async def test_listing_subjects_tells_the_chart_by_code(books: GeneralLedger) -> None:
    request = ListSubjectsRequest()
    subjects = list((await books.call(lambda: books.stub.ListSubjects(request))).subjects)
    assert [one.code for one in subjects] == sorted(read_chart().subjects)
    by_code = {one.code: one for one in subjects}
    assert list(by_code["2202.01"].account_kinds) == ["merchant_pending"]
    assert by_code["2202.01"].parent_code == "2202"
    assert not by_code[RENT].account_kinds
    assert all(re.fullmatch(r"[0-9]{4}(\.[0-9]{2})*", one.code) for one in subjects)


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
        replace(chart, rules=(*chart.rules, with_memo("test.move", 1)))
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


_SET_ASIDE = (
    "ALTER TABLE vouchers DETACH PARTITION vouchers_2020_02",
    (
        "ALTER TABLE archived_vouchers ATTACH PARTITION vouchers_2020_02"
        " FOR VALUES FROM ('2020-02-01') TO ('2020-03-01')"
    ),
    "ALTER TABLE voucher_lines DETACH PARTITION voucher_lines_2020_02",
    (
        "ALTER TABLE archived_voucher_lines ATTACH PARTITION voucher_lines_2020_02"
        " FOR VALUES FROM ('2020-02-01') TO ('2020-03-01')"
    ),
    (
        "INSERT INTO periods (period, closed_at, archived_at, state, actor)"
        " VALUES ('2020-02', now(), now(), 'ARCHIVED', 'test')"
    ),
    (
        "INSERT INTO period_balances (period, book, opening_minor, debits_minor, credits_minor,"
        " closing_minor, tenant_id, mode, subject_code, currency_code)"
        " SELECT '2020-02', 0, 0, debits_minor, credits_minor, debits_minor + credits_minor,"
        " tenant_id, mode, subject_code, currency_code"
        " FROM subject_balances WHERE business_date = '2020-02-29'"
    ),
    # What is kept with the period is what the trial balance begins with.
    "DELETE FROM subject_balances WHERE business_date = '2020-02-29'",
)
_BROUGHT_BACK = (
    "DROP TABLE vouchers_2020_02",
    "DROP TABLE voucher_lines_2020_02",
    "DELETE FROM periods",
    "DELETE FROM period_balances",
    "DELETE FROM business_days WHERE business_date = '2020-02-29'",
)


async def test_vouchers_of_an_archived_period_are_read_and_taken_back_like_others(
    books: GeneralLedger,
) -> None:
    leap_day = date(2020, 2, 29)
    await books.run(
        "INSERT INTO business_days (book, business_date, opened_at, cut_at, watermark, state)"
        " VALUES (0, $1, now(), now(), '1', 'CUTTING')",
        leap_day,
    )
    event = books.event(business_date=leap_day)
    await books.hear(event)
    (booked,) = await books.register(from_on="2020-02-01", to_on="2020-02-29")
    try:
        for statement in _SET_ASIDE:
            await books.run(statement)
        assert await books.get(booked.id) == booked
        assert await books.register(from_on="2020-02-01", to_on="2020-02-29") == [booked]
        await books.book()
        over_the_years = await books.register(from_on="2020-01-01", page_size=1)
        assert [one.number for one in over_the_years] == [1, 1]
        assert await books.register(from_on="2020-01-01", subject_code="6403") == [booked]
        wanted = ListStoryRequest(biz_trace_id=event.biz_trace_id)
        answer = await books.call(lambda: books.outer.operator.ListStory(wanted))
        assert [one.subject for one in answer.items] == [f"voucher {booked.id}"]
        # The event comes once more, after the inbox has forgotten it.
        await books.run("DELETE FROM inbox WHERE event_id = $1", event.event_id)
        await books.hear(event)
        assert len(await books.register()) == 1
        assert (await books.balances())["6403"] == (40, 0, 0, 40)
        made = await books.reverse(booked.id)
        assert made.reversal.business_date == books.today.isoformat()
        assert made.reversal.value_on == leap_day.isoformat()
        assert (await books.balances())["6403"] == (40, 0, 40, 0)
    finally:
        for statement in _BROUGHT_BACK:
            await books.run(statement)
