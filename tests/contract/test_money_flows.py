"""docs/money-flows.md against the code: every movement of the page is booked, and no other is.

Each cell of the page's tables is read as it stands: the movements, the steps of the transfer ids,
and the lines `debit → credit  amount`, where `hold`, `post` and `void` say the kind.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.ids import derive
from common.money import Money
from services.account.chart_files import read_chart
from services.payment.domain import postings
from services.payment.domain.postings import (
    Chain,
    Posting,
    abandon_chain,
    conflict_chain,
    conflict_return_chain,
    hold_chain,
    late_chain,
    late_return_chain,
    receive_chain,
    refund_chain,
    release_chain,
    return_chain,
    settle_chain,
    unclaim_chain,
    unclaimed_return_chain,
)
from tests.unit.payment.samples import a_payment, a_refund, account_named

PAGE = Path(__file__).parents[2] / "docs" / "money-flows.md"

AMOUNT, FEE, REFUND, FEE_BACK, RECEIVED = 1000, 60, 500, 30, 990
AMOUNTS = {
    "A": AMOUNT,
    "F": FEE,
    "N": AMOUNT - FEE,
    "R": REFUND,
    "G": FEE_BACK,
    "R − G": REFUND - FEE_BACK,
    "received": RECEIVED,
}
OWNERS = {"channel": "alipay", "user": "usr_buyer", "merchant": "mer_shop", "": "platform"}


@dataclass(frozen=True)
class Line:
    """One line of a ledger chain, on the page or in code."""

    movement: str
    kind: str
    id: str
    debit: str = ""
    credit: str = ""
    amount_minor: int = 0


@dataclass(frozen=True)
class Row:
    """One row of a table that books something."""

    event: str
    movements: tuple[str, ...]
    steps: tuple[tuple[str, ...], ...]
    chain: str
    undone_by: tuple[str, ...]


def _quoted(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def _rows() -> list[Row]:
    rows: list[Row] = []
    above: list[str] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("|") or len(cells) != 7 or cells[0] in ("event", "---"):
            continue
        cells = [
            before if cell == "as above" else cell
            for cell, before in zip(cells, above or cells, strict=True)
        ]
        above = cells
        steps = []
        for identifier in _quoted(cells[3]):
            inner = re.fullmatch(r"tfr\((.+)\)", identifier)
            assert inner is not None, f"{cells[0]}: {identifier}"
            steps.append(tuple(part.strip() for part in inner[1].split(",")))
        undone_by = tuple(name for name in _quoted(cells[5]) if "." in name)
        rows.append(Row(cells[0], _quoted(cells[2]), tuple(steps), cells[4], undone_by))
    return rows


def booked_chains() -> dict[str, Chain]:
    """Chains of code by the page's event; what they are in is what the page's words mean."""
    channel = a_payment(AMOUNT, FEE, attempt=3)
    balance = a_payment(AMOUNT, FEE, attempt=3, channel="balance", product="balance")
    conflicted = a_payment(AMOUNT, FEE, attempt=3, received=Money("EUR", RECEIVED))
    recharge = a_payment(AMOUNT, 0, attempt=3, order_type="recharge")
    refund = a_refund(REFUND, FEE_BACK, attempt=2)
    from_user = a_refund(REFUND, 0, attempt=2, source_kind="user_available")
    return {
        "Channel took the money": receive_chain(channel, account_named),
        "User pays from the balance": receive_chain(balance, account_named),
        "Order is claimed, purchase": settle_chain(channel, account_named),
        "Order is claimed, recharge": settle_chain(recharge, account_named),
        "Claim is lost (paid twice, or order closed)": return_chain(channel, account_named),
        "Channel took another amount or currency": conflict_chain(conflicted, account_named),
        "What did not fit its order goes back": conflict_return_chain(conflicted, account_named),
        "Channel refuses to give back what lost its claim": unclaim_chain(channel, account_named),
        "Channel refuses to give back what did not fit": unclaim_chain(conflicted, account_named),
        "Channel gave back after all what is kept for the payer": unclaimed_return_chain(
            channel, account_named
        ),
        "Channel gave all of it back once more": late_return_chain(channel, account_named),
        "Merchant's money is held": hold_chain(channel, refund, refund.source_kind, account_named),
        "Channel gave the money back": refund_chain(channel, refund, account_named),
        "Balance payment is given back": refund_chain(balance, refund, account_named),
        "Channel refused the refund": release_chain(refund),
        # The same for each source; the first one's is what the page's words are read as.
        "Refund is let fail while it is not known whether a hold stands": abandon_chain(
            channel, refund
        )[:2],
        "Channel gave the money back though the refund had failed": late_chain(
            channel, refund, account_named
        ),
        "Recharge is given back": hold_chain(recharge, from_user, "user_available", account_named),
    }


def _account(words: str) -> str:
    match = re.fullmatch(r"(\w+)(?:\((\w+)\))?", words.strip())
    assert match is not None, words
    return account_named(OWNERS[match[2] or ""], match[1])


def _id(step: tuple[str, ...], source: str) -> str:
    """The id that the page's words derive, for the sample nouns."""
    noun, *parts = step
    values: dict[str, dict[str, str | int]] = {
        "payment": {"attempt": 3, "n": 1},
        "refund": {"attempt": 2, "source": source},
    }
    parent = a_payment().id if noun == "payment" else a_refund().id
    return derive("tfr", parent, *(values[noun].get(part, part) for part in parts))


def _lines_of_page(row: Row) -> list[Line]:
    """The lines that a row's cells mean, for the sample payment and refund."""
    assert len(row.movements) == len(row.steps), row.event
    source = (
        "user_available" if "user_available(user) → refund" in row.chain else "merchant_pending"
    )
    if row.chain.startswith("void of both holds"):
        parts = ["void"] * len(row.movements)
    else:
        parts = re.split(r"\s\+\s", re.split(r", or |; ", row.chain)[0])
    assert len(parts) == len(row.movements), row.event
    lines = []
    for movement, step, part in zip(row.movements, row.steps, parts, strict=True):
        words = part.replace("`", "").strip()
        kind = words.split()[0]
        if kind in ("void", "post"):
            lines.append(Line(movement, kind.upper(), _id(step, source)))
            continue
        body = words.removeprefix("hold ")
        match = re.fullmatch(r"(\S+) → (\S+) +(.+)", body)
        assert match is not None, f"{row.event}: {part}"
        lines.append(
            Line(
                movement,
                "PENDING" if kind == "hold" else "SINGLE",
                _id(step, source),
                _account(match[1]),
                _account(match[2]),
                AMOUNTS[match[3].strip()],
            )
        )
    return lines


def _line_of_code(posting: Posting) -> Line:
    return Line(
        posting.movement,
        posting.kind,
        posting.id,
        posting.debit_account_id,
        posting.credit_account_id,
        posting.amount_minor,
    )


BOOKING = [row for row in _rows() if row.movements]


def test_page_and_code_know_the_same_events() -> None:
    assert sorted(row.event for row in BOOKING) == sorted(booked_chains())


def test_every_chain_of_code_is_tried() -> None:
    """A new function of `postings` must come onto the page, and into this test."""
    made = {name for name in vars(postings) if name.endswith("_chain") and name[0] != "_"}
    assert made == {
        "receive_chain",
        "settle_chain",
        "return_chain",
        "conflict_chain",
        "conflict_return_chain",
        "unclaim_chain",
        "hold_chain",
        "abandon_chain",
        "late_chain",
        "unclaimed_return_chain",
        "late_return_chain",
        "refund_chain",
        "release_chain",
    }


@pytest.mark.parametrize("row", BOOKING, ids=lambda row: row.event)
def test_booking_does_what_the_page_says(row: Row) -> None:
    assert [_line_of_code(posting) for posting in booked_chains()[row.event]] == _lines_of_page(row)


def _proofs() -> dict[str, tuple[str, ...]]:
    """The second table: which scenarios walk and crash a row."""
    proofs = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and len(cells) == 2 and cells[0] not in ("row", "---"):
            proofs[cells[0]] = _quoted(cells[1])
    return proofs


def _scenarios() -> set[str]:
    """Names of the scenarios, as they stand in their table."""
    tests = Path(__file__).parents[1] / "integration" / "payment"
    table = ast.parse((tests / "flow_scenarios.py").read_text(encoding="utf-8"))
    return {
        str(call.args[0].value)
        for call in ast.walk(table)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "Scenario"
        and isinstance(call.args[0], ast.Constant)
    }


def test_every_row_is_walked_and_crashed_by_a_scenario_that_exists() -> None:
    proofs = _proofs()
    events = {row.event for row in _rows()}
    assert set(proofs) == events
    for row in BOOKING:
        assert proofs[row.event], row.event
    named = {name for names in proofs.values() for name in names}
    assert named <= _scenarios(), named - _scenarios()


def test_what_undoes_is_on_the_page_itself() -> None:
    movements = {movement for row in BOOKING for movement in row.movements}
    undoing = {movement for row in BOOKING for movement in row.undone_by}
    assert undoing <= movements


def test_accounts_of_the_chains_are_registered_kinds_of_that_owner() -> None:
    """The ledger opens only kinds that it knows, each for one sort of party."""
    kinds = read_chart().kinds
    for chain in booked_chains().values():
        for posting in chain:
            for account in (posting.debit_account_id, posting.credit_account_id):
                kind, _, owner = account.rstrip(")").partition("(")
                if account:
                    assert OWNERS[kinds[kind].owner.lower().replace("platform", "")] == owner
