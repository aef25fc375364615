"""Tables of the ledger that code and people read: statuses, kinds, account ids."""

from __future__ import annotations

import pytest
from paymesh.account import account_id_for

from services.account.chart_files import read_chart
from services.account.domain.accounts import AccountStatus, Side, platform_account_id
from services.account.domain.kinds import Owner
from services.account.domain.statuses import RULES, Operation, Taken

_TABLE = """
                DEBIT  CREDIT     REFUND_CREDIT  PENDING_CREDIT  POST_DEBIT  POST_CREDIT  RETURN
NORMAL          YES    YES        YES            YES             YES         YES          YES
DEBIT_FROZEN    NO     YES        YES            YES             YES         YES          YES
CREDIT_FROZEN   YES    UNCLAIMED  UNCLAIMED      YES             YES         UNCLAIMED    YES
CLOSED          NO     NO         UNCLAIMED      NO              NO          UNCLAIMED    YES
"""


def test_reading_the_table_of_statuses_gives_the_rules_of_the_money_page() -> None:
    head, *rows = [line.split() for line in _TABLE.strip().splitlines()]
    wanted = {
        (status, operation): taken
        for status, *cells in rows
        for operation, taken in zip(head, cells, strict=True)
    }
    assert {key: taken.value for key, (taken, _) in RULES.items()} == wanted
    assert set(RULES) == {(s, o) for s in AccountStatus for o in Operation}


def test_refusing_by_status_always_names_a_reason() -> None:
    for (status, _), (taken, reason) in RULES.items():
        assert bool(reason) == (taken is not Taken.YES)
        assert status.split("_")[0] in reason or not reason


def test_registering_kinds_lets_nobody_elses_money_go_below_zero() -> None:
    kinds = read_chart().kinds
    for code, kind in kinds.items():
        assert code == kind.code
        if kind.owner in (Owner.USER, Owner.MERCHANT):
            assert not kind.may_go_negative
        assert kind.purpose
    assert kinds["channel_receivable"].normal_side is Side.DEBIT
    assert kinds["user_available"].normal_side is Side.CREDIT


@pytest.mark.parametrize("book", [0, 1, 33, 1023])
def test_deriving_a_platform_account_agrees_with_the_clients(book: int) -> None:
    ours = platform_account_id("unclaimed", "USD", tenant_id="t", mode="TEST", book=book)
    theirs = account_id_for("platform", "unclaimed", "USD", tenant_id="t", mode="TEST", book=book)
    assert ours == theirs
