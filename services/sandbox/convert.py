"""Between the sandbox's ledger and its contract."""

from __future__ import annotations

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.sandbox.v1 import movement_pb2
from paymesh.type.v1 import money_pb2

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
