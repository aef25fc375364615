"""The repository checks itself: sizes, names, SQL, what README promises."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.db.queries import load_queries

ROOT = Path(__file__).parents[2]

LINES_WARNED = 450
LINES_MAX = 700
FUNCTION_LINES_WARNED = 70
FUNCTION_LINES_MAX = 110

FORBIDDEN_NAMES = re.compile(r"(^|_)(utils?|helpers?|managers?|misc|stuff)(_|$)")

# `common` is a folder of its own and a room of no service; `platform` shadows the library's module.
FORBIDDEN_FOLDERS = {"platform"}


def _tracked(*suffixes: str) -> list[Path]:
    """Files of the repository by their suffix: those of git, those not committed yet too."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [ROOT / name for name in sorted(set(listed.stdout.splitlines()))]
    return [path for path in paths if path.suffix in suffixes and path.is_file()]


def _functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            yield node.name, node.end_lineno - node.lineno + 1


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _warn(findings: list[str], what: str) -> None:
    """Say it without failing: the rule is `about`, and people decide."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        if findings:
            warnings.warn(f"{what}: {', '.join(findings)}", stacklevel=2)


def test_files_can_be_held_in_the_head() -> None:
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in _tracked(".py")}
    _warn([f"{_shown(p)} {n}" for p, n in sizes.items() if n > LINES_WARNED], "long files")
    assert not [f"{_shown(p)} {n}" for p, n in sizes.items() if n > LINES_MAX]


def test_functions_fit_a_screen() -> None:
    sizes = [(path, *found) for path in _tracked(".py") for found in _functions(path)]
    long = [(f"{_shown(p)}:{name} {n}", n) for p, name, n in sizes if n > FUNCTION_LINES_WARNED]
    _warn([text for text, _ in long], "long functions")
    # A state machine of Hypothesis is a class in a function, and counts as one function here.
    assert not [text for text, n in long if n > FUNCTION_LINES_MAX and text[:6] != "tests/"]


def test_names_say_what_is_inside() -> None:
    bad = [
        _shown(path)
        for path in _tracked(".py", ".proto", ".sql", ".toml", ".md")
        if FORBIDDEN_NAMES.search(path.stem) or FORBIDDEN_FOLDERS & set(path.parts)
    ]
    assert not bad


def test_names_of_test_files_are_unique() -> None:
    """They are imported by their bare names, in one process."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]


def test_nothing_is_left_to_do_in_comments() -> None:
    mark = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|HA" + r"CK)\b")
    found = [
        f"{_shown(path)}:{number}"
        for path in _tracked(".py", ".proto", ".sql", ".toml", ".sh")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if mark.search(line)
    ]
    assert not found


def test_every_module_says_why_it_exists() -> None:
    found = [
        _shown(path)
        for path in _tracked(".py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found


@pytest.mark.parametrize(
    "path",
    [path for path in _tracked(".sql") if path.stem.endswith("queries")],
    ids=_shown,
)
def test_queries_are_named_and_documented(path: Path) -> None:
    """`load_queries` refuses blocks without a purpose, and `SELECT *`."""
    assert load_queries(path)


def test_columns_are_named() -> None:
    """A column that a later migration adds must not change what old code reads."""
    star = re.compile(r"\bSELECT\s+(?:DISTINCT\s+)?(?:\w+\.)?\*\s*(?:,|FROM\b)", re.IGNORECASE)
    found = [
        _shown(path)
        for path in _tracked(".sql", ".py")
        if "tests" not in path.relative_to(ROOT).parts
        and star.search(path.read_text(encoding="utf-8"))
    ]
    assert not found


@pytest.mark.parametrize(
    "path",
    [path for path in _tracked(".sql") if path.parent.name == "migrations"],
    ids=_shown,
)
def test_every_table_is_documented(path: Path) -> None:
    """By COMMENT ON TABLE, which operators can read, or by a comment above it."""
    text = path.read_text(encoding="utf-8")
    commented = set(re.findall(r"^COMMENT ON TABLE (\w+)", text, re.MULTILINE))
    tables = re.findall(
        r"^(--.*\n)?CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?(\w+)(.*)$", text, re.MULTILINE
    )
    assert not [
        name
        for above, name, rest in tables
        if not above and name not in commented and "PARTITION OF" not in rest
    ]


def test_commands_of_the_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set()
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text("utf-8")
        named |= set(re.findall(r"`make ([a-z-]+)", text))
        named |= set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))
    assert named, "the pages name the commands"
    assert named <= targets


def test_links_of_the_pages_lead_somewhere() -> None:
    links = [
        (page, target)
        for page in _tracked(".md")
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
        if "://" not in target
    ]
    assert not [f"{_shown(p)} → {to}" for p, to in links if not (p.parent / to).exists()]


def test_import_rules_hold() -> None:
    """The same as `make lint` asks, so that nobody needs to remember it."""
    program = str(Path(sys.executable).with_name("lint-imports"))
    command = [program, "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
