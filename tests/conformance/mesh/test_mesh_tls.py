"""Mutual TLS: the certificate names the caller, and a name that it does not carry is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paymesh.mesh import errors as wire
from paymesh.mesh.connect import dial
from paymesh.mesh.v1 import EchoRequest

from common.mesh.host import Host
from common.mesh.settings import MeshSettings
from tests.conformance.mesh.mesh_kit import make_host, mesh_settings, method_on
from tests.conformance.mesh.probe import Probe

WIRE_WAYS = ("stream", "unary")
Issue = Callable[..., MeshSettings]


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@pytest.fixture
def issue(tmp_path: Path) -> Issue:
    """Settings with a certificate that carries names, from an authority of this test."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)

    def build(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name("authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
        )

    authority = (
        build("authority", authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    authority_path = tmp_path / "authority.pem"
    authority_path.write_bytes(authority.public_bytes(serialization.Encoding.PEM))

    def make(*names: str) -> MeshSettings:
        key = ec.generate_private_key(ec.SECP256R1())
        alternative = x509.SubjectAlternativeName(
            [x509.DNSName(name) for name in (*names, "localhost")]
        )
        certificate = (
            build(names[0], key)
            .add_extension(alternative, critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        certificate_path = tmp_path / f"{names[0]}.pem"
        key_path = tmp_path / f"{names[0]}.key"
        certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return mesh_settings(
            tls_certificate_path=certificate_path,
            tls_key_path=key_path,
            tls_authority_path=authority_path,
        )

    return make


async def _start_far(way: str, settings: MeshSettings) -> Host:
    far = make_host("far", 0, way, settings)
    far.add("probe", Probe().register)
    await far.start()
    return far


@pytest.mark.parametrize("way", WIRE_WAYS)
async def test_certificate_proves_the_caller(way: str, issue: Issue) -> None:
    far = await _start_far(way, issue("probe"))
    near = make_host("near", far.ports[0], way, issue("shop", "clerk"))
    near.topology = near.topology.model_copy(update={"host": "localhost"})
    try:
        echo = method_on(near.channel("shop", "probe"), "Echo")
        assert (await echo(EchoRequest())).caller == "shop"
    finally:
        await near.close()
        await far.drain(1)
        await far.close()


async def test_name_that_the_certificate_lacks_is_refused(issue: Issue) -> None:
    far = await _start_far("unary", issue("probe"))
    settings = issue("clerk")
    assert settings.tls_authority_path
    assert settings.tls_key_path
    assert settings.tls_certificate_path
    credentials = grpc.ssl_channel_credentials(
        settings.tls_authority_path.read_bytes(),
        settings.tls_key_path.read_bytes(),
        settings.tls_certificate_path.read_bytes(),
    )
    channel = dial(f"localhost:{far.ports[0]}", 1_000_000, credentials)
    try:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method_on(channel, "Echo")(
                EchoRequest(), timeout=5, metadata=(("paymesh-caller", "shop"),)
            )
        assert wire.decode(caught.value).reason == "UNAUTHENTICATED"
    finally:
        await channel.close(None)
        await far.drain(1)
        await far.close()


async def test_caller_without_a_certificate_is_sent_away(issue: Issue) -> None:
    settings = issue("probe")
    assert settings.tls_authority_path
    far = await _start_far("unary", settings)
    credentials = grpc.ssl_channel_credentials(settings.tls_authority_path.read_bytes())
    channel = dial(f"localhost:{far.ports[0]}", 1_000_000, credentials)
    try:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method_on(channel, "Echo")(EchoRequest(), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await channel.close(None)
        await far.drain(1)
        await far.close()
