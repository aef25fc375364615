"""The ledger told again, as plainly as possible, to compare the real one with.

Shares no code with the service: dictionaries, and a deep copy before each chain.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

Answer = tuple[str, str, int, bool, str, bool]
"""`BOOKED` or a reason; what the refusal names (culprit, field or account); what was booked;
whether it is an earlier answer; the account credited in place of another; whether it waits in a
buffer."""

UNCLAIMED = "U"
_SHUT = {"CREDIT_FROZEN": "ACCOUNT_CREDIT_FROZEN", "CLOSED": "ACCOUNT_CLOSED"}
_ENDED = {
    "POSTED": "PENDING_ALREADY_POSTED",
    "VOIDED": "PENDING_ALREADY_VOIDED",
    "EXPIRED": "HOLD_EXPIRED",
}
# In the order in which differences are told.
_CONTENT = (
    "kind",
    "pending",
    "debit",
    "credit",
    "amount",
    "keep_rest",
    "timeout",
    "linked",
    "forced",
    "balancing_debit",
    "balancing_credit",
    "movement",
)
_NAMES = {
    "pending": "pending_id",
    "debit": "debit_account_id",
    "credit": "credit_account_id",
    "amount": "amount_minor",
    "timeout": "timeout_seconds",
}


@dataclass
class PlainAccount:
    """Sums and limit of one account; `limit` None has none."""

    grows_by_debit: bool
    limit: int | None = 0
    status: str = "NORMAL"
    court: int = 0
    is_buffered: bool = False
    debits: int = 0
    credits: int = 0
    held_debits: int = 0
    held_credits: int = 0
    waiting: list[int] = field(default_factory=list)
    version: int = 1
    lines: list[tuple[int, int, int]] = field(default_factory=list)
    """Version, change and balance on the side on which it grows."""

    @property
    def balance(self) -> int:
        """What was posted, on the side on which it grows."""
        return self.debits - self.credits if self.grows_by_debit else self.credits - self.debits

    @property
    def left(self) -> int:
        """What is there and held back by nothing."""
        held = self.held_credits if self.grows_by_debit else self.held_debits
        return self.balance - held - self.court

    def lacks(self, amount: int) -> bool:
        """Whether so much may not go out."""
        return self.limit is not None and self.left + self.limit < amount

    @property
    def is_empty(self) -> bool:
        """Whether it may be closed."""
        return not (self.balance or self.held_debits or self.held_credits or sum(self.waiting))

    def move(self, debit: int, credit: int) -> None:
        """Post, and write the line."""
        self.debits += debit
        self.credits += credit
        self.version += 1
        change = debit - credit if self.grows_by_debit else credit - debit
        self.lines.append((self.version, change, self.balance))

    def hold(self, debit: int, credit: int) -> None:
        """Hold, or less than nothing to give back."""
        self.held_debits += debit
        self.held_credits += credit
        self.version += 1

    def change(self) -> None:
        """Its status or limits are changed: what waits is posted first."""
        self.drain()
        self.version += 1

    def drain(self) -> None:
        """Post what waits."""
        waiting, self.waiting = self.waiting, []
        for amount in waiting:
            self.move(0, amount)


class Refused(Exception):  # noqa: N818 - not an error of the model
    """A transfer that cannot be booked."""

    def __init__(self, reason: str, detail: str = "", *, burned: bool = True) -> None:
        self.reason = reason
        self.detail = detail
        self.burned = burned


@dataclass
class PlainLedger:
    """Everything there is."""

    accounts: dict[str, PlainAccount] = field(default_factory=dict)
    answers: dict[str, tuple[dict[str, Any], Answer]] = field(default_factory=dict)
    holds: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    voided_early: set[str] = field(default_factory=set)

    def post(self, chains: list[list[dict[str, Any]]]) -> list[Answer]:
        """Book a batch; the answers of all its transfers, in order."""
        return [answer for chain in chains for answer in self._chain(chain)]

    def let_time_pass(self) -> None:
        """Every hold that has a time is over."""
        for hold in self.holds.values():
            hold["is_over"] = hold["timeout"] > 0

    def expire(self) -> None:
        """Give back what is over."""
        for pending in [p for p, hold in self.holds.items() if hold["is_over"]]:
            self._give_back(pending)

    def _give_back(self, pending: str) -> None:
        hold = self.holds.pop(pending)
        self.accounts[hold["debit"]].hold(-hold["left"], 0)
        self.accounts[hold["credit"]].hold(0, -hold["left"])
        self.ended[pending] = "EXPIRED"

    # Chains.

    def _chain(self, chain: list[dict[str, Any]]) -> list[Answer]:
        ids = [one["id"] for one in chain]
        if len(set(ids)) < len(ids):
            twice = next(i for i, one in enumerate(ids) if one in ids[:i])
            return [
                _refusal("FIELD_INVALID", "id") if i == twice else _linked(ids[twice])
                for i in range(len(ids))
            ]
        if any(self._is_kept(one) for one in chain):
            return self._kept_chain(chain)
        before = copy.deepcopy(self.__dict__)
        answers: list[Answer] = []
        for one in chain:
            try:
                if self._is_tombstone(one["id"]) and one["kind"] != "PENDING":
                    raise Refused("ID_CONFLICT", "kind", burned=False)
                answers.append(self._book(one))
                self.answers[one["id"]] = (one, answers[-1])
            except Refused as refused:
                self.__dict__.update(before)
                answers = self._failed_chain(chain, one, refused)
                if refused.reason == "HOLD_EXPIRED" and self._is_over(one["pending"]):
                    self._give_back(one["pending"])
                break
        return answers

    def _failed_chain(
        self, chain: list[dict[str, Any]], culprit: dict[str, Any], refused: Refused
    ) -> list[Answer]:
        answers = []
        for one in chain:
            if self._is_tombstone(one["id"]) and (refused.burned or one["kind"] == "PENDING"):
                answers.append(_refusal("PENDING_ALREADY_VOIDED"))
                continue
            answer = _linked(culprit["id"])
            if one is culprit:
                answer = _refusal(refused.reason, refused.detail)
            answers.append(answer)
            if refused.burned:
                self.answers[one["id"]] = (one, answer)
        return answers

    def _is_tombstone(self, transfer_id: str) -> bool:
        return transfer_id in self.voided_early

    def _is_over(self, pending: str) -> bool:
        return pending in self.holds and bool(self.holds[pending]["is_over"])

    def _is_kept(self, one: dict[str, Any]) -> bool:
        return one["id"] in self.answers or (
            self._is_tombstone(one["id"]) and one["kind"] != "PENDING"
        )

    def _kept_chain(self, chain: list[dict[str, Any]]) -> list[Answer]:
        answers = {one["id"]: self._repeat(one) for one in chain}
        wrong = [i for i, a in answers.items() if a is not None and a[0] == "ID_CONFLICT"]
        culprit = wrong[0] if wrong else next(i for i, a in answers.items() if a is not None)
        return [answers[one["id"]] or _linked(culprit) for one in chain]

    def _repeat(self, one: dict[str, Any]) -> Answer | None:
        if self._is_tombstone(one["id"]):
            if one["kind"] == "PENDING":
                return _refusal("PENDING_ALREADY_VOIDED")
            return _refusal("ID_CONFLICT", "kind")
        if one["id"] not in self.answers:
            return None
        content, answer = self.answers[one["id"]]
        for name in _CONTENT:
            if content[name] != one[name]:
                return _refusal("ID_CONFLICT", _NAMES.get(name, name))
        return (*answer[:3], True, *answer[4:])

    # Booking.

    def _book(self, one: dict[str, Any]) -> Answer:
        if one["kind"] not in ("SINGLE", "PENDING"):
            return self._later(one)
        if self._is_tombstone(one["id"]):
            raise Refused("PENDING_ALREADY_VOIDED")
        for side in ("debit", "credit"):
            if one[side] not in self.accounts:
                raise Refused("ACCOUNT_NOT_FOUND", one[side])
        debit, credit = self.accounts[one["debit"]], self.accounts[one["credit"]]
        if debit.status == "DEBIT_FROZEN":
            raise Refused("ACCOUNT_DEBIT_FROZEN", one["debit"])
        if debit.status == "CLOSED":
            raise Refused("ACCOUNT_CLOSED", one["debit"])
        if one["kind"] == "PENDING":
            if credit.status == "CLOSED":
                raise Refused("ACCOUNT_CLOSED", one["credit"])
            amount = self._amount(one, debit, credit)
            self._check_limits(one, amount, one["credit"])
            debit.hold(amount, 0)
            credit.hold(0, amount)
            self.holds[one["id"]] = {**one, "left": amount, "is_over": False}
            return _booked(amount)
        amount = self._amount(one, debit, credit)
        is_refund = one["movement"].startswith("refund.")
        if credit.status == "CLOSED" and not is_refund:
            raise Refused("ACCOUNT_CLOSED", one["credit"])
        target = self._target(one["debit"], one["credit"])
        self._check_limits(one, amount, target)
        debit.move(amount, 0)
        if self.accounts[target].is_buffered:
            self.accounts[target].waiting.append(amount)
        else:
            self.accounts[target].move(0, amount)
        redirected = "" if target == one["credit"] else target
        return _booked(amount, redirected, is_buffered=self.accounts[target].is_buffered)

    def _amount(self, one: dict[str, Any], debit: PlainAccount, credit: PlainAccount) -> int:
        amount = int(one["amount"])
        if one["balancing_debit"]:
            if debit.limit is not None and not debit.grows_by_debit:
                amount = min(amount, debit.left + debit.limit)
            if amount < 1:
                raise Refused("INSUFFICIENT_FUNDS", one["debit"])
        if one["balancing_credit"]:
            if not credit.grows_by_debit:
                raise Refused("FIELD_INVALID", "balancing_credit", burned=False)
            amount = min(amount, credit.left)
            if amount < 1:
                raise Refused("INSUFFICIENT_FUNDS", one["credit"])
        return amount

    def _check_limits(self, one: dict[str, Any], amount: int, target: str) -> None:
        if one["forced"]:
            return
        debit, credit = self.accounts[one["debit"]], self.accounts[target]
        if not debit.grows_by_debit and debit.lacks(amount):
            raise Refused("INSUFFICIENT_FUNDS", one["debit"])
        if credit.grows_by_debit and credit.lacks(amount):
            raise Refused("INSUFFICIENT_FUNDS", target)

    def _target(self, debit: str, credit: str) -> str:
        reason = _SHUT.get(self.accounts[credit].status)
        if reason is None:
            return credit
        is_open = self.accounts[UNCLAIMED].status == "NORMAL"
        if not is_open or debit == UNCLAIMED or credit == UNCLAIMED:
            raise Refused(reason, credit)
        return UNCLAIMED

    def _later(self, one: dict[str, Any]) -> Answer:
        pending = one["pending"]
        hold = self.holds.get(pending)
        if hold is None:
            return self._later_without_hold(one)
        if hold["is_over"]:
            raise Refused("HOLD_EXPIRED")
        left = hold["left"]
        moved = 0 if one["kind"] == "VOID" else one["amount"] or left
        if moved > left:
            raise Refused("POST_EXCEEDS_PENDING")
        redirected = ""
        if moved:
            self._check_court(hold, moved)
            target = self._target(hold["debit"], hold["credit"])
            redirected = "" if target == hold["credit"] else target
        returned = moved if one["keep_rest"] and moved < left else left
        self._end(one, hold, moved, returned, redirected or hold["credit"])
        hold["left"] -= returned
        if not hold["left"]:
            del self.holds[pending]
            self.ended[pending] = "VOIDED" if one["kind"] == "VOID" else "POSTED"
        return _booked(moved or left, redirected)

    def _check_court(self, hold: dict[str, Any], moved: int) -> None:
        for name, grows in ((hold["debit"], False), (hold["credit"], True)):
            account = self.accounts[name]
            is_out = account.court and account.grows_by_debit == grows
            if is_out and account.balance - moved < account.court:
                raise Refused("ACCOUNT_DEBIT_FROZEN", name)

    def _end(
        self, one: dict[str, Any], hold: dict[str, Any], moved: int, returned: int, target: str
    ) -> None:
        """Give back and post. Both are one change of an account, so they are one version."""
        debit, credit = self.accounts[hold["debit"]], self.accounts[hold["credit"]]
        if not moved:
            debit.hold(-returned, 0)
            credit.hold(0, -returned)
            return
        debit.held_debits -= returned
        credit.held_credits -= returned
        debit.move(moved, 0)
        self.accounts[target].move(0, moved)
        if target != hold["credit"]:
            credit.version += 1

    def _later_without_hold(self, one: dict[str, Any]) -> Answer:
        pending = one["pending"]
        if pending in self.ended:
            raise Refused(_ENDED[self.ended[pending]])
        if pending in self.answers and self.answers[pending][0]["kind"] != "PENDING":
            raise Refused("TRANSFER_NOT_PENDING")
        if self._is_tombstone(pending):
            raise Refused("PENDING_ALREADY_VOIDED")
        if one["kind"] == "POST":
            raise Refused("PENDING_NOT_FOUND")
        if pending not in self.answers:
            self.voided_early.add(pending)
        return _booked(0)


def _booked(amount: int, redirected: str = "", *, is_buffered: bool = False) -> Answer:
    return ("BOOKED", "", amount, False, redirected, is_buffered)


def _refusal(reason: str, detail: str = "") -> Answer:
    return (reason, detail, 0, False, "", False)


def _linked(culprit_id: str) -> Answer:
    return _refusal("LINKED_TRANSFER_FAILED", culprit_id)
