"""One table: (adapter, the channel's code) → why it was refused, what may help, whose doing.

Only codes after which money surely did not move stand here. A code that is in no table of its
adapter is never read as a refusal. Sources: Alipay open platform, error codes of
`alipay.trade.precreate`, `.pay`, `.refund`; UnionPay online (全渠道) 5.1.0, table of answer codes.
"""

from __future__ import annotations

from typing import Final

from services.channel.results import Advice, Blame, Decline, DeclineCode

_PAYER_FUNDS: Final = Decline(DeclineCode.INSUFFICIENT_FUNDS, Advice.OTHER_METHOD, Blame.PAYER)
_LIMIT: Final = Decline(DeclineCode.LIMIT_EXCEEDED, Advice.OTHER_METHOD, Blame.PAYER)
_CARD_INVALID: Final = Decline(DeclineCode.CARD_INVALID, Advice.OTHER_METHOD, Blame.PAYER)
_CARD_EXPIRED: Final = Decline(DeclineCode.CARD_EXPIRED, Advice.OTHER_METHOD, Blame.PAYER)
_CARD_RESTRICTED: Final = Decline(DeclineCode.CARD_RESTRICTED, Advice.OTHER_METHOD, Blame.PAYER)
_CREDENTIALS: Final = Decline(DeclineCode.CREDENTIALS_WRONG, Advice.STEP_UP, Blame.PAYER)
_AUTHENTICATION: Final = Decline(DeclineCode.AUTHENTICATION_REQUIRED, Advice.STEP_UP, Blame.PAYER)
_PAYER_UNUSABLE: Final = Decline(
    DeclineCode.PAYER_ACCOUNT_UNUSABLE, Advice.OTHER_METHOD, Blame.PAYER
)
_RISK: Final = Decline(DeclineCode.RISK_REFUSED, Advice.STOP, Blame.CHANNEL)
_ISSUER: Final = Decline(DeclineCode.ISSUER_REFUSED, Advice.RETRY_ELSEWHERE, Blame.PAYER)
_MERCHANT: Final = Decline(DeclineCode.MERCHANT_NOT_ALLOWED, Advice.RETRY_ELSEWHERE, Blame.PLATFORM)
_MERCHANT_FUNDS: Final = Decline(
    DeclineCode.MERCHANT_FUNDS_SHORT, Advice.RETRY_LATER, Blame.PLATFORM
)
_CHANNEL_CLOSED: Final = Decline(DeclineCode.OTHER, Advice.RETRY_ELSEWHERE, Blame.CHANNEL)
_ORIGINAL_NOT_FOUND: Final = Decline(DeclineCode.ORIGINAL_NOT_FOUND, Advice.STOP, Blame.PLATFORM)
_ORIGINAL_STATE: Final = Decline(DeclineCode.ORIGINAL_STATE, Advice.STOP, Blame.PLATFORM)
_EXCEEDS: Final = Decline(DeclineCode.AMOUNT_EXCEEDS_ORIGINAL, Advice.STOP, Blame.PLATFORM)
_REFUND_CLOSED: Final = Decline(DeclineCode.REFUND_CLOSED, Advice.STOP, Blame.CHANNEL)

PAYER_CANCELLED: Final = Decline(DeclineCode.PAYER_CANCELLED, Advice.OTHER_METHOD, Blame.PAYER)
"""For channels that say so by a state and not by a code: the payer (or time) ended it unpaid."""

DECLINES: Final[dict[tuple[str, str], Decline]] = {
    ("alipay", "ACQ.BUYER_BALANCE_NOT_ENOUGH"): _PAYER_FUNDS,
    ("alipay", "ACQ.BUYER_BANKCARD_BALANCE_NOT_ENOUGH"): _PAYER_FUNDS,
    ("alipay", "ACQ.ERROR_BALANCE_PAYMENT_DISABLE"): _PAYER_UNUSABLE,
    ("alipay", "ACQ.BUYER_ENABLE_STATUS_FORBID"): _PAYER_UNUSABLE,
    ("alipay", "ACQ.PULL_MOBILE_CASHIER_FAIL"): _PAYER_UNUSABLE,
    ("alipay", "ACQ.BUYER_PAY_AMOUNT_DAY_LIMIT"): _LIMIT,
    ("alipay", "ACQ.BUYER_PAY_AMOUNT_MONTH_LIMIT"): _LIMIT,
    ("alipay", "ACQ.TOTAL_FEE_EXCEED"): _LIMIT,
    ("alipay", "ACQ.BUYER_SELLER_EQUAL"): _PAYER_UNUSABLE,
    ("alipay", "ACQ.TRADE_BUYER_NOT_MATCH"): _PAYER_UNUSABLE,
    ("alipay", "ACQ.PAYMENT_AUTH_CODE_INVALID"): _CREDENTIALS,
    ("alipay", "ACQ.PAYMENT_REQUEST_HAS_RISK"): _RISK,
    ("alipay", "ACQ.PAYMENT_FAIL"): _ISSUER,
    ("alipay", "ACQ.TRADE_HAS_CLOSE"): Decline(
        DeclineCode.EXPIRED, Advice.RETRY_LATER, Blame.PAYER
    ),
    ("alipay", "ACQ.SELLER_BALANCE_NOT_ENOUGH"): _MERCHANT_FUNDS,
    ("alipay", "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"): _EXCEEDS,
    ("alipay", "ACQ.REASON_TRADE_REFUND_FEE_ERR"): _EXCEEDS,
    ("alipay", "ACQ.TRADE_NOT_EXIST"): _ORIGINAL_NOT_FOUND,
    ("alipay", "ACQ.TRADE_STATUS_ERROR"): _ORIGINAL_STATE,
    ("alipay", "ACQ.TRADE_NOT_ALLOW_REFUND"): _REFUND_CLOSED,
    ("alipay", "ACQ.TRADE_HAS_FINISHED"): _REFUND_CLOSED,
    ("alipay", "ACQ.REASON_TRADE_BEEN_FREEZEN"): _REFUND_CLOSED,
    ("unionpay", "02"): _CHANNEL_CLOSED,
    ("unionpay", "30"): _ISSUER,
    ("unionpay", "31"): _MERCHANT,
    ("unionpay", "32"): _MERCHANT,
    ("unionpay", "33"): _LIMIT,
    ("unionpay", "35"): _ORIGINAL_STATE,
    ("unionpay", "36"): _EXCEEDS,
    ("unionpay", "38"): _RISK,
    ("unionpay", "39"): _CHANNEL_CLOSED,
    ("unionpay", "40"): _CREDENTIALS,
    ("unionpay", "43"): _MERCHANT,
    ("unionpay", "44"): _CARD_RESTRICTED,
    ("unionpay", "45"): _ORIGINAL_STATE,
    ("unionpay", "60"): _ISSUER,
    ("unionpay", "61"): _CARD_INVALID,
    ("unionpay", "62"): _MERCHANT,
    ("unionpay", "63"): _CARD_RESTRICTED,
    ("unionpay", "64"): _PAYER_FUNDS,
    ("unionpay", "65"): _CREDENTIALS,
    ("unionpay", "66"): _CREDENTIALS,
    ("unionpay", "67"): Decline(DeclineCode.CREDENTIALS_WRONG, Advice.OTHER_METHOD, Blame.PAYER),
    ("unionpay", "68"): _CARD_RESTRICTED,
    ("unionpay", "71"): _CREDENTIALS,
    ("unionpay", "73"): _CARD_EXPIRED,
    ("unionpay", "76"): _AUTHENTICATION,
    ("unionpay", "77"): _AUTHENTICATION,
    ("unionpay", "78"): _CARD_RESTRICTED,
    ("unionpay", "80"): _CARD_EXPIRED,
    ("unionpay", "81"): _LIMIT,
    ("unionpay", "82"): _AUTHENTICATION,
}


def decline_of(adapter: str, raw_code: str) -> Decline | None:
    """Return what a refusal means; None when the code is no known refusal of this adapter."""
    return DECLINES.get((adapter, raw_code))
