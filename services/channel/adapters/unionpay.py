"""UnionPay online (全渠道): charging a bound card without a redirect, by back transactions.

Source: UnionPay online gateway documents, version 5.1.0: consume (01), void (31), refund (04),
query (00), back notification, table of answer codes, signing with `signMethod=01`: RSA-SHA256 over
the lower-case hex SHA-256 of the sorted `key=value` string. Each answer carries the certificate of
the key that signed it; it is believed when UnionPay's root issued it to UnionPay's own name.

Answer code 00 to a transaction means accepted, not done; the manual says to ask or to wait for the
notification, so `pay`, `void` and `refund` ask once at once. Times are Asia/Shanghai without a
zone, amounts in minor units, currencies by number (ISO 4217).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import ClassVar, Final
from urllib.parse import parse_qsl, urlencode

import iso4217
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from common.clock import Clock
from common.money import Money
from services.channel.adapters import Adapter, AdapterConfig
from services.channel.declines import decline_of
from services.channel.keys import read_private_key
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
    State,
    mask,
)
from services.channel.transport import Transport

SHANGHAI: Final = timezone(timedelta(hours=8), "Asia/Shanghai")
"""China has one zone and no summer time; the protocol knows no other."""

NO_NOTIFICATION_URL: Final = "http://www.specialUrl.com"
"""What the manual says to give as `backUrl` by who wants no notification."""

_ACCEPTED: Final = "00"
_SUCCESS_WITH_DEFECT: Final = "A6"
_PROCESSING: Final = frozenset({"03", "04", "05"})
_DUPLICATE: Final = "12"
_NOT_FOUND: Final = "34"
_TOO_MANY_QUESTIONS: Final = frozenset({"06", "37"})
_INVALID: Final = frozenset({"10", "11", "13"})
_KINDS: Final = {
    "01": CallbackKind.PAYMENT,
    "04": CallbackKind.REFUND,
    "31": CallbackKind.VOID,
}


class UnionpayConfig(AdapterConfig):
    """One merchant number at UnionPay."""

    gateway_url: str
    """Root of the gateway, `https://gateway.95516.com`; the paths below it are the protocol's."""
    merchant_id: str
    """`merId`, fifteen characters."""
    certificate_id: str
    """Serial number of our signing certificate, in decimal."""
    private_key: SecretStr
    """The key of that certificate, PEM."""
    root_certificate: str
    """UnionPay's root, PEM."""
    signer_name: str = "中国银联股份有限公司"
    """Third part of the common name that UnionPay's signing certificate carries."""


def signing_text(parameters: Mapping[str, str]) -> bytes:
    """Return what is signed: the hex digest of the sorted string, without empty values."""
    pairs = sorted((k, v) for k, v in parameters.items() if v and k != "signature")
    text = "&".join(f"{key}={value}" for key, value in pairs)
    return hashlib.sha256(text.encode()).hexdigest().encode()


def parse_answer(text: str) -> dict[str, str]:
    """Read an answer: `key=value&…` without escapes, values in braces may hold `&`."""
    fields: dict[str, str] = {}
    position = 0
    while position < len(text):
        equals = text.find("=", position)
        if equals < 0:
            raise ValueError("no key")
        value_at = equals + 1
        braced = text[value_at : value_at + 1] == "{"
        end = text.find("&", text.find("}", value_at) if braced else value_at)
        end = len(text) if end < 0 else end
        fields[text[position:equals]] = text[value_at:end]
        position = end + 1
    return fields


def local_time(at: datetime) -> str:
    """Return a moment as the protocol writes it."""
    return at.astimezone(SHANGHAI).strftime("%Y%m%d%H%M%S")


def traced_at(fields: Mapping[str, str]) -> datetime | None:
    """Return when a transaction was carried out; `traceTime` has no year, `txnTime` has."""
    trace, sent = fields.get("traceTime", ""), fields.get("txnTime", "")
    if len(trace) != 10 or len(sent) != 14:
        return None
    at = datetime.strptime(sent[:4] + trace, "%Y%m%d%H%M%S").replace(tzinfo=SHANGHAI)
    if trace[:4] < sent[4:8]:  # sent before New Year, carried out after it
        at = at.replace(year=at.year + 1)
    return at.astimezone(UTC)


def instant_sent(fields: Mapping[str, str]) -> datetime | None:
    """Return when a transaction was sent, which is half of its name at UnionPay."""
    text = fields.get("txnTime", "")
    if len(text) != 14 or not (text.isascii() and text.isdigit()):
        return None
    return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=SHANGHAI).astimezone(UTC)


def currency_number(code: str) -> str:
    """Return the number of a currency: 840 for USD."""
    return f"{int(iso4217.Currency(code).number):03d}"


@lru_cache(maxsize=256)
def currency_code(number: str) -> str:
    """Return the code of a currency number."""
    return next(str(one.code) for one in iso4217.Currency if f"{one.number:03d}" == number)


def money_of(fields: Mapping[str, str], amount: str, currency: str) -> Money | None:
    """Return an amount of an answer; None where it names none."""
    text = fields.get(amount, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ValueError("not an amount")
    return Money(currency_code(fields.get(currency, "")), int(text))


class UnionpayAdapter(Adapter):
    """Charge a bound card, query, void, refund, query a refund, back notifications."""

    code = "unionpay"
    config_type = UnionpayConfig
    acknowledgement: ClassVar[Acknowledgement] = Acknowledgement(200, b"ok")

    def __init__(
        self, channel: str, config: AdapterConfig, transport: Transport, clock: Clock
    ) -> None:
        super().__init__(channel, config, transport, clock)
        assert isinstance(config, UnionpayConfig)  # noqa: S101 - the registry pairs them
        self._config = config
        self._private_key = read_private_key(config.private_key.get_secret_value())
        self._root = x509.load_pem_x509_certificate(config.root_certificate.encode())
        self._certificate_text = ""
        self._certificate: x509.Certificate | None = None

    async def pay(self, request: PayRequest) -> ChannelResult:
        """Charge the card. Mostly done when this returns; PENDING when the bank is slow."""
        if request.card_number is None:
            raise ChannelInvalidError(channel=self.channel, raw_code="no card")
        sent = {
            **self._transaction("01", "01", request.reference, request.requested_at),
            "txnAmt": str(request.money.amount_minor),
            "currencyCode": currency_number(request.money.currency_code),
            "accNo": request.card_number.get_secret_value(),
            "backUrl": request.notify_url or NO_NOTIFICATION_URL,
        }
        if request.expires_at is not None:
            sent["payTimeout"] = local_time(request.expires_at)
        return await self._transact(sent)

    async def query(self, request: QueryRequest) -> ChannelResult:
        """Ask how the charge stands."""
        return await self._question(request.reference, request.requested_at)

    async def void(self, request: RefundRequest) -> ChannelResult:
        """Take back a whole charge of the same day."""
        return await self._transact(self._reversal("31", "00", request))

    async def refund(self, request: RefundRequest) -> ChannelResult:
        """Give back all or part of a charge."""
        return await self._transact(self._reversal("04", "00", request))

    async def query_refund(self, request: RefundRequest) -> ChannelResult:
        """Ask how a refund or void stands."""
        return await self._question(request.reference, request.requested_at)

    async def parse_callback(self, raw: RawCallback) -> Callback:
        """Verify and read a back notification; its copies say the same of the same `queryId`."""
        fields = dict(parse_qsl(raw.body.decode(errors="replace"), keep_blank_values=True))
        if fields.get("merId") != self._config.merchant_id or not self._verified(fields):
            raise CallbackSignatureInvalidError(channel=self.channel)
        result = self._standing(fields, fields.get("respCode", ""), fields.get("respMsg", ""))
        kind = _KINDS[fields["txnType"]]
        # One that names another amount is another callback, not a copy.
        told = ("queryId", "respCode", "txnAmt", "currencyCode")
        return Callback(
            kind=kind,
            result=result,
            payment_reference=result.reference if kind is CallbackKind.PAYMENT else "",
            notice_id="-".join(fields.get(name, "") for name in told),
            requested_at=instant_sent(fields),
        )

    def _transaction(
        self, kind: str, sub_kind: str, reference: str, at: datetime
    ) -> dict[str, str]:
        return {
            "version": "5.1.0",
            "encoding": "UTF-8",
            "signMethod": "01",
            "certId": self._config.certificate_id,
            "txnType": kind,
            "txnSubType": sub_kind,
            "bizType": "000301",
            "accessType": "0",
            "channelType": "07",
            "merId": self._config.merchant_id,
            "orderId": reference,
            "txnTime": local_time(at),
        }

    def _reversal(self, kind: str, sub_kind: str, request: RefundRequest) -> dict[str, str]:
        if not request.payment_channel_transaction_no:
            raise ChannelInvalidError(channel=self.channel, raw_code="no original number")
        return {
            **self._transaction(kind, sub_kind, request.reference, request.requested_at),
            "txnAmt": str(request.money.amount_minor),
            "currencyCode": currency_number(request.money.currency_code),
            "origQryId": request.payment_channel_transaction_no,
            "backUrl": request.notify_url or NO_NOTIFICATION_URL,
        }

    async def _transact(self, sent: Mapping[str, str]) -> ChannelResult:
        """Send a transaction, then ask once how it stands."""
        fields = await self._call("/gateway/api/backTransReq.do", sent)
        code = fields.get("respCode", "")
        if code in _TOO_MANY_QUESTIONS:
            raise ChannelRateLimitedError(channel=self.channel, retry_after_seconds=1.0)
        if code in _INVALID:
            raise ChannelInvalidError(channel=self.channel, raw_code=code)
        decline = decline_of(self.code, code)
        if decline is not None:
            raise self._declined(code, fields.get("respMsg", ""))
        if code not in (_ACCEPTED, _SUCCESS_WITH_DEFECT, _DUPLICATE, *_PROCESSING):
            raise ChannelOutcomeUnknownError(channel=self.channel, cause=code or "no code")
        pending = ChannelResult(
            state=State.PENDING,
            reference=fields.get("orderId", ""),
            money=money_of(fields, "txnAmt", "currencyCode"),
            channel_transaction_no=fields.get("queryId", ""),
            raw_code=code,
            raw_message=mask(fields.get("respMsg", "")),
        )
        if code in _PROCESSING:
            return pending
        return await self._settled(sent, pending)

    async def _settled(self, sent: Mapping[str, str], pending: ChannelResult) -> ChannelResult:
        try:
            found = await self._ask(sent["orderId"], sent["txnTime"])
        except ChannelError:
            # Accepted is accepted: that the question failed does not undo it.
            return pending
        if found.state is State.NOT_FOUND:
            return pending
        if found.state is State.FAILED:
            raise self._declined(found.raw_code, found.raw_message)
        return found

    async def _question(self, reference: str, requested_at: datetime) -> ChannelResult:
        return await self._ask(reference, local_time(requested_at))

    async def _ask(self, reference: str, sent_at: str) -> ChannelResult:
        sent = {
            **self._transaction("00", "00", reference, self.clock.now()),
            "bizType": "000000",
            "txnTime": sent_at,
        }
        del sent["channelType"]
        fields = await self._call("/gateway/api/queryTrans.do", sent)
        code = fields.get("respCode", "")
        if code == _NOT_FOUND:
            return ChannelResult(state=State.NOT_FOUND, reference=reference, raw_code=code)
        if code in _TOO_MANY_QUESTIONS:
            raise ChannelRateLimitedError(channel=self.channel, retry_after_seconds=1.0)
        if code in _INVALID:
            raise ChannelInvalidError(channel=self.channel, raw_code=code)
        if code != _ACCEPTED:
            raise ChannelOutcomeUnknownError(channel=self.channel, cause=code or "no code")
        return self._standing(fields, fields.get("origRespCode", ""), fields.get("origRespMsg", ""))

    def _standing(self, fields: Mapping[str, str], code: str, message: str) -> ChannelResult:
        """Convert how a transaction stands, from a query's answer or a notification."""
        decline = decline_of(self.code, code)
        if code in (_ACCEPTED, _SUCCESS_WITH_DEFECT):
            state = State.SUCCEEDED
        else:
            # What no table knows may have moved money: it is not final.
            state = State.FAILED if decline is not None else State.PENDING
        result = ChannelResult(
            state=state,
            reference=fields.get("orderId", ""),
            money=money_of(fields, "txnAmt", "currencyCode"),
            channel_transaction_no=fields.get("queryId", ""),
            raw_code=code,
            raw_message=mask(message),
            decline=decline,
        )
        if state is not State.SUCCEEDED:
            return result
        settlement = money_of(fields, "settleAmt", "settleCurrencyCode")
        return replace(result, settlement=settlement, occurred_at=traced_at(fields))

    async def _call(self, path: str, sent: Mapping[str, str]) -> dict[str, str]:
        """Send one request and return the fields of the verified answer."""
        parameters = {key: value for key, value in sent.items() if value}
        text = signing_text(parameters)
        parameters["signature"] = base64.b64encode(self._private_key.sign(text, *_RSA)).decode()
        answer = await self.transport.post_form(
            self._config.gateway_url + path, urlencode(parameters).encode()
        )
        try:
            fields = parse_answer(answer.body.decode())
        except ValueError:
            fields = {}
        if not self._verified(fields):
            raise ChannelOutcomeUnknownError(channel=self.channel, cause="signature")
        return fields

    def _verified(self, fields: Mapping[str, str]) -> bool:
        """Say whether UnionPay signed these fields, with a certificate that is UnionPay's."""
        try:
            signer = self._signer(fields.get("signPubKeyCert", ""))
            signature = base64.b64decode(fields.get("signature", ""), validate=True)
            signer.verify(signature, signing_text(fields), *_RSA)
        except (InvalidSignature, binascii.Error, ValueError, TypeError):
            return False
        return True

    def _signer(self, text: str) -> RSAPublicKey:
        """Return the key of a certificate that our root issued to UnionPay and that is valid."""
        if text != self._certificate_text or self._certificate is None:
            certificate = x509.load_pem_x509_certificate(text.encode())
            certificate.verify_directly_issued_by(self._root)
            names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            parts = str(names[0].value).split("@") if names else []
            if len(parts) < 3 or parts[2] != self._config.signer_name:
                raise ValueError("issued to somebody else")
            self._certificate_text, self._certificate = text, certificate
        now = self.clock.now()
        certificate = self._certificate
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise ValueError("certificate out of its time")
        key = certificate.public_key()
        if not isinstance(key, RSAPublicKey):
            raise ValueError("not an RSA key")
        return key

    def _declined(self, code: str, message: str) -> Exception:
        decline = decline_of(self.code, code)
        if decline is None:
            return ChannelOutcomeUnknownError(channel=self.channel, cause=code or "no code")
        return DeclinedError(decline, channel=self.channel, raw_code=code, raw_message=message)


_RSA: Final = (padding.PKCS1v15(), hashes.SHA256())
