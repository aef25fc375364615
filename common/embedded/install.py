"""`make setup`: everything between a fresh clone and a working `.venv/bin/paymesh`.

Runs on the system's Python before the virtual environment exists, hence with the standard library
only. Each step notes what it was made from and is skipped while that has not changed, so a second
run takes a tenth of a second; a step that broke off has noted nothing and is done again.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.embedded import rabbitmq_packages

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
LOCAL = ROOT / ".local"
_MARK = VENV / "paymesh-setup.json"


class SetupError(Exception):
    """A step cannot work; the message says what is missing and what to type."""


def say(text: str) -> None:
    """Tell the person who waits."""
    sys.stdout.write(f"setup: {text}\n")
    sys.stdout.flush()


def digest(paths: Iterable[Path]) -> str:
    """A hash over the names and contents of files."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(f"{path.relative_to(ROOT)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def contracts() -> list[Path]:
    """All that the generated stubs depend on."""
    return [
        path
        for path in (ROOT / "proto").rglob("*")
        if path.is_file() and path.suffix in (".proto", ".py")
    ]


def stubs_exist() -> bool:
    """Whether every contract has its generated package, and the lint has its image."""
    packages = {
        path.parent.relative_to(ROOT / "proto") for path in (ROOT / "proto").rglob("*.proto")
    }
    return (ROOT / "build/contracts.binpb").exists() and all(
        (ROOT / "clients" / package / "__init__.py").exists() for package in packages
    )


def run(command: Sequence[str], failure: str) -> None:
    """Run a step quietly; its words are shown when it fails.

    Raises:
        SetupError: it failed.
    """
    done = subprocess.run(  # noqa: S603 - our own commands
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SetupError(f"{done.stdout[-6000:].strip()}\n\n{failure}")


def works(command: Sequence[str]) -> bool:
    """Whether a command runs and succeeds."""
    try:
        done = subprocess.run(  # noqa: S603 - our own commands
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def check_tools() -> None:
    """Raise SetupError naming each tool that is not there, with the command that brings it."""
    missing = [name for name in ("git", "make") if shutil.which(name) is None]
    if importlib.util.find_spec("ensurepip") is None and shutil.which("uv") is None:
        missing.append("python3-venv")
    if missing:
        names = " ".join(missing)
        raise SetupError(f"Missing: {names}\nOn Debian or Ubuntu, as root: apt-get install {names}")


def make_environment() -> None:
    """Create `.venv` where there is none that works."""
    if works([str(VENV / "bin/pip"), "--version"]):
        return
    if VENV.exists():
        say(".venv is broken, making it anew")
        shutil.rmtree(VENV)
    say("making the virtual environment .venv")
    uv = shutil.which("uv")
    if uv is not None and works([uv, "venv", "--seed", "--python", sys.executable, str(VENV)]):
        return
    shutil.rmtree(VENV, ignore_errors=True)
    run(
        [sys.executable, "-m", "venv", str(VENV)],
        "Making the virtual environment failed. On Debian or Ubuntu, as root: "
        "apt-get install python3-venv",
    )


def install_packages() -> None:
    """Install paymesh with all it needs, stubs generated on the way."""
    say("installing packages (about a minute the first time)")
    wanted = ["install", "-e", ".[services,dev]"]
    uv = shutil.which("uv")
    python = str(VENV / "bin/python")
    if uv is not None and works([uv, "pip", "install", "--python", python, *wanted[1:]]):
        return
    run(
        [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *wanted],
        "Installing the packages failed. Is the network there? Then run `make setup` again.",
    )


def update_environment() -> None:
    """Bring `.venv` and the stubs up to what pyproject.toml and the contracts say."""
    wanted = {
        "place": str(VENV),
        "packages": digest([ROOT / "pyproject.toml"]),
        "contracts": digest(contracts()),
    }
    noted: dict[str, str] = {}
    if _MARK.exists():
        noted = json.loads(_MARK.read_text())
    if noted == wanted and stubs_exist():
        return
    _MARK.unlink(missing_ok=True)
    if noted.get("place", wanted["place"]) != wanted["place"]:
        shutil.rmtree(VENV)  # its scripts begin with the path of where it was made
    make_environment()
    if noted.get("place") == wanted["place"] and noted.get("packages") == wanted["packages"]:
        say("generating the stubs")
        run(
            [str(VENV / "bin/python"), "proto/build_hook.py"],
            "The contracts do not compile: correct the file named above.",
        )
    else:
        install_packages()
    _MARK.write_text(json.dumps(wanted))


def fetch_broker() -> None:
    """Fetch RabbitMQ, unless a broker is configured."""
    if os.environ.get("PAYMESH_AMQP_URL"):
        return
    if not (LOCAL / "rabbitmq").exists():
        say("fetching RabbitMQ (31 MB)")
    rabbitmq_packages.fetch(LOCAL)


def main() -> int:
    """Do what is not done yet; one set-up of a checkout at a time."""
    try:
        check_tools()
        LOCAL.mkdir(exist_ok=True)
        (ROOT / "build").mkdir(exist_ok=True)
        with (LOCAL / "setup.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            update_environment()
            fetch_broker()
    except (SetupError, rabbitmq_packages.PackagesError) as error:
        sys.stderr.write(f"\nsetup: {error}\n")
        return 1
    except PermissionError as error:
        sys.stderr.write(f"\nsetup: {error}\nThis folder must belong to whoever runs it.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
