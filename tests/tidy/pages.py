"""Pages of documentation that are made from code: `python -m tests.tidy.pages` writes them.

They are committed, for readers; a test compares them with what would be written now.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from paymesh.error.v1 import ErrorReason

import common
import services
from common.reasons import CODES
from common.settings import PaymeshSettings, describe_settings
from tests.mutations.page import safeties_page

ROOT: Final = Path(__file__).resolve().parents[2]
IMAGE: Final = ROOT / "build" / "contracts.binpb"
PREFIX: Final = "ERROR_REASON_"

Base = TypeVar("Base")


def import_everything() -> None:
    """Import every module of common and services, so that every class is known."""
    for package in (common, services):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)


def subclasses_of(base: type[Base]) -> Iterator[type[Base]]:
    """Every class below `base`, each once, by module and name."""
    found: set[type[Base]] = set()
    waiting = [base]
    while waiting:
        for one in waiting.pop().__subclasses__():
            # Those of tests are no part of what is documented.
            if one not in found and one.__module__.partition(".")[0] in ("common", "services"):
                found.add(one)
                waiting.append(one)
    yield from sorted(found, key=lambda one: (one.__module__, one.__name__))


def contracts() -> FileDescriptorSet:
    """The contracts with their comments, as the set-up compiled them."""
    return FileDescriptorSet.FromString(IMAGE.read_bytes())


def reason_comments() -> dict[str, str]:
    """What the contract says of each reason, by its name without the prefix."""
    name = "paymesh/error/v1/error_reason.proto"
    file = next(file for file in contracts().file if file.name == name)
    values = file.enum_type[0].value
    comments = {
        location.path[3]: " ".join(location.leading_comments.split())
        for location in file.source_code_info.location
        if len(location.path) == 4 and list(location.path[:3]) == [5, 0, 2]
    }
    return {
        value.name.removeprefix(PREFIX): comments.get(place, "")
        for place, value in enumerate(values)
    }


def errors_page() -> str:
    """docs/errors.md."""
    comments = reason_comments()
    lines = [
        "# Errors",
        "",
        "Made by `python -m tests.tidy.pages` from the contract",
        "(`proto/paymesh/error/v1/error_reason.proto`) and `common/reasons.py`; do not edit.",
        "",
        "A call that fails answers `google.rpc.Status` with `ErrorInfo`: domain `paymesh`, the",
        "reason below, and metadata. Over REST the same comes as `application/problem+json`.",
        "`outcome` says what the call did (`NOT_EXECUTED`, `UNKNOWN`, `EXECUTED`), `retry` what",
        "may be done next (`NEVER`, `SAME_ID`, `NEW_ID`, `AFTER_DELAY`). A reason that a reader",
        "does not know counts as outcome `UNKNOWN`.",
        "",
        "| reason | gRPC | HTTP | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for reason in sorted(CODES, key=lambda reason: ErrorReason.Value(PREFIX + reason)):
        codes = CODES[reason]
        meaning = comments[reason].replace("|", "\\|")
        lines.append(f"| `{reason}` | {codes.grpc.name} | {codes.http} | {meaning} |")
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """docs/settings.md."""
    import_everything()
    lines = [
        "# Settings",
        "",
        "Made by `python -m tests.tidy.pages` from the classes of settings; do not edit.",
        "",
        "Every setting is an environment variable. Empty counts as not set. In production",
        "(`PAYMESH_ENVIRONMENT=production`) a secret that still has its development value stops",
        "the process.",
    ]
    for settings in subclasses_of(PaymeshSettings):
        summary = " ".join((settings.__doc__ or "").split())
        title = settings.__module__.removeprefix("services.").removesuffix(".config")
        lines += ["", f"## {title}", "", summary, ""]
        lines += ["| variable | type | default | meaning |", "| --- | --- | --- | --- |"]
        for row in describe_settings(settings):
            default = row.default.replace(f"{ROOT}/", "")
            cells = (f"`{row.variable}`", row.kind, default, row.meaning)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


PAGES: Final = {
    "docs/errors.md": errors_page,
    "docs/safeties.md": safeties_page,
    "docs/settings.md": settings_page,
}


def main() -> None:
    """Write the pages that differ, and name them."""
    for name, make in PAGES.items():
        text, path = make(), ROOT / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{name} written\n")


if __name__ == "__main__":
    main()
