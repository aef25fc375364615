"""The chart in the database: brought in once, added to, never contradicted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import date

import pytest

from services.account.chart_files import read_chart
from services.account.domain.accounts import AccountSpec, Side
from services.account.domain.chart import Chart, Subject, SubjectClass
from services.account.domain.chart_entries import ChartError
from services.account.domain.kinds import AccountKind, Owner
from services.account.domain.rules import Rule, RuleLine, SubjectOf
from services.account.store.charts import ChartStore
from tests.integration.account.books import IDS, Books, open_books
from tests.integration.account.conftest import close_kit, open_kit, prepare_ledger_schema

OURS = read_chart()


@pytest.fixture
async def books(new_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Books]:
    """Inner books on a database of their own: a chart stays in it for ever."""
    kit = await open_kit(await prepare_ledger_schema(await new_database()))
    yield await open_books(kit)
    await close_kit(kit)


def _with_subject(chart: Chart, subject: Subject) -> Chart:
    return replace(chart, subjects={**chart.subjects, subject.code: subject})


def _with_kind(chart: Chart, kind: AccountKind) -> Chart:
    return replace(chart, kinds={**chart.kinds, kind.code: kind})


def _with_rule(chart: Chart, rule: Rule) -> Chart:
    rules = [
        one for one in chart.rules if (one.movement, one.version) != (rule.movement, rule.version)
    ]
    return replace(chart, rules=(*rules, rule))


async def _refusal(books: Books, chart: Chart) -> str:
    with pytest.raises(ChartError) as raised:
        await ChartStore(books.ledger.pool).put(chart)
    return str(raised.value)


async def test_a_kind_on_a_subject_that_was_moved_by_hand_is_refused(books: Books) -> None:
    """No account would ever explain what stands there, and the proof would be broken for good."""
    await ChartStore(books.ledger.pool).put(OURS)
    kind = AccountKind("office_cost", Side.DEBIT, Owner.PLATFORM, "x", True, "6602")
    insert = (
        "INSERT INTO subject_balances (book, business_date, debits_minor, credits_minor,"
        " tenant_id, mode, subject_code, currency_code)"
        " VALUES (0, $1, $2, $3, 'default', 'LIVE', '6602', 'USD')"
    )
    async with books.ledger.pool.acquire() as connection:
        await connection.execute(insert, date(2026, 1, 1), 500, 0)
    assert await _refusal(books, _with_kind(OURS, kind)) == (
        "kinds.toml: kind 'office_cost': vouchers by hand stand on its subject 6602, which no"
        " account explains: take them back, or give the kind a subject of its own"
    )
    async with books.ledger.pool.acquire() as connection:
        await connection.execute(insert, date(2026, 1, 2), 0, 500)
    await ChartStore(books.ledger.pool).put(_with_kind(OURS, kind))


async def test_a_kind_on_a_subject_that_a_forgotten_rule_names_is_refused(books: Books) -> None:
    """A rule stays in force after its file has lost it, and would move what is the accounts'."""
    memo = Rule(
        "shop.gift", 1, "Gift",
        (
            RuleLine(Side.DEBIT, SubjectOf.DEBIT_ACCOUNT),
            RuleLine(Side.DEBIT, None, "6602"),
            RuleLine(Side.CREDIT, SubjectOf.CREDIT_ACCOUNT),
            RuleLine(Side.CREDIT, None, "2241.07"),
        ),
    )  # fmt: skip
    kind = AccountKind("office_cost", Side.DEBIT, Owner.PLATFORM, "x", True, "6602")
    await ChartStore(books.ledger.pool).put(_with_rule(OURS, memo))
    assert await _refusal(books, _with_kind(OURS, kind)) == (
        "kinds.toml: kind 'office_cost': the rule 'shop.gift' names its subject 6602, and is in"
        " force though no file has it: write a next version of it first"
    )
    plain = replace(memo, version=2, lines=(memo.lines[0], memo.lines[2]))
    await ChartStore(books.ledger.pool).put(_with_rule(OURS, plain))
    await ChartStore(books.ledger.pool).put(_with_kind(OURS, kind))


async def test_bringing_the_chart_in_again_changes_nothing(books: Books) -> None:
    store = ChartStore(books.ledger.pool)
    await store.put(OURS)
    async with books.ledger.pool.acquire() as connection:
        counts = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM subjects), (SELECT count(*) FROM subject_kinds),"
            " (SELECT count(*) FROM accounting_rules),"
            " (SELECT count(*) FROM accounting_rule_lines)"
        )
    assert counts is not None
    assert list(counts) == [
        len(OURS.subjects),
        len(OURS.kinds),
        len(OURS.rules),
        sum(len(rule.lines) for rule in OURS.rules),
    ]


async def test_changing_a_rule_under_its_old_version_is_refused(books: Books) -> None:
    rule = OURS.rules_latest["payment.fee"]
    message = await _refusal(books, _with_rule(OURS, replace(rule, summary="Something else")))
    assert message.startswith("rules.toml: rule 'payment.fee': version 1 was changed")
    assert "version 2" in message
    changed = replace(rule, lines=(*rule.lines, *rule.lines))
    assert "version 1 was changed" in await _refusal(books, _with_rule(OURS, changed))


async def test_a_new_version_is_taken_and_an_older_file_beside_it_starts(books: Books) -> None:
    await ChartStore(books.ledger.pool).put(books.with_memo_rule("payment.fee", 2))
    await ChartStore(books.ledger.pool).put(OURS)
    async with books.ledger.pool.acquire() as connection:
        versions = await connection.fetch(
            "SELECT version FROM accounting_rules WHERE movement = 'payment.fee' ORDER BY version"
        )
    assert [row[0] for row in versions] == [1, 2]


async def test_moving_a_kind_to_another_subject_is_refused(books: Books) -> None:
    moved = replace(OURS.kinds["suspense"], subject_code="2241.06")
    message = await _refusal(books, _with_kind(OURS, moved))
    assert message == (
        "kinds.toml: kind 'suspense': its accounts add up to subject 2241.05, and never move to"
        " another (2241.06)"
    )


async def test_leaving_out_a_kind_that_has_accounts_is_refused(books: Books) -> None:
    kinds = {code: kind for code, kind in OURS.kinds.items() if code != "loss"}
    fewer = replace(OURS, kinds=kinds)
    await ChartStore(books.ledger.pool).put(fewer)
    await books.ledger.open([AccountSpec(IDS.new("acc"), "platform", "loss", "USD")])
    assert await _refusal(books, fewer) == (
        "kinds.toml: kind 'loss': is missing, and accounts are of it"
    )


async def test_changing_what_a_subject_is_about_is_refused(books: Books) -> None:
    turned = replace(OURS.subjects["6602"], subject_class=SubjectClass.ASSET)
    message = await _refusal(books, _with_subject(OURS, turned))
    assert message == (
        "subjects.toml: subject '6602': class and normal_side were (expense, debit); they never"
        " change"
    )


async def test_leaving_out_a_subject_is_refused_once_it_has_vouchers(books: Books) -> None:
    subjects = {code: one for code, one in OURS.subjects.items() if code != "2241.01"}
    without = replace(OURS, subjects=subjects)
    await ChartStore(books.ledger.pool).put(without)
    channel, transit = ("channel_receivable", "alipay"), ("payment_transit", "platform")
    await books.open(channel, transit)
    await books.book(books.transfer(channel, transit, 5))
    await books.make()
    assert await _refusal(books, without) == (
        "subjects.toml: subject '2241.01': is missing, and vouchers are booked on it"
    )


async def test_a_new_kind_on_a_new_subject_is_taken_and_booked(books: Books) -> None:
    chart = _with_subject(
        OURS, Subject("2202.09", "Deposits", SubjectClass.LIABILITY, Side.CREDIT, "2202")
    )
    kind = AccountKind(
        "merchant_deposit", Side.CREDIT, Owner.MERCHANT, "deposited", False, "2202.09"
    )
    chart = _with_kind(chart, kind)
    await ChartStore(books.ledger.pool).put(chart)
    books.ledger.accounts.kinds = chart.kinds
    channel, deposit = ("channel_receivable", "alipay"), ("merchant_deposit", "shop")
    await books.open(channel, deposit)
    await books.book(books.transfer(channel, deposit, 5))
    assert await books.make() == 1
    async with books.ledger.pool.acquire() as connection:
        credit = await connection.fetchval(
            "SELECT credits_minor FROM subject_balances WHERE subject_code = '2202.09'"
        )
    assert credit == 5
