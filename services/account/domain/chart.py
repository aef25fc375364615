"""The chart of accounts: subjects, the kinds of outer accounts that add up to them, the rules.

It is data (`services/account/chart`), validated as a whole before anything is served: every kind
has one subject that is there and grows on its side, and rules name what no account adds up to.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from services.account.domain.accounts import Side
from services.account.domain.chart_entries import ChartError, Entry, check_keys, read_entries
from services.account.domain.kinds import AccountKind, Kinds, Owner
from services.account.domain.rules import Rule, latest_rules, parse_rules

KINDS_FILE: Final = "kinds.toml"
SUBJECTS_FILE: Final = "subjects.toml"

_SUBJECT_CODE: Final = re.compile(r"^[0-9]{4}(\.[0-9]{2}){0,4}$")
_KIND_CODE: Final = re.compile(r"^[a-z]+(_[a-z]+)*$")
_PROFIT: Final = "profit_subject"


class SubjectClass(enum.StrEnum):
    """What a subject is about."""

    ASSET = "ASSET"
    LIABILITY = "LIABILITY"
    EQUITY = "EQUITY"
    INCOME = "INCOME"
    EXPENSE = "EXPENSE"
    COMMON = "COMMON"
    """Positions that belong to several sides."""


PROFIT_AND_LOSS: Final = frozenset({SubjectClass.INCOME, SubjectClass.EXPENSE})
"""Classes whose balances are carried forward to the profit when a period is closed."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One line of the chart."""

    code: str
    name: str
    subject_class: SubjectClass
    normal_side: Side
    parent_code: str = ""
    """Empty at the top."""


@dataclass(frozen=True)
class Chart:
    """Subjects, kinds and rules that fit each other."""

    subjects: Mapping[str, Subject]
    """By code, in the order of codes."""
    kinds: Kinds
    rules: tuple[Rule, ...]
    """All versions that the files have, by movement and version."""
    profit_subject: str
    """Where profit and loss are carried forward to when a period is closed."""

    @cached_property
    def kinds_by_subject(self) -> Mapping[str, tuple[str, ...]]:
        """Kinds of account that add up to each subject that has any."""
        found: dict[str, list[str]] = {}
        for kind in self.kinds.values():
            found.setdefault(kind.subject_code, []).append(kind.code)
        return {code: tuple(sorted(kinds)) for code, kinds in found.items()}

    @cached_property
    def parents(self) -> frozenset[str]:
        """Subjects with others below them, on which nothing is booked."""
        return frozenset(subject.parent_code for subject in self.subjects.values()) - {""}

    @cached_property
    def rules_latest(self) -> Mapping[str, Rule]:
        """The latest version of each movement's rule."""
        return latest_rules(self.rules)


def parse_chart(
    kinds: Mapping[str, Any], subjects: Mapping[str, Any], rules: Mapping[str, Any]
) -> Chart:
    """Build the chart from the parsed files.

    Raises:
        ChartError: a file is wrong, or two do not fit each other.
    """
    known = _parse_subjects(subjects)
    parents = {subject.parent_code for subject in known.values()}
    by_code = _parse_kinds(kinds, known, parents)
    controlled = {kind.subject_code for kind in by_code.values()}
    free = known.keys() - controlled - parents
    profit = subjects.get(_PROFIT)
    if profit not in free or known[profit].subject_class is not SubjectClass.EQUITY:
        raise ChartError(
            f"{SUBJECTS_FILE}: {_PROFIT} must be a subject of the class equity that no kind of"
            f" account and no subject adds up to, not {profit!r}"
        )
    parsed = parse_rules(rules, free=free, known=known.keys())
    return Chart(known, by_code, parsed, profit)


def _parse_subjects(content: Mapping[str, Any]) -> dict[str, Subject]:
    check_keys(SUBJECTS_FILE, content, {"subject", _PROFIT})
    subjects: dict[str, Subject] = {}
    entries: dict[str, Entry] = {}
    for entry in read_entries(SUBJECTS_FILE, content, "subject", "code"):
        subject = Subject(
            entry.text("code"),
            entry.text("name"),
            entry.choice("class", SubjectClass, iter(SubjectClass)),
            entry.choice("normal_side", Side, iter(Side)),
            entry.text("parent", default=""),
        )
        entry.finish()
        if not _SUBJECT_CODE.fullmatch(subject.code):
            raise entry.fault("code must be four digits, then two for each level: 2202.01")
        if subject.code in subjects:
            raise entry.fault("is there twice")
        subjects[subject.code], entries[subject.code] = subject, entry
    for code, subject in subjects.items():
        _check_parent(entries[code], subject, subjects)
    return dict(sorted(subjects.items()))


def _check_parent(entry: Entry, subject: Subject, subjects: Mapping[str, Subject]) -> None:
    above = subject.code.rpartition(".")[0]
    if subject.parent_code != above:
        raise entry.fault(
            f"parent must be {above!r}, as the code says, not {subject.parent_code!r}"
        )
    if not above:
        return
    parent = subjects.get(above)
    if parent is None:
        raise entry.fault(f"parent {above} is no subject")
    if parent.subject_class is not subject.subject_class:
        raise entry.fault(
            f"class {subject.subject_class.lower()} is not that of its parent {above},"
            f" {parent.subject_class.lower()}"
        )


def _parse_kinds(
    content: Mapping[str, Any], subjects: Mapping[str, Subject], parents: Iterable[str]
) -> dict[str, AccountKind]:
    check_keys(KINDS_FILE, content, {"kind"})
    kinds: dict[str, AccountKind] = {}
    for entry in read_entries(KINDS_FILE, content, "kind", "code"):
        kind = AccountKind(
            code=entry.text("code"),
            normal_side=entry.choice("normal_side", Side, iter(Side)),
            owner=entry.choice("owner", Owner, iter(Owner)),
            purpose=entry.text("purpose"),
            may_go_negative=entry.flag("may_go_negative"),
            subject_code=entry.text("subject"),
            is_contra=entry.flag("contra"),
        )
        entry.finish()
        if kind.code in kinds:
            raise entry.fault("is there twice")
        _check_kind(entry, kind, subjects, frozenset(parents))
        kinds[kind.code] = kind
    return kinds


def _check_kind(
    entry: Entry, kind: AccountKind, subjects: Mapping[str, Subject], parents: frozenset[str]
) -> None:
    if not _KIND_CODE.fullmatch(kind.code):
        raise entry.fault("code must be small letters, with _ between words")
    if kind.may_go_negative and kind.owner in (Owner.USER, Owner.MERCHANT):
        raise entry.fault(f"may_go_negative: it is the money of a {kind.owner.lower()}")
    subject = subjects.get(kind.subject_code)
    if subject is None:
        raise entry.fault(f"subject {kind.subject_code} is not in {SUBJECTS_FILE}")
    if kind.subject_code in parents:
        raise entry.fault(f"subject {kind.subject_code} has subjects below it: take one of those")
    if (kind.normal_side is subject.normal_side) == kind.is_contra:
        other = "the same" if kind.is_contra else "another"
        raise entry.fault(
            f"grows on {other} side than its subject {subject.code}"
            f" ({kind.normal_side.lower()}, {subject.normal_side.lower()}); contra says whether"
            " that is meant"
        )
