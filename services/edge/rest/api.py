"""Merchants' requests: proven first, then turned into calls of the contracts.

In this order, so that each refusal costs and tells as little as it can: route, size, media type,
signature's form, clock, digest, key, signature, rate, nonce, the merchant's status, body,
idempotency.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from google.protobuf.message import Message

from common.clock import Clock
from common.context import ActorType, CallContext, Mode, Principal, bound
from common.errors import FieldInvalidError, PaymeshError
from common.ids import IdFactory
from services.edge.config import EdgeSettings
from services.edge.domain import KeyHolder
from services.edge.errors import (
    IdempotencyKeyMissingError,
    MediaTypeUnsupportedError,
    MerchantSuspendedError,
    MethodNotAllowedError,
    RouteNotFoundError,
)
from services.edge.rest import problem
from services.edge.rest.door import (
    BIZ_TRACE_ID_HEADER,
    REPLAYED_HEADER,
    Answer,
    InFlight,
    Receive,
    Scope,
    Visit,
    read_body,
    read_headers,
)
from services.edge.rest.merchant_keys import MerchantKeys
from services.edge.rest.once import IdempotencyKeys, Nonces, StoredAnswer, is_kept
from services.edge.rest.problem import Problem
from services.edge.rest.rate_limit import RateLimits
from services.edge.rest.routes import BIZ_TRACE_ID, ORDER_ID, Route, RouteTable
from services.edge.rest.signature import check_digest, read_signature, verify_signature

JSON: Final = "application/json"
IDEMPOTENCY_KEY: Final = "idempotency-key"
CALLER: Final = "edge"
MERCHANT_ROLES: Final = ("merchant",)

# Requests that one service may hold of all: while it stands still, the others are still reached.
_SHARE_OF_ONE_SERVICE: Final = 0.75

_JSON_TYPE: Final = re.compile(
    r'^application/json(?:[ \t]*;[ \t]*charset="?utf-8"?)?$', re.IGNORECASE
)
_KEY_FORM: Final = re.compile(r"^[\x21-\x7e]{1,64}$")

CallRpc = Callable[[str, Message, float], Awaitable[Message]]
"""Calls an RPC by its path, with a time limit in seconds; raises PaymeshError."""


@dataclass(frozen=True)
class Guards:
    """What stands between a request and the services."""

    keys: MerchantKeys
    nonces: Nonces
    once: IdempotencyKeys
    limits: RateLimits


class MerchantApi:
    """The surface for merchants."""

    def __init__(
        self,
        routes: RouteTable,
        call: CallRpc,
        guards: Guards,
        settings: EdgeSettings,
        clock: Clock,
        ids: IdFactory,
    ) -> None:
        self._routes = routes
        self._call = call
        self._guards = guards
        self._settings = settings
        self._clock = clock
        self._ids = ids
        limit = math.ceil(settings.requests_in_flight_max * _SHARE_OF_ONE_SERVICE)
        self._in_flight = {route.service: InFlight(limit) for route in routes.routes}

    async def __call__(self, visit: Visit, scope: Scope, receive: Receive) -> Answer:
        """Answer a merchant's request; raises PaymeshError."""
        settings = self._settings
        route, values = self._find(visit, scope)
        headers = read_headers(scope)
        body = await read_body(
            receive, headers, bytes_max=settings.body_bytes_max, seconds=settings.body_seconds
        )
        if body:
            _check_media_type(headers)
        key = _read_idempotency_key(headers) if route.changes else ""
        holder = await self._prove(visit, scope, headers, body, changes=route.changes)
        if route.changes and not holder.may_trade:
            raise MerchantSuspendedError(merchant_id=holder.merchant_id)
        request = route.read(values, scope["query_string"], body, key)
        call = self._begin_call(visit, route, holder, request)
        visit.idempotency_key, visit.biz_trace_id = key, call.biz_trace_id
        visit.noun_id = values[0] if values else getattr(request, ORDER_ID, "")
        with bound(call):
            if route.changes:
                return await self._change(visit, route, holder, request, key)
            return await self._pass_on(visit, route, request)

    def _find(self, visit: Visit, scope: Scope) -> tuple[Route, tuple[str, ...]]:
        by_verb, values = self._routes.find(scope["raw_path"])
        if not by_verb:
            raise RouteNotFoundError
        route = by_verb.get(scope["method"])
        if route is None:
            visit.route = f"{scope['method']} {next(iter(by_verb.values())).template}"
            raise MethodNotAllowedError(allow=", ".join(sorted(by_verb)))
        visit.route = route.name
        return route, values

    async def _prove(
        self, visit: Visit, scope: Scope, headers: dict[str, str], body: bytes, *, changes: bool
    ) -> KeyHolder:
        """Return who sent the request; raises what proves that it is not so."""
        signed = read_signature(
            scope["method"],
            scope["raw_path"],
            scope["query_string"],
            headers,
            has_body=bool(body),
            changes=changes,
            now_seconds=self._clock.now().timestamp(),
            window_seconds=self._settings.signature_window_seconds,
        )
        check_digest(headers.get("content-digest"), body)
        key = await self._guards.keys.find(signed.key_id)
        verify_signature(signed, key.public_key)
        holder = key.holder
        visit.merchant_id, visit.key_id, visit.mode = holder.merchant_id, holder.key_id, holder.mode
        self._guards.limits.check(holder.merchant_id, holder.mode)
        await self._guards.nonces.take(signed.key_id, signed.nonce)
        return holder

    def _begin_call(
        self, visit: Visit, route: Route, holder: KeyHolder, request: Message
    ) -> CallContext:
        story = ""
        if route.begins_story:
            story = getattr(request, BIZ_TRACE_ID) or self._ids.new("biz")
        return CallContext(
            principal=Principal(
                tenant_id=self._settings.tenant_id,
                mode=Mode(holder.mode),
                merchant_id=holder.merchant_id,
                actor_type=ActorType.MERCHANT,
                actor_id=holder.key_id,
                roles=MERCHANT_ROLES,
            ),
            biz_trace_id=story,
            caller=CALLER,
            deadline_at=visit.deadline_at,
            causation_id=visit.request_id,
        )

    async def _change(
        self, visit: Visit, route: Route, holder: KeyHolder, request: Message, key: str
    ) -> Answer:
        """Let one of several equal requests through, and give its answer to the others."""
        once = self._guards.once
        # The bytes are compared with those of this very code; others go on to the service.
        content = request.SerializeToString(deterministic=True)
        turn = await once.begin(holder.mode, holder.merchant_id, route.rpc, key, content)
        visit.is_journaled = True
        if isinstance(turn, StoredAnswer):
            visit.replayed = True
            visit.biz_trace_id = turn.headers.get(BIZ_TRACE_ID_HEADER, "")
            headers = {**turn.headers, REPLAYED_HEADER: "true"}
            return Answer(turn.status, turn.content_type, turn.body, headers)
        kept: StoredAnswer | None = None
        try:
            answer = await self._pass_on(visit, route, request)
            kept = StoredAnswer(
                answer.status, answer.content_type, answer.body, dict(answer.headers)
            )
        except PaymeshError as error:
            told = Problem(error, visit.request_id)
            if is_kept(told.status, told.retry):
                kept = StoredAnswer(told.status, problem.CONTENT_TYPE, told.body, told.headers)
            raise
        finally:
            await once.finish(turn, kept)
        return answer

    async def _pass_on(self, visit: Visit, route: Route, request: Message) -> Answer:
        in_flight = self._in_flight[route.service]
        in_flight.enter()
        visit.reached = True
        seconds = max(0.001, visit.deadline_at - self._clock.monotonic())
        try:
            response: Any = await self._call(route.rpc, request, seconds)
        finally:
            in_flight.leave()
        headers = {}
        if route.story_field:
            story = getattr(getattr(response, route.story_field), BIZ_TRACE_ID)
            if story:
                headers[BIZ_TRACE_ID_HEADER] = visit.biz_trace_id = story
        if route.noun_field:
            visit.noun_id = getattr(response, route.noun_field).id
        return Answer(200, JSON, orjson.dumps(route.write(response)), headers)


def _check_media_type(headers: dict[str, str]) -> None:
    if not _JSON_TYPE.match(headers.get("content-type", "")):
        raise MediaTypeUnsupportedError
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise MediaTypeUnsupportedError


def _read_idempotency_key(headers: dict[str, str]) -> str:
    key = headers.get(IDEMPOTENCY_KEY)
    if not key:
        raise IdempotencyKeyMissingError
    if not _KEY_FORM.match(key):
        raise FieldInvalidError(
            field=IDEMPOTENCY_KEY, rule="must have 1 to 64 visible ASCII characters"
        )
    return key
