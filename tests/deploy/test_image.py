"""The image's recipe names what exists: files, extras, commands. No container engine is needed."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from typer.main import get_command

from services.cli.main import app
from tests.deploy.manifests import ROOT, of_kind

DOCKERFILE = ROOT / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def _instructions() -> Iterator[tuple[str, str]]:
    """Each instruction of the Dockerfile with what follows it."""
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text("utf-8"))
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            name, _, rest = line.strip().partition(" ")
            yield name, rest


def _of(name: str) -> list[str]:
    return [rest for instruction, rest in _instructions() if instruction == name]


def _copied_from_the_repository() -> list[str]:
    """Sources of COPY, but for those that come from another stage."""
    return [
        source
        for rest in _of("COPY")
        if not rest.startswith("--from=")
        for source in shlex.split(rest)[:-1]
    ]


def test_what_is_copied_exists_and_is_sent_to_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignored
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied = set(_copied_from_the_repository())
    assert copied
    assert not [source for source in copied if not (ROOT / source).exists()]
    assert copied == sent


def test_stages_begin_with_one_pinned_python() -> None:
    bases = {rest.split(" AS ")[0] for rest in _of("FROM")}
    assert len(bases) == 1
    image, _, tag = bases.pop().partition(":")
    assert image == "python"
    assert re.fullmatch(r"\d+\.\d+\.\d+-slim-\w+", tag), "pinned to a patch release"
    wanted = PROJECT["requires-python"].removeprefix(">=").split(".")
    assert [int(part) for part in tag.split("-")[0].split(".")[:2]] >= [int(p) for p in wanted]
    stages = {rest.split(" AS ")[1] for rest in _of("FROM") if " AS " in rest}
    froms = {rest.split()[0].removeprefix("--from=") for rest in _of("COPY") if "--from" in rest}
    assert froms == stages


def test_packages_are_those_of_the_services() -> None:
    (install,) = [rest for rest in _of("RUN") if "pip install" in rest]
    extras = re.findall(r"'\.\[([\w,]+)\]'", install)
    assert extras == ["services"]
    assert "services" in PROJECT["optional-dependencies"]
    assert f"WORKDIR {'/srv/paymesh'}" in DOCKERFILE.read_text("utf-8")
    assert "PYTHONPATH=/srv/paymesh" in " ".join(_of("ENV"))


def test_image_runs_the_command_as_nobody_in_particular() -> None:
    (entry,) = _of("ENTRYPOINT")
    assert entry == '["paymesh"]'
    assert "paymesh" in PROJECT["scripts"]
    assert _of("USER") == ["10001:10001"]
    assert _of("HEALTHCHECK") == ["NONE"]
    last = [name for name, _ in _instructions()].index("USER")
    assert "COPY" not in [name for name, _ in _instructions()][last:], "files belong to root"


def test_commands_of_the_manifests_exist() -> None:
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    makers = (*of_kind("Deployment"), *of_kind("Job"), *of_kind("CronJob"))
    named = {one.container["args"][0] for one in makers}
    assert named == {"serve", "migrate", "books"}
    assert named <= commands


def test_image_holds_no_secret() -> None:
    """Neither arguments and variables of the build, nor files that look like keys."""
    assert not _of("ARG")
    names = [part.partition("=")[0] for rest in _of("ENV") for part in rest.split()]
    assert not [name for name in names if name.startswith("PAYMESH_")]
    listed = subprocess.run(
        ["git", "ls-files", *_copied_from_the_repository()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert listed
    forms = ("*.pem", "*.key", "*.p12", "*.sqlite", "*credentials*.json", "*.env", ".env*")
    assert not [name for name in listed if any(fnmatch(Path(name).name, form) for form in forms)]
