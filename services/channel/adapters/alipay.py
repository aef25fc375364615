"""Alipay open platform: QR codes that the merchant shows, signed with RSA2.

Source: Alipay open platform documents, `alipay.trade.precreate`, `.query`, `.close`, `.refund`,
`.fastpay.refund.query`, asynchronous notifications, "RSA2 signing". RSA2 is SHA256withRSA over
the parameters as `key=value`, sorted and joined by `&`, without the empty ones and `sign`; an
answer is signed over the exact characters of its response object. Times are Asia/Shanghai without
a zone, amounts decimals in major units.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import ClassVar, Final
from urllib.parse import parse_qsl, urlencode

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import SecretStr

from common.clock import Clock
from common.money import Money, format_decimal, parse_decimal
from services.channel.adapters import Adapter, AdapterConfig
from services.channel.declines import PAYER_CANCELLED, decline_of
from services.channel.keys import read_private_key, read_public_key
from services.channel.results import (
    Acknowledgement,
    Callback,
    CallbackKind,
    CallbackSignatureInvalidError,
    ChannelError,
    ChannelInvalidError,
    ChannelOutcomeUnknownError,
    ChannelRateLimitedError,
    ChannelResult,
    DeclinedError,
    PayRequest,
    QueryRequest,
    RawCallback,
    RefundRequest,
    ShowQrCode,
    State,
    mask,
)
from services.channel.transport import Transport

SHANGHAI: Final = timezone(timedelta(hours=8), "Asia/Shanghai")
"""China has one zone and no summer time; the protocol knows no other."""

_SUCCESS: Final = "10000"
_BUSINESS_FAILED: Final = "40004"
_CALL_LIMITED: Final = "40005"
_REFUSED_BEFORE_ACTING: Final = frozenset({"20001", "40001", "40002", "40003", "40006"})
"""Codes of the gateway itself: missing or invalid parameters, permissions."""

_INVALID_SUB_CODES: Final = frozenset(
    {
        "ACQ.INVALID_PARAMETER",
        "ACQ.CONTEXT_INCONSISTENT",
        "ACQ.DISCORDANT_REPEAT_REQUEST",
        "ACQ.ACCESS_FORBIDDEN",
        "ACQ.EXIST_FORBIDDEN_WORD",
        "ACQ.PARTNER_ERROR",
        "ACQ.APPLY_PC_MERCHANT_CODE_ERROR",
    }
)
_NOT_EXIST: Final = "ACQ.TRADE_NOT_EXIST"
_NOT_CLOSABLE: Final = frozenset({"ACQ.TRADE_STATUS_ERROR", "ACQ.REASON_TRADE_STATUS_INVALID"})
_TRADE_STATES: Final = {
    "WAIT_BUYER_PAY": State.PENDING,
    "TRADE_SUCCESS": State.SUCCEEDED,
    "TRADE_FINISHED": State.SUCCEEDED,
    "TRADE_CLOSED": State.CLOSED,
}


class AlipayConfig(AdapterConfig):
    """One application (contract) at Alipay."""

    gateway_url: str
    """The gateway's address, `https://…/gateway.do`."""
    app_id: str
    """The application's number."""
    private_key: SecretStr
    """Our RSA key: PEM, or the bare base64 that Alipay's key tool writes."""
    alipay_public_key: str
    """Alipay's RSA key for this application, in the same forms."""


def signing_text(parameters: Mapping[str, str], *, without: frozenset[str]) -> bytes:
    """Return what RSA2 signs: sorted `key=value` joined by `&`, empty ones left out."""
    pairs = sorted((k, v) for k, v in parameters.items() if v and k not in without)
    return "&".join(f"{key}={value}" for key, value in pairs).encode()


def verified(key: RSAPublicKey, signature: str, text: bytes) -> bool:
    """Say whether `signature` (base64) is the key's over `text`."""
    try:
        key.verify(base64.b64decode(signature, validate=True), text, *_RSA2)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


_RSA2: Final = (padding.PKCS1v15(), hashes.SHA256())
_UNSIGNED_REQUEST: Final = frozenset({"sign"})
_UNSIGNED_NOTICE: Final = frozenset({"sign", "sign_type"})


def response_text(body: str, node: str) -> str | None:
    """Return the exact characters of the response object `node`, which the signature covers."""
    start = body.find(f'"{node}"')
    if start < 0:
        return None
    start = body.find(":", start + len(node) + 2) + 1
    while body[start : start + 1].isspace():
        start += 1
    try:
        _, end = json.JSONDecoder().raw_decode(body, start)
    except ValueError:
        return None
    return body[start:end]


def instant(text: str) -> datetime | None:
    """Return a moment of the protocol in UTC; None for an empty field."""
    if not text:
        return None
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=SHANGHAI).astimezone(UTC)


def local_time(at: datetime) -> str:
    """Return a moment as the protocol writes it."""
    return at.astimezone(SHANGHAI).strftime("%Y-%m-%d %H:%M:%S")


def money_of(fields: Mapping[str, str], amount: str, currency: str) -> Money | None:
    """Return an amount of an answer; a missing currency means CNY, as Alipay says."""
    text = fields.get(amount, "")
    return parse_decimal(text, fields.get(currency) or "CNY") if text else None


def trade_result(fields: Mapping[str, str]) -> ChannelResult:
    """Convert a trade, from an answer to a query or from a notification."""
    state = _TRADE_STATES.get(fields.get("trade_status", ""))
    if state is None:
        raise ValueError("unknown trade status")
    paid_at = instant(fields.get("send_pay_date") or fields.get("gmt_payment") or "")
    if state is State.CLOSED and paid_at is not None:
        state = State.SUCCEEDED  # a trade that was paid and refunded whole reads "closed", too
    money = money_of(fields, "total_amount", "trans_currency")
    return ChannelResult(
        state=state,
        reference=fields.get("out_trade_no", ""),
        money=money,
        settlement=money_of(fields, "settle_amount", "settle_currency") or money,
        channel_transaction_no=fields.get("trade_no", ""),
        raw_code=fields.get("trade_status", ""),
        decline=PAYER_CANCELLED if state is State.CLOSED else None,
        occurred_at=paid_at,
    )


def refund_result(fields: Mapping[str, str], request: RefundRequest) -> ChannelResult:
    """Convert the answer to a refund query. A refund that is not there is an empty answer."""
    reference = fields.get("out_request_no", "")
    done = reference and fields.get("refund_status", "REFUND_SUCCESS") == "REFUND_SUCCESS"
    return ChannelResult(
        state=State.SUCCEEDED if done else State.NOT_FOUND,
        reference=reference or request.reference,
        money=money_of(fields, "refund_amount", "trans_currency") if done else None,
        channel_transaction_no=fields.get("trade_no", ""),
        raw_code=fields.get("refund_status", ""),
        occurred_at=instant(fields.get("gmt_refund_pay", "")),
    )


class AlipayAdapter(Adapter):
    """Pay by QR code, query, close, refund, query a refund, notifications."""

    code = "alipay"
    config_type = AlipayConfig
    acknowledgement: ClassVar[Acknowledgement] = Acknowledgement(200, b"success")
    refusal: ClassVar[Acknowledgement] = Acknowledgement(200, b"fail")

    def __init__(
        self, channel: str, config: AdapterConfig, transport: Transport, clock: Clock
    ) -> None:
        super().__init__(channel, config, transport, clock)
        assert isinstance(config, AlipayConfig)  # noqa: S101 - the registry pairs them
        self._config = config
        self._private_key = read_private_key(config.private_key.get_secret_value())
        self._alipay_key = read_public_key(config.alipay_public_key)

    shows_codes = True

    async def pay(self, request: PayRequest) -> ChannelResult:
        """Make a QR code; the payer has not paid when this returns."""
        content = {
            "out_trade_no": request.reference,
            "total_amount": format_decimal(request.money),
            "trans_currency": request.money.currency_code,
            "settle_currency": request.money.currency_code,
            "subject": request.subject,
        }
        if request.expires_at is not None:
            content["time_expire"] = local_time(request.expires_at)
        fields = await self._call("alipay.trade.precreate", content, request.notify_url)
        code, sub_code = fields.get("code", ""), fields.get("sub_code", "")
        if sub_code == "ACQ.TRADE_HAS_SUCCESS":
            # A repeat of a request whose code was scanned and paid meanwhile.
            return await self._paid_already(request)
        if code != _SUCCESS:
            raise self._failure(fields)
        return ChannelResult(
            state=State.PENDING,
            reference=fields["out_trade_no"],
            raw_code=code,
            next_action=ShowQrCode(fields["qr_code"]),
        )

    async def _paid_already(self, request: PayRequest) -> ChannelResult:
        question = QueryRequest(
            reference=request.reference, requested_at=request.requested_at, money=request.money
        )
        try:
            return await self.query(question)
        except ChannelError as error:
            # Money did move, whatever became of the question.
            raise self._unknown("paid before") from error

    async def query(self, request: QueryRequest) -> ChannelResult:
        """Ask how the trade stands."""
        content = {"out_trade_no": request.reference}
        fields = await self._call("alipay.trade.query", content)
        if fields.get("sub_code") == _NOT_EXIST:
            return self._not_found(request.reference, fields)
        if fields.get("code") != _SUCCESS:
            raise self._failure(fields, question=True)
        return trade_result(fields)

    async def close(self, request: QueryRequest) -> ChannelResult:
        """Close the trade; when it cannot be closed, ask why and answer with that."""
        content = {"out_trade_no": request.reference}
        fields = await self._call("alipay.trade.close", content)
        sub_code = fields.get("sub_code", "")
        if sub_code == _NOT_EXIST:
            return self._not_found(request.reference, fields)
        if sub_code in _NOT_CLOSABLE:
            return await self.query(request)
        if fields.get("code") != _SUCCESS:
            raise self._failure(fields)
        return ChannelResult(
            state=State.CLOSED,
            reference=fields.get("out_trade_no", request.reference),
            channel_transaction_no=fields.get("trade_no", ""),
            raw_code=fields.get("code", ""),
        )

    async def refund(self, request: RefundRequest) -> ChannelResult:
        """Give money back. The answer tells the sum of all refunds, so `money` stays unset."""
        content = {
            "out_trade_no": request.payment_reference,
            "out_request_no": request.reference,
            "refund_amount": format_decimal(request.money),
            "refund_currency": request.money.currency_code,
            "refund_reason": request.reason,
        }
        fields = await self._call("alipay.trade.refund", content, request.notify_url)
        if fields.get("code") != _SUCCESS:
            raise self._failure(fields)
        if fields.get("out_trade_no", request.payment_reference) != request.payment_reference:
            raise ChannelOutcomeUnknownError(channel=self.channel, cause="another trade answered")
        result = ChannelResult(
            state=State.SUCCEEDED,
            reference=request.reference,
            channel_transaction_no=fields.get("trade_no", ""),
            raw_code=fields.get("code", ""),
            occurred_at=instant(fields.get("gmt_refund_pay", "")),
        )
        if fields.get("fund_change") == "Y":
            return result
        # This request moved nothing: a repeat, or not yet. Only the question tells which.
        pending = replace(result, state=State.PENDING)
        try:
            found = await self.query_refund(request)
        except ChannelError:
            return pending
        return pending if found.state is State.NOT_FOUND else found

    async def query_refund(self, request: RefundRequest) -> ChannelResult:
        """Ask how one refund stands."""
        content = {
            "out_trade_no": request.payment_reference,
            "out_request_no": request.reference,
        }
        fields = await self._call("alipay.trade.fastpay.refund.query", content)
        if fields.get("sub_code") == _NOT_EXIST:
            return self._not_found(request.reference, fields)
        if fields.get("code") != _SUCCESS:
            raise self._failure(fields, question=True)
        return refund_result(fields, request)

    async def parse_callback(self, raw: RawCallback) -> Callback:
        """Verify and read a notification. Its repeats carry the same `notify_id`."""
        fields = dict(parse_qsl(raw.body.decode(errors="replace"), keep_blank_values=True))
        signature = fields.get("sign", "")
        text = signing_text(fields, without=_UNSIGNED_NOTICE)
        ours = fields.get("app_id") == self._config.app_id
        if not ours or not verified(self._alipay_key, signature, text):
            raise CallbackSignatureInvalidError(channel=self.channel)
        result = trade_result(fields)
        if not fields.get("gmt_refund"):
            return Callback(
                kind=CallbackKind.PAYMENT,
                result=result,
                payment_reference=result.reference,
                notice_id=fields.get("notify_id", ""),
            )
        # A refund is told by a copy of the trade, whose `refund_fee` is the sum of all refunds.
        refund = ChannelResult(
            state=State.SUCCEEDED,
            reference=fields.get("out_biz_no", ""),
            channel_transaction_no=result.channel_transaction_no,
            raw_code=result.raw_code,
            occurred_at=instant(fields["gmt_refund"].partition(".")[0]),
        )
        return Callback(
            kind=CallbackKind.REFUND,
            result=refund,
            payment_reference=result.reference,
            notice_id=fields.get("notify_id", ""),
        )

    async def _call(
        self, method: str, content: Mapping[str, str], notify_url: str = ""
    ) -> dict[str, str]:
        """Send one request and return the fields of the verified answer."""
        parameters = {
            "app_id": self._config.app_id,
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": local_time(self.clock.now()),
            "version": "1.0",
            "notify_url": notify_url,
            "biz_content": json.dumps(content, ensure_ascii=False, separators=(",", ":")),
        }
        parameters = {key: value for key, value in parameters.items() if value}
        text = signing_text(parameters, without=_UNSIGNED_REQUEST)
        parameters["sign"] = base64.b64encode(self._private_key.sign(text, *_RSA2)).decode()
        answer = await self.transport.post_form(
            self._config.gateway_url, urlencode(parameters).encode()
        )
        return self._read(answer.body, method)

    def _read(self, body: bytes, method: str) -> dict[str, str]:
        try:
            text = body.decode()
            outer = json.loads(text)
            node = response_text(text, method.replace(".", "_") + "_response")
            if node is None or not isinstance(outer, dict):
                raise self._unknown("no response object")
            if not verified(self._alipay_key, str(outer.get("sign", "")), node.encode()):
                raise self._unknown("signature")
            fields = json.loads(node)
            return {key: value for key, value in fields.items() if isinstance(value, str)}
        except (ValueError, AttributeError):
            raise self._unknown("unreadable answer") from None

    def _unknown(self, cause: str) -> ChannelOutcomeUnknownError:
        return ChannelOutcomeUnknownError(channel=self.channel, cause=cause)

    def _not_found(self, reference: str, fields: Mapping[str, str]) -> ChannelResult:
        return ChannelResult(
            state=State.NOT_FOUND,
            reference=reference,
            raw_code=fields.get("sub_code", ""),
            raw_message=mask(fields.get("sub_msg", "")),
        )

    def _failure(self, fields: Mapping[str, str], *, question: bool = False) -> Exception:
        """Return the failure that a code means; what no table knows may have been executed."""
        code, sub_code = fields.get("code", ""), fields.get("sub_code", "")
        if code == _CALL_LIMITED or sub_code in ("isv.app-call-limited", "ACQ.REQUEST_LIMITED"):
            return ChannelRateLimitedError(channel=self.channel, retry_after_seconds=1.0)
        if code in _REFUSED_BEFORE_ACTING or sub_code in _INVALID_SUB_CODES:
            return ChannelInvalidError(channel=self.channel, raw_code=sub_code or code)
        decline = decline_of(self.code, sub_code)
        if code == _BUSINESS_FAILED and decline is not None and not question:
            return DeclinedError(
                decline,
                channel=self.channel,
                raw_code=sub_code,
                raw_message=fields.get("sub_msg", ""),
            )
        return self._unknown(sub_code or code or "no code")
