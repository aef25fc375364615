"""The contract that judges rooms is judged: it finds what is not on the list, and nothing else."""

from __future__ import annotations

import pytest
from grimp import ImportGraph

from tests.tidy.allowed_imports import AllowedImportsContract

RULE = {
    "importers": ["services.*.domain"],
    "allowed": ["common.money", "common.ids"],
}


def _graph(*imports: tuple[str, str]) -> ImportGraph:
    graph = ImportGraph()
    for module in ("services", "services.shop", "services.shop.domain", "common", "common.money"):
        graph.add_module(module)
    graph.add_module("services.shop.domain.prices")
    graph.add_module("common.ids")
    for importer, imported in imports:
        for module in (importer, imported):
            if module not in graph.modules:
                graph.add_module(module)
        graph.add_import(importer=importer, imported=imported, line_number=7, line_contents="")
    return graph


def _check(graph: ImportGraph, **options: list[str]) -> list[tuple[str, str, list[int]]]:
    contract = AllowedImportsContract("rule", {}, {**RULE, **options})
    broken: list[tuple[str, str, list[int]]] = contract.check(graph, verbose=False).metadata[
        "broken"
    ]
    return broken


@pytest.mark.parametrize(
    "imported", ["common.money", "common.ids", "datetime", "services.shop.domain.prices"]
)
def test_importing_what_is_on_the_list_is_kept(imported: str) -> None:
    assert not _check(_graph(("services.shop.domain", imported)))


@pytest.mark.parametrize("imported", ["common.clock", "asyncpg", "services.shop.store", "services"])
def test_importing_anything_else_is_found(imported: str) -> None:
    room = "services.shop.domain.prices"
    assert _check(_graph((room, imported))) == [(room, imported, [7])]


def test_judging_one_package_leaves_the_others_alone() -> None:
    graph = _graph(("services.shop.domain", "asyncpg"), ("services.shop.domain", "common.clock"))
    broken = _check(graph, judged=["common"])
    assert broken == [("services.shop.domain", "common.clock", [7])]
