"""Holds requests against the rules in their contracts (protovalidate annotations).

The contracts are the one source of rules. Messages whose whole tree has no rule are let through
without a look; which those are is found out once for each method. One rule is not written there:
no text holds U+0000, which PostgreSQL takes in no text, so that a call with it would fail inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

import protovalidate
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from common.errors import FieldInvalidError
from common.mesh.incoming import IncomingCall, IncomingMiddleware

_RULES_FIELD_NUMBER: Final = 1159
"""Number of protovalidate's option on messages, fields and oneofs (buf/validate/validate.proto)."""


class RequestInvalidError(FieldInvalidError):
    """{field}: {rule}"""

    def __init__(self, violations: tuple[tuple[str, str], ...]) -> None:
        self.violations = violations
        """Path and rule of every field that breaks one."""
        super().__init__(field=violations[0][0], rule=violations[0][1])


class IncomingValidation(IncomingMiddleware):
    """Refuses requests that break a rule of their contract, with the paths of all such fields."""

    def __init__(self) -> None:
        self._has_rules: dict[str, bool] = {}

    def before(self, call: IncomingCall) -> None:
        """Check the request."""
        method = call.method
        has_rules = self._has_rules.get(method.path)
        if has_rules is None:
            has_rules = method.descriptor is None or tree_has_rules(method.descriptor.input_type)
            self._has_rules[method.path] = has_rules
        if has_rules:
            check(call.request)


def check(message: Message) -> None:
    """Hold a message against its contract; raises RequestInvalidError."""
    violations = protovalidate.collect_violations(message)
    if violations:
        raise RequestInvalidError(tuple(_read(violation) for violation in violations))
    # Most messages have no zero byte at all, and are not walked through.
    if _has_ruled_texts(message.DESCRIPTOR) and b"\0" in message.SerializeToString():
        fields = tuple(_find_nul(message))
        if fields:
            rule = "must not hold the character U+0000"
            raise RequestInvalidError(tuple((field, rule) for field in fields))


@cache
def _has_ruled_texts(descriptor: Descriptor, seen: frozenset[str] = frozenset()) -> bool:
    """Say whether texts of a message are looked at: none where no rule is in its whole tree."""
    if descriptor.full_name in seen or not tree_has_rules(descriptor):
        return False
    seen |= {descriptor.full_name}
    return any(
        field.type == FieldDescriptor.TYPE_STRING
        if field.message_type is None
        else _has_ruled_texts(field.message_type, seen)
        for field in descriptor.fields
    )


def _find_nul(message: Message, path: str = "") -> Iterator[str]:
    """Yield the paths of texts with U+0000."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        for place, one in enumerate(values):
            name = f"{path}{field.name}[{place}]" if field.is_repeated else f"{path}{field.name}"
            if isinstance(one, str):
                if "\0" in one:
                    yield name
            elif field.message_type is not None and _has_ruled_texts(field.message_type):
                yield from _find_nul(one, f"{name}.")


def _read(violation: protovalidate.Violation) -> tuple[str, str]:
    proto = violation.proto
    parts = []
    for element in () if proto.field is None else proto.field.elements:
        subscript = element.subscript
        text = str(element.field_name)
        parts.append(text if subscript is None else f"{text}[{subscript.value}]")
    return ".".join(parts), str(proto.message or proto.rule_id)


def tree_has_rules(descriptor: Descriptor, seen: frozenset[str] = frozenset()) -> bool:
    """Say whether a message or anything inside it carries a rule."""
    if descriptor.full_name in seen:
        return False
    seen |= {descriptor.full_name}
    options = [descriptor.GetOptions(), *(oneof.GetOptions() for oneof in descriptor.oneofs)]
    if any(_has_rules_option(option) for option in options):
        return True
    return any(_field_has_rules(field, seen) for field in descriptor.fields)


def _field_has_rules(field: FieldDescriptor, seen: frozenset[str]) -> bool:
    if _has_rules_option(field.GetOptions()):
        return True
    return field.message_type is not None and tree_has_rules(field.message_type, seen)


def _has_rules_option(options: Message) -> bool:
    # The stubs are built without the rules' own types, so the option is an unknown field: its tag
    # (field number, wire type 2) stands in the serialised options.
    tag = (_RULES_FIELD_NUMBER << 3) | 2
    encoded = bytes(((tag & 0x7F) | 0x80, tag >> 7))
    return encoded in options.SerializeToString()
