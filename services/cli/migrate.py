"""`paymesh migrate`: roles, schemas and tables of services, then exit; for the job of a rollout.

A serving process does the same for its own services at start, under the same lock, so either may
come first.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from common.db.migrations import MigrationError
from common.logs import set_up_logs
from common.process import prepare_schemas
from common.service import ServiceSource
from common.settings import Settings


async def run_migrations(sources: Sequence[ServiceSource]) -> int:
    """Bring the schemas of `sources` up to date; return the exit status.

    What is applied is logged. A database that is away is waited for, as a serving process does.
    """
    settings = Settings()
    set_up_logs("migrate", level=settings.log_level, as_json=settings.log_json)
    try:
        schemas = await prepare_schemas(sources, settings)
    except (MigrationError, OSError, asyncpg.PostgresError) as error:
        print(f"paymesh: {error}")
        return 1
    print(f"up to date: {', '.join(schemas) or 'no service with tables'}")
    return 0
