"""The gateways refuse what is not a proper request of a merchant they know."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import aiohttp
import pytest
from outside_parties import Channels, pay_request

from common.settings import SettingMissingError
from services.channel.results import ChannelOutcomeUnknownError
from services.sandbox.config import load_parties
from services.sandbox.credentials import make_sandbox_credentials
from services.sandbox.serving import Sandbox


async def _post(session: aiohttp.ClientSession, url: str, body: object) -> tuple[int, str]:
    async with session.post(url, data=body) as response:
        return response.status, await response.text()


@pytest.mark.parametrize(
    ("fields", "sub_code"),
    [
        ({}, "isv.invalid-app-id"),
        ({"app_id": "nobody", "method": "alipay.trade.query"}, "isv.invalid-app-id"),
        ({"app_id": "2021000000000001", "method": "alipay.fly"}, "isv.invalid-method"),
        (
            {"app_id": "2021000000000001", "method": "alipay.trade.query", "sign_type": "RSA2"},
            "isv.invalid-signature",
        ),
        (
            {"app_id": "2021000000000001", "method": "alipay.trade.query", "sign_type": "RSA"},
            "isv.invalid-signature-type",
        ),
    ],
)
async def test_alipay_refuses_improper_requests(
    sandbox: Sandbox, session: aiohttp.ClientSession, fields: dict[str, str], sub_code: str
) -> None:
    status, text = await _post(session, f"{sandbox.url}/gateway.do", fields)
    answer = json.loads(text)
    (node,) = (value for name, value in answer.items() if name != "sign")
    assert (status, node["code"], node["sub_code"]) == (200, "40002", sub_code)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"orderId": ""}, "13"),
        ({"orderId": "has-a-dash"}, "10"),
        ({"version": "5.0.0"}, "10"),
        ({"merId": "000000000000000"}, "11"),
        ({}, "11"),
    ],
)
async def test_unionpay_refuses_improper_requests(
    sandbox: Sandbox, session: aiohttp.ClientSession, changes: dict[str, str], code: str
) -> None:
    fields = {
        "version": "5.1.0",
        "signMethod": "01",
        "certId": "1",
        "merId": "700000000000001",
        "orderId": "pay00000001",
        "txnTime": "20260101000000",
        "txnType": "01",
        **changes,
    }
    url = f"{sandbox.url}/gateway/api/backTransReq.do"
    status, text = await _post(session, url, fields)
    assert status == 200
    assert f"respCode={code}&" in text


async def test_strange_application_is_an_unknown_outcome(channels: Channels) -> None:
    """An error that nobody signed proves nothing, so nothing is concluded from it."""
    guard = channels.guard("alipay_a", app_id="nobody")
    with pytest.raises(ChannelOutcomeUnknownError):
        await guard.pay(pay_request())


async def test_huge_bodies_are_refused(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    for path in ("/gateway.do", "/gateway/api/backTransReq.do", "/payer/alipay/pay"):
        status, _ = await _post(session, sandbox.url + path, b"x" * 70_000)
        assert status == 413


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"qr_code": 7, "outcome": "pay"}', 400),
        (b'{"qr_code": "https://x", "outcome": "steal"}', 400),
        (b'{"qr_code": "https://x", "outcome": "pay"}', 404),
    ],
)
async def test_payer_is_told_what_is_wrong(
    sandbox: Sandbox, session: aiohttp.ClientSession, body: bytes, status: int
) -> None:
    said, text = await _post(session, f"{sandbox.url}/payer/alipay/pay", body)
    assert said == status
    assert "error" in json.loads(text)


def test_credentials_are_made_once_and_readable_by_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    first, second = make_sandbox_credentials(folder), make_sandbox_credentials(folder)
    assert first == second
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(first.channels) == ["alipay_a", "alipay_b", "unionpay_a", "unionpay_b"]
    ours = (folder / "channels.json").read_text()
    theirs = load_parties(folder / "sandbox.json")
    for merchant in theirs.alipay:
        assert json.dumps(merchant.alipay_private_key.get_secret_value()) not in ours
    assert "PRIVATE" not in repr(theirs)


def test_missing_credentials_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingMissingError, match="PAYMESH_SANDBOX_PARTIES_FILE"):
        load_parties(tmp_path / "nothing.json")


async def test_cards_are_remembered_by_their_ends_only(
    channels: Channels, sandbox: Sandbox
) -> None:
    request = pay_request()
    assert request.card_number is not None
    await channels.pay_for_good(channels.guard("unionpay_a"), request)
    number = request.card_number.get_secret_value()
    (stored,) = await sandbox.store.run(
        lambda db: db.execute("SELECT account_masked FROM unionpay_transactions").fetchone()
    )
    assert stored == f"{number[:6]}******{number[-4:]}"
