"""Registers an address; its secret leaves the platform once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from common.clock import Clock
from common.context import CallContext
from common.errors import FieldInvalidError, IdConflictError, PermissionDeniedError
from common.ids import IdFactory
from common.sealing import Sealer
from services.notify.domain.addresses import refusal_of
from services.notify.domain.deliveries import WEBHOOK_TYPES, Endpoint, Owner
from services.notify.errors import WebhookUrlRefusedError
from services.notify.signature import SECRET_BYTES, secret_text
from services.notify.store.endpoints import EndpointStore, NewEndpoint

_METHOD: Final = "CreateWebhookEndpoint"


@dataclass(frozen=True, slots=True)
class EndpointParts:
    """What registering stands on."""

    store: EndpointStore
    sealer: Sealer
    clock: Clock
    ids: IdFactory
    random_bytes: Callable[[int], bytes]
    """Random enough for secrets."""
    private_allowed: bool
    endpoints_max: int


def seal_context(endpoint_id: str) -> str:
    """Return what the secret of an address is sealed for."""
    return f"webhook_endpoints.secret:{endpoint_id}"


async def create_endpoint(
    parts: EndpointParts, request_id: str, url: str, types: Sequence[str], call: CallContext
) -> tuple[Endpoint, str]:
    """Return the address and its secret; without the secret when the request was made before.

    Raises:
        PermissionDeniedError: the caller acts for no merchant.
        WebhookUrlRefusedError: not an address that webhooks may be sent to.
        FieldInvalidError: a type that there is not, or too many addresses.
        IdConflictError: the request was made before for another address.
    """
    principal = call.principal
    if not principal.merchant_id:
        raise PermissionDeniedError(method=_METHOD)
    owner = Owner(principal.tenant_id, str(principal.mode), principal.merchant_id)
    wanted = tuple(dict.fromkeys(types))
    earlier = await parts.store.find_endpoint_of_request(owner, request_id)
    if earlier is not None:
        return _same(earlier, url, wanted), ""
    await _check(parts, owner, url, wanted)
    endpoint_id = parts.ids.new("whk")
    endpoint = Endpoint(endpoint_id, owner, url, wanted, False, parts.clock.now())
    key = parts.random_bytes(SECRET_BYTES)
    new = NewEndpoint(
        endpoint=endpoint,
        request_id=request_id,
        sealed_secret=parts.sealer.seal(key, seal_context(endpoint_id)),
        actor=principal.actor,
        biz_trace_id=call.biz_trace_id,
    )
    earlier = await parts.store.add_endpoint(new)
    if earlier is not None:
        return _same(earlier, url, wanted), ""
    return endpoint, secret_text(key)


def _same(earlier: Endpoint, url: str, types: tuple[str, ...]) -> Endpoint:
    if earlier.url != url:
        raise IdConflictError(field="url")
    if earlier.types != types:
        raise IdConflictError(field="types")
    return earlier


async def _check(parts: EndpointParts, owner: Owner, url: str, types: tuple[str, ...]) -> None:
    rule = refusal_of(url, private_allowed=parts.private_allowed)
    if rule:
        raise WebhookUrlRefusedError(field="url", rule=rule)
    for position, one in enumerate(types):
        if one not in WEBHOOK_TYPES:
            known = ", ".join(WEBHOOK_TYPES)
            raise FieldInvalidError(field=f"types[{position}]", rule=f"must be one of {known}")
    if await parts.store.count_endpoints(owner) >= parts.endpoints_max:
        rule = f"a merchant has at most {parts.endpoints_max} addresses"
        raise FieldInvalidError(field="url", rule=rule)
