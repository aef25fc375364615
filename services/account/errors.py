"""Failures of the account service. What a transfer is refused for is no exception but a result."""

from __future__ import annotations

from common.errors import PaymeshError


class AccountNotFoundError(PaymeshError):
    """No account has the id {account_id}."""

    reason = "ACCOUNT_NOT_FOUND"


class AccountDiffersError(PaymeshError):
    """The account {account_id} is open already with another {field}."""

    reason = "ACCOUNT_DIFFERS"


class BusinessDateNotLaterError(PaymeshError):
    """The business date is {business_date} already, and only moves forward."""

    reason = "BUSINESS_DATE_NOT_LATER"


class BookMismatchError(PaymeshError):
    """The accounts of one call are in different books."""

    reason = "BOOK_MISMATCH"


class SubjectUnknownError(PaymeshError):
    """The chart of accounts has no subject {subject_code}."""

    reason = "SUBJECT_UNKNOWN"


class SubjectControlledError(PaymeshError):
    """Only transfers move subject {subject_code}: accounts add up to it."""

    reason = "SUBJECT_CONTROLLED"


class VoucherUnbalancedError(PaymeshError):
    """Debits and credits of the voucher differ by {difference_minor}."""

    reason = "VOUCHER_UNBALANCED"


class VoucherReversedError(PaymeshError):
    """Another request took the voucher {voucher_id} back before, by {reversed_by_id}."""

    reason = "VOUCHER_REVERSED"


class PeriodNotClosableError(PaymeshError):
    """The period {period} cannot be closed: {obstacle}."""

    reason = "PERIOD_NOT_CLOSABLE"
