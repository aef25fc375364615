"""Alipay's gateway: verifies a request, does what its method says, signs the answer.

Source: Alipay open platform, gateway protocol 1.0 and the `alipay.trade.*` methods.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from urllib.parse import urlencode

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from common.clock import Clock
from common.money import Money, UnknownCurrencyError, format_decimal, parse_decimal
from services.sandbox.alipay import trades
from services.sandbox.alipay.records import (
    SHANGHAI,
    NewTrade,
    Refund,
    RefusedError,
    Trade,
    local_time,
)
from services.sandbox.alipay.signature import notice_text, request_text, sign, verify
from services.sandbox.config import AlipayMerchant
from services.sandbox.faults.conduct import Conduct, Identify
from services.sandbox.faults.fate import Fate
from services.sandbox.faults.plan import ALIPAY as PARTY
from services.sandbox.faults.plan import Asked, Verb

Fields = dict[str, Any]

NUMBER_LENGTH_MAX: Final = 64
"""Longest out_trade_no and out_request_no, by the manual."""

_MESSAGES: Final = {
    "ACQ.TRADE_NOT_EXIST": "交易不存在",
    "ACQ.TRADE_STATUS_ERROR": "交易状态不合法",
    "ACQ.TRADE_HAS_SUCCESS": "交易已被支付",
    "ACQ.TRADE_HAS_CLOSE": "交易已经关闭",
    "ACQ.CONTEXT_INCONSISTENT": "交易信息被篡改",
    "ACQ.DISCORDANT_REPEAT_REQUEST": "不一致的请求",
    "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL": "退款金额超限",
    "ACQ.INVALID_PARAMETER": "参数无效",
    "ACQ.BUYER_BALANCE_NOT_ENOUGH": "买家余额不足",
    "ACQ.TRADE_NOT_ALLOW_REFUND": "当前交易不允许退款",
}


class _GatewayRefusedError(Exception):
    """The gateway refuses a request before any method runs."""

    def __init__(self, sub_code: str) -> None:
        self.sub_code = sub_code
        super().__init__(sub_code)


@dataclass(frozen=True, slots=True)
class _Keys:
    merchant: RSAPublicKey
    alipay: RSAPrivateKey


@cache  # a few in a process; reading a private key proves its primes, which takes long
def _keys(merchant: AlipayMerchant) -> _Keys:
    public = serialization.load_pem_public_key(merchant.merchant_public_key.encode())
    private = serialization.load_pem_private_key(
        merchant.alipay_private_key.get_secret_value().encode(), password=None
    )
    if not isinstance(public, RSAPublicKey) or not isinstance(private, RSAPrivateKey):
        raise ValueError("Alipay uses RSA keys")
    return _Keys(public, private)


class AlipayGateway:
    """The gateway of all applications that the sandbox knows."""

    def __init__(
        self,
        conduct: Conduct,
        merchants: tuple[AlipayMerchant, ...],
        clock: Clock,
        random_text: Callable[[], str],
    ) -> None:
        self._conduct = conduct
        self._keys = {merchant.app_id: _keys(merchant) for merchant in merchants}
        self._clock = clock
        self._random_text = random_text
        self._methods: Mapping[
            str, Callable[[Mapping[str, str], Mapping[str, Any]], Awaitable[Fields]]
        ] = {
            "alipay.trade.precreate": self._precreate,
            "alipay.trade.query": self._query,
            "alipay.trade.close": self._close,
            "alipay.trade.refund": self._refund,
            "alipay.trade.fastpay.refund.query": self._query_refund,
        }

    def sign_notice(self, app_id: str, fields: Mapping[str, str], wrongly: bool) -> bytes:
        """Return the body of a notification, signed."""
        text = notice_text(fields)
        signature = sign(self._keys[app_id].alipay, text[::-1] if wrongly else text)
        return urlencode({**fields, "sign": signature}).encode()

    async def handle(self, parameters: Mapping[str, str]) -> bytes:
        """Answer one request; the body is JSON."""
        app_id, method = parameters.get("app_id", ""), parameters.get("method", "")
        keys = self._keys.get(app_id)
        node = method.replace(".", "_") + "_response"
        if keys is None:
            return _body("error_response", _gateway_refusal("isv.invalid-app-id"), None)
        if method not in self._methods:
            return _body("error_response", _gateway_refusal("isv.invalid-method"), keys.alipay)
        try:
            fields = await self._answer(parameters, method, keys)
        except _GatewayRefusedError as error:
            fields = _gateway_refusal(error.sub_code)
        except RefusedError as error:
            fields = {
                "code": "40004",
                "msg": "Business Failed",
                "sub_code": error.sub_code,
                "sub_msg": _MESSAGES.get(error.sub_code, error.sub_code),
            }
        return _body(node, fields, keys.alipay)

    async def _answer(self, parameters: Mapping[str, str], method: str, keys: _Keys) -> Fields:
        if parameters.get("sign_type") != "RSA2":
            raise _GatewayRefusedError("isv.invalid-signature-type")
        if not verify(keys.merchant, parameters.get("sign", ""), request_text(parameters)):
            raise _GatewayRefusedError("isv.invalid-signature")
        try:
            content = json.loads(parameters.get("biz_content", ""))
        except ValueError:
            raise _GatewayRefusedError("isv.invalid-parameter") from None
        if not isinstance(content, dict):
            raise _GatewayRefusedError("isv.invalid-parameter")
        answer = await self._methods[method](parameters, content)
        return {"code": "10000", "msg": "Success", **answer}

    async def play_payer(self, qr_code: str, *, pays: bool) -> Trade:
        """Let the person who scanned the code pay or cancel. Raises RefusedError."""
        now = self._clock.now()

        def identify(db: sqlite3.Connection) -> Asked | None:
            trade = trades.find_scanned(db, qr_code)
            if trade is None:
                return None
            return _asked(trade.app_id, Verb.PAY, trade.out_trade_no, trade.asked.amount_minor)

        return await self._conduct.play(
            identify, lambda fate: trades.play_payer(fate, qr_code, pays=pays, now=now)
        )

    async def _precreate(self, parameters: Mapping[str, str], content: Mapping[str, Any]) -> Fields:
        currency = _text(content, "trans_currency") or "CNY"
        new = NewTrade(
            app_id=parameters["app_id"],
            out_trade_no=_number(content, "out_trade_no"),
            qr_code=f"https://qr.alipay.com/bax{self._random_text()}",
            subject=_text(content, "subject"),
            money=_money(content, "total_amount", currency),
            notify_url=parameters.get("notify_url", ""),
            expires_at=_instant(_text(content, "time_expire")),
        )
        if not new.subject:
            raise RefusedError("ACQ.INVALID_PARAMETER")
        now = self._clock.now()
        asked = _asked(new.app_id, Verb.PAY, new.out_trade_no, new.money.amount_minor)
        trade = await self._conduct.answer(
            lambda _db: asked, lambda fate: trades.precreate(fate, new, now)
        )
        if trade.declined_code:
            raise RefusedError(trade.declined_code)
        return {"out_trade_no": trade.out_trade_no, "qr_code": trade.qr_code}

    async def _query(self, parameters: Mapping[str, str], content: Mapping[str, Any]) -> Fields:
        app_id, number = parameters["app_id"], _number(content, "out_trade_no")
        now = self._clock.now()
        trade = await self._conduct.answer(
            _about_trade(app_id, Verb.QUERY, number),
            lambda fate: trades.existing_trade(fate.db, app_id, number, now),
        )
        amount = format_decimal(trade.money)
        fields = {
            "out_trade_no": trade.out_trade_no,
            "trade_no": trade.trade_no,
            "trade_status": trade.state,
            "total_amount": amount,
            "trans_currency": trade.money.currency_code,
        }
        if trade.paid_at is not None:
            fields |= {
                "send_pay_date": local_time(trade.paid_at),
                "receipt_amount": amount,
                "buyer_pay_amount": amount,
                "settle_amount": amount,
                "settle_currency": trade.money.currency_code,
            }
        return fields

    async def _close(self, parameters: Mapping[str, str], content: Mapping[str, Any]) -> Fields:
        app_id, number = parameters["app_id"], _number(content, "out_trade_no")
        now = self._clock.now()
        trade = await self._conduct.answer(
            _about_trade(app_id, Verb.CLOSE, number),
            lambda fate: trades.close(fate.db, app_id, number, now),
        )
        return {"out_trade_no": trade.out_trade_no, "trade_no": trade.trade_no}

    async def _refund(self, parameters: Mapping[str, str], content: Mapping[str, Any]) -> Fields:
        app_id, number = parameters["app_id"], _number(content, "out_trade_no")
        request_number = _text(content, "out_request_no") or number
        money = _money(content, "refund_amount", _text(content, "refund_currency") or "CNY")
        now = self._clock.now()
        asked = _asked(app_id, Verb.REFUND, request_number, money.amount_minor)
        done = await self._conduct.answer(
            lambda _db: asked,
            lambda fate: trades.refund(fate, app_id, number, request_number, money, now),
        )
        if isinstance(done, RefusedError):
            raise done
        total = Money(money.currency_code, done.trade.refunded_minor)
        return {
            "out_trade_no": done.trade.out_trade_no,
            "trade_no": done.trade.trade_no,
            "fund_change": "Y" if done.changed else "N",
            "refund_fee": format_decimal(total),
            "refund_currency": total.currency_code,
            "gmt_refund_pay": local_time(done.refund.refunded_at),
        }

    async def _query_refund(
        self, parameters: Mapping[str, str], content: Mapping[str, Any]
    ) -> Fields:
        app_id, number = parameters["app_id"], _number(content, "out_trade_no")
        request_number = _text(content, "out_request_no") or number
        now = self._clock.now()

        def identify(db: sqlite3.Connection) -> Asked:
            amount_minor = trades.amount_of(db, app_id, number, request_number)
            return _asked(app_id, Verb.QUERY_REFUND, request_number, amount_minor)

        def find(fate: Fate) -> tuple[Trade, Refund | None]:
            trade = trades.existing_trade(fate.db, app_id, number, now)
            return trade, trades.find_refund(fate.db, trade, request_number)

        trade, refund = await self._conduct.answer(identify, find)
        if refund is None:
            return {}
        return {
            "out_trade_no": trade.out_trade_no,
            "trade_no": trade.trade_no,
            "out_request_no": refund.out_request_no,
            "refund_status": "REFUND_SUCCESS",
            "refund_amount": format_decimal(refund.money),
            "trans_currency": trade.money.currency_code,
            "total_amount": format_decimal(trade.money),
            "gmt_refund_pay": local_time(refund.refunded_at),
        }


def _asked(app_id: str, verb: Verb, reference: str, amount_minor: int) -> Asked:
    return Asked(
        party=PARTY,
        merchant_number=app_id,
        verb=verb,
        reference=reference,
        amount_minor=amount_minor,
    )


def _about_trade(app_id: str, verb: Verb, number: str) -> Identify:
    """Say what a question about a trade is, once the trade is known."""
    return lambda db: _asked(app_id, verb, number, trades.amount_of(db, app_id, number))


def acknowledged(status: int, body: bytes) -> bool:
    """Say whether a merchant's answer stops the repeats: the seven letters, nothing else."""
    return status == 200 and body.strip() == b"success"


def _gateway_refusal(sub_code: str) -> Fields:
    return {
        "code": "40002",
        "msg": "Invalid Arguments",
        "sub_code": sub_code,
        "sub_msg": sub_code.removeprefix("isv.").replace("-", " "),
    }


def _body(node: str, fields: Fields, key: RSAPrivateKey | None) -> bytes:
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    if key is None:
        return f'{{"{node}":{text}}}'.encode()
    return f'{{"{node}":{text},"sign":"{sign(key, text.encode())}"}}'.encode()


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content.get(name, "")
    if not isinstance(value, str):
        raise RefusedError("ACQ.INVALID_PARAMETER")
    return value


def _number(content: Mapping[str, Any], name: str) -> str:
    text = _text(content, name)
    plain = text.isascii() and text.replace("_", "").isalnum()
    if not plain or len(text) > NUMBER_LENGTH_MAX:
        raise RefusedError("ACQ.INVALID_PARAMETER")
    return text


def _money(content: Mapping[str, Any], name: str, currency: str) -> Money:
    value = content.get(name, "")
    try:
        # The manual's type is Price: merchants' programs send it as a string or as a number.
        money = parse_decimal(value if isinstance(value, str) else str(value), currency)
    except (ValueError, UnknownCurrencyError, OverflowError):
        raise RefusedError("ACQ.INVALID_PARAMETER") from None
    if money.amount_minor <= 0:
        raise RefusedError("ACQ.INVALID_PARAMETER")
    return money


def _instant(text: str) -> float | None:
    if not text:
        return None
    try:
        at = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=SHANGHAI)
    except ValueError:
        raise RefusedError("ACQ.INVALID_PARAMETER") from None
    return at.astimezone(UTC).timestamp()
