"""Domain ↔ contract of the outer books."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.account.v1 import (
    Account as AccountMessage,
)
from paymesh.account.v1 import (
    AccountSpec as AccountSpecMessage,
)
from paymesh.account.v1 import (
    AccountStatus as AccountStatusMessage,
)
from paymesh.account.v1 import (
    AccountTotal as AccountTotalMessage,
)
from paymesh.account.v1 import (
    Balance,
    NormalSide,
    OwnerBalance,
    TransferSpec,
)
from paymesh.account.v1 import (
    Transfer as TransferMessage,
)
from paymesh.account.v1 import (
    TransferKind as TransferKindMessage,
)
from paymesh.account.v1 import (
    TransferResult as TransferResultMessage,
)
from paymesh.account.v1 import (
    TransferStatus as TransferStatusMessage,
)
from paymesh.type.v1 import Money as MoneyMessage

from common.context import CallContext
from services.account.domain.accounts import Account, AccountSpec
from services.account.domain.transfers import (
    StoredTransfer,
    Transfer,
    TransferKind,
    TransferResult,
    TransferStatus,
)
from services.account.store.reading import AccountTotal

_STATUSES: Final = {
    status: TransferStatusMessage.Value(f"TRANSFER_STATUS_{status}") for status in TransferStatus
}
_KINDS: Final = {TransferKindMessage.Value(f"TRANSFER_KIND_{kind}"): kind for kind in TransferKind}
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def spec_from_proto(message: AccountSpecMessage, call: CallContext) -> AccountSpec:
    """Return an account to be opened, in the caller's world."""
    return AccountSpec(
        id=message.id,
        owner_id=message.owner_id,
        kind=message.kind,
        currency_code=message.currency_code,
        credit_limit_minor=message.credit_limit_minor,
        merchant_id=message.merchant_id,
        is_buffered=message.is_buffered,
        tenant_id=call.principal.tenant_id,
        mode=str(call.principal.mode),
    )


def account_to_proto(account: Account) -> AccountMessage:
    """Return an account as it stands."""
    return AccountMessage(
        id=account.id,
        owner_id=account.owner_id,
        kind=account.kind,
        currency_code=account.currency_code,
        normal_side=NormalSide.Value(f"NORMAL_SIDE_{account.normal_side}"),
        status=AccountStatusMessage.Value(f"ACCOUNT_STATUS_{account.status}"),
        credit_limit_minor=account.credit_limit_minor,
        balance=Balance(
            debits_posted_minor=account.debits_posted_minor,
            credits_posted_minor=account.credits_posted_minor,
            debits_pending_minor=account.debits_pending_minor,
            credits_pending_minor=account.credits_pending_minor,
            available_minor=account.available_minor,
            frozen_minor=account.frozen_minor,
            buffered_minor=account.buffered_minor,
        ),
        version=account.version,
        created_at=_timestamp(account.created_at),
        updated_at=_timestamp(account.updated_at),
        merchant_id=account.merchant_id,
        is_buffered=account.is_buffered,
        court_frozen_minor=account.court_frozen_minor,
    )


def owner_balance_to_proto(account: Account) -> OwnerBalance:
    """Return an account as its owner sees it."""
    return OwnerBalance(
        kind=account.kind,
        available=MoneyMessage(
            currency_code=account.currency_code, amount_minor=account.available_minor
        ),
        frozen=MoneyMessage(currency_code=account.currency_code, amount_minor=account.frozen_minor),
    )


def transfers_from_proto(messages: Iterable[TransferSpec], call: CallContext) -> list[Transfer]:
    """Return orders to the ledger, in the caller's name and story."""
    principal = call.principal
    story, tenant, mode = call.biz_trace_id, principal.tenant_id, str(principal.mode)
    merchant, actor = principal.merchant_id, principal.actor
    # By position, which is quicker by a third than by name: a call may have thousands.
    return [
        Transfer(
            message.id,
            _KINDS.get(message.kind, TransferKind.UNSPECIFIED),
            message.debit_account_id,
            message.credit_account_id,
            message.currency_code,
            message.amount_minor,
            message.pending_id,
            message.keep_rest,
            message.timeout_seconds,
            message.linked,
            message.forced,
            message.balancing_debit,
            message.balancing_credit,
            message.movement,
            message.reference_id,
            _value_date(message.value_on) if message.value_on else None,
            story,
            tenant,
            mode,
            merchant,
            actor,
        )
        for message in messages
    ]


def results_to_proto(results: Iterable[TransferResult]) -> list[TransferResultMessage]:
    """Return what became of transfers."""
    written = _Written()
    return [_result_to_proto(result, written) for result in results]


class _Written:
    """Dates and instants as messages: all of a flush have the same."""

    def __init__(self) -> None:
        self._at: datetime | None = None
        self._timestamp = Timestamp()
        self._on: date | None = None
        self._date = ""

    def timestamp(self, at: datetime) -> Timestamp:
        if at is not self._at:
            self._at = at
            self._timestamp = _timestamp(at)
        return self._timestamp

    def date(self, on: date) -> str:
        if on is not self._on:
            self._on = on
            self._date = on.isoformat()
        return self._date


def _result_to_proto(result: TransferResult, written: _Written) -> TransferResultMessage:
    message = TransferResultMessage(
        transfer_id=result.transfer_id,
        status=_STATUSES[result.status],
        booked_minor=result.booked_minor,
    )
    if result.booked_at is not None:
        message.booked_at.CopyFrom(written.timestamp(result.booked_at))
    if result.business_date is not None:
        message.business_date = written.date(result.business_date)
    if result.refusal is not None:
        message.reason = result.refusal.reason
        message.reason_metadata.update(result.refusal.metadata)
    if result.replayed:
        message.replayed = True
    if result.redirected_to:
        message.redirected_to = result.redirected_to
    if result.is_buffered:
        message.is_buffered = True
    return message


def transfer_to_proto(stored: StoredTransfer) -> TransferMessage:
    """Return a transfer as the ledger keeps it."""
    transfer = stored.transfer
    return TransferMessage(
        spec=TransferSpec(
            id=transfer.id,
            kind=TransferKindMessage.Value(f"TRANSFER_KIND_{transfer.kind}"),
            debit_account_id=transfer.debit_account_id,
            credit_account_id=transfer.credit_account_id,
            currency_code=transfer.currency_code,
            amount_minor=transfer.amount_minor,
            pending_id=transfer.pending_id,
            keep_rest=transfer.keep_rest,
            timeout_seconds=transfer.timeout_seconds,
            linked=transfer.linked,
            movement=transfer.movement,
            reference_id=transfer.reference_id,
            value_on=transfer.value_on.isoformat() if transfer.value_on else "",
            forced=transfer.forced,
            balancing_debit=transfer.balancing_debit,
            balancing_credit=transfer.balancing_credit,
        ),
        result=results_to_proto([stored.answer(replayed=False)])[0],
        biz_trace_id=transfer.biz_trace_id,
        booked_minor=stored.booked_minor,
    )


def account_total_to_proto(line: AccountTotal) -> AccountTotalMessage:
    """Return what one kind of account holds."""
    return AccountTotalMessage(
        kind=line.kind,
        currency_code=line.currency_code,
        accounts=line.accounts,
        debits_posted_minor=line.debits_posted_minor,
        credits_posted_minor=line.credits_posted_minor,
        debits_pending_minor=line.debits_pending_minor,
        credits_pending_minor=line.credits_pending_minor,
        normal_side=NormalSide.Value(f"NORMAL_SIDE_{line.normal_side}"),
        credits_buffered_minor=line.credits_buffered_minor,
    )


def _value_date(text: str) -> date:
    """Return the date; for a text that is none the first of all, which the domain refuses."""
    try:
        return date.fromisoformat(text) if _DATE.fullmatch(text) else date.min
    except ValueError:
        return date.min


def _timestamp(at: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(at)
    return message
