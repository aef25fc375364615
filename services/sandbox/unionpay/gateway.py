"""UnionPay's back gateway: verifies a request, carries it out, signs the answer.

Source: UnionPay online gateway documents, version 5.1.0: back transactions, query, answer codes.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Final
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from pydantic import SecretStr

from common.clock import Clock
from common.money import AMOUNT_MINOR_MAX
from services.sandbox.cards import Verdict, masked, verdict_on
from services.sandbox.config import UnionpayParty
from services.sandbox.faults.callbacks import News, owe, wrong_amount_minor
from services.sandbox.faults.conduct import Conduct
from services.sandbox.faults.fate import Fate, invented
from services.sandbox.faults.plan import UNIONPAY as PARTY
from services.sandbox.faults.plan import Asked, Verb
from services.sandbox.unionpay import transactions
from services.sandbox.unionpay.signature import sign, verify
from services.sandbox.unionpay.transactions import (
    APPROVED,
    CONSUME,
    PROCESSING,
    REFUND,
    REFUSED_BY_ISSUER,
    SHANGHAI,
    VOID,
    NewTransaction,
    Processed,
    Transaction,
    currency_code,
    result_fields,
)

Fields = dict[str, str]

NO_NOTIFICATION_URL: Final = "http://www.specialUrl.com"
"""A merchant that gives this as `backUrl` wants no notification."""

BAD_FORM: Final = "10"
BAD_SIGNATURE: Final = "11"
MISSING: Final = "13"
NO_PERMISSION: Final = "32"
NOT_FOUND: Final = "34"
OUT_OF_TIME: Final = "39"

MESSAGES: Final = {
    "00": "成功",
    "03": "交易通讯超时，请发起查询交易",
    "05": "交易已受理，请稍后查询交易结果",
    BAD_FORM: "报文格式错误",
    BAD_SIGNATURE: "验证签名失败",
    "12": "重复交易",
    MISSING: "报文交易要素缺失",
    NO_PERMISSION: "无此交易权限",
    NOT_FOUND: "查无此交易",
    "35": "原交易不存在或状态不正确",
    "36": "与原交易信息不符",
    OUT_OF_TIME: "交易不在受理时间范围内",
    "45": "原交易已被成功退货或已被成功撤销",
    "60": "交易失败，详情请咨询您的发卡行",
    "61": "输入的卡号无效，请确认后输入",
    "63": "卡状态不正确",
    "64": "卡上的余额不足",
    "73": "支付卡已超过有效期",
    "81": "月累计交易笔数(金额)超限",
}

_ORDER_ID: Final = re.compile(r"[0-9A-Za-z]{8,40}")
_TIME: Final = re.compile(r"[0-9]{14}")
_ECHOED: Final = (
    "version",
    "encoding",
    "bizType",
    "accessType",
    "merId",
    "txnType",
    "txnSubType",
    "orderId",
    "txnTime",
    "txnAmt",
    "currencyCode",
)


_SETTLED: Final = ("settleAmt", "settleCurrencyCode", "settleDate", "traceNo", "traceTime")
"""What is not told of a transaction that has not succeeded."""


@cache  # one in a process; reading a private key proves its primes, which takes long
def _signing_key(pem: SecretStr) -> RSAPrivateKey:
    key = serialization.load_pem_private_key(pem.get_secret_value().encode(), password=None)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("UnionPay uses RSA keys")
    return key


class UnionpayGateway:
    """The gateway of all merchant numbers that the sandbox knows."""

    def __init__(
        self, conduct: Conduct, party: UnionpayParty, clock: Clock, *, processing_seconds: float
    ) -> None:
        self._conduct = conduct
        self._clock = clock
        self._processing_seconds = processing_seconds
        self._certificate = party.signing_certificate
        self._key = _signing_key(party.signing_key)
        self._merchants: dict[tuple[str, str], RSAPublicKey] = {}
        for merchant in party.merchants:
            certificate = x509.load_pem_x509_certificate(merchant.certificate.encode())
            public = certificate.public_key()
            if not isinstance(public, RSAPublicKey):
                raise ValueError("UnionPay uses RSA keys")
            self._merchants[merchant.merchant_id, str(certificate.serial_number)] = public

    def sign_notice(self, _merchant_id: str, fields: Mapping[str, str], wrongly: bool) -> bytes:
        """Return the body of a notification, signed."""
        signed = self._signed(fields)
        if wrongly:
            signed["signature"] = self._signed({**fields, "txnAmt": "0"})["signature"]
        return urlencode(signed).encode()

    async def transact(self, sent: Mapping[str, str]) -> bytes:
        """Answer `/gateway/api/backTransReq.do`; the body is `key=value` pairs, unescaped."""
        code = self._misfit(sent) or self._transaction_misfit(sent)
        if code:
            return self._answer(sent, code)
        now = self._clock.now()
        verdict = verdict_on(sent["accNo"]) if sent["txnType"] == CONSUME else Verdict("00", "00")
        new = self._new(sent, verdict)
        asked = Asked(
            party=PARTY,
            merchant_number=new.merchant_id,
            verb=Verb.PAY if new.kind == CONSUME else Verb.REFUND,
            reference=new.order_id,
            amount_minor=new.amount_minor,
        )

        def work(fate: Fate) -> Processed:
            processed = transactions.process(fate, new, now)
            if processed.transaction is not None:
                _notify(fate, processed.transaction, sent.get("backUrl", ""), now)
            return processed

        processed = await self._conduct.answer(lambda _db: asked, work)
        if processed.transaction is None:
            return self._answer(sent, processed.response_code)
        more = {
            "queryId": processed.transaction.query_id,
            "txnAmt": str(processed.transaction.amount_minor),
        }
        return self._answer(sent, processed.response_code, more)

    async def query(self, sent: Mapping[str, str]) -> bytes:
        """Answer `/gateway/api/queryTrans.do`."""
        code = self._misfit(sent)
        if code or sent.get("txnType") != "00":
            return self._answer(sent, code or NO_PERMISSION)
        merchant_id, order_id = sent["merId"], sent["orderId"]

        def identify(db: sqlite3.Connection) -> Asked:
            known = transactions.find_transaction(db, merchant_id, order_id)
            is_refund = known is not None and known.kind != CONSUME
            return Asked(
                party=PARTY,
                merchant_number=merchant_id,
                verb=Verb.QUERY_REFUND if is_refund else Verb.QUERY,
                reference=order_id,
                amount_minor=0 if known is None else known.amount_minor,
            )

        found = await self._conduct.answer(
            identify, lambda fate: transactions.find_transaction(fate.db, merchant_id, order_id)
        )
        if found is None or found.sent_time != sent["txnTime"]:
            return self._answer(sent, NOT_FOUND)
        return self._answer(sent, APPROVED, self._standing(found))

    def _standing(self, found: Transaction) -> Fields:
        fields = result_fields(found)
        if found.known_at > self._clock.now().timestamp():
            fields = {name: fields[name] for name in fields if name not in _SETTLED}
            return {**fields, "origRespCode": "05", "origRespMsg": MESSAGES["05"]}
        code = found.response_code
        return {**fields, "origRespCode": code, "origRespMsg": MESSAGES.get(code, code)}

    def _misfit(self, sent: Mapping[str, str]) -> str:
        """Return the answer code for a message that is wrong in itself; empty when it is not."""
        names = ("version", "signMethod", "certId", "merId", "orderId", "txnTime", "txnType")
        if not all(sent.get(name) for name in names):
            return MISSING
        if sent["version"] != "5.1.0" or sent["signMethod"] != "01":
            return BAD_FORM
        if not _ORDER_ID.fullmatch(sent["orderId"]) or not _TIME.fullmatch(sent["txnTime"]):
            return BAD_FORM
        key = self._merchants.get((sent["merId"], sent["certId"]))
        if key is None or not verify(key, sent):
            return BAD_SIGNATURE
        return ""

    def _transaction_misfit(self, sent: Mapping[str, str]) -> str:
        kind = sent["txnType"]
        if kind not in (CONSUME, REFUND, VOID):
            return NO_PERMISSION
        amount = sent.get("txnAmt", "")
        original = sent.get("accNo" if kind == CONSUME else "origQryId", "")
        if not (amount and original and sent.get("backUrl")):
            return MISSING
        is_number = amount.isascii() and amount.isdigit()
        if not is_number or not 0 < int(amount) <= AMOUNT_MINOR_MAX:
            return BAD_FORM
        if currency_code(sent.get("currencyCode", "")) is None:
            return BAD_FORM
        timeout = sent.get("payTimeout", "")
        if timeout and timeout <= self._clock.now().astimezone(SHANGHAI).strftime("%Y%m%d%H%M%S"):
            return OUT_OF_TIME
        return ""

    def _new(self, sent: Mapping[str, str], verdict: Verdict) -> NewTransaction:
        return NewTransaction(
            merchant_id=sent["merId"],
            order_id=sent["orderId"],
            sent_time=sent["txnTime"],
            kind=sent["txnType"],
            original_query_id=sent.get("origQryId", ""),
            amount_minor=int(sent["txnAmt"]),
            currency_number=sent["currencyCode"],
            account_masked=masked(sent["accNo"]) if sent.get("accNo") else "",
            answer_code=verdict.at_once,
            response_code=verdict.finally_,
            processing_seconds=self._processing_seconds,
        )

    def _answer(
        self, sent: Mapping[str, str], code: str, more: Mapping[str, str] | None = None
    ) -> bytes:
        fields = {name: sent[name] for name in _ECHOED if sent.get(name)}
        fields |= {
            "signMethod": "01",
            "respCode": code,
            "respMsg": f"{MESSAGES.get(code, '交易失败')}[{code}00000]",
            **(more or {}),
        }
        signed = self._signed({key: value for key, value in fields.items() if value})
        return "&".join(f"{key}={value}" for key, value in signed.items()).encode()

    def _signed(self, fields: Mapping[str, str]) -> Fields:
        return sign(self._key, {**fields, "signPubKeyCert": self._certificate})


def _notify(fate: Fate, transaction: Transaction, url: str, now: datetime) -> None:
    """Owe the notification: of what succeeded, and of a refund that was accepted and then refused.

    A charge that is declined is answered, never notified.
    """
    code = transaction.response_code
    if not url or url == NO_NOTIFICATION_URL:
        return
    if code != APPROVED and transaction.kind == CONSUME:
        return
    right = _notice_fields(transaction, code)
    news = News(
        party=PARTY,
        merchant_number=transaction.merchant_id,
        url=url,
        now=now.timestamp(),
        next_at=transaction.known_at,
        right=right,
    )
    if code == APPROVED:
        other = str(wrong_amount_minor(transaction.amount_minor))
        unknown = {
            **right,
            "orderId": invented(transaction.order_id),
            "queryId": invented(transaction.query_id),
        }
        news = replace(
            news,
            older=_notice_fields(transaction, PROCESSING),
            denied=_notice_fields(transaction, REFUSED_BY_ISSUER),
            wrong_amount={**right, "txnAmt": other, "settleAmt": other},
            unknown=unknown if transaction.kind == CONSUME else None,
        )
    owe(fate, news)


def _notice_fields(transaction: Transaction, code: str) -> Fields:
    """Return the notification that a transaction ended with this answer code."""
    fields = {
        "version": "5.1.0",
        "encoding": "UTF-8",
        "signMethod": "01",
        "bizType": "000301",
        "accessType": "0",
        "merId": transaction.merchant_id,
        **result_fields(transaction),
        "respCode": code,
        "respMsg": f"{MESSAGES[code]}[{code}00000]",
    }
    untold = () if code == APPROVED else _SETTLED
    return {name: value for name, value in fields.items() if value and name not in untold}


def acknowledged(status: int, _body: bytes) -> bool:
    """Say whether a merchant's answer stops the repeats: the status alone counts."""
    return status == 200
