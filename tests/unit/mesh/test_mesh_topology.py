"""Where services are, how calls travel, and who may call whom: the files that say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from common.mesh.middleware.authorisation import AccessError, load_access, parse_access
from common.mesh.topology import Topology, TopologyError, Way, load_topology, parse_topology

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted(path for path in (ROOT / "topology").glob("*.toml") if path.stem != "access")


def small(**changes: Any) -> dict[str, Any]:
    """Return a proper arrangement, but for the changes."""
    return {
        "name": "small",
        "services": {"a": {"port": 1}, "b": {"port": 2}, "c": {"port": 3, "host": "far"}},
        "processes": {"x": ["a", "b"], "y": ["c"]},
        **changes,
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_loading_each_file_places_every_service_once(path: Path) -> None:
    topology = load_topology(path, {})
    assert topology.name == path.stem
    hosted = [service for services in topology.processes.values() for service in services]
    assert sorted(hosted) == sorted(topology.services)
    ports = [topology.port_of(service) for service in hosted]
    assert len(set(ports)) == len(ports)


def test_files_agree_on_services_and_ports() -> None:
    loaded = [load_topology(path, {}) for path in FILES]
    assert all(topology.services == loaded[0].services for topology in loaded)


def test_ports_of_the_environment_override_the_file() -> None:
    topology = load_topology(FILES[0], {"PAYMESH_PORTS": '{"account": 9, "elsewhere": 8}'})
    assert topology.address_of("account") == "127.0.0.1:9"


@pytest.mark.parametrize("ports", ["{", "[1]", '{"account": "no"}'])
def test_ports_that_are_none_are_refused(ports: str) -> None:
    with pytest.raises(TopologyError, match="PAYMESH_PORTS"):
        load_topology(FILES[0], {"PAYMESH_PORTS": ports})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"processes": {"x": ["a", "b"]}}, "no process hosts c"),
        ({"processes": {"x": ["a", "b", "c"], "y": ["c"]}}, "in two processes"),
        ({"processes": {"x": ["a", "b", "c", "d"]}}, "which is no service"),
        ({"way": "pigeon"}, "way"),
        ({"unknown": 1}, "unknown"),
        ({"services": {"a": {"port": 70_000}}}, "port"),
        ({"pairs": [{"caller": "a", "target": "c", "way": "local"}]}, "do not share"),
    ],
)
def test_loading_what_cannot_be_says_what_is_wrong(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(TopologyError, match=problem):
        parse_topology(small(**changes))


def test_loading_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"nothing\.toml"):
        load_topology(tmp_path / "nothing.toml", {})


def ways(topology: Topology) -> tuple[Way, Way]:
    """Return how a reaches b, in its process, and c, outside of it."""
    return (
        topology.way_of("a", "b", is_local=True),
        topology.way_of("a", "c", is_local=False),
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (Way.LOCAL, Way.STREAM)),
        ({"way": "unary"}, (Way.LOCAL, Way.UNARY)),
        ({"pairs": [{"caller": "*", "target": "c", "way": "unary"}]}, (Way.LOCAL, Way.UNARY)),
        ({"pairs": [{"caller": "a", "target": "*", "way": "stream"}]}, (Way.STREAM, Way.STREAM)),
        ({"pairs": [{"caller": "a", "target": "b", "way": "unary"}]}, (Way.UNARY, Way.STREAM)),
    ],
)
def test_way_follows_process_and_pairs(changes: dict[str, Any], expected: tuple[Way, Way]) -> None:
    assert ways(parse_topology(small(**changes))) == expected


def test_host_may_hold_the_name_of_the_service() -> None:
    topology = parse_topology(small(host="{service}.mesh.svc"))
    assert topology.address_of("a") == "a.mesh.svc:1"
    assert topology.address_of("c") == "far:3"


def test_access_table_names_only_methods_that_exist() -> None:
    """A permission for a method that was renamed would silently be none."""
    image = FileDescriptorSet.FromString((ROOT / "build" / "contracts.binpb").read_bytes())
    known = {
        f"{file.package}.{service.name}/{method.name}"
        for file in image.file
        for service in file.service
        for method in service.method
    }
    table = load_access(ROOT / "topology" / "access.toml")
    for rule in table.rules:
        for method in rule.methods:
            fits = [one for one in known if one == method or method.endswith("*")]
            assert fits, f"no contract has {method}"


def test_access_table_names_only_callers_that_exist() -> None:
    services = set(load_topology(FILES[0], {}).services)
    for rule in load_access(ROOT / "topology" / "access.toml").rules:
        assert set(rule.callers) <= services | {"operator", "@services", "@anyone"}


def test_access_is_denied_by_default() -> None:
    table = parse_access({"allow": [{"methods": ["p.S/A"], "callers": ["x"]}]})
    assert table.roles_for("/p.S/A", "x") == (frozenset(),)
    assert table.roles_for("/p.S/B", "x") == ()
    assert table.roles_for("/p.S/A", "y") == ()
    assert table.roles_for("/p.S/A", "") == ()


def test_access_of_any_service_needs_a_name() -> None:
    table = parse_access({"allow": [{"methods": ["p.*"], "callers": ["@services"]}]})
    assert table.roles_for("/p.S/A", "x")
    assert not table.roles_for("/p.S/A", "")
    anyone = parse_access({"allow": [{"methods": ["p.*"], "callers": ["@anyone"]}]})
    assert anyone.roles_for("/p.S/A", "")


@pytest.mark.parametrize("data", [{"deny": []}, {"allow": [{"methods": ["x"]}]}])
def test_access_table_that_is_wrong_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(AccessError):
        parse_access(data)
