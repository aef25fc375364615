"""docs/money-flows.md against the accounting rules: each movement has one, which fits the page.

The column `voucher` says what an event debits and credits. What it books is netted over its chain:
a refund passes through a transit account within one chain, and the page does not name that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import pytest

from services.account.chart_files import read_chart
from services.account.domain.accounts import Side
from services.payment.domain.postings import Posting
from tests.contract.test_money_flows import PAGE, booked_chains

CHART = read_chart()

# The page's words, and the kinds of account that they mean.
WORDS = {
    "channel asset": "channel_receivable",
    "transit liability": "payment_transit",
    "transit": "payment_transit",
    "user liability": "user_available",
    "merchant liability": "merchant_pending",
    "fee income": "platform_fee",
    "suspense": "suspense",
    "unclaimed": "unclaimed",
    "loss": "loss",
}
_HEAD = ("event", "---")


def _cells() -> dict[str, list[str]]:
    """The rows of the page's tables by event, with `as above` filled in."""
    rows: dict[str, list[str]] = {}
    above: list[str] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("|") or len(cells) != 7 or cells[0] in _HEAD:
            continue
        cells = [b if c == "as above" else c for c, b in zip(cells, above or cells, strict=True)]
        above = rows[cells[0]] = cells
    return rows


ROWS = _cells()
BOOKED = booked_chains()


def _movements(cell: str) -> list[str]:
    return re.findall(r"`([a-z_.]+)`", cell)


def _subject(account: str) -> str:
    return CHART.kinds[account.partition("(")[0]].subject_code


def _net(chain: Iterable[Posting]) -> tuple[set[str], set[str]]:
    """The subjects that a chain's vouchers debit and credit, after all of them."""
    holds = {one.id: one for booked in BOOKED.values() for one in booked if one.kind == "PENDING"}
    balances: Counter[str] = Counter()
    for posting in chain:
        if posting.kind not in ("SINGLE", "POST"):
            continue
        held = holds[posting.pending_id] if posting.kind == "POST" else posting
        # A post of all that is held names no amount.
        amount = posting.amount_minor or held.amount_minor
        rule = CHART.rules_latest[posting.movement]
        debit, credit = _subject(held.debit_account_id), _subject(held.credit_account_id)
        for side, subject in rule.subjects(debit, credit):
            balances[subject] += amount if side is Side.DEBIT else -amount
    return (
        {subject for subject, balance in balances.items() if balance > 0},
        {subject for subject, balance in balances.items() if balance < 0},
    )


def _told(cell: str) -> tuple[set[str], set[str]]:
    """The subjects that a cell of the column says are debited and credited."""
    undone = re.fullmatch(r"reverse of (\w+)", cell)
    if undone is not None:
        row = next(r for r in ROWS.values() if f"payment.{undone[1]}" in _movements(r[2]))
        debited, credited = _told(row[6])
        return credited, debited
    if cell == "memo":
        return set(), set()
    sides = []
    for side in cell.split(" / "):
        subjects = set()
        for word in side.split(", "):
            subject = CHART.subjects[CHART.kinds[WORDS[word]].subject_code]
            said = word.rpartition(" ")[2].upper()
            assert said == subject.subject_class or " " not in word, word
            subjects.add(subject.code)
        sides.append(subjects)
    debited, credited = sides
    return debited, credited


def test_every_movement_of_the_page_has_a_rule() -> None:
    movements = {movement for row in ROWS.values() for movement in _movements(row[2])}
    assert movements
    assert not movements - CHART.rules_latest.keys()


def test_no_rule_is_for_a_movement_that_nobody_books() -> None:
    movements = {movement for row in ROWS.values() for movement in _movements(row[2])}
    assert not CHART.rules_latest.keys() - movements - {"*"}


@pytest.mark.parametrize("event", BOOKED)
def test_the_vouchers_of_an_event_say_what_the_page_says(event: str) -> None:
    assert _net(BOOKED[event]) == _told(ROWS[event][6])
