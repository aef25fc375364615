"""A store on PostgreSQL and on the model: each case runs on both, from empty tables.

A test module names the schema that it is about: `SCHEMA = "trade"`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from common.clock import SystemClock
from tests.conformance.stores.twins import (
    ModelSide,
    PostgresSide,
    Side,
    Twins,
    prepare_postgres,
)
from tests.model_stores.database import ModelDatabase


@pytest.fixture(scope="module")
async def prepared(
    request: pytest.FixtureRequest, database_url: str
) -> AsyncIterator[PostgresSide]:
    """The module's schema in a database of its own."""
    side = await prepare_postgres(database_url, request.module.SCHEMA)
    yield side
    await side.pool.close()


@pytest.fixture
async def twins(prepared: PostgresSide) -> Twins:
    """Both, empty."""
    await prepared.clear()
    model = ModelDatabase(SystemClock()).pool(prepared.schema)
    return Twins(prepared, ModelSide("model", prepared.schema, model))


@pytest.fixture(params=["postgres", "model"])
def side(request: pytest.FixtureRequest, twins: Twins) -> Side:
    """One of the two, empty."""
    return twins.real if request.param == "postgres" else twins.model
