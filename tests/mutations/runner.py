"""Runs the mutations on a copy of the tree, one at a time.

First all named tests on the copy as it is: they must pass. Then, for each safety, its tests on the
copy without it: every one must fail, in the test itself and not in its preparation, because code
that cannot be imported proves nothing. The tree itself is never touched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.mutations.outcomes import VARIABLE
from tests.mutations.safety import ROOT, Safety

# A test that waits for what never comes now: longer than any of them takes when all is well.
_TEST_SECONDS_MAX: Final = 60
_OUTPUT_LINES: Final = 40


@dataclass(frozen=True)
class Run:
    """One run of pytest."""

    outcomes: Mapping[str, Mapping[str, str]]
    """Outcome by phase, by node."""
    output: str
    seconds: float

    def of(self, node: str) -> list[Mapping[str, str]]:
        """The outcomes of a test, one for each of its parameters."""
        return [
            phases
            for name, phases in self.outcomes.items()
            if name == node or name.startswith(f"{node}[")
        ]

    def passes(self, node: str) -> bool:
        """Whether a test ran and none of its phases failed."""
        found = self.of(node)
        return bool(found) and all(set(phases.values()) == {"passed"} for phases in found)

    def fails(self, node: str) -> bool:
        """Whether a test itself failed, with any of its parameters."""
        return any(phases.get("call") == "failed" for phases in self.of(node))


@dataclass(frozen=True)
class Verdict:
    """What became of one safety."""

    safety: Safety
    uncaught: tuple[str, ...]
    """The tests that did not fail; none is as it should be."""
    run: Run


@dataclass
class TreeCopy:
    """A copy of the tree in which one safety at a time is taken away."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    _edits: int = 0

    @contextmanager
    def without(self, safety: Safety) -> Iterator[None]:
        """Take a safety away inside the block."""
        whole = {
            self.root / edit.file: (self.root / edit.file).read_text("utf-8")
            for edit in safety.edits
        }
        for edit in safety.edits:
            path = self.root / edit.file
            self._write(path, edit.apply(path.read_text("utf-8"), safety.name))
        try:
            yield
        finally:
            for path, text in whole.items():
                self._write(path, text)

    def _write(self, path: Path, text: str) -> None:
        """Write with a time of its own: compiled files are told from their sources by seconds."""
        path.write_text(text, "utf-8")
        self._edits += 1
        stamp = path.stat().st_mtime + 10 * self._edits
        os.utime(path, (stamp, stamp))

    def run(self, nodes: Sequence[str]) -> Run:
        """Run some tests."""
        notes = self.root / "build" / "outcomes.jsonl"
        notes.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-p", "tests.mutations.outcomes", "-o", f"timeout={_TEST_SECONDS_MAX}"]
        begun = time.monotonic()
        done = subprocess.run(
            [*command, *nodes],
            cwd=self.root,
            env={
                **os.environ,
                **self.environment,
                # Before the tree that is installed in the environment.
                "PYTHONPATH": os.pathsep.join((str(self.root), str(self.root / "clients"))),
                VARIABLE: str(notes),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        outcomes: dict[str, dict[str, str]] = {}
        for line in notes.read_text("utf-8").splitlines() if notes.exists() else ():
            note = json.loads(line)
            outcomes.setdefault(note["node"], {})[note["phase"]] = note["outcome"]
        output = "\n".join((done.stdout + done.stderr).splitlines()[-_OUTPUT_LINES:])
        return Run(outcomes, output, time.monotonic() - begun)


@contextmanager
def copied_tree(environment: Mapping[str, str], commit: str = "") -> Iterator[TreeCopy]:
    """Copy the tree, with what is generated into it, to a temporary folder.

    `environment` names the servers that the tests use. With `commit`, the files are those of a
    commit instead of those that lie here.
    """
    with TemporaryDirectory(prefix="paymesh-mutations-") as name:
        root = Path(name)
        if commit:
            archive = subprocess.run(
                ["git", "archive", commit], cwd=ROOT, capture_output=True, check=True
            )
            subprocess.run(["tar", "xf", "-"], cwd=root, input=archive.stdout, check=True)
        else:
            command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
            listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            for file in filter(None, listed.stdout.split("\0")):
                if (ROOT / file).is_file():
                    (root / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / file, root / file)
        for stubs in (ROOT / "clients" / "paymesh").glob("*/v*"):
            shutil.copytree(stubs, root / stubs.relative_to(ROOT))
        (root / "build").mkdir()
        shutil.copy2(ROOT / "build" / "contracts.binpb", root / "build")
        # Tests that break servers start their own, of which RabbitMQ lies in the tree.
        (root / ".local").mkdir()
        if (ROOT / ".local" / "rabbitmq").exists():
            (root / ".local" / "rabbitmq").symlink_to(ROOT / ".local" / "rabbitmq")
        yield TreeCopy(root, environment)


def failures_of_the_whole(tree: TreeCopy, safeties: Sequence[Safety]) -> tuple[list[str], Run]:
    """Run the tests of all safeties with nothing taken away; return those that do not pass."""
    nodes = list(dict.fromkeys(node for safety in safeties for node in safety.tests))
    run = tree.run(nodes)
    return [node for node in nodes if not run.passes(node)], run


def judge(tree: TreeCopy, safety: Safety) -> Verdict:
    """Take one safety away and run its tests."""
    with tree.without(safety):
        run = tree.run(safety.tests)
    return Verdict(safety, tuple(node for node in safety.tests if not run.fails(node)), run)
