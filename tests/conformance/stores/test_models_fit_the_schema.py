"""The model knows every statement and every column that the services have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from tests.conformance.stores.twins import prepare_postgres
from tests.model_stores.database import SCHEMAS

_COLUMNS = """
SELECT table_name, column_name, is_nullable = 'YES' AS is_nullable
FROM information_schema.columns JOIN information_schema.tables
    USING (table_catalog, table_schema, table_name)
WHERE table_schema = $1 AND table_type = 'BASE TABLE'
AND NOT EXISTS (
    SELECT FROM pg_inherits WHERE inhrelid = (table_schema || '.' || table_name)::regclass
)
"""
_KEYS = """
SELECT conrelid::regclass::text AS table_name, array_agg(attname::text ORDER BY place) AS columns
FROM pg_constraint
CROSS JOIN unnest(conkey) WITH ORDINALITY AS key (number, place)
JOIN pg_attribute ON attrelid = conrelid AND attnum = key.number
WHERE contype = 'p' AND connamespace = $1::regnamespace AND conparentid = 0
GROUP BY conrelid
"""
_CHECKS = """
SELECT conrelid::regclass::text AS table_name, conname::text AS name
FROM pg_constraint
WHERE contype = 'c' AND connamespace = $1::regnamespace AND conrelid <> 0 AND conparentid = 0
    AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = conrelid)
"""
_UNIQUE = """
SELECT indrelid::regclass::text AS table_name, indpred IS NOT NULL AS is_partial,
    array_agg(attname::text ORDER BY place) AS columns
FROM pg_index
JOIN pg_class ON pg_class.oid = indexrelid
CROSS JOIN unnest(indkey) WITH ORDINALITY AS key (number, place)
JOIN pg_attribute ON attrelid = indrelid AND attnum = key.number
WHERE indisunique AND NOT indisprimary AND relnamespace = $1::regnamespace
GROUP BY indexrelid, indrelid, indpred
"""
# Kept by `migrate` and by leases, which no store reads; and the inner books, which follow the
# journal in the background and decide nothing of the flows that are simulated.
_OUTSIDE = frozenset(
    {
        "leases",
        "schema_migrations",
        "accounting_rule_lines",
        "accounting_rules",
        "archived_voucher_lines",
        "archived_vouchers",
        "business_day_changes",
        "business_days",
        "journal_numbering",
        "period_balances",
        "periods",
        "proofs",
        "subject_balances",
        "subject_kinds",
        "subjects",
        "voucher_cursors",
        "voucher_lines",
        "voucher_numbers",
        "voucher_reversals",
        "vouchers",
    }
)


@pytest.mark.parametrize("schema", sorted(SCHEMAS))
def test_every_statement_has_a_model_or_an_excuse(schema: str) -> None:
    for book in SCHEMAS[schema].books:
        assert book.misfits() == [], book.source


@pytest.mark.parametrize("schema", sorted(SCHEMAS))
async def test_tables_have_the_columns_keys_and_constraints_of_the_migrations(
    schema: str, new_database: Callable[[], Awaitable[str]]
) -> None:
    url = await new_database()
    side = await prepare_postgres(url, schema)
    await side.pool.close()
    connection = await asyncpg.connect(url, server_settings={"search_path": schema})
    try:
        columns = await connection.fetch(_COLUMNS, schema)
        keys = await connection.fetch(_KEYS, schema)
        checks = await connection.fetch(_CHECKS, schema)
        unique = await connection.fetch(_UNIQUE, schema)
    finally:
        await connection.close()
    real = {
        (row["table_name"], row["column_name"], row["is_nullable"])
        for row in columns
        if row["table_name"] not in _OUTSIDE
    }
    tables = SCHEMAS[schema].tables
    model = {
        (table.name, column, column in table.nullable)
        for table in tables
        for column in table.columns
    }
    left_out = {(table.name, column, False) for table in tables for column in table.not_modelled}
    assert model | left_out == real
    assert {(table.name, table.key) for table in tables} == {
        (row["table_name"], tuple(row["columns"]))
        for row in keys
        if row["table_name"] not in _OUTSIDE
    }
    assert {(table.name, name) for table in tables for name in table.checks} == {
        (row["table_name"], row["name"]) for row in checks if row["table_name"] not in _OUTSIDE
    }
    assert {
        (table.name, one.columns, one.when is not None) for table in tables for one in table.unique
    } == {
        (row["table_name"], tuple(row["columns"]), row["is_partial"])
        for row in unique
        if row["table_name"] not in _OUTSIDE
    }
