"""Between the sandbox's ledger and plans, and their contract."""

from __future__ import annotations

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.sandbox.v1 import fault_pb2, movement_pb2
from paymesh.type.v1 import money_pb2

from common.errors import FieldInvalidError
from services.sandbox.faults.plan import FaultKind, FaultRule
from services.sandbox.movements import Movement, MovementKind

_KINDS: Final = {
    MovementKind.PAYMENT: movement_pb2.MOVEMENT_KIND_PAYMENT,
    MovementKind.REFUND: movement_pb2.MOVEMENT_KIND_REFUND,
    MovementKind.VOID: movement_pb2.MOVEMENT_KIND_VOID,
}


def movement_to_proto(movement: Movement) -> movement_pb2.Movement:
    """Return a movement as the contract says it."""
    occurred_at = Timestamp()
    occurred_at.FromDatetime(movement.occurred_at)
    return movement_pb2.Movement(
        movement_id=movement.movement_id,
        party=movement.party,
        merchant_number=movement.merchant_number,
        reference=movement.reference,
        payment_reference=movement.payment_reference,
        channel_transaction_no=movement.channel_transaction_no,
        kind=_KINDS[movement.kind],
        money=money_pb2.Money(
            currency_code=movement.money.currency_code, amount_minor=movement.money.amount_minor
        ),
        occurred_at=occurred_at,
    )


_PREFIX: Final = "FAULT_KIND_"


def fault_kind_to_proto(kind: FaultKind) -> fault_pb2.FaultKind.ValueType:
    """Return a kind as the contract says it."""
    return fault_pb2.FaultKind.Value(_PREFIX + kind.value)


def fault_rule_from_proto(rule: fault_pb2.FaultRule, position: int) -> FaultRule:
    """Return a rule of a plan; raises FieldInvalidError for a kind that nobody here knows."""
    try:
        kind = FaultKind(fault_pb2.FaultKind.Name(rule.kind).removeprefix(_PREFIX))
    except ValueError:
        raise FieldInvalidError(
            field=f"rules[{position}].kind", rule="must be a kind of fault"
        ) from None
    return FaultRule(
        rule_id=rule.rule_id,
        kind=kind,
        party=rule.party,
        merchant_number=rule.merchant_number,
        verb=rule.verb,
        amount_minor=rule.amount_minor,
        rate_ppm=rule.rate_ppm,
        delay_ms=rule.delay_ms,
        hits_max=rule.hits_max,
    )


def fault_rule_to_proto(rule: FaultRule) -> fault_pb2.FaultRule:
    """Return a rule as the contract says it."""
    return fault_pb2.FaultRule(
        rule_id=rule.rule_id,
        kind=fault_kind_to_proto(rule.kind),
        party=rule.party,
        merchant_number=rule.merchant_number,
        verb=rule.verb,
        amount_minor=rule.amount_minor,
        rate_ppm=rule.rate_ppm,
        delay_ms=rule.delay_ms,
        hits_max=rule.hits_max,
    )
