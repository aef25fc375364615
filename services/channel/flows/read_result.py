"""From what an adapter says, or how it fails, to news for a row; and back to an error."""

from __future__ import annotations

from common.errors import PaymeshError
from services.channel.domain import Charge, News, Refund, Refusal, advice_to_payer
from services.channel.errors import RefusedByChannelError
from services.channel.results import (
    ChannelError,
    ChannelInvalidError,
    ChannelOutcomeUnknownError,
    ChannelRateLimitedError,
    ChannelResult,
    ChannelUnavailableError,
    DeclinedError,
    Redirect,
    ShowQrCode,
    State,
)


def charge_news(result: ChannelResult) -> News | None:
    """Return what a result says of a charge; None when it leaves the outcome open.

    An answer about another reference than ours says nothing about ours. Another amount conflicts
    only where money moved: an unpaid code of another amount is still unpaid.
    """
    state = standing_of(result)
    if state is None or state is State.NOT_FOUND:
        return None
    if result.state is State.CONFLICT and state is State.SUCCEEDED:
        return _news("CONFLICTED", result)
    return _news(state.value, result)


def standing_of(result: ChannelResult) -> State | None:
    """Return how our request stands; None for an answer about another reference."""
    if result.state is not State.CONFLICT:
        return result.state
    return None if result.conflict == "reference" else result.told_state


def refund_news(result: ChannelResult) -> News | None:
    """Return what a result says of a refund; None when it leaves the outcome open."""
    state = standing_of(result)
    if state is None or state in (State.NOT_FOUND, State.CLOSED):
        return None
    if result.state is State.CONFLICT and state is State.SUCCEEDED:
        return None  # other money than we gave back: open, until a person has looked
    return _news(state.value, result)


def failure_news(error: ChannelError) -> News | None:
    """Return what a failure says of a call that was made; None when it leaves the outcome open."""
    if isinstance(error, DeclinedError):
        refusal = Refusal(
            reason=error.reason,
            code=error.decline.code,
            raw_code=error.metadata.get("raw_code", ""),
            raw_message=error.raw_message,
            remedy=error.decline.advice,
            blame=error.decline.blame,
        )
        return News(state="FAILED", refusal=refusal)
    refusal = Refusal(reason=error.reason, raw_code=error.metadata.get("raw_code", ""))
    if isinstance(error, ChannelUnavailableError | ChannelRateLimitedError):
        return News(state="NOT_SENT", refusal=refusal)
    if isinstance(error, ChannelOutcomeUnknownError):
        return None
    return News(state="FAILED", refusal=refusal)


def refusal_error(noun: Charge | Refund) -> PaymeshError:
    """Return the error that a failed (or not sent) row stands for."""
    refusal, channel = noun.refusal, noun.channel
    if refusal.reason in ("DECLINED", ""):
        return RefusedByChannelError(
            channel=channel,
            code=refusal.code or "OTHER",
            raw_code=refusal.raw_code,
            advice=advice_to_payer(refusal) or "NONE",
            remedy=refusal.remedy,
            blame=refusal.blame,
        )
    if refusal.reason == ChannelRateLimitedError.reason:
        return ChannelRateLimitedError(channel=channel, retry_after_seconds=1.0)
    if refusal.reason == ChannelUnavailableError.reason:
        return ChannelUnavailableError(channel=channel)
    return ChannelInvalidError(channel=channel, raw_code=refusal.raw_code or refusal.reason)


def outcome_unknown(channel: str, cause: str) -> ChannelOutcomeUnknownError:
    """Return the error for a noun of which nobody knows yet what became of it."""
    return ChannelOutcomeUnknownError(channel=channel, cause=cause)


def _news(state: str, result: ChannelResult) -> News:
    refusal = Refusal()
    if result.decline is not None:
        refusal = Refusal(
            reason="DECLINED",
            code=result.decline.code,
            raw_code=result.raw_code,
            raw_message=result.raw_message,
            remedy=result.decline.advice,
            blame=result.decline.blame,
        )
    action = result.next_action
    return News(
        state=state,
        money=result.money,
        channel_transaction_no=result.channel_transaction_no,
        qr_content=action.content if isinstance(action, ShowQrCode) else "",
        redirect_url=action.url if isinstance(action, Redirect) else "",
        refusal=refusal,
        happened_at=result.occurred_at,
    )
