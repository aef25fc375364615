"""Whatever a manifest sets exists in the code, can be read by it, and is complete."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.mesh.settings import MeshSettings
from common.settings import PaymeshSettings, SettingDescription, Settings, describe_settings
from services.channel.catalogue import read_channels
from services.cli.sources import SERVICES, find_source
from tests.deploy.manifests import BASE, ROOT, SANDBOX, Manifest, of_kind
from tests.tidy.pages import import_everything, subclasses_of

import_everything()

CLASSES = list(subclasses_of(PaymeshSettings))
ROWS = {row.variable: row for settings in CLASSES for row in describe_settings(settings)}
DATABASES = {
    f"PAYMESH_{name.upper()}_POSTGRES_URL": name
    for name in SERVICES
    if find_source(name).migrations is not None
}
POD_MAKERS = [*of_kind("Deployment"), *of_kind("Job"), *of_kind("CronJob")]


def _data(folder: Path) -> dict[str, str]:
    (found,) = [
        one
        for one in of_kind("ConfigMap")
        if one.name == "paymesh-settings" and one.file.parent == folder
    ]
    return dict(found.content["data"])


def _own_settings(service: str) -> list[type[PaymeshSettings]]:
    """The settings that a process of one service reads."""
    importlib.import_module(f"services.{service}.wiring")
    own = [one for one in CLASSES if one.__module__.startswith(f"services.{service}.")]
    return [Settings, MeshSettings, *own]


def _secrets_of(service: str) -> Iterator[SettingDescription]:
    for settings in _own_settings(service):
        for row in describe_settings(settings):
            if row.is_secret:
                yield row


def _variables(manifest: Manifest) -> list[str]:
    return [variable["name"] for variable in manifest.container["env"]]


def test_every_setting_that_is_named_exists() -> None:
    named = {name for folder in (BASE, SANDBOX) for name in _data(folder)}
    named |= {name for manifest in POD_MAKERS for name in _variables(manifest)}
    # Beside manifests: what the page of Kubernetes, the Dockerfile and comments speak of.
    texts = [
        *(ROOT / "deploy").rglob("*.yaml"),
        ROOT / "Dockerfile",
        ROOT / "docs" / "kubernetes.md",
    ]
    for path in texts:
        named |= set(re.findall(r"\bPAYMESH_[A-Z0-9_]*[A-Z0-9]\b", path.read_text("utf-8")))
    assert named
    assert named <= {*ROWS, *DATABASES}


@pytest.mark.parametrize("manifest", of_kind("Deployment"), ids=lambda one: one.label)
def test_every_secret_of_a_service_is_referred_to(manifest: Manifest) -> None:
    """In production a secret at its development value stops the process, so none may be missing."""
    wanted = {row.variable for row in _secrets_of(manifest.name)} - {"PAYMESH_POSTGRES_URL"}
    wanted |= {name for name, service in DATABASES.items() if service == manifest.name}
    variables = _variables(manifest)
    assert len(set(variables)) == len(variables)
    # And no more: a service does not hold the secrets of others.
    assert set(variables) == wanted


def test_migrations_reach_every_schema() -> None:
    (job,) = of_kind("Job")
    assert job.container["args"] == ["migrate"]
    assert set(_variables(job)) == set(DATABASES)


def test_a_variable_has_one_source() -> None:
    keys: dict[str, set[tuple[str, str]]] = {}
    for manifest in POD_MAKERS:
        for variable in manifest.container["env"]:
            reference = variable["valueFrom"]["secretKeyRef"]
            assert not reference.get("optional", False)
            keys.setdefault(variable["name"], set()).add((reference["name"], reference["key"]))
    assert not [name for name, sources in keys.items() if len(sources) > 1]


def test_secrets_are_none_of_the_plain_settings() -> None:
    for folder in (BASE, SANDBOX):
        assert not [name for name in _data(folder) if ROWS[name].is_secret]


@pytest.mark.parametrize("folders", [(BASE,), (BASE, SANDBOX)], ids=["base", "sandbox"])
def test_settings_of_the_manifests_are_read(
    folders: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every class of settings takes the values; a file that is named is mounted there."""
    data = {name: value for folder in folders for name, value in _data(folder).items()}
    for name in ROWS:
        monkeypatch.delenv(name, raising=False)
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    for settings in CLASSES:
        assert settings()
    assert Settings().environment == "production"
    # Whatever is chosen here differs from the default, or it need not be said.
    mounts = [
        mount["mountPath"] for one in POD_MAKERS for mount in one.container.get("volumeMounts", ())
    ]
    files = [value for name, value in data.items() if name.endswith(("_FILE", "_PATH"))]
    for path in files:
        absolute = f"/srv/paymesh/{path}" if not path.startswith("/") else path
        assert any(absolute.startswith(mount) for mount in mounts), path


def test_channels_of_the_manifests_are_read(tmp_path: Path) -> None:
    for folder, count in ((BASE, 0), (SANDBOX, 4)):
        (found,) = [
            one
            for one in of_kind("ConfigMap")
            if one.name == "paymesh-channels" and one.file.parent == folder
        ]
        path = tmp_path / "channels.toml"
        path.write_text(found.content["data"]["channels.toml"], "utf-8")
        assert len(read_channels(path)) == count
