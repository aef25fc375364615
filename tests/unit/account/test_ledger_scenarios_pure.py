"""The text scenarios on the domain alone; and that together they reach every result there is."""

from __future__ import annotations

import pytest
from paymesh.error.v1 import ErrorReason

from services.account.domain.transfers import COMPARED
from tests.scenarios.account.language import Player, Scenario, load_scenarios
from tests.scenarios.account.memory import MemoryBooks

# What each kind of transfer can be answered; `-` where it cannot. EXPIRE and UNSPECIFIED are no
# kinds that callers may ask for, and have one answer each.
_TABLE = """
                         SINGLE  PENDING  POST  VOID
BOOKED                   x       x        x     x
ACCOUNT_NOT_FOUND        x       x        -     -
ACCOUNT_CLOSED           x       x        -     -
ACCOUNT_DEBIT_FROZEN     x       x        x     -
ACCOUNT_CREDIT_FROZEN    x       -        x     -
INSUFFICIENT_FUNDS       x       x        -     -
ACCOUNTS_EQUAL           x       x        -     -
BALANCE_OVERFLOW         x       x        -     -
BOOK_MISMATCH            x       x        x     x
PENDING_NOT_FOUND        -       -        x     x
TRANSFER_NOT_PENDING     -       -        x     x
PENDING_ALREADY_POSTED   -       -        x     x
PENDING_ALREADY_VOIDED   -       x        x     x
HOLD_EXPIRED             -       -        x     x
POST_EXCEEDS_PENDING     -       -        x     -
LINKED_TRANSFER_FAILED   x       x        x     x
CHAIN_OPEN               x       x        x     x
PENDING_FIELD_DIFFERS    -       -        x     x
FIELD_INVALID            x       x        x     x
ID_CONFLICT              x       x        x     x
ID_MALFORMED             x       x        x     x
ID_OUT_OF_WINDOW         x       x        x     x
CURRENCY_UNKNOWN         x       x        x     x
CURRENCY_MISMATCH        x       x        -     -
AMOUNT_OUT_OF_RANGE      x       x        x     -
"""
# Reasons of the ledger that are answers to other calls than transfers; tested with those.
_OF_OTHER_CALLS = {
    "ACCOUNT_DIFFERS",
    "BUSINESS_DATE_NOT_LATER",
    "PERIOD_NOT_CLOSABLE",
    "SUBJECT_CONTROLLED",
    "SUBJECT_UNKNOWN",
    "VOUCHER_REVERSED",
    "VOUCHER_UNBALANCED",
}


_PLAYED: dict[str, tuple[MemoryBooks, Player]] = {}


async def _play(scenario: Scenario) -> tuple[MemoryBooks, Player]:
    """Play a scenario, once however many tests look at it."""
    if scenario.name not in _PLAYED:
        books = MemoryBooks()
        player = Player(books, scenario.name)
        await player.play(scenario)
        _PLAYED[scenario.name] = books, player
    return _PLAYED[scenario.name]


@pytest.mark.parametrize("scenario", load_scenarios(), ids=lambda one: one.name)
async def test_playing_a_scenario_on_the_domain_gives_the_expected_results(
    scenario: Scenario,
) -> None:
    books = (await _play(scenario))[0]
    for currency in {account.currency_code for account in books.accounts.values()}:
        accounts = [a for a in books.accounts.values() if a.currency_code == currency]
        ids = {account.id for account in accounts}
        waiting = sum(c.amount_minor for c in books.waiting if c.account_id in ids)
        posted = sum(a.debits_posted_minor - a.credits_posted_minor for a in accounts)
        assert posted == waiting
        assert sum(a.debits_pending_minor - a.credits_pending_minor for a in accounts) == 0


async def test_playing_all_scenarios_reaches_every_answer_of_every_kind() -> None:
    head, *rows = [line.split() for line in _TABLE.strip().splitlines()]
    wanted = {
        ("" if reason == "BOOKED" else reason, kind)
        for reason, *cells in rows
        for kind, cell in zip(head, cells, strict=True)
        if cell == "x"
    } | {("FIELD_INVALID", "EXPIRE"), ("FIELD_INVALID", "UNSPECIFIED")}
    of_ledger = {
        name.removeprefix("ERROR_REASON_")
        for name, number in ErrorReason.items()
        if 100 <= number < 150
    }
    assert of_ledger - _OF_OTHER_CALLS <= {reason for reason, *_ in rows}
    reached: set[tuple[str, str]] = set()
    differing: set[str] = set()
    for scenario in load_scenarios():
        player = (await _play(scenario))[1]
        reached |= player.reached
        differing |= player.differing
    assert reached == wanted
    # Each field that a repeat has to say again is named by some scenario.
    assert differing == set(COMPARED)


def test_loading_the_scenarios_finds_dozens_and_each_checks_something() -> None:
    scenarios = load_scenarios()
    assert len(scenarios) >= 60
    for scenario in scenarios:
        assert any(line.expected for line in scenario.lines), scenario.name
