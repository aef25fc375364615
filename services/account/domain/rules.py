"""Accounting rules: movement → lines of a voucher. They stand in `chart/rules.toml`.

Each line is for the whole amount of the transfer. The debited account's line is a debit and the
credited one's a credit, each exactly once: else the general ledger would say other things of the
accounts than they say of themselves. Further lines are on subjects that no account adds up to.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.account.domain.accounts import Side
from services.account.domain.chart_entries import ChartError, Entry, check_keys, read_entries

RULE_DEFAULT: Final = "*"
"""The rule of movements without one of their own."""

FILE: Final = "rules.toml"

_MOVEMENT: Final = re.compile(r"^[a-z]+(\.[a-z_]+)+$")
_MOVEMENT_MAX: Final = 64
_LINES_MAX: Final = 10


class SubjectOf(enum.StrEnum):
    """Which account of the transfer a line takes its subject from."""

    DEBIT_ACCOUNT = "DEBIT_ACCOUNT"
    CREDIT_ACCOUNT = "CREDIT_ACCOUNT"


@dataclass(frozen=True, slots=True)
class RuleLine:
    """One line: on the subject of an account of the transfer, or on one that it names."""

    side: Side
    subject_of: SubjectOf | None
    subject_code: str = ""
    """Empty for the subject of an account."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a movement means in double entry. Never changed; the next version takes its place."""

    movement: str
    version: int
    summary: str
    lines: tuple[RuleLine, ...]
    """Debits first."""

    def subjects(self, debit_subject: str, credit_subject: str) -> list[tuple[Side, str]]:
        """Return side and subject of each line, for accounts of these subjects."""
        of = {
            SubjectOf.DEBIT_ACCOUNT: debit_subject,
            SubjectOf.CREDIT_ACCOUNT: credit_subject,
        }
        return [
            (line.side, line.subject_code if line.subject_of is None else of[line.subject_of])
            for line in self.lines
        ]

    def lines_as_json(self) -> list[dict[str, str]]:
        """Return the lines as they are kept, and compared with what is in the file later."""
        return [
            {
                "side": str(line.side),
                "subject_of": "" if line.subject_of is None else str(line.subject_of),
                "subject_code": line.subject_code,
            }
            for line in self.lines
        ]


def parse_rules(
    content: Mapping[str, Any], *, free: Collection[str], known: Collection[str]
) -> tuple[Rule, ...]:
    """Read the rules of a file.

    Args:
        content: the file, parsed.
        free: subjects that lines may name: no kind of account adds up to them.
        known: all subjects.

    Raises:
        ChartError: a rule is wrong, is there twice, or the default one is missing.
    """
    check_keys(FILE, content, {"rule"})
    rules: dict[tuple[str, int], Rule] = {}
    for entry in read_entries(FILE, content, "rule", "movement"):
        rule = _parse_rule(entry, free, known)
        if (rule.movement, rule.version) in rules:
            raise entry.fault(f"version {rule.version} is there twice")
        rules[rule.movement, rule.version] = rule
    if RULE_DEFAULT not in {rule.movement for rule in rules.values()}:
        raise ChartError(f'{FILE}: has no rule "{RULE_DEFAULT}" for movements without one')
    return tuple(sorted(rules.values(), key=lambda rule: (rule.movement, rule.version)))


def latest_rules(rules: Iterable[Rule]) -> dict[str, Rule]:
    """Return the latest version of each movement's rule."""
    return {
        rule.movement: rule
        for rule in sorted(rules, key=lambda rule: (rule.movement, rule.version))
    }


def _parse_rule(entry: Entry, free: Collection[str], known: Collection[str]) -> Rule:
    movement = entry.text("movement")
    if movement != RULE_DEFAULT and (
        not _MOVEMENT.fullmatch(movement) or len(movement) > _MOVEMENT_MAX
    ):
        raise entry.fault("movement must be a dotted name like payment.receive")
    version, summary = entry.version("version"), entry.text("summary")
    debit, credit = entry.texts("debit"), entry.texts("credit")
    entry.finish()
    if len(debit) != len(credit):
        raise entry.fault(
            f"debits and credits differ: {len(debit)} and {len(credit)} lines of the same amount"
        )
    if len(debit) + len(credit) > _LINES_MAX:
        raise entry.fault(f"has more than {_LINES_MAX} lines")
    lines = (
        *_parse_side(entry, Side.DEBIT, debit, free, known),
        *_parse_side(entry, Side.CREDIT, credit, free, known),
    )
    return Rule(movement, version, summary, lines)


def _parse_side(
    entry: Entry, side: Side, words: Sequence[str], free: Collection[str], known: Collection[str]
) -> list[RuleLine]:
    own = SubjectOf.DEBIT_ACCOUNT if side is Side.DEBIT else SubjectOf.CREDIT_ACCOUNT
    lines: list[RuleLine] = []
    for word in words:
        if word == own.lower():
            lines.append(RuleLine(side, own))
        elif word.upper() in tuple(SubjectOf):
            raise entry.fault(f"{word} cannot be on the {side.lower()} side")
        elif word not in known:
            raise entry.fault(f"the chart has no subject {word!r}")
        elif word not in free:
            raise entry.fault(
                f"subject {word} cannot be named: accounts, or subjects below, add up to it"
            )
        else:
            lines.append(RuleLine(side, None, word))
    if [line.subject_of for line in lines].count(own) != 1:
        raise entry.fault(f"the {side.lower()} side must have {own.lower()} exactly once")
    return lines
