"""The manifests, read as kustomize and `kubectl` would read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
K8S: Final = ROOT / "deploy" / "k8s"
BASE: Final = K8S / "base"
SANDBOX: Final = K8S / "overlays" / "sandbox"
KUSTOMIZATION: Final = "kustomization.yaml"


@dataclass(frozen=True)
class Manifest:
    """One document of a file."""

    file: Path
    content: dict[str, Any]

    @property
    def kind(self) -> str:
        """`Deployment`."""
        return str(self.content["kind"])

    @property
    def name(self) -> str:
        """Its name in its kind."""
        return str(self.content["metadata"]["name"])

    @property
    def label(self) -> str:
        """For the names of tests: `base Deployment trade`."""
        return f"{self.file.parent.name} {self.kind} {self.name}"

    @property
    def pod(self) -> dict[str, Any]:
        """The pod's specification, of what makes pods."""
        spec = self.content["spec"]
        if self.kind == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        return dict(spec["template"]["spec"])

    @property
    def container(self) -> dict[str, Any]:
        """The only container of the pod."""
        (container,) = self.pod["containers"]
        return dict(container)


def kustomizations() -> list[Path]:
    """Every folder that kustomize can build."""
    return sorted(path.parent for path in K8S.rglob(KUSTOMIZATION))


def kustomization_of(folder: Path) -> dict[str, Any]:
    """What a folder's kustomization says."""
    return dict(yaml.safe_load((folder / KUSTOMIZATION).read_text("utf-8")))


def resource_files(folder: Path) -> list[Path]:
    """The files of a folder that are listed as resources, without other folders."""
    listed = [folder / name for name in kustomization_of(folder).get("resources", ())]
    return [path for path in listed if path.suffix == ".yaml"]


def patch_files(folder: Path) -> list[Path]:
    """The files of a folder that are listed as patches."""
    return [folder / patch["path"] for patch in kustomization_of(folder).get("patches", ())]


def read(path: Path) -> Iterator[Manifest]:
    """The documents of a file."""
    for content in yaml.safe_load_all(path.read_text("utf-8")):
        yield Manifest(path, content)


def manifests() -> list[Manifest]:
    """Every document of every folder, patches too."""
    return [
        manifest
        for folder in kustomizations()
        for path in (*resource_files(folder), *patch_files(folder))
        for manifest in read(path)
    ]


def of_kind(kind: str) -> list[Manifest]:
    """Every document of a kind."""
    return [manifest for manifest in manifests() if manifest.kind == kind]
