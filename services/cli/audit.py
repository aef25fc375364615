"""`paymesh audit`: proves the books of a running platform, and says what is off.

1. Per currency, debits equal credits. 2. Every account equals the sum of its entries, its pending
sums its open holds; all accounts add up to the general ledger (docs/business-days.md). 3. Every
payment and refund has exactly the postings of docs/money-flows.md. 4. Orders agree with their
payments, clearing entries with both. 5. What channels say they did agrees with what the ledger says
they owe. 6. What is in transit and in suspense is what open payments explain; exceptions are
counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from paymesh.account import PLATFORM_OWNER, account_id_for
from paymesh.account.v1 import (
    AccountServiceStub,
    Balance,
    CheckBooksRequest,
    GeneralLedgerServiceStub,
    GetAccountsRequest,
    ProveBooksRequest,
    SumAccountsRequest,
)
from paymesh.type.v1 import Fact
from rich.console import Console

from services.cli.facts import list_facts
from services.cli.operator import Operator, operate

_SHOWN_MAX = 20
_CHECK_TIMEOUT_SECONDS = 120.0
_PROOF = (
    "compared sums, and every day's transfers, entries and vouchers; looked for entries without a"
    " transfer (the continuous proof compares sums only)"
)

Values = Mapping[str, str]


@dataclass
class Findings:
    """What an audit found, and how much it looked at."""

    off: list[str] = field(default_factory=list)
    """What does not fit, in words with ids and amounts."""
    counted: dict[str, int] = field(default_factory=dict)
    """How much was compared, by what."""
    difference_minor: dict[str, int] = field(default_factory=dict)
    """Debits less credits per currency; all zero when balanced."""
    proof_holds: bool = False
    """Whether the accounts add up to the general ledger."""


async def run_audit(console: Console) -> int:
    """Audit the platform that the environment names; 1 when something is off."""
    async with operate() as operator:
        findings = await audit(operator)
    return show(findings, console)


def show(findings: Findings, console: Console) -> int:
    """Print what an audit found; return the exit status."""
    looked = ", ".join(f"{count:,} {what}" for what, count in findings.counted.items())
    console.print(f"audit: {looked}", soft_wrap=True)
    console.print(f"audit: {_PROOF}", highlight=False, soft_wrap=True)
    for line in findings.off[:_SHOWN_MAX]:
        console.print(f"  off: {line}", highlight=False, markup=False, soft_wrap=True)
    if len(findings.off) > _SHOWN_MAX:
        console.print(f"  … and {len(findings.off) - _SHOWN_MAX} more")
    if not findings.off:
        console.print("audit: the books balance")
    return 1 if findings.off else 0


async def audit(operator: Operator) -> Findings:
    """Compare everything; the platform should be at rest, or what is under way shows as off."""
    findings = Findings()
    await _check_books(operator, findings)
    postings = await _postings(operator, findings)
    payments = await list_facts(operator, "payment", "payment")
    refunds = await list_facts(operator, "payment", "refund")
    exceptions = await list_facts(operator, "payment", "exception")
    findings.counted["payments"] = len(payments)
    findings.counted["refunds"] = len(refunds)
    findings.counted["exceptions"] = len(exceptions)
    findings.counted["exceptions open"] = sum(
        1 for fact in exceptions if fact.values["state"] != "RESOLVED"
    )
    by_id = {fact.key: fact.values for fact in payments}
    for fact in payments:
        _compare(findings, f"payment {fact.key}", expected_of_payment(fact.values), postings, fact)
    for fact in refunds:
        payment = by_id.get(fact.values["payment_id"])
        if payment is None:
            findings.off.append(f"refund {fact.key} has no payment")
            continue
        expected = expected_of_refund(fact.values, payment, postings.get(fact.key))
        _compare(findings, f"refund {fact.key}", expected, postings, fact)
    _check_cumulative(findings, payments, refunds)
    await _check_ways(operator, findings, payments)
    await _check_orders(operator, findings, by_id)
    await _check_clearing(operator, findings, payments, refunds)
    return findings


async def _check_books(operator: Operator, findings: Findings) -> None:
    stub = operator.stub(AccountServiceStub, "account")
    balance = await stub.SumAccounts(SumAccountsRequest())
    findings.difference_minor = dict(balance.difference_minor)
    for currency, difference in findings.difference_minor.items():
        if difference:
            findings.off.append(f"{currency}: debits − credits = {difference}")
    report = await stub.CheckBooks(CheckBooksRequest(), timeout=_CHECK_TIMEOUT_SECONDS)
    findings.counted["accounts"] = report.accounts
    findings.counted["entries"] = report.entries
    findings.off.extend(report.findings)
    await _prove(operator, findings)


async def _prove(operator: Operator, findings: Findings) -> None:
    """All accounts under a subject add up to its balance, and what is in flight."""
    stub = operator.stub(GeneralLedgerServiceStub, "account")
    answer = await stub.ProveBooks(ProveBooksRequest(), timeout=_CHECK_TIMEOUT_SECONDS)
    proof = answer.proof
    findings.proof_holds = proof.holds
    findings.counted["lines proved"] = len(proof.lines)
    if proof.in_flight_count:
        findings.counted["transfers in flight"] = proof.in_flight_count
    named = {unfit.subject_code for unfit in proof.unfit}
    findings.off.extend(f"proof: {unfit.finding}" for unfit in proof.unfit)
    findings.off.extend(
        f"proof: {line.tenant_id} {line.mode} {line.subject_code} {line.currency_code} is off by"
        f" {line.difference_minor}"
        for line in proof.lines
        if line.difference_minor and line.subject_code not in named
    )


Lines = dict[str, int]
"""movement → amount in minor units."""


async def _postings(operator: Operator, findings: Findings) -> dict[str, Lines]:
    """Return what was really booked, by noun: movement → amount."""
    facts = await list_facts(operator, "account", "transfer")
    findings.counted["transfers"] = len(facts)
    postings: dict[str, Lines] = defaultdict(dict)
    for fact in facts:
        values = fact.values
        if values["status"] != "BOOKED":
            continue
        lines = postings[fact.key]
        movement = values["movement"]
        lines[movement] = lines.get(movement, 0) + int(values["amount_minor"])
    return postings


def expected_of_payment(payment: Values) -> Lines:
    """Return the postings that docs/money-flows.md wants of a payment in its state."""
    amount, fee = int(payment["amount_minor"]), int(payment["fee_minor"])
    state = payment["state"]
    if payment["received_currency_code"]:
        # Other money came than was asked for: as much as came, in its own currency.
        received = int(payment["received_minor"])
        back = _expected_of_return(payment, received, "payment.conflict_return")
        return _some({"payment.conflict": received, **back})
    if state in ("RETURNED", "UNCLAIMED"):
        back = _expected_of_return(payment, amount, "payment.return")
        return {"payment.receive": amount, **back}
    if state != "SUCCEEDED":
        return {"payment.receive": amount} if state in ("RECEIVED", "RETURNING") else {}
    if payment["order_type"] == "recharge":
        return {"payment.receive": amount, "payment.recharge": amount}
    lines = {
        "payment.receive": amount,
        "payment.settle": amount - fee,
        "payment.fee": fee,
    }
    return _some(lines)


def _expected_of_return(payment: Values, amount: int, movement: str) -> Lines:
    """Return what is booked of money that has to go back, which a channel may do too often."""
    state, lines = payment["state"], {}
    if state == "UNCLAIMED" or (state == "RETURNED" and payment.get("way_out") == "UNCLAIM"):
        lines["payment.unclaim"] = amount
        if state == "RETURNED":
            lines["payment.unclaimed_return"] = amount
    elif state == "RETURNED":
        lines[movement] = amount
    if times := int(payment.get("late_returns", "0")):
        lines["payment.late_return"] = amount * times
    return lines


def expected_of_refund(refund: Values, payment: Values, booked: Lines | None = None) -> Lines:
    """Return the postings that docs/money-flows.md wants of a refund in its state.

    `booked` is needed where a refund was let fail while it was not known whether its hold stood:
    it did or did not, and was released if it did.
    """
    amount, fee = int(refund["amount_minor"]), int(refund["fee_returned_minor"])
    held = {"refund.hold": amount - fee, "refund.fee_hold": fee}
    if payment["order_type"] == "recharge":
        held = {"refund.hold": amount}
    state = refund["state"]
    lines: Lines = {}
    if state == "SUCCEEDED":
        posted = {name.replace("hold", "post"): value for name, value in held.items()}
        lines = {**held, **posted, "refund.pay": amount}
    elif state in ("HELD", "UNKNOWN"):
        lines = held
    elif state == "FAILED" and (refund["source_kind"] or "refund.hold" in (booked or {})):
        lines = {**held, **{name.replace("hold", "void"): value for name, value in held.items()}}
    if state == "FAILED" and refund.get("business_date"):
        # The channel gave the money back after all.
        lines["refund.late"] = amount
    return _some(lines)


def _some(lines: Lines) -> Lines:
    return {movement: value for movement, value in lines.items() if value}


def _compare(
    findings: Findings, what: str, expected: Lines, postings: Mapping[str, Lines], fact: Fact
) -> None:
    booked = {name: value for name, value in postings.get(fact.key, {}).items() if value}
    if booked != expected:
        findings.off.append(f"{what} ({fact.values['state']}): booked {booked}, wanted {expected}")


def _check_cumulative(
    findings: Findings, payments: Sequence[Fact], refunds: Sequence[Fact]
) -> None:
    """What a payment says was given back is what its refunds gave back, and never too much."""
    given: Lines = defaultdict(int)
    for fact in refunds:
        if fact.values["state"] == "SUCCEEDED":
            given[fact.values["payment_id"]] += int(fact.values["amount_minor"])
    for fact in payments:
        said, amount = int(fact.values["refunded_minor"]), int(fact.values["amount_minor"])
        if said != given[fact.key] or said > amount:
            findings.off.append(
                f"payment {fact.key}: says {said} of {amount} given back, refunds {given[fact.key]}"
            )


Way = tuple[str, str, str]
"""(currency, mode, kind) of an account of the platform that money passes through."""


def expected_on_ways(payments: Sequence[Fact]) -> dict[Way, int]:
    """Return what must be on the platform's ways, in minor units: what open payments explain."""
    wanted: dict[Way, int] = defaultdict(int)
    for fact in payments:
        values = fact.values
        currency, mode = values["currency_code"], values["mode"]
        other = values["received_currency_code"]
        for kind in ("payment_transit", "refund_transit", "suspense"):
            wanted[currency, mode, kind] += 0
        if other:
            is_kept = values["state"] in ("CONFLICTED", "RETURNING")
            wanted[other, mode, "suspense"] += int(values["received_minor"]) if is_kept else 0
        elif values["state"] in ("RECEIVED", "RETURNING"):
            wanted[currency, mode, "payment_transit"] += int(values["amount_minor"])
    return wanted


async def _check_ways(operator: Operator, findings: Findings, payments: Sequence[Fact]) -> None:
    """Transit and suspense hold what payments on their way explain, and nothing else."""
    wanted = expected_on_ways(payments)
    tenant_id = operator.principal.tenant_id
    ids = {
        account_id_for(PLATFORM_OWNER, kind, currency, tenant_id=tenant_id, mode=mode): way
        for way in wanted
        for currency, mode, kind in [way]
        if mode == str(operator.principal.mode)
    }
    if not ids:
        return
    stub = operator.stub(AccountServiceStub, "account")
    answer = await stub.GetAccounts(GetAccountsRequest(ids=list(ids)))
    found = {ids[account.id]: account.balance for account in answer.accounts}
    findings.counted["ways"] = len(ids)
    for way in sorted(ids.values()):
        balance = found.get(way, Balance())
        kept = balance.credits_posted_minor - balance.debits_posted_minor
        if kept != wanted[way]:
            currency, _, kind = way
            findings.off.append(f"{kind} in {currency}: {kept}, payments explain {wanted[way]}")


async def _check_orders(
    operator: Operator, findings: Findings, payments: Mapping[str, Values]
) -> None:
    """A completed order was won by exactly one succeeded payment of its own amount."""
    orders = await list_facts(operator, "trade", "order")
    findings.counted["orders"] = len(orders)
    winners: Lines = defaultdict(int)
    for payment in payments.values():
        if payment["state"] == "SUCCEEDED":
            winners[payment["order_id"]] += 1
    for fact in orders:
        values = fact.values
        is_paid = values["state"] == "COMPLETED" and int(values["amount_minor"]) > 0
        if winners[fact.key] != int(is_paid):
            findings.off.append(
                f"order {fact.key} is {values['state']} with {winners[fact.key]} payments"
            )
            continue
        if is_paid:
            payment_of = payments.get(values["payment_id"])
            if payment_of is None or payment_of["amount_minor"] != values["amount_minor"]:
                findings.off.append(f"order {fact.key}: another amount than its payment")


async def _check_clearing(
    operator: Operator, findings: Findings, payments: Sequence[Fact], refunds: Sequence[Fact]
) -> None:
    """Every succeeded purchase payment and its refunds have their clearing entry, and no other."""
    entries = await list_facts(operator, "settlement", "clearing_entry")
    findings.counted["clearing entries"] = len(entries)
    recharges = {f.key for f in payments if f.values["order_type"] == "recharge"}
    wanted = {
        f.key: (int(f.values["amount_minor"]), int(f.values["fee_minor"]))
        for f in payments
        if f.values["state"] == "SUCCEEDED" and f.key not in recharges
    }
    wanted |= {
        f.key: (-int(f.values["amount_minor"]), -int(f.values["fee_returned_minor"]))
        for f in refunds
        if f.values["state"] == "SUCCEEDED" and f.values["payment_id"] not in recharges
    }
    cleared = {f.key: (int(f.values["gross_minor"]), int(f.values["fee_minor"])) for f in entries}
    for key in sorted(wanted.keys() | cleared.keys()):
        if wanted.get(key) != cleared.get(key):
            findings.off.append(f"{key}: cleared {cleared.get(key)}, wanted {wanted.get(key)}")
