"""What stands around every adapter, once: deadline, hooks, translation, comparison.

An adapter may be wrong, slow or lied to. Past this point only the closed list of
`services.channel.results` exists, every answer has been held against what we asked for, and a
failure says truthfully whether money may have moved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from common import context
from common.clock import Clock
from common.money import Money
from services.channel.adapters import Adapter
from services.channel.results import (
    Acknowledgement,
    Callback,
    ChannelError,
    ChannelInvalidError,
    ChannelOutcomeUnknownError,
    ChannelResult,
    ChannelUnavailableError,
    PayRequest,
    QueryRequest,
    RawCallback,
    RefundRequest,
    State,
    Verb,
)
from services.channel.transport import attempted

T = TypeVar("T")

TIMEOUT_SECONDS_DEFAULT: Final = 10.0
"""Longer than the slowest tenth of a per cent of real gateways, shorter than a payer's patience."""

RESERVE_SECONDS_DEFAULT: Final = 0.25
"""Kept of the caller's time: two commits of a busy database, and the way back."""

DEADLINE: Final = "deadline"
"""Cause of a call that was not made because its caller had no time left."""


@dataclass(frozen=True, slots=True)
class ChannelCall:
    """One use of a verb, as hooks see it; holds nothing personal."""

    channel: str
    adapter: str
    verb: Verb
    reference: str
    started_at: float
    """Instant of `Clock.monotonic`."""


class Hook(Protocol):
    """One concern around channel calls: a span, a metric, a breaker."""

    def before(self, call: ChannelCall) -> None:
        """Note the start; may refuse with a ChannelUnavailableError (an open breaker)."""
        ...

    def after(
        self, call: ChannelCall, result: ChannelResult | None, error: BaseException | None
    ) -> None:
        """Note the end. Called in reverse order for every hook whose `before` returned."""
        ...


def compare(result: ChannelResult, reference: str, money: Money | None) -> ChannelResult:
    """Return `result`, or the same as a CONFLICT when it tells of something else than we asked.

    Compares what the channel echoed: reference, currency, amount. An answer that names no amount
    cannot conflict by it. Also for callbacks, once the row that they belong to is found.
    """
    if result.state in (State.NOT_FOUND, State.CONFLICT):
        return result
    conflict = ""
    if result.reference != reference:
        conflict = "reference"
    elif result.money is not None and money is not None and result.money != money:
        same = result.money.currency_code == money.currency_code
        conflict = "money" if same else "currency_code"
    if not conflict:
        return result
    return replace(result, state=State.CONFLICT, conflict=conflict, told_state=result.state)


class Guard:
    """An adapter that can be relied upon. Same verbs, same results."""

    def __init__(
        self,
        adapter: Adapter,
        *,
        clock: Clock,
        hooks: Sequence[Hook] = (),
        timeout_seconds: float = TIMEOUT_SECONDS_DEFAULT,
        reserve_seconds: float = RESERVE_SECONDS_DEFAULT,
    ) -> None:
        self._adapter = adapter
        self._reserve_seconds = reserve_seconds
        self._clock = clock
        self._hooks = tuple(hooks)
        self._timeout_seconds = timeout_seconds

    @property
    def channel(self) -> str:
        """Code of our channel."""
        return self._adapter.channel

    @property
    def capabilities(self) -> frozenset[Verb]:
        """The verbs that the adapter supports."""
        return self._adapter.capabilities

    @property
    def shows_codes(self) -> bool:
        """See `Adapter.shows_codes`."""
        return self._adapter.shows_codes

    @property
    def acknowledgement(self) -> Acknowledgement:
        """What to answer to a callback that is safely stored."""
        return self._adapter.acknowledgement

    @property
    def refusal(self) -> Acknowledgement:
        """What to answer to a callback that could not be stored or believed."""
        return self._adapter.refusal

    async def pay(self, request: PayRequest) -> ChannelResult:
        """See `Adapter.pay`; may also answer CONFLICT."""
        work = self._adapter.pay
        return await self._ask(Verb.PAY, work, request, request.money)

    async def query(self, request: QueryRequest) -> ChannelResult:
        """See `Adapter.query`; may also answer CONFLICT."""
        return await self._ask(Verb.QUERY, self._adapter.query, request, request.money)

    async def close(self, request: QueryRequest) -> ChannelResult:
        """See `Adapter.close`; may also answer CONFLICT."""
        return await self._ask(Verb.CLOSE, self._adapter.close, request, request.money)

    async def void(self, request: RefundRequest) -> ChannelResult:
        """See `Adapter.void`; may also answer CONFLICT."""
        return await self._ask(Verb.VOID, self._adapter.void, request, request.money)

    async def refund(self, request: RefundRequest) -> ChannelResult:
        """See `Adapter.refund`; may also answer CONFLICT."""
        return await self._ask(Verb.REFUND, self._adapter.refund, request, request.money)

    async def query_refund(self, request: RefundRequest) -> ChannelResult:
        """See `Adapter.query_refund`; may also answer CONFLICT."""
        work = self._adapter.query_refund
        return await self._ask(Verb.QUERY_REFUND, work, request, request.money)

    async def parse_callback(self, raw: RawCallback) -> Callback:
        """See `Adapter.parse_callback`. The caller still has to `compare` it with its own row."""
        call = self._call(Verb.PARSE_CALLBACK, "")
        with _Hooked(self._hooks, call) as hooked:
            try:
                callback = await self._adapter.parse_callback(raw)
            except ChannelError:
                raise
            except Exception as error:
                # Signed, but not of a form that we know: the channel must be asked.
                raise ChannelOutcomeUnknownError(
                    channel=self.channel, cause=type(error).__name__
                ) from error
            hooked.result = callback.result
            return callback

    def _call(self, verb: Verb, reference: str) -> ChannelCall:
        return ChannelCall(
            channel=self._adapter.channel,
            adapter=self._adapter.code,
            verb=verb,
            reference=reference,
            started_at=self._clock.monotonic(),
        )

    async def _ask(
        self,
        verb: Verb,
        work: Callable[[T], Awaitable[ChannelResult]],
        request: T,
        money: Money,
    ) -> ChannelResult:
        reference: str = getattr(request, "reference")  # noqa: B009 - every request has one
        call = self._call(verb, reference)
        with _Hooked(self._hooks, call) as hooked:
            result = compare(await self._bounded(work, request), reference, money)
            hooked.result = result
            return result

    async def _bounded(
        self, work: Callable[[T], Awaitable[ChannelResult]], request: T
    ) -> ChannelResult:
        seconds = self._seconds_left()
        if seconds <= 0:
            raise ChannelUnavailableError(channel=self.channel, cause=DEADLINE)
        with attempted() as attempt:
            try:
                async with asyncio.timeout(seconds):
                    return await work(request)
            except ChannelError:
                raise
            except Exception as error:
                if attempt.written:
                    raise ChannelOutcomeUnknownError(
                        channel=self.channel, cause=type(error).__name__
                    ) from error
                if isinstance(error, OSError | TimeoutError):
                    raise ChannelUnavailableError(
                        channel=self.channel, cause=type(error).__name__
                    ) from error
                # A bug of the adapter, or a request that it cannot say: nothing was sent.
                raise ChannelInvalidError(
                    channel=self.channel, raw_code=type(error).__name__
                ) from error

    def _seconds_left(self) -> float:
        deadline_at = context.current().deadline_at
        if deadline_at is None:
            return self._timeout_seconds
        # What the channel says has to be stored, and told, before the caller gives up.
        left = deadline_at - self._clock.monotonic() - self._reserve_seconds
        return min(self._timeout_seconds, left)


class _Hooked:
    """Runs the hooks around a block: before in order, after in reverse."""

    def __init__(self, hooks: Sequence[Hook], call: ChannelCall) -> None:
        self._hooks = hooks
        self._call = call
        self._entered: list[Hook] = []
        self.result: ChannelResult | None = None

    def __enter__(self) -> _Hooked:
        for hook in self._hooks:
            try:
                hook.before(self._call)
            except BaseException as error:
                self._leave(error)
                raise
            self._entered.append(hook)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        for hook in reversed(self._entered):
            hook.after(self._call, self.result, error)
