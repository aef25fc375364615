"""The chart of accounts in the database, brought in at the start and compared with what was there.

Several processes may start at once, and an older version beside a newer one: what is new is added,
what only the other one knows stays. What contradicts vouchers that are made stops the process.
"""

from __future__ import annotations

from common.db.pool import Pool
from common.db.types import Connection, Record
from services.account.domain.chart import KINDS_FILE, SUBJECTS_FILE, Chart
from services.account.domain.chart_entries import ChartError
from services.account.domain.rules import FILE as RULES_FILE
from services.account.domain.rules import Rule
from services.account.store.vouchers import VOUCHER_QUERIES


class ChartStore:
    """The tables `subjects`, `subject_kinds`, `accounting_rules` and `accounting_rule_lines`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def put(self, chart: Chart) -> None:
        """Bring the chart of the files in.

        Raises:
            ChartError: the files say something else of a subject, kind or rule than vouchers were
                made by, or lack what is in use.
        """
        async with self._pool.transaction() as connection:
            await connection.execute(VOUCHER_QUERIES["lock_chart"])
            await self._put_subjects(connection, chart)
            await self._put_kinds(connection, chart)
            await self._put_rules(connection, chart)

    async def _put_subjects(self, connection: Connection, chart: Chart) -> None:
        subjects = list(chart.subjects.values())
        columns: list[list[str]] = [
            [one.code for one in subjects],
            [str(one.subject_class) for one in subjects],
            [str(one.normal_side) for one in subjects],
        ]
        rows = await connection.fetch(VOUCHER_QUERIES["list_subject_differences"], *columns)
        for row in rows:
            was = f"{row['class'].lower()}, {row['normal_side'].lower()}"
            problem = (
                "is missing, and vouchers are booked on it"
                if row["is_missing"]
                else f"class and normal_side were ({was}); they never change"
            )
            raise ChartError(f"{SUBJECTS_FILE}: subject {row['code']!r}: {problem}")
        codes, classes, sides = columns
        parents = [one.parent_code for one in subjects]
        names = [one.name for one in subjects]
        await connection.execute(
            VOUCHER_QUERIES["put_subjects"], codes, parents, names, classes, sides
        )

    async def _put_kinds(self, connection: Connection, chart: Chart) -> None:
        kinds = list(chart.kinds.values())
        codes = [kind.code for kind in kinds]
        await self._check_newly_controlled(connection, chart)
        tag = await connection.execute(
            VOUCHER_QUERIES["put_subject_kinds"], codes, [kind.subject_code for kind in kinds]
        )
        rows = await connection.fetch(VOUCHER_QUERIES["list_subject_kinds"])
        kept: dict[str, str] = {row["kind"]: row["subject_code"] for row in rows}
        for kind in kinds:
            if kept[kind.code] != kind.subject_code:
                raise ChartError(
                    f"{KINDS_FILE}: kind {kind.code!r}: its accounts add up to subject"
                    f" {kept[kind.code]}, and never move to another ({kind.subject_code})"
                )
        if len(kept) == len(kinds) and tag == "INSERT 0 0":
            return
        # The whole table of accounts is read only when kinds are new or gone.
        in_use = await connection.fetch(VOUCHER_QUERIES["list_kinds_in_use"], codes)
        if in_use:
            raise ChartError(
                f"{KINDS_FILE}: kind {in_use[0]['kind']!r}: is missing, and accounts are of it"
            )

    async def _check_newly_controlled(self, connection: Connection, chart: Chart) -> None:
        """Refuse a kind whose subject has what no account of the kind will ever explain."""
        rows = await connection.fetch(VOUCHER_QUERIES["list_subject_kinds"])
        controlled = {row["subject_code"] for row in rows}
        new = chart.kinds_by_subject.keys() - controlled
        if not new:
            return
        moved = await connection.fetchval(
            VOUCHER_QUERIES["list_subjects_moved_by_hand"], sorted(new)
        )
        if moved is not None:
            raise ChartError(
                f"{KINDS_FILE}: kind {chart.kinds_by_subject[moved][0]!r}: vouchers by hand stand"
                f" on its subject {moved}, which no account explains: take them back, or give the"
                " kind a subject of its own"
            )
        named = await connection.fetchrow(VOUCHER_QUERIES["list_rules_on_subjects"], sorted(new))
        if named is not None:
            movement, code = named
            raise ChartError(
                f"{KINDS_FILE}: kind {chart.kinds_by_subject[code][0]!r}: the rule {movement!r}"
                f" names its subject {code}, and is in force though no file has it: write a next"
                " version of it first"
            )

    async def _put_rules(self, connection: Connection, chart: Chart) -> None:
        rules = chart.rules
        await connection.execute(
            VOUCHER_QUERIES["put_rules"],
            [rule.movement for rule in rules],
            [rule.version for rule in rules],
            [rule.summary for rule in rules],
            [rule.lines_as_json() for rule in rules],
        )
        kept = {
            (row["movement"], row["version"]): row
            for row in await connection.fetch(VOUCHER_QUERIES["list_rules"])
        }
        for rule in rules:
            _check_rule(rule, kept[rule.movement, rule.version])
        lines = [
            (rule.movement, rule.version, number, line)
            for rule in rules
            for number, line in enumerate(rule.lines, start=1)
        ]
        await connection.execute(
            VOUCHER_QUERIES["put_rule_lines"],
            [movement for movement, _, _, _ in lines],
            [version for _, version, _, _ in lines],
            [number for _, _, number, _ in lines],
            [line.side == "DEBIT" for _, _, _, line in lines],
            ["" if line.subject_of is None else str(line.subject_of) for _, _, _, line in lines],
            [line.subject_code for _, _, _, line in lines],
        )


def _check_rule(rule: Rule, kept: Record) -> None:
    if (kept["summary"], kept["lines"]) != (rule.summary, rule.lines_as_json()):
        raise ChartError(
            f"{RULES_FILE}: rule {rule.movement!r}: version {rule.version} was changed, but a rule"
            f" stays as vouchers were made by it: give it back its text, and write the change as"
            f" version {rule.version + 1}"
        )
