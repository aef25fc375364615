"""Meshes for the conformance suite: every case runs over local, stream and unary."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.conformance.mesh.mesh_kit import WAYS, Mesh, mesh_settings

StartMesh = Callable[..., Awaitable[Mesh]]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """How calls travel in this run of the test."""
    return str(request.param)


@pytest.fixture
async def start_mesh() -> AsyncIterator[StartMesh]:
    """Start a mesh with settings of its own; stopped at the end of the test."""
    started: list[Mesh] = []

    async def start(way: str, **settings: Any) -> Mesh:
        mesh = await Mesh.start(way, mesh_settings(**settings))
        started.append(mesh)
        return mesh

    yield start
    for mesh in started:
        await mesh.stop()


@pytest.fixture
async def mesh(way: str, start_mesh: StartMesh) -> Mesh:
    """A mesh in which calls go by `way`."""
    return await start_mesh(way)
