"""What is missing on a machine is named together with what to type."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.embedded import rabbitmq_packages
from common.embedded.rabbitmq_packages import PackagesError


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A folder for PATH with a shell and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shell = shutil.which("sh")
    assert shell is not None
    (folder / "sh").symlink_to(shell)
    return folder


def test_setting_up_without_tools_names_all_of_them(repository: Path, bare_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "common.embedded.install"],
        cwd=repository,
        env={"PATH": str(bare_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "apt-get install git make" in done.stderr


def test_setting_up_without_python_says_which_is_needed(repository: Path, bare_path: Path) -> None:
    """An old one counts as none."""
    old = bare_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["sh", "deploy/setup/python.sh"],
        cwd=repository,
        env={"PATH": str(bare_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Python 3.11 or newer is missing" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr


def test_fetching_the_broker_without_a_package_client_offers_the_other_ways(
    tmp_path: Path, bare_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if any(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*")):
        pytest.skip("this machine has a RabbitMQ of its own, which is one of the other ways")
    monkeypatch.setenv("PATH", str(bare_path))
    with pytest.raises(PackagesError, match=r"no apt-get.*PAYMESH_AMQP_URL"):
        rabbitmq_packages.fetch(tmp_path)


def test_breaking_off_a_fetch_leaves_nothing_that_counts_as_done(
    tmp_path: Path, bare_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what the package client said is passed on."""
    for name, status in (("apt-get", 100), ("dpkg-deb", 0)):
        program = bare_path / name
        program.write_text(f"#!/bin/sh\necho no network >&2\nexit {status}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(bare_path))
    with pytest.raises(PackagesError, match=r"(?s)`apt-get`.*no network"):
        rabbitmq_packages.fetch(tmp_path / "local")
    assert not (tmp_path / "local/rabbitmq").exists()


def test_setting_plugins_aside_keeps_what_the_server_depends_on(tmp_path: Path) -> None:
    plugins, unused = tmp_path / "plugins", tmp_path / "unused"
    needs = {"rabbit": "kernel,ra", "ra": "stdlib, aten", "aten": "", "rabbitmq_web": "rabbit"}
    for name, needed in needs.items():
        folder = plugins / f"{name}-1.0/ebin"
        folder.mkdir(parents=True)
        (folder / f"{name}.app").write_text(
            f"{{application, {name}, [{{applications, [{needed}]}}]}}."
        )
    rabbitmq_packages._set_aside(plugins, unused)
    assert sorted(path.name for path in plugins.iterdir()) == ["aten-1.0", "ra-1.0", "rabbit-1.0"]
    assert [path.name for path in unused.iterdir()] == ["rabbitmq_web-1.0"]
