"""The chart of accounts and its files: what comes with paymesh, and what wrong files are told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from services.account.chart_files import CHART_FOLDER, read_chart
from services.account.domain.accounts import Side
from services.account.domain.chart import PROFIT_AND_LOSS, SubjectClass
from services.account.domain.chart_entries import ChartError
from services.account.domain.kinds import Owner

_GROWS = {
    SubjectClass.ASSET: Side.DEBIT,
    SubjectClass.EXPENSE: Side.DEBIT,
    SubjectClass.LIABILITY: Side.CREDIT,
    SubjectClass.EQUITY: Side.CREDIT,
    SubjectClass.INCOME: Side.CREDIT,
}


def test_reading_our_chart_gives_every_kind_a_subject_that_grows_as_its_class_does() -> None:
    chart = read_chart()
    for kind in chart.kinds.values():
        subject = chart.subjects[kind.subject_code]
        if subject.subject_class is not SubjectClass.COMMON:
            assert subject.normal_side is _GROWS[subject.subject_class], subject.code
        assert kind.is_contra == (kind.normal_side is not subject.normal_side)
        if kind.owner in (Owner.USER, Owner.MERCHANT) and kind.normal_side is Side.CREDIT:
            assert subject.subject_class is SubjectClass.LIABILITY or kind.is_contra
    assert chart.subjects[chart.profit_subject].subject_class is SubjectClass.EQUITY


def test_reading_our_chart_leaves_subjects_for_people_in_every_class_that_they_need() -> None:
    chart = read_chart()
    free = chart.subjects.keys() - chart.kinds_by_subject.keys() - chart.parents
    classes = {chart.subjects[code].subject_class for code in free}
    assert classes >= {SubjectClass.LIABILITY, SubjectClass.EQUITY, *PROFIT_AND_LOSS}


def test_a_rule_books_the_debited_account_on_the_debit_side() -> None:
    rule = read_chart().rules_latest["payment.receive"]
    assert rule.subjects("1122.01", "2241.01") == [
        (Side.DEBIT, "1122.01"),
        (Side.CREDIT, "2241.01"),
    ]


def _folder(tmp_path: Path, file: str, before: str, after: str) -> Path:
    folder = tmp_path / "chart"
    shutil.copytree(CHART_FOLDER, folder)
    text = (folder / file).read_text(encoding="utf-8")
    assert before in text
    (folder / file).write_text(text.replace(before, after, 1), encoding="utf-8")
    return folder


_LOSS = 'code = "loss"\nsubject = "6711.01"\nnormal_side = "debit"\nowner = "platform"'
_RECEIVE = '[[rule]]\nmovement = "payment.receive"\nversion = 1'

WRONG = {
    "no toml": ("kinds.toml", "[[kind]]", "[[kind", "kinds.toml: cannot be read"),
    "no entries": ("rules.toml", "[[rule]]", "[[rules]]", "rules.toml: unknown key rules"),
    "a kind twice": ("kinds.toml", '"red_packet"', '"user_available"', "is there twice"),
    "a kind without a subject": (
        *("kinds.toml", 'subject = "6711.01"', 'subject = "6711.99"'),
        "kind 'loss': subject 6711.99 is not in subjects.toml",
    ),
    "a kind on a subject with others below": (
        *("kinds.toml", 'subject = "6711.01"', 'subject = "6711"'),
        "kind 'loss': subject 6711 has subjects below it",
    ),
    "a kind that grows on the other side": (
        *("kinds.toml", _LOSS, _LOSS.replace('"debit"', '"credit"')),
        "kind 'loss': grows on another side than its subject 6711.01 (credit, debit)",
    ),
    "a contra that is none": (
        *("kinds.toml", _LOSS, _LOSS + "\ncontra = true"),
        "kind 'loss': grows on the same side",
    ),
    "somebody's money below zero": (
        *("kinds.toml", 'owner = "user"', 'owner = "user"\nmay_go_negative = true'),
        "may_go_negative: it is the money of a user",
    ),
    "a flag that is no flag": (
        *("kinds.toml", "may_go_negative = true", 'may_go_negative = "yes"'),
        "may_go_negative must be true or false",
    ),
    "an unknown owner": (
        *("kinds.toml", 'owner = "user"', 'owner = "nobody"'),
        "owner must be one of user, merchant, channel, platform",
    ),
    "an unknown key": ("kinds.toml", 'owner = "user"', 'ownr = "user"', "owner is missing"),
    "one key too many": (
        *("kinds.toml", 'owner = "user"', 'owner = "user"\ncolour = "red"'),
        "unknown key colour",
    ),
    "a kind with a strange code": (
        *("kinds.toml", '"loss"', '"Loss; DROP TABLE"'),
        "code must be small letters",
    ),
    "a subject twice": ("subjects.toml", '"1031.01"', '"1002.01"', "is there twice"),
    "a subject code of another form": ("subjects.toml", '"4001"', '"40-1"', "code must be four"),
    "a subject under the wrong parent": (
        *("subjects.toml", 'parent = "1031"', 'parent = "1002"'),
        "subject '1031.01': parent must be '1031'",
    ),
    "a subject of another class than its parent": (
        *("subjects.toml", '"Own funds at banks"\nclass = "asset"', '"Own"\nclass = "expense"'),
        "class expense is not that of its parent 1002, asset",
    ),
    "a name that cannot be printed": (
        *("subjects.toml", '"Bank deposits"', '"Bank\\u0000"'),
        "name has characters that cannot be printed",
    ),
    "a name without end": ("subjects.toml", '"Bank deposits"', f'"{"x" * 101}"', "1 to 100"),
    "profit to a subject that is none": (
        *("subjects.toml", 'profit_subject = "4103"', 'profit_subject = "4999"'),
        "profit_subject must be",
    ),
    "profit to income": (
        *("subjects.toml", 'profit_subject = "4103"', 'profit_subject = "6051"'),
        "profit_subject must be",
    ),
    "no default rule": (
        *("rules.toml", 'movement = "*"', 'movement = "some.thing"'),
        'has no rule "*"',
    ),
    "a rule twice": (
        *("rules.toml", '"payment.settle"', '"payment.receive"'),
        "rule 'payment.receive': version 1 is there twice",
    ),
    "a rule without a version": (
        *("rules.toml", _RECEIVE, _RECEIVE.replace("version = 1", "version = 0")),
        "rule 'payment.receive': version must be a number from 1",
    ),
    "a movement of another form": ("rules.toml", '"payment.fee"', '"fee"', "dotted name"),
    "a rule whose sides are exchanged": (
        *("rules.toml", 'debit = ["debit_account"]', 'debit = ["credit_account"]'),
        "credit_account cannot be on the debit side",
    ),
    "a rule that does not balance": (
        *("rules.toml", 'debit = ["debit_account"]', 'debit = ["debit_account", "6602"]'),
        "debits and credits differ: 2 and 1 lines",
    ),
    "a rule that leaves an account out": (
        *("rules.toml", 'debit = ["debit_account"]', 'debit = ["6602"]'),
        "the debit side must have debit_account exactly once",
    ),
    "a rule that says an account twice": (
        "rules.toml",
        'debit = ["debit_account"]\ncredit = ["credit_account"]',
        'debit = ["debit_account", "debit_account"]\ncredit = ["credit_account", "4001"]',
        "the debit side must have debit_account exactly once",
    ),
    "a rule on what accounts add up to": (
        "rules.toml",
        'debit = ["debit_account"]\ncredit = ["credit_account"]',
        'debit = ["debit_account", "2203.01"]\ncredit = ["credit_account", "4001"]',
        "subject 2203.01 cannot be named",
    ),
    "a rule on a subject that is not there": (
        "rules.toml",
        'debit = ["debit_account"]\ncredit = ["credit_account"]',
        'debit = ["debit_account", "9999"]\ncredit = ["credit_account", "4001"]',
        "the chart has no subject '9999'",
    ),
    "lines that are no list": (
        *("rules.toml", 'debit = ["debit_account"]', 'debit = "debit_account"'),
        "debit must be a list of texts",
    ),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.replace(" ", "_"))
def test_reading_wrong_files_names_the_file_the_entry_and_why(tmp_path: Path, case: str) -> None:
    file, before, after, message = WRONG[case]
    folder = _folder(tmp_path, file, before, after)
    with pytest.raises(ChartError) as raised:
        read_chart(folder)
    assert str(raised.value).startswith(f"{folder}: {file}")
    assert message in str(raised.value)


def test_reading_a_folder_without_a_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(ChartError, match=r"kinds\.toml: cannot be read"):
        read_chart(tmp_path)


def test_reading_bytes_that_are_no_text_names_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "chart"
    shutil.copytree(CHART_FOLDER, folder)
    (folder / "subjects.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ChartError, match=r"subjects\.toml: cannot be read"):
        read_chart(folder)


def test_reading_a_rule_with_further_lines_books_them_beside_the_accounts(tmp_path: Path) -> None:
    added = (
        'movement = "payment.receive"\nversion = 2\nsummary = "With a memo"\n'
        'debit = ["debit_account", "6602"]\ncredit = ["credit_account", "2241.07"]\n\n[[rule]]\n'
    )
    head = 'movement = "payment.settle"'
    chart = read_chart(_folder(tmp_path, "rules.toml", head, added + head))
    assert [rule.version for rule in chart.rules if rule.movement == "payment.receive"] == [1, 2]
    assert chart.rules_latest["payment.receive"].subjects("1", "2") == [
        (Side.DEBIT, "1"),
        (Side.DEBIT, "6602"),
        (Side.CREDIT, "2"),
        (Side.CREDIT, "2241.07"),
    ]
