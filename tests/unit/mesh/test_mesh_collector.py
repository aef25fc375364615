"""What a process agrees to serve."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from paymesh.mesh.v1 import add_EchoServiceServicer_to_server, add_MeshServiceServicer_to_server

from common.mesh.collector import CollectError, Collector, changes_nothing, find_method, may_repeat
from common.mesh.echo import EchoServicer


def test_collecting_a_service_finds_its_methods_and_contract() -> None:
    collector = Collector()
    assert collector.collect(partial(add_EchoServiceServicer_to_server, EchoServicer())) == [
        "paymesh.mesh.v1.EchoService"
    ]
    method = collector.methods["/paymesh.mesh.v1.EchoService/Echo"]
    assert method.descriptor is not None
    assert method.changes_nothing


def test_collecting_a_service_twice_is_refused() -> None:
    collector = Collector()
    collector.collect(partial(add_EchoServiceServicer_to_server, EchoServicer()))
    with pytest.raises(CollectError, match="twice"):
        collector.collect(partial(add_EchoServiceServicer_to_server, EchoServicer()))


def test_collecting_a_method_with_streams_is_refused() -> None:
    class Streams:
        async def Exchange(self, request: Any, context: Any) -> None:  # noqa: N802
            """Do nothing."""

    servicer: Any = Streams()
    with pytest.raises(CollectError, match="Exchange"):
        Collector().collect(partial(add_MeshServiceServicer_to_server, servicer))


def test_method_without_a_contract_is_taken_to_change_things() -> None:
    assert find_method("/paymesh.nowhere.v1.NoService/No") is None
    assert find_method("/paymesh.mesh.v1.EchoService/No") is None
    assert not changes_nothing(None)
    assert not may_repeat(None)
