"""What channels send to us: passed to `channel` as it came, for it alone can judge it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from common.clock import Clock
from common.context import ActorType, CallContext, Principal, bound
from common.errors import InternalError
from services.edge.config import EdgeSettings
from services.edge.domain import CallbackAnswer
from services.edge.errors import MethodNotAllowedError, RouteNotFoundError
from services.edge.rest.door import Answer, Receive, Scope, Visit, read_body, read_headers

ROUTE: Final = "/callbacks/{channel}"
_PATH: Final = re.compile(rb"^/callbacks/([a-z][a-z0-9_]{1,39})$")
_CONTENT_TYPE: Final = re.compile(r"^[\x20-\x7e]{1,100}$")

HandleCallback = Callable[[str, Mapping[str, str], str, bytes, float], Awaitable[CallbackAnswer]]
"""Takes channel, headers, query, body and a time limit in seconds; raises PaymeshError."""


class CallbackApi:
    """The surface for channels. The channel's own signature is its proof, not ours."""

    def __init__(self, handle: HandleCallback, settings: EdgeSettings, clock: Clock) -> None:
        self._handle = handle
        self._settings = settings
        self._clock = clock

    async def __call__(self, visit: Visit, scope: Scope, receive: Receive) -> Answer:
        """Pass a callback on and answer as the channel's protocol wants it."""
        match = _PATH.match(scope["raw_path"])
        if match is None:
            raise RouteNotFoundError
        visit.route = f"{scope['method']} {ROUTE}"
        if scope["method"] != "POST":
            raise MethodNotAllowedError(allow="POST")
        settings = self._settings
        headers = read_headers(scope)
        body = await read_body(
            receive, headers, bytes_max=settings.body_bytes_max, seconds=settings.body_seconds
        )
        channel = match[1].decode()
        call = CallContext(
            principal=Principal(
                tenant_id=settings.tenant_id, actor_type=ActorType.CHANNEL, actor_id=channel
            ),
            caller="edge",
            deadline_at=visit.deadline_at,
            causation_id=visit.request_id,
        )
        query = scope["query_string"].decode("latin-1")
        visit.reached = visit.is_journaled = True
        visit.channel, visit.callback_body = channel, body
        with bound(call):
            seconds = max(0.001, visit.deadline_at - self._clock.monotonic())
            answer = await self._handle(channel, headers, query, body, seconds)
        if not 200 <= answer.status <= 599 or not _CONTENT_TYPE.match(answer.content_type):
            raise InternalError
        return Answer(answer.status, answer.content_type, answer.body)
