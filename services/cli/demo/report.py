"""What the demo shows at its end, and what must be true for it to pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from paymesh.account import account_id_for
from paymesh.account.v1 import (
    AccountServiceStub,
    GetAccountsRequest,
    SumAccountsRequest,
    SumAccountsResponse,
)
from paymesh.sandbox.v1 import MOVEMENT_KIND_PAYMENT
from paymesh.type.v1 import Fact
from rich.console import Console
from rich.table import Table

from common.money import Money, format_decimal
from services.cli.audit import Findings
from services.cli.demo.closing import ClosedBooks
from services.cli.demo.owed import webhooks_owed
from services.cli.demo.purchases import CURRENCY
from services.cli.demo.tally import Tally
from services.cli.demo.webhooks import Heard
from services.cli.facts import list_facts, list_movements, list_unfinished
from services.cli.operator import Operator


@dataclass(frozen=True)
class Trouble:
    """What was done to the platform during the run; all zero in a quiet one."""

    faults_injected: Mapping[str, int]
    """Kind of fault → how often an outside party misbehaved so."""
    kills: Mapping[str, int]
    """Service or server → how often it was killed."""
    pauses: Mapping[str, int]
    """Service or server → how often it was stopped for some seconds."""
    restarts: Mapping[str, int]
    """Service, or `services` for all in turn → how often it was restarted in good order."""
    decided_by_hand: int = 0
    """Exceptions that two people decided."""


@dataclass
class Report:
    """The demo's result; `figures` is what `build/demo-report.json` holds."""

    figures: dict[str, Any]
    balance: SumAccountsResponse
    unfinished: Mapping[str, list[Fact]]
    problems: list[str] = field(default_factory=list)
    """Why the demo fails; empty when it passes."""
    by_product: Counter[str] = field(default_factory=Counter)


async def make_report(
    operator: Operator,
    tally: Tally,
    merchant_id: str,
    heard: Set[Heard],
    gross_minor: int,
    payments_per_second: float,
    findings: Findings,
    trouble: Trouble,
    books: ClosedBooks,
) -> Report:
    """Ask the services for what they know, and compare it with what the shop knows."""
    orders = await list_facts(operator, "trade", "order")
    payments = await list_facts(operator, "payment", "payment")
    refunds = await list_facts(operator, "payment", "refund")
    purchases = [f.values for f in orders if f.values["type"] == "purchase"]
    won = [
        f.values
        for f in payments
        if f.values["state"] == "SUCCEEDED" and f.values["order_type"] == "purchase"
    ]
    given = [f.values for f in refunds if f.values["state"] == "SUCCEEDED"]
    stub = operator.stub(AccountServiceStub, "account")
    balance = await stub.SumAccounts(SumAccountsRequest())
    unfinished = await list_unfinished(operator)
    owed = webhooks_owed(
        orders,
        await list_facts(operator, "trade", "refund"),
        payments,
        await list_facts(operator, "notify", "delivery"),
    )
    exceptions = await list_facts(operator, "payment", "exception")
    figures: dict[str, Any] = {
        "orders": len(purchases),
        "orders_by_state": dict(Counter(values["state"] for values in purchases)),
        "gross_minor": _sum_of(purchases, "amount_minor"),
        "paid_minor": _sum_of(won, "amount_minor"),
        "refunded_minor": _sum_of(given, "amount_minor"),
        "fees_minor": _sum_of(won, "fee_minor") - _sum_of(given, "fee_returned_minor"),
        "merchant_balance_minor": await _merchant_balance(operator, merchant_id),
        "recharges": tally.recharges,
        "recharged_minor": tally.recharged_minor,
        "declined": tally.declined,
        "refunds": len(given),
        "trial_balance_difference_minor": sum(map(abs, balance.difference_minor.values())),
        "days_closed": books.days_closed,
        "vouchers": books.vouchers,
        "proof_holds": books.is_proved and findings.proof_holds,
        "unfinished": sum(map(len, unfinished.values())),
        "webhooks_expected": len(owed),
        "webhooks_received_unique": len(owed & heard),
        "payments_per_second": round(payments_per_second, 1),
        "sandbox_difference_minor": await _sandbox_difference(operator, balance),
        **_trouble_figures(tally, trouble),
        "exceptions_by_kind": dict(Counter(f.values["kind"] for f in exceptions)),
        "exceptions_resolved": sum(f.values["state"] == "RESOLVED" for f in exceptions),
        "exceptions_decided_by_hand": trouble.decided_by_hand,
        "recovered_unknown": len(await list_facts(operator, "payment", "recovered")),
    }
    by_product = Counter(values["product"] for values in won)
    report = Report(figures, balance, unfinished, by_product=by_product)
    report.problems = _problems(figures, tally, gross_minor, findings, unfinished)
    report.problems += [f"{day}: the day is not closed" for day in books.unclosed]
    report.problems += [
        f"webhook {kind} of {noun_id} never came"
        for kind, noun_id in sorted((owed | tally.expected) - heard)
    ]
    return report


def _sum_of(facts: Iterable[Mapping[str, str]], name: str) -> int:
    return sum(int(values[name]) for values in facts)


def _trouble_figures(tally: Tally, trouble: Trouble) -> dict[str, Any]:
    """Return what was done to the platform, and what the shop did again because of it."""
    return {
        "faults_injected": dict(trouble.faults_injected),
        "kills": dict(trouble.kills),
        "pauses": dict(trouble.pauses),
        "restarts": dict(trouble.restarts),
        "paid_again": tally.paid_again,
        "paid_twice": tally.paid_twice,
        "refunds_again": tally.refunds_again,
    }


async def _merchant_balance(operator: Operator, merchant_id: str) -> int:
    """Return what the merchant has: pending and settled, what is held of them included."""
    principal = operator.principal
    ids = [
        account_id_for(
            merchant_id,
            kind,
            CURRENCY,
            tenant_id=principal.tenant_id,
            mode=str(principal.mode),
        )
        for kind in ("merchant_pending", "merchant_settled")
    ]
    stub = operator.stub(AccountServiceStub, "account")
    answer = await stub.GetAccounts(GetAccountsRequest(ids=ids))
    return sum(
        account.balance.credits_posted_minor - account.balance.debits_posted_minor
        for account in answer.accounts
    )


async def _sandbox_difference(operator: Operator, balance: SumAccountsResponse) -> int:
    """Return what the outside parties' own ledger says they took and kept, less what ours says."""
    theirs = 0
    for movement in await list_movements(operator):
        sign = 1 if movement.kind == MOVEMENT_KIND_PAYMENT else -1
        theirs += sign * movement.money.amount_minor
    ours = sum(
        line.debits_posted_minor - line.credits_posted_minor
        for line in balance.totals
        if line.kind == "channel_receivable"
    )
    return theirs - ours


def _problems(
    figures: Mapping[str, Any],
    tally: Tally,
    gross_minor: int,
    findings: Findings,
    unfinished: Mapping[str, list[Fact]],
) -> list[str]:
    """Say everything that must hold and does not."""
    problems = [f"the shop: {failure}" for failure in tally.failures]
    problems += [f"audit: {line}" for line in findings.off]
    wanted = {
        "orders": tally.orders,
        "gross_minor": gross_minor,
        "paid_minor": tally.paid_minor,
        "refunded_minor": tally.refunded_minor,
        "trial_balance_difference_minor": 0,
        "proof_holds": True,
        "webhooks_received_unique": figures["webhooks_expected"],
        "sandbox_difference_minor": 0,
        "merchant_balance_minor": figures["paid_minor"]
        - figures["refunded_minor"]
        - figures["fees_minor"],
    }
    problems += [
        f"{name} is {figures[name]}, not {value}"
        for name, value in wanted.items()
        if figures[name] != value
    ]
    if set(figures["orders_by_state"]) - {"COMPLETED"}:
        problems.append(f"orders have not ended: {figures['orders_by_state']}")
    if unfinished:
        problems.append(f"unfinished: {words_of(unfinished)}")
    return problems


def words_of(unfinished: Mapping[str, list[Fact]]) -> str:
    """Say what has not ended, by service; `nothing` for nothing."""
    parts = []
    for service, facts in unfinished.items():
        nouns = Counter((f.values.get("noun", ""), f.values.get("state", "")) for f in facts)
        words = ", ".join(f"{count} {noun} {state}" for (noun, state), count in nouns.items())
        parts.append(f"{service}: {words}")
    return "; ".join(parts) or "nothing"


def write_report(report: Report, file: Path) -> None:
    """Write the figures as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(orjson.dumps(report.figures, option=orjson.OPT_INDENT_2) + b"\n")


def print_report(report: Report, webhooks: Counter[str], console: Console) -> None:
    """Print the result for a person."""
    figures = report.figures
    orders = Table("orders", "", title="Orders", title_justify="left", box=None)
    for state, count in sorted(figures["orders_by_state"].items()):
        orders.add_row(state, f"{count:,}")
    for product, count in sorted(report.by_product.items()):
        orders.add_row(f"paid by {product}", f"{count:,}")
    orders.add_row("declined first", f"{figures['declined']:,}")
    orders.add_row("refunds", f"{figures['refunds']:,}")
    orders.add_row("recharges", f"{figures['recharges']:,}")
    console.print(orders)
    money = Table(
        "kind of account",
        "accounts",
        "debits",
        "credits",
        "balance",
        title="Money by kind of account",
        title_justify="left",
        box=None,
    )
    for column in money.columns[1:]:
        column.justify = "right"
    for line in report.balance.totals:
        money.add_row(
            line.kind,
            f"{line.accounts:,}",
            _dollars(line.debits_posted_minor),
            _dollars(line.credits_posted_minor),
            _dollars(line.credits_posted_minor - line.debits_posted_minor),
        )
    console.print(money)
    difference = figures["trial_balance_difference_minor"]
    console.print(f"trial balance: debits − credits = {_dollars(difference)}")
    console.print(
        f"general ledger: {figures['vouchers']:,} vouchers, {figures['days_closed']:,} days closed,"
        f" proof {'holds' if figures['proof_holds'] else 'BROKEN'}"
    )
    console.print(
        f"paid {_dollars(figures['paid_minor'])} − refunded {_dollars(figures['refunded_minor'])}"
        f" − fees {_dollars(figures['fees_minor'])}"
        f" = merchant {_dollars(figures['merchant_balance_minor'])}"
    )
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(webhooks.items()))
    console.print(
        f"webhooks: {figures['webhooks_received_unique']:,} of"
        f" {figures['webhooks_expected']:,} expected ({kinds})"
    )
    console.print(f"payments per second: {figures['payments_per_second']:,}")
    _print_trouble(figures, console)
    unfinished = figures["unfinished"]
    console.print(f"unfinished: {unfinished or 'nothing'}")


def _print_trouble(figures: Mapping[str, Any], console: Console) -> None:
    for name, words in (
        ("faults_injected", "faults of outside parties"),
        ("kills", "kills"),
        ("pauses", "pauses"),
        ("restarts", "restarts"),
        ("exceptions_by_kind", "exceptions"),
    ):
        counts = {what: count for what, count in figures[name].items() if count}
        if counts:
            listed = ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()))
            console.print(f"{words}: {sum(counts.values()):,} ({listed})", highlight=False)
    if figures["exceptions_resolved"]:
        console.print(
            f"exceptions resolved: {figures['exceptions_resolved']:,}"
            f" (two people decided {figures['exceptions_decided_by_hand']:,} times, else the"
            " deadline did)"
        )
    if figures["recovered_unknown"]:
        console.print(f"unknown outcomes found out: {figures['recovered_unknown']:,}")
    if figures["paid_again"] or figures["refunds_again"]:
        console.print(
            f"paid again: {figures['paid_again']:,}, twice: {figures['paid_twice']:,},"
            f" refunds asked for again: {figures['refunds_again']:,}"
        )


def _dollars(amount_minor: int) -> str:
    return format_decimal(Money(CURRENCY, amount_minor))
