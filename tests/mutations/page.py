"""docs/safeties.md, made from the table."""

from __future__ import annotations

from tests.mutations.table import AREAS


def safeties_page() -> str:
    """Return the page."""
    count = sum(len(area) for area in AREAS.values())
    lines = [
        "# Safeties, and who watches them",
        "",
        "Made by `python -m tests.tidy.pages` from `tests/mutations`; do not edit.",
        "",
        f"{count} small pieces of code, each of which alone keeps money, orders or events from",
        "going wrong in one way. `make mutations` takes each away in a copy of the tree and runs",
        "the tests named beside it: every one of them must fail then. `make test` checks that each",
        "piece is where the table says, and that the tests exist.",
        "",
        "```sh",
        "make mutations                             # all, some minutes",
        "make mutations ARGS='order-claim inbox-dedup'",
        "```",
    ]
    for heading, safeties in AREAS.items():
        lines += ["", f"## {heading}", ""]
        lines += ["| safety | what it protects | where | noticed by |", "| --- | --- | --- | --- |"]
        for safety in safeties:
            tests = "<br>".join(f"`{_short(node)}`" for node in safety.tests)
            files = "<br>".join(f"`{file}`" for file in dict.fromkeys(e.file for e in safety.edits))
            cells = (f"`{safety.name}`", safety.protects, files, tests)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _short(node: str) -> str:
    """A node's test with its file, without the folders: file names are unique."""
    file, _, function = node.partition("::")
    return f"{file.rpartition('/')[2]}::{function}"
