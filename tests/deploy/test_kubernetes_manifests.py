"""The manifests are listed, valid by Kubernetes' own schemas, and agree with each other."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from common.mesh.topology import load_topology
from tests.deploy.manifests import (
    BASE,
    K8S,
    KUSTOMIZATION,
    ROOT,
    SANDBOX,
    Manifest,
    kustomization_of,
    kustomizations,
    manifests,
    of_kind,
    patch_files,
    resource_files,
)

# The oldest that docs/kubernetes.md promises (`preStop.sleep`), the newest there are schemas of.
KUBERNETES_VERSIONS = ("1.30", "1.37")

ALL = manifests()
DEPLOYMENTS = of_kind("Deployment")
POD_MAKERS = [*DEPLOYMENTS, *of_kind("Job"), *of_kind("CronJob")]
TOPOLOGY = load_topology(ROOT / "topology" / "kubernetes.toml", {})
# What a process needs after its drain: jobs and relays end, pools and connections are given back.
CLOSING_SECONDS = 25


def _labels(manifest: Manifest) -> dict[str, str]:
    return dict(manifest.content["metadata"].get("labels", {}))


def _deployment(service: str) -> Manifest:
    return next(one for one in DEPLOYMENTS if one.name == service)


def _data(name: str, folder: Path = BASE) -> dict[str, str]:
    """The data of a ConfigMap as one folder gives it."""
    (found,) = [
        one for one in of_kind("ConfigMap") if one.name == name and one.file.parent == folder
    ]
    return dict(found.content["data"])


@pytest.mark.parametrize("folder", kustomizations(), ids=lambda folder: folder.name)
def test_kustomization_lists_exactly_its_files(folder: Path) -> None:
    listed = [*resource_files(folder), *patch_files(folder)]
    assert len(set(listed)) == len(listed)
    assert set(listed) == set(folder.glob("*.yaml")) - {folder / KUSTOMIZATION}
    for name in kustomization_of(folder)["resources"]:
        assert (folder / name).exists(), name


def test_every_yaml_file_belongs_to_a_kustomization() -> None:
    folders = set(kustomizations())
    assert not [path for path in K8S.rglob("*.y*ml") if path.parent not in folders]


def test_base_is_complete_without_rendering() -> None:
    allowed = {"apiVersion", "kind", "resources"}
    assert set(kustomization_of(BASE)) == allowed
    assert all(path.parent == BASE for path in resource_files(BASE))
    names = Counter((one.kind, one.name) for one in ALL if one.file.parent == BASE)
    assert not [name for name, count in names.items() if count > 1]


def test_patches_change_what_the_base_has() -> None:
    known = {(one.kind, one.name) for one in ALL if one.file.parent == BASE}
    patches = [one for one in ALL if one.file in patch_files(SANDBOX)]
    assert patches
    assert not [one.label for one in patches if (one.kind, one.name) not in known]


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("manifest", ALL, ids=lambda one: one.label)
def test_manifest_is_valid_kubernetes(manifest: Manifest, version: str) -> None:
    kubernetes_validate.validate(manifest.content, version, strict=True)


@pytest.mark.parametrize("manifest", ALL, ids=lambda one: one.label)
def test_manifest_is_in_the_namespace_and_labelled(manifest: Manifest) -> None:
    if manifest.kind != "Namespace":
        assert manifest.content["metadata"]["namespace"] == "paymesh"
    if manifest.file not in patch_files(SANDBOX):
        assert _labels(manifest)["app.kubernetes.io/part-of"] == "paymesh"


def test_every_service_of_the_topology_has_its_manifests() -> None:
    services = set(TOPOLOGY.services)
    assert {one.name for one in DEPLOYMENTS} == services
    assert {one.name for one in DEPLOYMENTS if one.file.parent == BASE} == services - {"sandbox"}
    assert {one.name for one in of_kind("ServiceAccount")} == services | {"migrations", "day-cut"}
    assert {one.name for one in of_kind("PodDisruptionBudget")} == services - {"sandbox"}
    headless = [one for one in of_kind("Service") if one.content["spec"].get("clusterIP") == "None"]
    assert {one.name for one in headless} == services
    for service in services:
        assert TOPOLOGY.services_of(TOPOLOGY.process_of(service)) == (service,)


@pytest.mark.parametrize("manifest", DEPLOYMENTS, ids=lambda one: one.label)
def test_selectors_find_the_pods(manifest: Manifest) -> None:
    service = manifest.name
    spec = manifest.content["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert labels == spec["selector"]["matchLabels"] == _labels(manifest)
    assert labels["app.kubernetes.io/name"] == service
    for spread in manifest.pod.get("topologySpreadConstraints", ()):
        assert spread["labelSelector"]["matchLabels"] == labels
    beside = [one for one in ALL if one.file == manifest.file]
    for other in beside:
        selector = other.content.get("spec", {}).get("selector", labels)
        assert selector.get("matchLabels", selector) == labels, other.label
    assert manifest.pod["serviceAccountName"] == service
    assert manifest.container["name"] == service
    assert manifest.container["args"] == ["serve", service]


@pytest.mark.parametrize("manifest", of_kind("Service"), ids=lambda one: one.label)
def test_ports_of_services_are_those_of_the_pods_and_the_topology(manifest: Manifest) -> None:
    service = manifest.content["spec"]["selector"]["app.kubernetes.io/name"]
    open_ports = {
        port["name"]: port["containerPort"] for port in _deployment(service).container["ports"]
    }
    for port in manifest.content["spec"]["ports"]:
        assert port["targetPort"] in open_ports
        if manifest.content["spec"].get("clusterIP") == "None":
            # No address of its own stands between a headless name and the pods' ports.
            assert port["port"] == open_ports[port["targetPort"]]
    assert open_ports["grpc"] == TOPOLOGY.port_of(service)
    if manifest.content["spec"].get("clusterIP") == "None":
        assert TOPOLOGY.address_of(service) == f"{manifest.name}:{open_ports['grpc']}"


def test_http_ports_are_those_of_the_settings() -> None:
    ports = {
        service: next(
            port["containerPort"]
            for port in _deployment(service).container["ports"]
            if port["name"] == "http"
        )
        for service in ("edge", "sandbox")
    }
    settings = _data("paymesh-settings")
    sandbox = _data("paymesh-settings", SANDBOX)
    assert settings["PAYMESH_EDGE_HTTP_PORT"] == str(ports["edge"])
    assert sandbox["PAYMESH_SANDBOX_PORT"] == str(ports["sandbox"])
    assert sandbox["PAYMESH_CHANNEL_SANDBOX_URL"] == f"http://sandbox:{ports['sandbox']}"


@pytest.mark.parametrize("manifest", DEPLOYMENTS, ids=lambda one: one.label)
def test_probes_ask_the_health_of_the_process(manifest: Manifest) -> None:
    container = manifest.container
    port = TOPOLOGY.port_of(manifest.name)
    probes = {name: container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    for probe in probes.values():
        assert probe["grpc"] == {"port": port}
        assert probe["timeoutSeconds"] <= 5
    # A stalled process is taken out soon and killed late: it may come back by itself.
    patience = {
        name: one["periodSeconds"] * one["failureThreshold"] for name, one in probes.items()
    }
    assert patience["readiness"] <= 10
    assert patience["liveness"] >= 60
    # Servers that are away are waited for a minute, and migrations take their time.
    assert patience["startup"] >= 120


@pytest.mark.parametrize("manifest", POD_MAKERS, ids=lambda one: one.label)
def test_pods_have_no_rights_that_they_do_not_need(manifest: Manifest) -> None:
    pod, container = manifest.pod, manifest.container
    assert pod["automountServiceAccountToken"] is False
    # Links would put variables of other Services beside our settings.
    assert pod["enableServiceLinks"] is False
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == 10001
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(pod).isdisjoint({"hostNetwork", "hostPID", "hostIPC", "initContainers"})


@pytest.mark.parametrize("manifest", POD_MAKERS, ids=lambda one: one.label)
def test_pods_say_what_they_use(manifest: Manifest) -> None:
    resources = manifest.container["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    # Without a limit of CPU: throttled processes miss deadlines while a core idles.
    assert set(resources["limits"]) == {"memory"}


@pytest.mark.parametrize("manifest", DEPLOYMENTS, ids=lambda one: one.label)
def test_pods_have_time_to_drain(manifest: Manifest) -> None:
    settings = _data("paymesh-settings")
    pause = manifest.container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = max(
        float(settings["PAYMESH_DRAIN_SECONDS"]), float(settings["PAYMESH_EDGE_DRAIN_SECONDS"])
    )
    assert manifest.pod["terminationGracePeriodSeconds"] >= pause + drain + CLOSING_SECONDS


@pytest.mark.parametrize("manifest", DEPLOYMENTS, ids=lambda one: one.label)
def test_rollouts_and_drains_of_nodes_keep_a_pod(manifest: Manifest) -> None:
    spec = manifest.content["spec"]
    if manifest.name == "sandbox":
        # Its ledger is one file, which two pods must not share.
        assert spec["replicas"] == 1
        assert spec["strategy"] == {"type": "Recreate"}
        return
    assert spec["replicas"] >= 2
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    (budget,) = [one for one in of_kind("PodDisruptionBudget") if one.name == manifest.name]
    assert budget.content["spec"]["maxUnavailable"] < spec["replicas"]


@pytest.mark.parametrize("manifest", POD_MAKERS, ids=lambda one: one.label)
def test_volumes_are_mounted_and_lead_somewhere(manifest: Manifest) -> None:
    volumes: dict[str, Any] = {one["name"]: one for one in manifest.pod.get("volumes", ())}
    mounts = manifest.container.get("volumeMounts", ())
    assert {mount["name"] for mount in mounts} == set(volumes)
    known = {one.name: one.content["data"] for one in of_kind("ConfigMap")}
    for mount in mounts:
        volume = volumes[mount["name"]]
        if "configMap" in volume:
            data = known[volume["configMap"]["name"]]
            assert mount.get("subPath", next(iter(data))) in data
        if "emptyDir" not in volume:
            assert mount["readOnly"] is True
    for source in manifest.container["envFrom"]:
        assert source["configMapRef"]["name"] in known


def test_day_is_cut_at_midnight_of_the_business_zone_and_once() -> None:
    (cut,) = of_kind("CronJob")
    spec = cut.content["spec"]
    assert spec["schedule"] == "0 0 * * *"
    assert spec["timeZone"] == _data("paymesh-settings")["PAYMESH_BUSINESS_TIME_ZONE"]
    assert spec["concurrencyPolicy"] == "Forbid"
    # Named by the calendar: without the day a repeat would cut one day more.
    assert cut.container["args"][:3] == ["books", "cut", "today"]


def test_copies_in_the_manifests_are_what_the_repository_has() -> None:
    topology = (ROOT / "topology" / "kubernetes.toml").read_text("utf-8")
    assert _data("paymesh-topology") == {"kubernetes.toml": topology}
    channels = (ROOT / "services" / "channel" / "channels.toml").read_text("utf-8")
    assert _data("paymesh-channels", SANDBOX) == {"channels.toml": channels}


def test_image_is_one_and_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert {one.container["image"] for one in POD_MAKERS} == {f"paymesh:{version}"}


def test_manifests_carry_no_secret_values() -> None:
    """By reference only: no Secret is a file here, and no setting that is secret has a value."""
    assert not of_kind("Secret")
    for manifest in POD_MAKERS:
        for variable in manifest.container["env"]:
            assert set(variable) == {"name", "valueFrom"}, variable["name"]
            assert set(variable["valueFrom"]) == {"secretKeyRef"}, variable["name"]
    for path in K8S.rglob("*.yaml"):
        assert "PRIVATE KEY" not in path.read_text("utf-8")


def test_yaml_has_no_surprises() -> None:
    """Every value of a ConfigMap is a string: YAML would make numbers of some."""
    for manifest in of_kind("ConfigMap"):
        assert all(isinstance(value, str) for value in manifest.content["data"].values())
    for path in K8S.rglob("*.yaml"):
        assert yaml.safe_dump_all(yaml.safe_load_all(path.read_text("utf-8")))
