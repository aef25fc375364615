"""What must hold: at every instant, and once everything has ended (docs/money-flows.md).

Rows are read as they are committed, over all services at one instant, which no service can do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from services.cli.audit import expected_of_payment, expected_of_refund
from tests.simulation.stores import Row, plain

if TYPE_CHECKING:
    from tests.simulation.world import World

_READS: Final = ("find_", "list_", "read_", "sum_", "count_", "take_due_")
"""Beginnings of transactions that change nothing."""

ORDER_ENDED: Final = ("COMPLETED", "CLOSED")
PAYMENT_ENDED: Final = ("SUCCEEDED", "FAILED", "CLOSED", "RETURNED", "UNCLAIMED")
REFUND_ENDED: Final = ("SUCCEEDED", "COMPLETED", "FAILED")

_ENDS: Final = (
    ("trade", "orders", ORDER_ENDED),
    ("payment", "payments", PAYMENT_ENDED),
    ("payment", "refunds", REFUND_ENDED),
    ("trade", "refunds", REFUND_ENDED),
    ("payment", "exceptions", ("RESOLVED",)),
)


class InvariantError(AssertionError):
    """Something does not hold; the message says what."""


class Watch:
    """Looks at the rows of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._winners: dict[str, str] = {}
        self._checks = {
            "account": self._ledger_now,
            "trade": self._trade_now,
            "payment": self._payment_now,
            "channel": self._channel_now,
        }

    def _rows(self, service: str, table: str) -> Iterable[Row]:
        return self._world.stores.rows(service, table)

    # After each transaction.

    def committed(self, statement: str) -> None:
        """Check what a transaction may have broken; raises InvariantError."""
        service, _, name = statement.partition(".")
        if not name.startswith(_READS):
            self._checks[service]()

    def _ledger_now(self) -> None:
        held: Counter[tuple[str, str]] = Counter()
        for hold in self._rows("account", "holds"):
            held["debit", hold["debit_account_id"]] += hold["held_minor"]
            held["credit", hold["credit_account_id"]] += hold["held_minor"]
        sums: defaultdict[str, int] = defaultdict(int)
        for one in self._rows("account", "accounts"):
            debited, credited = one["debits_posted_minor"], one["credits_posted_minor"]
            sums[one["currency_code"]] += debited - credited
            pending = one["debits_pending_minor"], one["credits_pending_minor"]
            _same(f"holds on {_name(one)}", pending, _held(held, one["id"]))
            if not one["may_go_negative"]:
                owed = credited - debited - pending[0]
                available = owed if one["normal_side"] == "CREDIT" else -owed - sum(pending)
                if available + one["credit_limit_minor"] < 0:
                    raise InvariantError(f"{_name(one)} has {available} available")
        for currency, difference in sums.items():
            _same(f"debits − credits in {currency}", difference, 0)

    def _trade_now(self) -> None:
        for order in self._rows("trade", "orders"):
            winner = self._winners.setdefault(order["id"], order["payment_id"])
            if winner and winner != order["payment_id"]:
                raise InvariantError(
                    f"order {order['id']} was won by {winner}, then {order['payment_id']}"
                )
            self._winners[order["id"]] = order["payment_id"]
            _cap(f"order {order['id']}", order)

    def _payment_now(self) -> None:
        winners: Counter[str] = Counter()
        for payment in self._rows("payment", "payments"):
            winners[payment["order_id"]] += payment["state"] == "SUCCEEDED"
            _cap(f"payment {payment['id']}", payment)
        for order_id, count in winners.items():
            if count > 1:
                raise InvariantError(f"{count} payments succeeded for order {order_id}")

    def _channel_now(self) -> None:
        given: Counter[str] = Counter()
        against_their_word = {
            reference
            for bank in self._world.banks.values()
            for reference, giving in bank.givings.items()
            if giving.was_refused
        }
        for refund in self._rows("channel", "channel_refunds"):
            # What a bank does against its own word is its own doing.
            if refund["reference"] in against_their_word:
                continue
            if refund["state"] not in ("FAILED", "NOT_SENT"):
                given[refund["charge_reference"]] += refund["amount_minor"]
        for charge in self._rows("channel", "charges"):
            if given[charge["reference"]] > (charge["received_minor"] or 0):
                raise InvariantError(f"more goes back on charge {charge['reference']} than came")

    # How all has ended, and whether.

    def ends(self) -> dict[str, int]:
        """Return how many orders, payments … are in which state."""
        counted: Counter[str] = Counter()
        for service, table, _ in _ENDS:
            for row in self._rows(service, table):
                kind = row["kind"] if table == "exceptions" else f"{service} {table}"
                counted[f"{kind} {row['state']}"] += 1
        return dict(counted)

    def under_way(self) -> str | None:
        """Return what has not ended yet, in words; None when everything has."""
        for service, table, ended in _ENDS:
            for row in self._rows(service, table):
                if row["state"] not in ended:
                    return f"{table[:-1]} {row['id']} of {service} is {row['state']}"
        for service in self._checks:
            if any(row["published_at"] is None for row in self._rows(service, "outbox")):
                return f"events of {service} wait"
            if list(self._rows(service, "inbox_parked")):
                return f"events for {service} are parked"
        for job in self._rows("payment", "jobs"):
            if job["state"] == "OPEN":
                return f"a job {job['kind']} of {job['key']} is open"
        if self._world.broker.waiting:
            return f"{self._world.broker.waiting} messages wait"
        for bank in self._world.banks.values():
            if bank.callbacks:
                return f"{bank.callbacks} callbacks of {bank.channel} wait"
        return None

    # At the end.

    def at_the_end(self) -> None:
        """Check everything; raises InvariantError."""
        for check in self._checks.values():
            check()
        self._entries()
        self._banks()
        self._ways_are_empty()
        self._postings()
        self._orders()
        self._nothing_is_dead()

    def _entries(self) -> None:
        """Every account is the sum of its entries, and every movement has two of them."""
        sums: Counter[tuple[str, bool]] = Counter()
        by_transfer: defaultdict[str, list[int]] = defaultdict(list)
        for entry in self._rows("account", "entries"):
            sums[entry["account_id"], entry["is_debit"]] += entry["amount_minor"]
            sign = 1 if entry["is_debit"] else -1
            by_transfer[entry["transfer_id"]].append(sign * entry["amount_minor"])
        for one in self._rows("account", "accounts"):
            posted = one["debits_posted_minor"], one["credits_posted_minor"]
            entries = sums[one["id"], True], sums[one["id"], False]
            _same(f"{_name(one)}, posted and entries", posted, entries)
        for transfer_id, amounts in by_transfer.items():
            if len(amounts) != 2 or sum(amounts) != 0:
                raise InvariantError(f"transfer {transfer_id} has the entries {amounts}")

    def _balances(self, kind: str) -> dict[tuple[str, str], int]:
        """Return debits − credits of accounts by (owner, currency)."""
        return {
            (one["owner_id"], one["currency_code"]): one["debits_posted_minor"]
            - one["credits_posted_minor"]
            for one in self._rows("account", "accounts")
            if one["kind"] == kind
        }

    def _banks(self) -> None:
        """What banks really did is what we say they owe us."""
        owed = self._balances("channel_receivable")
        for bank in self._world.banks.values():
            really: Counter[str] = Counter()
            for taking in bank.takings.values():
                really[taking.money.currency_code] += taking.taken_minor
            for giving in bank.givings.values():
                if giving.state == "SUCCEEDED":
                    money = giving.money
                    really[money.currency_code] -= money.amount_minor * giving.times
            for currency in ("USD", "CNY"):
                ours = owed.get((bank.channel, currency), 0)
                _same(f"{bank.channel} in {currency}: ours and the bank's", ours, really[currency])

    def _ways_are_empty(self) -> None:
        """Nothing is in transit, held or in suspense when nothing is under way."""
        for kind in ("payment_transit", "refund_transit", "suspense"):
            for (owner, currency), balance in self._balances(kind).items():
                _same(f"{kind} of {owner} in {currency}", balance, 0)
        if holds := list(self._rows("account", "holds")):
            raise InvariantError(f"{len(holds)} holds are open, of {holds[0]['id']} first")

    def _postings(self) -> None:
        """Every payment and refund has exactly the postings of docs/money-flows.md."""
        booked: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for transfer in self._rows("account", "transfers"):
            if transfer["status"] == "BOOKED":
                booked[transfer["reference_id"]][transfer["movement"]] += transfer["booked_minor"]
        payments = {row["id"]: _values(row) for row in self._rows("payment", "payments")}
        for key, payment in payments.items():
            wanted = expected_of_payment(payment)
            _same(f"postings of {payment['state']} payment {key}", _some(booked[key]), wanted)
        for row in self._rows("payment", "refunds"):
            refund = _values(row)
            wanted = expected_of_refund(refund, payments[refund["payment_id"]])
            what = f"postings of {refund['state']} refund {refund['id']}"
            _same(what, _some(booked[refund["id"]]), wanted)

    def _orders(self) -> None:
        """Orders, payments and refunds tell the same story."""
        winners = {
            row["order_id"]: row["id"]
            for row in self._rows("payment", "payments")
            if row["state"] == "SUCCEEDED"
        }
        for order in self._rows("trade", "orders"):
            won = order["payment_id"] if order["state"] == "COMPLETED" else ""
            _same(
                f"the winner of {order['state']} order {order['id']}",
                won,
                winners.get(order["id"], ""),
            )
        given: Counter[str] = Counter()
        theirs = {row["id"]: row for row in self._rows("payment", "refunds")}
        for refund in self._rows("trade", "refunds"):
            done = refund["state"] == "COMPLETED"
            other = theirs.get(refund["id"])
            is_paid = other is not None and other["state"] == "SUCCEEDED"
            _same(f"refund {refund['id']} at trade and payment", done, is_paid)
            given[refund["order_id"]] += refund["amount_minor"] if done else 0
        for order in self._rows("trade", "orders"):
            _same(f"refunded on order {order['id']}", order["refunded_minor"], given[order["id"]])

    def _nothing_is_dead(self) -> None:
        for service in self._checks:
            for dead in self._rows(service, "inbox_dead"):
                raise InvariantError(f"an event for {service} is dead: {dead['last_error']}")
            for job in self._rows(service, "jobs"):
                if job["state"] == "PARKED":
                    raise InvariantError(f"a job of {service} is parked: {job['last_error']}")


def _same(what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise InvariantError(f"{what}: {found} is not {wanted}")


def _cap(what: str, row: Row) -> None:
    promised = row["refunded_minor"] + row["refunding_minor"]
    if promised > row["amount_minor"]:
        raise InvariantError(f"{what} gives back {promised} of {row['amount_minor']}")


def _held(held: Counter[tuple[str, str]], account_id: str) -> tuple[int, int]:
    return held["debit", account_id], held["credit", account_id]


def _name(account: Row) -> str:
    return f"{account['kind']} of {account['owner_id']}"


def _some(lines: Counter[str]) -> dict[str, int]:
    return {movement: amount for movement, amount in lines.items() if amount}


def _values(row: Row) -> Mapping[str, str]:
    """Return a row as a fact tells it: every column as text."""
    return {name: str(plain(value)) for name, value in row.items()}
