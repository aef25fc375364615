"""The closed list of what passes between the channel service and an adapter.

Requests go in, a `ChannelResult` or a `Callback` comes out, or one of the failures below is
raised; an adapter says nothing else. So whoever calls needs to know no protocol: whether money may
have moved is read from the state or from the failure's `outcome`, never from a raw code.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pydantic import SecretStr

from common.errors import Outcome, PaymeshError, Retry
from common.money import Money


class Verb(enum.StrEnum):
    """What a channel can be asked to do; the values are the names of the adapter's methods."""

    PAY = "pay"
    QUERY = "query"
    CLOSE = "close"
    VOID = "void"
    REFUND = "refund"
    QUERY_REFUND = "query_refund"
    PARSE_CALLBACK = "parse_callback"


class State(enum.StrEnum):
    """How far the request stands at the channel."""

    SUCCEEDED = "SUCCEEDED"
    """The money moved."""
    PENDING = "PENDING"
    """Accepted or waiting for the payer; ask again or wait for the callback."""
    FAILED = "FAILED"
    """Refused for good: surely no money moved, and none will under this reference."""
    CLOSED = "CLOSED"
    """Ended unpaid: nobody can pay under this reference any more."""
    NOT_FOUND = "NOT_FOUND"
    """The channel does not know the reference now. No failure: the request may still arrive."""
    CONFLICT = "CONFLICT"
    """The answer names another amount, currency or reference than we sent. Never a success."""


class DeclineCode(enum.StrEnum):
    """Why the other side refused, in one vocabulary for all channels."""

    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    CARD_INVALID = "CARD_INVALID"
    CARD_EXPIRED = "CARD_EXPIRED"
    CARD_RESTRICTED = "CARD_RESTRICTED"
    CREDENTIALS_WRONG = "CREDENTIALS_WRONG"
    AUTHENTICATION_REQUIRED = "AUTHENTICATION_REQUIRED"
    PAYER_CANCELLED = "PAYER_CANCELLED"
    PAYER_ACCOUNT_UNUSABLE = "PAYER_ACCOUNT_UNUSABLE"
    RISK_REFUSED = "RISK_REFUSED"
    ISSUER_REFUSED = "ISSUER_REFUSED"
    MERCHANT_NOT_ALLOWED = "MERCHANT_NOT_ALLOWED"
    MERCHANT_FUNDS_SHORT = "MERCHANT_FUNDS_SHORT"
    EXPIRED = "EXPIRED"
    ORIGINAL_NOT_FOUND = "ORIGINAL_NOT_FOUND"
    ORIGINAL_STATE = "ORIGINAL_STATE"
    AMOUNT_EXCEEDS_ORIGINAL = "AMOUNT_EXCEEDS_ORIGINAL"
    REFUND_CLOSED = "REFUND_CLOSED"
    OTHER = "OTHER"


class Advice(enum.StrEnum):
    """What may help after a decline."""

    RETRY_ELSEWHERE = "RETRY_ELSEWHERE"
    """The same means of payment may pass over another channel."""
    RETRY_LATER = "RETRY_LATER"
    """The same channel may take it later, under a new reference."""
    OTHER_METHOD = "OTHER_METHOD"
    """The payer should pay another way."""
    STEP_UP = "STEP_UP"
    """The payer has to prove more (password, one-time code)."""
    STOP = "STOP"
    """Nothing will help; a person has to look where money is owed."""


class Blame(enum.StrEnum):
    """Whose doing it was; only the channel's own counts against its quality in routing."""

    PAYER = "PAYER"
    CHANNEL = "CHANNEL"
    MERCHANT = "MERCHANT"
    PLATFORM = "PLATFORM"


@dataclass(frozen=True, slots=True)
class Decline:
    """A refusal in the unified vocabulary."""

    code: DeclineCode
    advice: Advice
    blame: Blame


@dataclass(frozen=True, slots=True)
class ShowQrCode:
    """The payer scans a code that the merchant shows; `content` is the text inside it."""

    content: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Redirect:
    """The payer's browser goes to a page of the channel."""

    url: str = field(repr=False)


NextAction = ShowQrCode | Redirect


@dataclass(frozen=True, slots=True, kw_only=True)
class PayRequest:
    """Take money from a payer. `reference` is ours, unique for ever; a repeat is the same wish."""

    reference: str
    requested_at: datetime
    """When the intent was stored. Some channels need it to find the request again, so repeats and
    later questions give the same instant."""
    money: Money
    subject: str
    """What is bought, as the payer will read it; no personal data."""
    notify_url: str = ""
    """Where the channel calls back; empty: it shall not."""
    expires_at: datetime | None = None
    """After this the channel must refuse the payer; None: the channel's own limit."""
    card_number: SecretStr | None = None
    """For products that charge a card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRequest:
    """Ask how a payment stands, or close it. The fields are those of its `PayRequest`."""

    reference: str
    requested_at: datetime
    money: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundRequest:
    """Give back all or part of a payment, or (void) take it back before the channel settles.

    `reference`, `requested_at` and `money` are the refund's own; asking how it stands takes the
    same request again.
    """

    reference: str
    requested_at: datetime
    money: Money
    payment_reference: str
    payment_requested_at: datetime
    payment_money: Money
    payment_channel_transaction_no: str = ""
    """The channel's number of the payment; some channels find the original by it alone."""
    reason: str = ""
    notify_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelResult:
    """What the channel says about one request of ours."""

    state: State
    reference: str
    """Our reference as the channel repeated it."""
    money: Money | None = None
    """What the payer paid or got back as the channel names it; None where it names nothing."""
    settlement: Money | None = None
    """What the channel will settle with us for it, where it says so."""
    channel_transaction_no: str = ""
    raw_code: str = ""
    """The channel's own code, unchanged."""
    raw_message: str = ""
    """The channel's own words, numbers masked."""
    decline: Decline | None = None
    """Set when the state is FAILED or CLOSED."""
    next_action: NextAction | None = None
    occurred_at: datetime | None = None
    """When it happened by the channel's clock, UTC."""
    conflict: str = ""
    """With CONFLICT: the field that differs (`money`, `currency_code`, `reference`)."""
    told_state: State | None = None
    """With CONFLICT: the state that the channel named. Only with SUCCEEDED did money move."""


class CallbackKind(enum.StrEnum):
    """What a callback tells of."""

    PAYMENT = "PAYMENT"
    REFUND = "REFUND"
    VOID = "VOID"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawCallback:
    """A callback as it came over HTTP; nothing in it is believed yet."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query_string: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """A callback whose signature was verified. Still to be held against what we asked for."""

    kind: CallbackKind
    result: ChannelResult
    payment_reference: str
    """Our reference of the payment; for a refund, of the payment that it belongs to, if named."""
    notice_id: str
    """The same for every copy of one callback."""
    requested_at: datetime | None = None
    """When we sent what it tells of, if it says so: some channels cannot be asked without."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What the channel wants to read when a callback is safely stored (or could not be)."""

    status: int
    body: bytes
    media_type: str = "text/plain"


class ChannelError(PaymeshError):
    """The channel {channel} failed."""

    retry = Retry.NEVER


class DeclinedError(ChannelError):
    """The other side refused the payment: {code}."""

    reason = "DECLINED"
    retry = Retry.NEW_ID

    def __init__(
        self, decline: Decline, *, channel: str, raw_code: str, raw_message: str = ""
    ) -> None:
        self.decline = decline
        self.raw_message = mask(raw_message)
        super().__init__(
            channel=channel,
            code=decline.code,
            raw_code=mask(raw_code),
            advice=decline.advice,
            blame=decline.blame,
        )


class ChannelInvalidError(ChannelError):
    """The channel {channel} refused the request as wrong ({raw_code})."""

    reason = "CHANNEL_INVALID"


class ChannelRateLimitedError(ChannelError):
    """The channel {channel} asks for fewer requests."""

    reason = "CHANNEL_RATE_LIMITED"
    retry = Retry.AFTER_DELAY


class ChannelUnavailableError(ChannelError):
    """The channel {channel} could not be reached; nothing was sent to it."""

    reason = "CHANNEL_UNAVAILABLE"
    retry = Retry.SAME_ID


class ChannelOutcomeUnknownError(ChannelError):
    """The channel {channel} may have executed the request ({cause}); it has to be asked."""

    reason = "CHANNEL_OUTCOME_UNKNOWN"
    outcome = Outcome.UNKNOWN
    retry = Retry.SAME_ID


class ChannelVerbUnsupportedError(ChannelError):
    """The channel {channel} has no verb {verb}."""

    reason = "CHANNEL_VERB_UNSUPPORTED"


class CallbackSignatureInvalidError(ChannelError):
    """A callback for the channel {channel} is not signed by it."""

    reason = "CALLBACK_SIGNATURE_INVALID"


_CARD_LIKE: Final = re.compile(r"(?<![0-9])([0-9]{6})[0-9]{2,9}([0-9]{4})(?![0-9])")
_MESSAGE_LENGTH_MAX: Final = 200


def mask(text: str) -> str:
    """Return a channel's words without anything that looks like a card number, cut to a line."""
    return _CARD_LIKE.sub(r"\1****\2", text)[:_MESSAGE_LENGTH_MAX]
