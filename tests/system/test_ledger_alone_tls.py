"""With mutual TLS, a client's certificate says who it is, and no secret is shared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from paymesh.account.ids import new_id
from paymesh.account.ledger import LedgerClient
from paymesh.account.results import CallRefusedError
from paymesh.mesh.identity import Identity

from common.mesh.server import channel_credentials
from common.mesh.settings import MeshSettings
from tests.conformance.mesh.test_mesh_tls import issue as issue
from tests.system.lone_ledger import SECRET, LoneLedger


async def test_certificate_says_who_the_client_is(
    database_url: str, tmp_path: Path, issue: Callable[..., MeshSettings]
) -> None:
    own, client, stranger = issue("account"), issue("ledger_client"), issue("somebody")
    settings = {
        "PAYMESH_MESH_TLS_CERTIFICATE_PATH": str(own.tls_certificate_path),
        "PAYMESH_MESH_TLS_KEY_PATH": str(own.tls_key_path),
        "PAYMESH_MESH_TLS_AUTHORITY_PATH": str(own.tls_authority_path),
    }
    ledger = LoneLedger(
        database_url,
        tmp_path / "log",
        settings=settings,
        credentials=channel_credentials(client),
    )
    wanted = [new_id("acc")]
    async with ledger:
        for way in ("stream", "unary"):
            async with LedgerClient.connect(
                ledger.address,
                identity=Identity("ledger_client"),
                way="stream" if way == "stream" else "unary",
                credentials=channel_credentials(client),
            ) as proven:
                assert await proven.read_accounts(wanted) == {}
        for certificate, identity, reason in (
            (stranger, Identity("somebody"), "PERMISSION_DENIED"),
            # The name of another, or the shared secret's proof of it, is worth nothing here.
            (stranger, Identity("ledger_client"), "UNAUTHENTICATED"),
            (stranger, Identity("ledger_client", SECRET), "UNAUTHENTICATED"),
        ):
            async with LedgerClient.connect(
                ledger.address, identity=identity, credentials=channel_credentials(certificate)
            ) as refused:
                with pytest.raises(CallRefusedError) as caught:
                    await refused.read_accounts(wanted)
                assert caught.value.reason == reason
