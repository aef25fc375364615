"""Named queries are read as written, and a careless file is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.db.queries import QueryFileError, load_queries, parse_queries

GOOD = """-- Queries of a test.

-- name: find_thing
-- The thing of an id.
SELECT id -- the key
FROM things
WHERE id = $1;

-- name: count_things
-- How many there are,
-- for the page of counts.

SELECT count(*) FROM things
"""


def test_reading_gives_each_statement_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text(GOOD)
    queries = load_queries(tmp_path / "q.sql")
    assert list(queries) == ["find_thing", "count_things"]
    assert queries["find_thing"] == "SELECT id -- the key\nFROM things\nWHERE id = $1"
    assert queries["count_things"] == "SELECT count(*) FROM things"
    with pytest.raises(KeyError, match=r"q\.sql has no query 'absent'"):
        queries["absent"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-- name: a\nSELECT 1", "t:1: a lacks the line that says what it is for"),
        ("-- name: a\n--\nSELECT 1", "lacks the line"),
        ("-- name: a\n-- x\n", "a is empty"),
        ("-- name: a\n-- x\nSELECT 1\n-- name: a\n-- x\nSELECT 2", "t:4: there are two"),
        ("-- name: aB\n-- x\nSELECT 1", "no name of a query"),
        ("-- name:\n-- x\nSELECT 1", "no name of a query"),
        ("SELECT 1", "t:1: a statement without"),
        ("-- name: a\n-- x\nSELECT * FROM t", "name the columns"),
        ("-- name: a\n-- x\nSELECT t.* FROM t", "name the columns"),
    ],
)
def test_reading_a_careless_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(QueryFileError, match=message):
        parse_queries(text, "t")
