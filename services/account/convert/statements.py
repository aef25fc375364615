"""Domain ↔ contract of what is read from the outer books: entries, statements, kinds, sums."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.account.v1 import AccountKind as AccountKindMessage
from paymesh.account.v1 import Entry as EntryMessage
from paymesh.account.v1 import GetStatementResponse, NormalSide

from common.errors import FieldInvalidError, PageTokenInvalidError
from common.paging import Scalar
from services.account.convert.accounts import account_to_proto
from services.account.domain.kinds import AccountKind
from services.account.flows.read_statements import StatementPage, StatementPlace
from services.account.store.statements import StatementHead, StatementLine, Sums

_PLACE_PARTS: Final = 7


def kind_to_proto(kind: AccountKind) -> AccountKindMessage:
    """Return a kind of account, as the registry has it."""
    return AccountKindMessage(
        code=kind.code,
        normal_side=NormalSide.Value(f"NORMAL_SIDE_{kind.normal_side}"),
        owner=str(kind.owner),
        purpose=kind.purpose,
        may_go_negative=kind.may_go_negative,
        subject_code=kind.subject_code,
    )


def entry_to_proto(line: StatementLine, normal_side: str) -> EntryMessage:
    """Return one line of a statement, with the balance on the account's normal side."""
    after = Sums(line.debits_posted_minor, line.credits_posted_minor)
    return EntryMessage(
        transfer_id=line.transfer_id,
        account_id=line.account_id,
        account_version=line.version,
        debit_minor=line.amount_minor if line.is_debit else 0,
        credit_minor=0 if line.is_debit else line.amount_minor,
        balance_minor=after.balance_minor(normal_side),
        movement=line.movement,
        reference_id=line.reference_id,
        business_date=line.business_date.isoformat(),
        booked_at=_timestamp(line.booked_at),
        counter_account_id=line.counter_account_id,
        value_on=line.value_on.isoformat() if line.value_on else "",
        appended_at=_timestamp(line.appended_at) if line.appended_at else None,
    )


def statement_to_proto(page: StatementPage) -> GetStatementResponse:
    """Return a page of a statement, without its token."""
    account, head = page.account, page.head
    return GetStatementResponse(
        account=account_to_proto(account),
        opening_balance_minor=head.opening.balance_minor(account.normal_side),
        closing_balance_minor=head.closing.balance_minor(account.normal_side),
        debits_minor=head.closing.debits_minor - head.opening.debits_minor,
        credits_minor=head.closing.credits_minor - head.opening.credits_minor,
        entries_count=head.entries,
        entries=[entry_to_proto(line, account.normal_side) for line in page.lines],
    )


def place_to_position(place: StatementPlace) -> list[Scalar]:
    """Return where a statement goes on, for a page token."""
    head = place.head
    return [
        place.after_version,
        head.opening.debits_minor,
        head.opening.credits_minor,
        # As differences, which are short: a token has room for 200 characters.
        head.closing.debits_minor - head.opening.debits_minor,
        head.closing.credits_minor - head.opening.credits_minor,
        head.entries,
        head.last_version,
    ]


def place_from_position(position: list[Scalar] | None) -> StatementPlace | None:
    """Return where a page token lets a statement go on; None for the first page."""
    if position is None:
        return None
    numbers = [part for part in position if isinstance(part, int)]
    if len(numbers) != _PLACE_PARTS:
        raise PageTokenInvalidError
    after, debits, credited, debits_more, credits_more, entries, last = numbers
    head = StatementHead(
        opening=Sums(debits, credited),
        closing=Sums(debits + debits_more, credited + credits_more),
        entries=entries,
        after_version=after,
        last_version=last,
    )
    return StatementPlace(after, head)


def day_from_text(text: str, field: str) -> date:
    """Return a day; raises FieldInvalidError where the calendar has none."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise FieldInvalidError(field=field, rule="is no day of the calendar") from None


def instant_from_proto(at: Timestamp, field: str) -> datetime:
    """Return an instant to the microsecond; raises FieldInvalidError for one out of range."""
    try:
        return at.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise FieldInvalidError(field=field, rule="is no instant") from None


def _timestamp(at: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(at)
    return message
