"""JSON ↔ messages of the contracts, by their descriptors and strictly.

The JSON form of protobuf's own library writes int64 as strings, takes numbers like `1e3` for
integers and camel case for names; amounts are JSON integers here, both ways, and names are those
of the contract. Readers and writers are put together once per message type, at start-up.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from services.edge.errors import JsonFieldUnknownError, JsonInvalidError

TIMESTAMP: Final = "google.protobuf.Timestamp"
BODY: Final = "body"
"""How errors name the whole body."""

_RANGES: Final[Mapping[int, tuple[int, int]]] = {
    **dict.fromkeys(
        (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SFIXED32),
        (-(2**31), 2**31 - 1),
    ),
    **dict.fromkeys(
        (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_SFIXED64),
        (-(2**63), 2**63 - 1),
    ),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32), (0, 2**32 - 1)),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64), (0, 2**64 - 1)),
}
_RFC3339: Final = re.compile(
    r"^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Check = Callable[[Any], Any]
"""Takes a JSON value, returns what the message takes; raises Misfit."""
Fill = Callable[[Any, Any], None]
"""Puts a JSON value into a message; raises Misfit."""


class Misfit(Exception):  # noqa: N818 - becomes one of the errors, once the path is known
    """A value does not fit; the path grows on the way out."""

    def __init__(self, rule: str, *path: str, unknown: bool = False) -> None:
        super().__init__(rule)
        self.rule = rule
        self.path = list(path)
        self.unknown = unknown

    def as_error(self) -> JsonInvalidError | JsonFieldUnknownError:
        """Return the error with the whole path: `amount.amount_minor`, `codes[2]`."""
        path = ""
        for part in self.path:
            path += part if part.startswith("[") or not path else f".{part}"
        if self.unknown:
            return JsonFieldUnknownError(field=path or BODY)
        return JsonInvalidError(field=path or BODY, rule=self.rule)


class UnsupportedFieldError(TypeError):
    """A contract that REST reaches has a field that JSON cannot carry here."""


# Reading.


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON text; raises JsonInvalidError.

    Names twice in one object, NaN, broken UTF-8 and what is nested too deeply are refused.
    """
    try:
        # Strict about UTF-8, numbers, surrogates and depth, but the last of two equal names wins;
        # the standard library tells the names, but is lax about the rest. Both are C.
        orjson.loads(body)
        return json.loads(body.decode(), object_pairs_hook=_unique)
    except Misfit as misfit:
        raise misfit.as_error() from None
    except (ValueError, RecursionError):
        raise JsonInvalidError(field=BODY, rule="must be well-formed JSON in UTF-8") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise Misfit("must be given once", name[:64])
            seen.add(name)
    return found


def _check_string(value: Any) -> str:
    if type(value) is not str:
        raise Misfit("must be a string")
    if "\0" in value:
        raise Misfit("must not contain U+0000")
    return value


def _check_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise Misfit("must be true or false")
    return value


def _check_bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(_check_string(value), validate=True)
    except (binascii.Error, ValueError):
        raise Misfit("must be base64") from None


def _integer_check(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int:
            raise Misfit("must be an integer")
        if not low <= value <= high:
            raise Misfit(f"must be from {low} to {high}")
        return value

    return check


def enum_prefix(enum: EnumDescriptor) -> str:
    """Return what the names of an enum's values begin with: `ORDER_STATE_`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"


def _enum_check(enum: EnumDescriptor) -> Check:
    prefix = enum_prefix(enum)
    numbers = {
        value.name.removeprefix(prefix): value.number for value in enum.values if value.number
    }
    rule = f"must be one of {', '.join(numbers)}"

    def check(value: Any) -> int:
        number = numbers.get(value) if type(value) is str else None
        if number is None:
            raise Misfit(rule)
        return number

    return check


def scalar_check(field: FieldDescriptor) -> Check:
    """Return what reads one value of a field that is no message.

    Raises:
        UnsupportedFieldError: a floating-point field: there is none near money.
    """
    kind = field.type
    if kind == FieldDescriptor.TYPE_STRING:
        return _check_string
    if kind == FieldDescriptor.TYPE_BOOL:
        return _check_bool
    if kind == FieldDescriptor.TYPE_BYTES:
        return _check_bytes
    if kind == FieldDescriptor.TYPE_ENUM and field.enum_type is not None:
        return _enum_check(field.enum_type)
    if kind in _RANGES:
        return _integer_check(*_RANGES[kind])
    raise UnsupportedFieldError(f"{field.full_name}: JSON has no form for it here")


def _fill_timestamp(message: Any, value: Any) -> None:
    match = _RFC3339.match(_check_string(value))
    try:
        if match is None:
            raise ValueError
        whole = datetime.fromisoformat(f"{value[:19]}{match[8].replace('Z', '+00:00')}")
    except ValueError:
        raise Misfit("must be a time by RFC 3339") from None
    since = whole - _EPOCH
    message.seconds = since.days * 86_400 + since.seconds
    message.nanos = int((match[7] or "").ljust(9, "0"))


class Reader:
    """Fills messages of one type from JSON objects."""

    def __init__(self, descriptor: Descriptor, left_out: frozenset[str], codec: JsonCodec) -> None:
        self._class: type[Message] = message_factory.GetMessageClass(descriptor)
        self._fields: dict[str, Fill] = {}
        self._descriptor = descriptor
        self._left_out = left_out
        self._codec = codec

    def build(self) -> None:
        """Put the fields together; apart from the constructor, as types may hold themselves."""
        for field in self._descriptor.fields:
            if field.name not in self._left_out:
                self._fields[field.name] = self._field(field)

    def read(self, value: Any) -> Message:
        """Return the message that a JSON value stands for.

        Raises:
            JsonInvalidError, JsonFieldUnknownError: with the path of the offending field.
        """
        message = self._class()
        try:
            self.fill(message, value)
        except Misfit as misfit:
            raise misfit.as_error() from None
        return message

    def fill(self, message: Any, value: Any) -> None:
        """Fill `message`; raises Misfit."""
        if type(value) is not dict:
            raise Misfit("must be an object")
        fields = self._fields
        for name, part in value.items():
            fill = fields.get(name)
            if fill is None:
                raise Misfit("unknown", name[:64], unknown=True)
            try:
                fill(message, part)
            except Misfit as misfit:
                misfit.path.insert(0, name)
                raise

    def _field(self, field: FieldDescriptor) -> Fill:
        message_type = field.message_type
        if message_type is not None and message_type.GetOptions().map_entry:
            return self._map(field.name, message_type)
        fill = self._repeated(field) if field.is_repeated else self._singular(field)
        oneof = field.containing_oneof
        if oneof is None or len(oneof.fields) == 1:
            return fill
        return _alone(oneof.name, fill)

    def _singular(self, field: FieldDescriptor) -> Fill:
        name = field.name
        if field.message_type is None:
            check = scalar_check(field)

            def fill_scalar(message: Any, value: Any) -> None:
                setattr(message, name, check(value))

            return fill_scalar
        fill = self._codec.filler(field.message_type)

        def fill_message(message: Any, value: Any) -> None:
            part = getattr(message, name)
            part.SetInParent()
            fill(part, value)

        return fill_message

    def _repeated(self, field: FieldDescriptor) -> Fill:
        name = field.name
        check = scalar_check(field) if field.message_type is None else None
        fill = None if field.message_type is None else self._codec.filler(field.message_type)

        def fill_list(message: Any, value: Any) -> None:
            if type(value) is not list:
                raise Misfit("must be a list")
            into = getattr(message, name)
            for position, part in enumerate(value):
                try:
                    if fill is not None:
                        fill(into.add(), part)
                    elif check is not None:
                        into.append(check(part))
                except Misfit as misfit:
                    misfit.path.insert(0, f"[{position}]")
                    raise

        return fill_list

    def _map(self, name: str, entry: Descriptor) -> Fill:
        key, content = entry.fields_by_name["key"], entry.fields_by_name["value"]
        if key.type != FieldDescriptor.TYPE_STRING:
            raise UnsupportedFieldError(f"{entry.full_name}: names of a JSON object are strings")
        check = scalar_check(content) if content.message_type is None else None
        fill = None if content.message_type is None else self._codec.filler(content.message_type)

        def fill_map(message: Any, value: Any) -> None:
            if type(value) is not dict:
                raise Misfit("must be an object")
            into = getattr(message, name)
            for part_name, part in value.items():
                try:
                    _check_string(part_name)
                    if fill is not None:
                        fill(into[part_name], part)
                    elif check is not None:
                        into[part_name] = check(part)
                except Misfit as misfit:
                    misfit.path.insert(0, part_name[:64])
                    raise

        return fill_map


def _alone(oneof: str, fill: Fill) -> Fill:
    def fill_alone(message: Any, value: Any) -> None:
        if message.WhichOneof(oneof) is not None:
            raise Misfit(f"must be the only one of {oneof}")
        fill(message, value)

    return fill_alone


# Writing.

Write = Callable[[Any], Any]
"""Takes a field's value, returns its JSON value."""


def format_timestamp(seconds: int, nanos: int) -> str:
    """Return an instant by RFC 3339 in UTC, with as many digits as it has (0, 3, 6 or 9)."""
    text = (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]
    if not nanos:
        return f"{text}Z"
    digits = f"{nanos:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}Z"


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _enum_write(enum: EnumDescriptor) -> Write:
    prefix = enum_prefix(enum)
    names = {value.number: value.name.removeprefix(prefix) for value in enum.values}

    def write(number: int) -> str:
        # A value that a newer service knows and we do not.
        return names.get(number) or f"UNKNOWN_{number}"

    return write


def _same(value: Any) -> Any:
    return value


class Writer:
    """Turns messages of one type into JSON objects."""

    def __init__(self, descriptor: Descriptor, codec: JsonCodec) -> None:
        self._descriptor = descriptor
        self._codec = codec
        self._fields: tuple[tuple[str, bool, bool, Write], ...] = ()

    def build(self) -> None:
        """Put the fields together; apart from the constructor, as types may hold themselves."""
        self._fields = tuple(self._field(field) for field in self._descriptor.fields)

    def write(self, message: Any) -> dict[str, Any]:
        """Return the JSON object of a message.

        Absent fields are left out, and so are enums of value zero, which mean "never sent"; empty
        strings, zeros, lists and maps are written.
        """
        found = {}
        for name, has_presence, is_enum, write in self._fields:
            if has_presence and not message.HasField(name):
                continue
            value = getattr(message, name)
            if is_enum and value == 0:
                continue
            found[name] = write(value)
        return found

    def _field(self, field: FieldDescriptor) -> tuple[str, bool, bool, Write]:
        is_enum = field.type == FieldDescriptor.TYPE_ENUM and not field.is_repeated
        return field.name, field.has_presence, is_enum, self._write_of(field)

    def _write_of(self, field: FieldDescriptor) -> Write:
        message_type = field.message_type
        if message_type is not None and message_type.GetOptions().map_entry:
            one = self._one(message_type.fields_by_name["value"])

            # A map of scalars has no `items()` that a type checker would know of.
            return lambda entries: {name: one(entries[name]) for name in entries}
        one = self._one(field)
        if field.is_repeated:
            return lambda values: [one(value) for value in values]
        return one

    def _one(self, field: FieldDescriptor) -> Write:
        if field.message_type is not None:
            return self._codec.writer(field.message_type)
        if field.type == FieldDescriptor.TYPE_ENUM and field.enum_type is not None:
            return _enum_write(field.enum_type)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return _write_bytes
        scalar_check(field)  # raises for what has no form
        return _same


class JsonCodec:
    """The readers and writers of all message types that REST reaches."""

    def __init__(self) -> None:
        self._readers: dict[tuple[str, frozenset[str]], Reader] = {}
        self._writers: dict[str, Writer] = {}

    def reader(self, descriptor: Descriptor, left_out: frozenset[str] = frozenset()) -> Reader:
        """Return the reader of a type; fields in `left_out` are unknown to it."""
        key = (descriptor.full_name, left_out)
        reader = self._readers.get(key)
        if reader is None:
            reader = self._readers[key] = Reader(descriptor, left_out, self)
            reader.build()
        return reader

    def filler(self, descriptor: Descriptor) -> Fill:
        """Return what fills a part of a message."""
        if descriptor.full_name == TIMESTAMP:
            return _fill_timestamp
        return self.reader(descriptor).fill

    def writer(self, descriptor: Descriptor) -> Write:
        """Return what writes messages of a type."""
        if descriptor.full_name == TIMESTAMP:
            return lambda at: format_timestamp(at.seconds, at.nanos)
        writer = self._writers.get(descriptor.full_name)
        if writer is None:
            writer = self._writers[descriptor.full_name] = Writer(descriptor, self)
            writer.build()
        return writer.write
