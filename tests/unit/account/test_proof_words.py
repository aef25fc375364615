"""What a proof says: lines on their normal sides, and in words what does not fit."""

from __future__ import annotations

from datetime import date

import pytest

from services.account.domain.proofs import (
    DayDifference,
    Key,
    Line,
    Misfit,
    Terms,
    UnfitAccount,
    explain_account,
    explain_line,
    explain_misfit,
    explain_sums,
    explain_unbalanced,
    first_days,
    lines_of,
)

KEY = Key("default", "LIVE", "USD", "2202.01")
TRANSFER, ACCOUNT, VOUCHER = (f"{kind}_{'0' * 26}" for kind in ("tfr", "acc", "vch"))


def _difference(on: date = date(1998, 1, 30), book: int = 0, key: Key = KEY) -> DayDifference:
    return DayDifference(book, on, key, True, -60, -60, -60, -50, -60)


def _misfit(**changes: object) -> Misfit:
    values: dict[str, object] = {
        "transfer_id": TRANSFER,
        "account_id": ACCOUNT,
        "voucher_id": VOUCHER,
        "has_transfer": True,
        "has_entry": True,
        "is_due": True,
        "moved_minor": -60,
        "entered_minor": -60,
        "told_minor": -60,
    }
    return Misfit(**(values | changes))  # type: ignore[arg-type]


def test_lines_stand_on_the_normal_side_of_their_subject() -> None:
    asset = Key("default", "LIVE", "USD", "1122.01")
    lines = lines_of(
        [Terms(KEY, "CREDIT", -83, -3, -60, -26), Terms(asset, "DEBIT", 140, 0, 100, 40)]
    )
    assert lines == (Line(asset, 140, 0, 100, 40), Line(KEY, 83, 3, 60, 26))
    assert [line.difference_minor for line in lines] == [0, 0]
    assert Line(KEY, 83, 3, 60, 20).difference_minor == 6


def test_the_first_day_that_differs_is_looked_at() -> None:
    later, earlier = _difference(date(1998, 2, 1)), _difference(date(1998, 1, 31), 1)
    other = _difference(date(1998, 3, 1), key=Key("default", "TEST", "USD", "2202.01"))
    assert first_days([later, other, earlier]) == {KEY: earlier, other.key: other}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"has_transfer": False, "is_due": False, "moved_minor": 0}, "which is not booked"),
        (
            {"has_transfer": False, "has_entry": False, "moved_minor": 0, "entered_minor": 0},
            f"voucher {VOUCHER} tells 60 credit, and no transfer moved it",
        ),
        ({"has_entry": False, "entered_minor": 0}, "moved 60 credit and has no entry"),
        ({"entered_minor": -61}, "its entries say 61 credit"),
        ({"is_due": False}, "is in flight, and voucher"),
        ({"voucher_id": "", "told_minor": 0}, "no voucher tells of it"),
        ({"told_minor": 60}, f"voucher {VOUCHER} tells 60 debit"),
        ({"told_minor": 0}, f"voucher {VOUCHER} tells 0"),
    ],
)
def test_a_misfit_is_told_in_words(changes: dict[str, object], words: str) -> None:
    unfit = explain_misfit(_difference(), _misfit(**changes))
    assert unfit.finding.startswith("1998-01-30 2202.01 USD: ")
    assert words in unfit.finding
    assert unfit.business_date == date(1998, 1, 30)


def test_what_no_transfer_explains_names_no_transfer() -> None:
    assert explain_misfit(_difference(), _misfit(transfer_id=VOUCHER)).transfer_id == ""
    assert explain_unbalanced(_difference(), VOUCHER).voucher_id == VOUCHER
    assert "keep 60 credit, its vouchers tell 50 credit" in explain_sums(_difference()).finding
    account = UnfitAccount(ACCOUNT, TRANSFER, 0, 107, 0, 100)
    unfit = explain_account(KEY, account)
    assert (unfit.account_id, unfit.transfer_id) == (ACCOUNT, TRANSFER)
    assert "107 credits posted, its entries add up to 0 and 100" in unfit.finding
    assert explain_line(Line(KEY, 83, 3, 60, 20)).finding.endswith("= 6")
