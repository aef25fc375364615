"""What the tests of the simulation share: a server for the seeds that run on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulation.postgres import PostgresServer


@pytest.fixture(scope="module")
def postgres(database_url: str) -> Iterator[PostgresServer]:
    """The schemas of the simulated services in an empty database."""
    server = PostgresServer(database_url)
    yield server
    server.close()
