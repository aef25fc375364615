"""Domain ↔ contract, and the nouns of events as the JSON that merchants know from REST.

In webhooks as over REST, names are those of the contract, amounts are JSON numbers, enums are
names without their prefix, instants are RFC 3339, and what is absent is left out. Put together
once per message type from its descriptor; values of a newer contract survive as `UNKNOWN_n`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.notify.v1 import DeliveryState as DeliveryStateMessage
from paymesh.notify.v1 import WebhookDelivery, WebhookEndpoint

from services.notify.domain.deliveries import Delivery, Endpoint

Render = Callable[[Any], Any]
"""Takes a field's value, returns its JSON value."""

_TIMESTAMP: Final = "google.protobuf.Timestamp"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_renderers: Final[dict[str, _Renderer]] = {}


def endpoint_to_proto(endpoint: Endpoint) -> WebhookEndpoint:
    """Return an address as callers see it."""
    return WebhookEndpoint(
        id=endpoint.id,
        url=endpoint.url,
        types=endpoint.types,
        disabled=endpoint.disabled,
        created_at=timestamp(endpoint.created_at),
    )


def delivery_to_proto(delivery: Delivery) -> WebhookDelivery:
    """Return a delivery as callers see it."""
    message = WebhookDelivery(
        id=delivery.id,
        webhook_id=delivery.webhook_id,
        endpoint_id=delivery.endpoint_id,
        type=delivery.type,
        subject_id=delivery.subject_id,
        state=DeliveryStateMessage.Value(f"DELIVERY_STATE_{delivery.state}"),
        attempts=delivery.attempts,
        last_http_status=delivery.last_http_status,
        created_at=timestamp(delivery.created_at),
    )
    if delivery.next_attempt_at is not None:
        message.next_attempt_at.FromDatetime(delivery.next_attempt_at)
    return message


def timestamp(at: datetime) -> Timestamp:
    """Return an instant as contracts carry it."""
    message = Timestamp()
    message.FromDatetime(at)
    return message


def render(message: Message) -> dict[str, Any]:
    """Return the JSON object of a message."""
    descriptor: Any = message.DESCRIPTOR
    return _renderer(descriptor).render(message)


def format_instant(seconds: int, nanos: int) -> str:
    """Return an instant by RFC 3339 in UTC, with as many digits as it has (0, 3, 6 or 9)."""
    text = (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]
    if not nanos:
        return f"{text}Z"
    digits = f"{nanos:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}Z"


class _Renderer:
    """Turns messages of one type into JSON objects."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        self._fields: tuple[tuple[str, bool, bool, Render], ...] = ()

    def build(self) -> None:
        """Put the fields together; apart from the constructor, as types may hold themselves."""
        self._fields = tuple(
            (
                field.name,
                field.has_presence,
                field.type == FieldDescriptor.TYPE_ENUM and not field.is_repeated,
                _render_of(field),
            )
            for field in self._descriptor.fields
        )

    def render(self, message: Any) -> dict[str, Any]:
        """Return the object; enums of value zero mean "never sent" and are left out, too."""
        found = {}
        for name, has_presence, is_enum, render_value in self._fields:
            if has_presence and not message.HasField(name):
                continue
            value = getattr(message, name)
            if is_enum and value == 0:
                continue
            found[name] = render_value(value)
        return found


def _renderer(descriptor: Descriptor) -> _Renderer:
    renderer = _renderers.get(descriptor.full_name)
    if renderer is None:
        renderer = _renderers[descriptor.full_name] = _Renderer(descriptor)
        renderer.build()
    return renderer


def _render_of(field: FieldDescriptor) -> Render:
    message_type = field.message_type
    if message_type is not None and message_type.GetOptions().map_entry:
        one = _render_one(message_type.fields_by_name["value"])
        return lambda entries: {str(name): one(entries[name]) for name in entries}
    one = _render_one(field)
    if field.is_repeated:
        return lambda values: [one(value) for value in values]
    return one


def _render_one(field: FieldDescriptor) -> Render:
    if field.message_type is not None:
        if field.message_type.full_name == _TIMESTAMP:
            return lambda at: format_instant(at.seconds, at.nanos)
        return _renderer(field.message_type).render
    if field.type == FieldDescriptor.TYPE_ENUM and field.enum_type is not None:
        return _render_enum(field.enum_type)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: base64.b64encode(value).decode()
    return lambda value: value


def _render_enum(enum: EnumDescriptor) -> Render:
    prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"
    names = {value.number: value.name.removeprefix(prefix) for value in enum.values}
    return lambda number: names.get(number) or f"UNKNOWN_{number}"
