"""Runs a call through the middleware and its servicer: the one path that all three ways share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from common.clock import Clock
from common.errors import CancelledError, DeadlineExceededError, MessageTooLargeError, Outcome
from common.mesh.chain_order import order
from common.mesh.incoming import IncomingCall, IncomingMiddleware, Method
from common.mesh.status import AbortedCallError, status_of

_log: Final = logging.getLogger(__name__)

Ended = Callable[[IncomingCall], None]


class Dispatcher:
    """The methods of one process behind one chain of middleware."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        middleware: Iterable[IncomingMiddleware],
        clock: Clock,
        message_bytes_max: int,
    ) -> None:
        self.methods = methods
        self.clock = clock
        self.message_bytes_max = message_bytes_max
        self.in_flight = 0
        self._befores, self._afters = order(tuple(middleware), IncomingMiddleware)

    async def run(self, call: IncomingCall, *, encode: bool, ended: Ended | None = None) -> None:
        """Serve a call; afterwards it has a status or a response, and `ended` is called with it.

        `encode`: the way needs the response as bytes, in `call.answer`. A cancelled call raises
        CancelledError after the middleware has seen its end.
        """
        passed = 0
        error: BaseException | None = None
        self.in_flight += 1
        try:
            for before in self._befores:
                before(call)
                passed += 1
            response = await call.method.behaviour(call.request, call)
            call.finish()
            if call.status is None:
                self._take(call, response, encode)
        except asyncio.CancelledError:
            error = DeadlineExceededError() if call.expired else CancelledError()
            raise
        except Exception as caught:  # noqa: BLE001 - whatever a servicer raises is answered
            error = caught
        finally:
            self.in_flight -= 1
            for after in self._afters[passed]:
                after(call, error)
            if error is not None and call.status is None:
                self._answer_failure(call, error)
            if ended is not None:
                ended(call)

    def _take(self, call: IncomingCall, response: object, encode: bool) -> None:
        limit = self.message_bytes_max
        if encode:
            call.answer = call.method.serialize(response)
            size = len(call.answer)
        else:
            size = response.ByteSize()  # type: ignore[attr-defined]
        if size > limit:
            call.answer = b""
            raise MessageTooLargeError(outcome=Outcome.EXECUTED, limit_bytes=limit)
        call.response = response

    def _answer_failure(self, call: IncomingCall, error: BaseException) -> None:
        call.status = status_of(error, changes_nothing=call.method.changes_nothing)
        if call.status.reason == "INTERNAL" and not isinstance(error, AbortedCallError):
            _log.error("call to %s failed unexpectedly", call.method.path, exc_info=error)
