"""Errors, contracts, settings and topologies are complete: nothing is known in one place only."""

from __future__ import annotations

import re
import string
from collections import Counter
from pathlib import Path

import pytest
from google.api import annotations_pb2, http_pb2  # type: ignore[import-untyped]
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    MethodOptions,
)
from paymesh.error.v1 import ErrorReason

from common.errors import PaymeshError
from common.mesh.middleware.authorisation import load_access
from common.mesh.topology import load_topology
from common.reasons import CODES
from common.settings import PaymeshSettings, describe_settings
from tests.tidy.pages import (
    PAGES,
    PREFIX,
    ROOT,
    contracts,
    import_everything,
    reason_comments,
    subclasses_of,
)

import_everything()

OURS = [file for file in contracts().file if file.package.startswith("paymesh.")]
ERRORS = list(subclasses_of(PaymeshError))
SETTINGS = list(subclasses_of(PaymeshSettings))
TOPOLOGIES = [path for path in sorted((ROOT / "topology").glob("*.toml")) if path.stem != "access"]

# Reasons that nothing says yet, and why their numbers are taken already.
RESERVED = {
    "CURRENCY_CONVERSION_UNSUPPORTED": "one order has one currency until conversion is built",
    "PAYMENT_IN_PROGRESS": "for products that allow one open payment per order at a time",
}

# Methods that only operators call (the rule `paymesh.*`): each is a decision, not an oversight.
OPERATORS_ONLY = re.compile(
    r"/(ListStory|ListFacts|ListRefusals|GetTrialBalance|CheckBooks|SumAccounts|SetAccountStatus"
    r"|SetAccountLimits|SetAccountBuffering|GetVoucher|ListVouchers|CutDay|GetBusinessDay"
    r"|ListBusinessDays|ListPeriods|ProveBooks|GetProof|RegisterMerchant|SetMerchantStatus|AddMerchantKey|RevokeMerchantKey"
    r"|GetRules|PutRules|PutFeePlan|ListMovements)$"
)

# The mesh's own transport: authorised by the frames that it carries.
TRANSPORT = {"paymesh.mesh.v1.MeshService/Exchange"}


def _reasons() -> set[str]:
    return {name.removeprefix(PREFIX) for name in ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118


def test_table_of_codes_knows_every_reason() -> None:
    assert set(CODES) == _reasons()


def test_every_reason_says_what_it_means_with_an_example() -> None:
    comments = reason_comments()
    assert not [reason for reason in _reasons() if "Example: {" not in comments[reason]]


def test_every_reason_is_said_somewhere_or_reserved() -> None:
    """By an error class, or as the reason of one item in a batch or of a stored failure."""
    raised = {error.reason for error in ERRORS}
    sources = [
        path.read_text(encoding="utf-8")
        for folder in ("common", "services")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "reasons.py"
    ]
    quoted = set(re.findall(r"\b[A-Z][A-Z_]+\b", "\n".join(sources)))
    assert not _reasons() - raised - quoted - set(RESERVED)
    assert not set(RESERVED) & raised, "no longer reserved"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{error.__module__}.{error.__name__}")
def test_error_has_a_known_reason_and_a_message(error: type[PaymeshError]) -> None:
    assert error.reason in _reasons()
    template = (error.__doc__ or "").strip().splitlines()[0]
    assert template[-1] in ".}", "a message is a sentence, or ends in what is told"
    names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    assert all(name.isidentifier() for name in names)
    assert template.format_map(dict.fromkeys(names, "x"))
    assert error.__name__.endswith("Error")


def test_http_statuses_fit_their_grpc_codes() -> None:
    """A refusal is never 5xx, a failure of ours never 4xx."""
    for reason, codes in CODES.items():
        assert 400 <= codes.http < 600, reason
        if codes.grpc.name in ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN"):
            assert codes.http >= 500, reason
        if codes.grpc.name in ("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS"):
            assert codes.http < 500, reason


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.__module__)
def test_settings_are_documented_under_a_prefix_of_their_own(
    settings: type[PaymeshSettings],
) -> None:
    rows = describe_settings(settings)
    assert rows
    assert settings.__doc__
    assert not [row.variable for row in rows if not row.meaning]
    assert all(row.variable.startswith("PAYMESH_") for row in rows)


def test_no_two_settings_share_a_variable() -> None:
    names = Counter(row.variable for settings in SETTINGS for row in describe_settings(settings))
    assert not [name for name, count in names.items() if count > 1]


def _methods() -> dict[str, MethodOptions]:
    return {
        f"{file.package}.{service.name}/{method.name}": method.options
        for file in OURS
        for service in file.service
        for method in service.method
    }


def test_every_method_has_a_rule_of_who_may_call_it() -> None:
    rules = load_access(ROOT / "topology" / "access.toml").rules
    named = {pattern for rule in rules for pattern in rule.methods if not pattern.endswith(".*")}
    unruled = [
        method
        for method in _methods()
        if method not in TRANSPORT
        and not OPERATORS_ONLY.search(method)
        and not any(
            method == pattern or (pattern.endswith("/*") and method.startswith(pattern[:-1]))
            for pattern in named
        )
    ]
    assert not unruled


def test_rules_name_methods_and_callers_that_exist() -> None:
    methods = _methods()
    callers = {"operator", "@services", "@anyone"}
    for topology in TOPOLOGIES:
        callers |= set(load_topology(topology, {}).services)
    for rule in load_access(ROOT / "topology" / "access.toml").rules:
        assert set(rule.callers) <= callers
        for pattern in rule.methods:
            assert any(
                method == pattern or (pattern[-1] == "*" and method.startswith(pattern[:-1]))
                for method in methods
            ), pattern


def _routes(rule: http_pb2.HttpRule) -> list[tuple[str, str]]:
    kind = rule.WhichOneof("pattern")
    path = str(getattr(rule, kind)) if kind and kind != "custom" else ""
    shape = re.sub(r"\{[^}]+\}", "{}", path)
    return [
        ((kind or "").upper(), shape),
        *(route for more in rule.additional_bindings for route in _routes(more)),
    ]


def test_every_route_leads_to_one_method() -> None:
    routes = Counter(
        route
        for options in _methods().values()
        if options.HasExtension(annotations_pb2.http)
        for route in _routes(options.Extensions[annotations_pb2.http])
    )
    assert routes, "merchants have routes"
    assert not [route for route, count in routes.items() if count > 1]
    assert all(path.startswith("/v1/") for _, path in routes)


def _enums(holder: FileDescriptorProto | DescriptorProto) -> list[EnumDescriptorProto]:
    nested = holder.message_type if isinstance(holder, FileDescriptorProto) else holder.nested_type
    return [*holder.enum_type, *(enum for message in nested for enum in _enums(message))]


def test_zero_of_every_enum_says_nothing() -> None:
    for file in OURS:
        for enum in _enums(file):
            assert enum.value[0].number == 0
            assert enum.value[0].name.endswith("_UNSPECIFIED"), enum.name


def test_every_method_has_a_request_and_a_response_of_its_own() -> None:
    messages = Counter(
        name
        for file in OURS
        for service in file.service
        for method in service.method
        for name in (method.input_type, method.output_type)
    )
    assert not [name for name, count in messages.items() if count > 1]


def test_contracts_have_a_package_for_clients() -> None:
    """Import rules see only packages, so each contract's folder is one."""
    folders = {file.package.split(".")[1] for file in OURS}
    assert not [
        folder
        for folder in sorted(folders)
        if not (ROOT / "clients" / "paymesh" / folder / "__init__.py").exists()
    ]


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.stem)
def test_topology_places_every_service(path: Path) -> None:
    topology = load_topology(path, {})
    folders = {
        found.parent.name for found in (ROOT / "services").glob("*/wiring.py")
    }  # a service is what can be wired
    contracted = {file.package.split(".")[1] for file in OURS for _ in file.service} - {"mesh"}
    assert set(topology.services) == folders | contracted
    assert topology.name == path.stem
    ports = [place.port for place in topology.services.values() if place.port]
    assert len(set(ports)) == len(ports)


@pytest.mark.parametrize("name", PAGES)
def test_generated_page_is_what_the_code_says(name: str) -> None:
    """`python -m tests.tidy.pages` writes it."""
    assert (ROOT / name).read_text(encoding="utf-8") == PAGES[name]()
