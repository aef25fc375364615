"""The ledger told again, as plainly as possible, to compare the real one with.

Shares no code with the service: dictionaries, and a deep copy before each chain.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

Answer = tuple[str, int]
"""`BOOKED` or a reason; and what was booked."""


@dataclass
class PlainAccount:
    """Sums and limit of one account; `limit` None has none."""

    grows_by_debit: bool
    limit: int | None = 0
    debits: int = 0
    credits: int = 0
    held_debits: int = 0
    held_credits: int = 0


class Refused(Exception):  # noqa: N818 - not an error of the model
    """A transfer that cannot be booked."""


@dataclass
class PlainLedger:
    """Everything there is."""

    accounts: dict[str, PlainAccount] = field(default_factory=dict)
    answers: dict[str, tuple[tuple[Any, ...], Answer]] = field(default_factory=dict)
    holds: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    voided_early: set[str] = field(default_factory=set)

    def post(self, chains: list[list[dict[str, Any]]]) -> list[Answer]:
        """Book a batch; the answers of all its transfers, in order."""
        return [answer for chain in chains for answer in self._chain(chain)]

    def _chain(self, chain: list[dict[str, Any]]) -> list[Answer]:
        ids = [one["id"] for one in chain]
        if len(set(ids)) < len(ids):
            first = next(i for i, one in enumerate(ids) if one in ids[:i])
            return [
                ("FIELD_INVALID" if i == first else "LINKED_TRANSFER_FAILED", 0)
                for i in range(len(ids))
            ]
        kept = [
            one["id"] in self.answers
            or (one["id"] in self.voided_early and one["kind"] != "PENDING")
            for one in chain
        ]
        if any(kept):
            return [
                self._repeat(one) if is_kept else self._linked_failed(one)
                for one, is_kept in zip(chain, kept, strict=True)
            ]
        before = copy.deepcopy(self.__dict__)
        answers: list[Answer] = []
        for one in chain:
            try:
                if one["id"] in self.voided_early and one["kind"] != "PENDING":
                    raise Refused("ID_CONFLICT")
                answers.append(("BOOKED", self._book(one)))
                self.answers[one["id"]] = (_content(one), answers[-1])
            except Refused as refused:
                self.__dict__.update(before)
                answers = [
                    (str(refused), 0) if other is one else self._linked_failed(other)
                    for other in chain
                ]
                if str(refused) == "ID_CONFLICT":
                    return answers
                break
        for one, answer in zip(chain, answers, strict=True):
            if one["id"] not in self.voided_early:
                self.answers[one["id"]] = (_content(one), answer)
        return answers

    def _linked_failed(self, one: dict[str, Any]) -> Answer:
        is_voided = one["id"] in self.voided_early
        return ("PENDING_ALREADY_VOIDED" if is_voided else "LINKED_TRANSFER_FAILED", 0)

    def _repeat(self, one: dict[str, Any]) -> Answer:
        if one["id"] not in self.answers:
            return ("ID_CONFLICT", 0)  # voided before it came, and now it is something else
        content, answer = self.answers[one["id"]]
        return answer if content == _content(one) else ("ID_CONFLICT", 0)

    def _book(self, one: dict[str, Any]) -> int:
        kind, amount = one["kind"], one["amount"]
        if kind == "PENDING" and one["id"] in self.voided_early:
            raise Refused("PENDING_ALREADY_VOIDED")
        if kind in ("SINGLE", "PENDING"):
            debit, credit = self.accounts[one["debit"]], self.accounts[one["credit"]]
            if not debit.grows_by_debit and debit.limit is not None:
                left = debit.credits - debit.debits - debit.held_debits + debit.limit
                if left < amount:
                    raise Refused("INSUFFICIENT_FUNDS")
            if credit.grows_by_debit and credit.limit is not None:
                left = credit.debits - credit.credits - credit.held_credits + credit.limit
                if left < amount:
                    raise Refused("INSUFFICIENT_FUNDS")
            if kind == "SINGLE":
                debit.debits += amount
                credit.credits += amount
            else:
                debit.held_debits += amount
                credit.held_credits += amount
                self.holds[one["id"]] = {**one, "left": amount}
            return int(amount)
        return self._later(one, kind, amount)

    def _later(self, one: dict[str, Any], kind: str, amount: int) -> int:
        pending = one["pending"]
        hold = self.holds.get(pending)
        if hold is None:
            return self._later_without_hold(one, kind, pending)
        debit, credit = self.accounts[hold["debit"]], self.accounts[hold["credit"]]
        left = hold["left"]
        moved = 0 if kind == "VOID" else amount or left
        if moved > left:
            raise Refused("POST_EXCEEDS_PENDING")
        returned = moved if one["keep_rest"] and moved < left else left
        debit.held_debits -= returned
        credit.held_credits -= returned
        debit.debits += moved
        credit.credits += moved
        hold["left"] -= returned
        if not hold["left"]:
            del self.holds[pending]
            self.ended[pending] = "VOIDED" if kind == "VOID" else "POSTED"
        return int(left if kind == "VOID" else moved)

    def _later_without_hold(self, one: dict[str, Any], kind: str, pending: str) -> int:
        if pending in self.ended:
            raise Refused(f"PENDING_ALREADY_{self.ended[pending]}")
        if pending in self.answers and self.answers[pending][0][1] != "PENDING":
            raise Refused("TRANSFER_NOT_PENDING")
        if pending in self.voided_early:
            raise Refused("PENDING_ALREADY_VOIDED")
        if kind == "POST":
            raise Refused("PENDING_NOT_FOUND")
        if pending not in self.answers:
            self.voided_early.add(pending)
        return 0


def _content(one: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(
        one[name]
        for name in ("id", "kind", "debit", "credit", "amount", "pending", "keep_rest", "linked")
    )
