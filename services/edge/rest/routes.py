"""Routes from the `google.api.http` annotations of the contracts, their only source."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from google.api import annotations_pb2  # type: ignore[import-untyped]
from google.protobuf import message_factory
from google.protobuf.descriptor import (
    Descriptor,
    FieldDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)
from google.protobuf.message import Message

from services.edge.errors import JsonFieldUnknownError, JsonInvalidError
from services.edge.rest.json_codec import (
    BODY,
    Check,
    JsonCodec,
    Misfit,
    Reader,
    Write,
    parse_json,
    scalar_check,
)

REQUEST_ID: Final = "request_id"
BIZ_TRACE_ID: Final = "biz_trace_id"
ORDER_ID: Final = "order_id"
_VERBS: Final = ("get", "put", "post", "delete", "patch")
_VARIABLE: Final = re.compile(r"^\{([a-z][a-z0-9_]*)\}$")
_LITERAL: Final = re.compile(r"^[A-Za-z0-9_-]+$")
# What a variable of a path may be: ids and numbers of ours, never an escape or a dot segment.
_SEGMENT: Final = re.compile(r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$")
_QUERY_FIELDS_MAX: Final = 32
_INTEGER: Final = re.compile(r"^-?[0-9]{1,19}$")


class RouteError(ValueError):
    """An annotation of a contract cannot be served; the message names it."""


@dataclass(frozen=True)
class Route:
    """One REST method and the RPC behind it."""

    verb: str
    """HTTP method in capitals."""
    template: str
    """`/v1/orders/{order_id}`."""
    service: str
    """Name of the service in the topology: `trade`."""
    rpc: str
    """`/paymesh.trade.v1.TradeService/GetOrder`."""
    variables: tuple[str, ...]
    """Fields of the request that the path gives, in its order."""
    changes: bool
    """Whether it changes something: it then needs an Idempotency-Key."""
    request_class: type[Message]
    response_class: type[Message]
    takes_request_id: bool
    begins_story: bool
    """Whether it makes the noun that a business story begins with."""
    body: Reader | None
    query: Mapping[str, Callable[[Any, list[str]], None]]
    write: Write
    variable_checks: tuple[Check, ...]
    story_field: str = ""
    """Field of the response whose message names the story; empty when none does."""
    noun_field: str = ""
    """Field of the response whose message has an id; empty when none has."""

    @property
    def name(self) -> str:
        """As logs and refusals call it: `POST /v1/orders`."""
        return f"{self.verb} {self.template}"

    def read(self, values: tuple[str, ...], query: bytes, body: bytes, request_id: str) -> Message:
        """Return the RPC's request.

        Raises:
            JsonInvalidError, JsonFieldUnknownError: naming the field.
        """
        if self.body is not None:
            message = self.body.read(parse_json(body) if body else {})
        elif body:
            raise JsonInvalidError(field=BODY, rule="must be absent")
        else:
            message = self.request_class()
        if query:
            self._read_query(message, query)
        for name, check, value in zip(self.variables, self.variable_checks, values, strict=True):
            try:
                setattr(message, name, check(value))
            except Misfit as misfit:
                raise JsonInvalidError(field=name, rule=misfit.rule) from None
        if self.takes_request_id:
            setattr(message, REQUEST_ID, request_id)
        return message

    def _read_query(self, message: Message, query: bytes) -> None:
        try:
            pairs = parse_qsl(
                query.decode("ascii"),
                keep_blank_values=True,
                strict_parsing=True,
                errors="strict",
                max_num_fields=_QUERY_FIELDS_MAX,
            )
        except ValueError:
            raise JsonInvalidError(field="query", rule="must be well-formed") from None
        given: dict[str, list[str]] = {}
        for name, value in pairs:
            given.setdefault(name, []).append(value)
        for name, values in given.items():
            fill = self.query.get(name)
            if fill is None:
                raise JsonFieldUnknownError(field=name[:64])
            try:
                fill(message, values)
            except Misfit as misfit:
                raise JsonInvalidError(field=name, rule=misfit.rule) from None


@dataclass
class _Node:
    literals: dict[str, _Node] = field(default_factory=dict)
    variable: _Node | None = None
    routes: dict[str, Route] = field(default_factory=dict)


class RouteTable:
    """All routes, found by path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        self.routes = tuple(routes)
        for route in self.routes:
            self._add(route)

    def find(self, raw_path: bytes) -> tuple[Mapping[str, Route], tuple[str, ...]]:
        """Return the routes of a path by HTTP method, and the values of its variables.

        The path is taken as it came: an escape, an empty segment or a dot segment matches nothing.
        Both are empty where nothing matches.
        """
        try:
            segments = raw_path.decode("ascii").split("/")
        except UnicodeDecodeError:
            return {}, ()
        if segments[0] or len(segments) > 16:
            return {}, ()
        values: list[str] = []
        node = self._descend(self._root, segments, 1, values)
        return ({}, ()) if node is None else (node.routes, tuple(values))

    def _descend(
        self, node: _Node, segments: list[str], depth: int, values: list[str]
    ) -> _Node | None:
        if depth == len(segments):
            return node if node.routes else None
        segment = segments[depth]
        literal = node.literals.get(segment)
        if literal is not None:
            found = self._descend(literal, segments, depth + 1, values)
            if found is not None:
                return found
        if node.variable is None or not _SEGMENT.fullmatch(segment):
            return None
        values.append(segment)
        found = self._descend(node.variable, segments, depth + 1, values)
        if found is None:
            values.pop()
        return found

    def _add(self, route: Route) -> None:
        node = self._root
        for segment in route.template.split("/")[1:]:
            if _VARIABLE.match(segment):
                node.variable = node.variable or _Node()
                node = node.variable
            elif _LITERAL.match(segment):
                node = node.literals.setdefault(segment, _Node())
            else:
                raise RouteError(f"{route.rpc}: {segment!r} in {route.template} is not understood")
        if route.verb in node.routes:
            raise RouteError(f"{route.rpc} and {node.routes[route.verb].rpc} share {route.name}")
        node.routes[route.verb] = route


def build_routes(services: Iterable[ServiceDescriptor], codec: JsonCodec) -> RouteTable:
    """Return the routes of all annotated methods.

    Raises:
        RouteError: an annotation that is not understood, or two of the same path and method.
        UnsupportedFieldError: a message that has no form in JSON.
    """
    routes: list[Route] = []
    for service in services:
        for method in service.methods:
            options = method.GetOptions()
            if options.HasExtension(annotations_pb2.http):
                rule = options.Extensions[annotations_pb2.http]
                bindings = (rule, *rule.additional_bindings)
                routes.extend(_route(method, one, codec) for one in bindings)
    return RouteTable(routes)


def _route(method: MethodDescriptor, rule: Any, codec: JsonCodec) -> Route:
    verb = rule.WhichOneof("pattern")
    rpc = f"/{method.containing_service.full_name}/{method.name}"
    if verb not in _VERBS:
        raise RouteError(f"{rpc}: the pattern {verb!r} is not understood")
    if rule.body not in ("", "*") or rule.response_body:
        raise RouteError(f'{rpc}: only `body: "*"` is understood')
    template: str = getattr(rule, verb)
    request, response = method.input_type, method.output_type
    variables = tuple(
        match[1] for match in map(_VARIABLE.match, template.split("/")) if match is not None
    )
    if not template.startswith("/") or any(one not in request.fields_by_name for one in variables):
        raise RouteError(f"{rpc}: {template} names what the request has not")
    takes_request_id = REQUEST_ID in request.fields_by_name
    left_out = frozenset(variables) | ({REQUEST_ID} if takes_request_id else set())
    has_body = rule.body == "*"
    return Route(
        verb=verb.upper(),
        template=template,
        service=method.containing_service.full_name.split(".")[1],
        rpc=rpc,
        variables=variables,
        changes=verb != "get",
        request_class=message_factory.GetMessageClass(request),
        response_class=message_factory.GetMessageClass(response),
        takes_request_id=takes_request_id,
        begins_story=verb != "get" and BIZ_TRACE_ID in request.fields_by_name,
        body=codec.reader(request, left_out) if has_body else None,
        query=_query_fields(request.fields, left_out) if not has_body else {},
        write=codec.writer(response),
        variable_checks=tuple(scalar_check(request.fields_by_name[one]) for one in variables),
        story_field=_field_with(BIZ_TRACE_ID, response),
        noun_field=_field_with("id", response),
    )


def _field_with(name: str, response: Descriptor) -> str:
    """Return the first field of a response whose message has a field `name`; empty for none."""
    for one in response.fields:
        inner = one.message_type
        if not one.is_repeated and inner is not None and name in inner.fields_by_name:
            return str(one.name)
    return ""


def _query_fields(
    fields: Iterable[FieldDescriptor], left_out: frozenset[str]
) -> dict[str, Callable[[Any, list[str]], None]]:
    """Return what fills each field that a query may name: those that are no messages."""
    return {
        one.name: _query_fill(one)
        for one in fields
        if one.name not in left_out and one.message_type is None
    }


def _query_fill(of: FieldDescriptor) -> Callable[[Any, list[str]], None]:
    name, check = of.name, scalar_check(of)
    parse: Callable[[str], Any] = str
    if of.cpp_type in (
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    ):
        parse = _integer_of
    elif of.type == FieldDescriptor.TYPE_BOOL:
        parse = {"true": True, "false": False}.get

    def fill(message: Any, values: list[str]) -> None:
        if of.is_repeated:
            getattr(message, name).extend(check(parse(value)) for value in values)
            return
        if len(values) > 1:
            raise Misfit("must be given once")
        setattr(message, name, check(parse(values[0])))

    return fill


def _integer_of(text: str) -> int | str:
    return int(text) if _INTEGER.fullmatch(text) else text
