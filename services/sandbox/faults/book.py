"""The plan in force, its counts and the outages under way, in the parties' own file.

The file is the truth; the plan and the outages are kept in memory, too, so that parties which
behave pay nothing for the possibility that they might not. Functions of the open connection, each
part of a piece of work for `Store.run`, so that a count is on disk exactly when the effect is.
"""

from __future__ import annotations

import sqlite3

from services.sandbox.faults.plan import Asked, FaultKind, FaultPlan, FaultRule

_RULE_COLUMNS = (
    "rule_id, kind, party, merchant_number, verb, amount_minor, rate_ppm, delay_ms, hits_max"
)


class Book:
    """What is in force."""

    def __init__(self) -> None:
        self._plan: FaultPlan | None = None
        self._outages: dict[str, float] | None = None

    def plan(self, db: sqlite3.Connection) -> FaultPlan:
        """Return the plan in force."""
        if self._plan is None:
            self._plan = _read_plan(db)
        return self._plan

    def outages(self, db: sqlite3.Connection) -> dict[str, float]:
        """Return when each party's last outage ends, in Unix seconds."""
        if self._outages is None:
            rows = db.execute("SELECT party, ends_at FROM fault_outages")
            self._outages = {row["party"]: row["ends_at"] for row in rows}
        return self._outages

    def is_out(self, party: str, now: float) -> bool:
        """Say whether a party is out, as far as memory knows; `outages` makes it know."""
        return self._outages is not None and self._outages.get(party, 0.0) > now

    def begin_outage(self, db: sqlite3.Connection, party: str, ends_at: float) -> None:
        """Write that a party is out until then."""
        db.execute(
            "INSERT INTO fault_outages (party, ends_at) VALUES (?, ?)"
            " ON CONFLICT (party) DO UPDATE SET ends_at = excluded.ends_at",
            (party, ends_at),
        )
        self.outages(db)[party] = ends_at

    def put(self, db: sqlite3.Connection, plan: FaultPlan) -> None:
        """Put a plan in place of the one before: counts begin anew, outages are over."""
        for table in ("fault_rules", "fault_requests", "fault_outages"):
            db.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own tables
        db.execute(
            "INSERT INTO fault_plan (plan_number, seed) VALUES (1, ?)"
            " ON CONFLICT (plan_number) DO UPDATE SET seed = excluded.seed",
            (plan.seed,),
        )
        db.executemany(
            f"INSERT INTO fault_rules (position, {_RULE_COLUMNS})"  # noqa: S608 - names of columns
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    position,
                    rule.rule_id,
                    rule.kind.value,
                    rule.party,
                    rule.merchant_number,
                    rule.verb,
                    rule.amount_minor,
                    rule.rate_ppm,
                    rule.delay_ms,
                    rule.hits_max,
                )
                for position, rule in enumerate(plan.rules)
            ],
        )
        self.forget()

    def forget(self) -> None:
        """Drop what memory knows, so that the file is read again."""
        self._plan = None
        self._outages = None


def _read_plan(db: sqlite3.Connection) -> FaultPlan:
    row = db.execute("SELECT seed FROM fault_plan").fetchone()
    if row is None:
        return FaultPlan()
    rules = db.execute(
        f"SELECT {_RULE_COLUMNS} FROM fault_rules ORDER BY position"  # noqa: S608 - names
    )
    return FaultPlan(
        row["seed"],
        tuple(FaultRule(**{**dict(rule), "kind": FaultKind(rule["kind"])}) for rule in rules),
    )


def count_request(db: sqlite3.Connection, asked: Asked) -> int:
    """Count a request; returns how often it was asked before under this plan."""
    (times,) = db.execute(
        "INSERT INTO fault_requests (party, merchant_number, reference, verb, times)"
        " VALUES (?, ?, ?, ?, 1) ON CONFLICT (party, merchant_number, reference, verb)"
        " DO UPDATE SET times = times + 1 RETURNING times",
        (asked.party, asked.merchant_number, asked.reference, asked.verb.value),
    ).fetchone()
    return int(times) - 1


def count_hit(db: sqlite3.Connection, rule_id: str) -> bool:
    """Count a hit of a rule; returns False, and counts none, when the rule has had its hits."""
    cursor = db.execute(
        "UPDATE fault_rules SET hits = hits + 1"
        " WHERE rule_id = ? AND (hits_max = 0 OR hits < hits_max)",
        (rule_id,),
    )
    return cursor.rowcount == 1


def read_hits(db: sqlite3.Connection) -> list[int]:
    """Return how often each rule has hit, in the order of the rules."""
    return [row["hits"] for row in db.execute("SELECT hits FROM fault_rules ORDER BY position")]
