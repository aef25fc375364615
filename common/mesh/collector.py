"""Takes the handlers of generated `add_…_to_server` functions, in place of a gRPC server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from common.mesh.incoming import Method


class CollectError(Exception):
    """A service cannot be served in this process; the message says why."""


class Collector:
    """Stands in for a `grpc.aio.Server` and keeps the methods."""

    def __init__(self) -> None:
        self.methods: dict[str, Method] = {}
        """Unary methods by path."""
        self.services: list[str] = []
        """Full names of the services, in the order in which they were added."""

    def collect(self, register: Callable[[grpc.aio.Server], None]) -> list[str]:
        """Take what `register` adds; return the names of its services."""
        before = len(self.services)
        register(cast("grpc.aio.Server", self))
        return self.services[before:]

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[object]) -> None:
        """Ignore: generated code adds the same handlers by name as well."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Take the handlers of one service.

        Raises CollectError for a service that is there already, and for methods with streams: the
        middleware, and with it the table of who may call what, sees unary calls only.
        """
        if service_name in self.services:
            raise CollectError(f"{service_name} is served twice in one process")
        self.services.append(service_name)
        for name, handler in method_handlers.items():
            if handler.request_streaming or handler.response_streaming:
                raise CollectError(f"{service_name}/{name} has streams, which nothing guards yet")
            path = f"/{service_name}/{name}"
            descriptor = find_method(path)
            self.methods[path] = Method(
                path=path,
                service=service_name,
                name=name,
                behaviour=cast("Any", handler.unary_unary),
                parse=cast("Any", handler.request_deserializer),
                serialize=cast("Any", handler.response_serializer),
                descriptor=descriptor,
                changes_nothing=changes_nothing(descriptor),
            )


def find_method(path: str) -> MethodDescriptor | None:
    """Return the contract of `/package.Service/Method`; None when no stub of it is imported."""
    service, _, name = path.lstrip("/").partition("/")
    try:
        found = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        return None
    return found.methods_by_name.get(name)


def changes_nothing(descriptor: MethodDescriptor | None) -> bool:
    """Say whether the contract calls a method free of side effects."""
    if descriptor is None:
        return False
    return descriptor.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS


def may_repeat(descriptor: MethodDescriptor | None) -> bool:
    """Say whether the contract lets the same request be executed twice with one effect."""
    if descriptor is None:
        return False
    level = descriptor.GetOptions().idempotency_level
    return level in (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT)
