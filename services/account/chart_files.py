"""Reads the files of the chart of accounts, those of paymesh or an installation's own."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

from services.account.domain.chart import KINDS_FILE, SUBJECTS_FILE, Chart, parse_chart
from services.account.domain.chart_entries import ChartError
from services.account.domain.rules import FILE as RULES_FILE

CHART_FOLDER: Final = Path(__file__).parent / "chart"
"""The files that come with paymesh."""


def read_chart(folder: Path = CHART_FOLDER) -> Chart:
    """Read the chart of a folder: `kinds.toml`, `subjects.toml` and `rules.toml`.

    Raises:
        ChartError: a file cannot be read, or is wrong; the message names it.
    """
    try:
        return parse_chart(*(_read(folder / n) for n in (KINDS_FILE, SUBJECTS_FILE, RULES_FILE)))
    except ChartError as error:
        raise ChartError(f"{folder}: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ChartError(f"{path.name}: cannot be read: {error}") from error
