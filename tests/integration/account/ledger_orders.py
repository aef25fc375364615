"""What the machine asks of the ledger: accounts of every kind, and orders drawn at random."""

from __future__ import annotations

from hypothesis import strategies as st

from services.account.domain.accounts import AccountStatus
from tests.integration.account.plain_model import PlainAccount

ACCOUNTS = {
    "R": ("channel_receivable", PlainAccount(grows_by_debit=True, limit=None)),
    "A": ("user_available", PlainAccount(grows_by_debit=False)),
    "B": ("merchant_pending", PlainAccount(grows_by_debit=False)),
    "C": ("credit", PlainAccount(grows_by_debit=False, limit=50)),
    "D": ("merchant_receivable", PlainAccount(grows_by_debit=True)),
    "S": ("merchant_settled", PlainAccount(grows_by_debit=False, is_buffered=True)),
    "U": ("unclaimed", PlainAccount(grows_by_debit=False)),
    "Z": ("user_available", PlainAccount(grows_by_debit=False)),
}
BUFFERS = ("S", "B")
"""Accounts whose credits may be buffered."""
IDS_MAX = 40
_NUMBERS = st.integers(0, IDS_MAX)
# X is an account that nobody opened.
_PAIRS = st.permutations([*ACCOUNTS, "X"]).map(lambda names: names[:2])
_USUAL = st.sampled_from(
    [["R", "A"], ["A", "B"], ["R", "B"], ["R", "D"], ["A", "Z"], ["R", "S"], ["A", "S"], ["S", "B"]]
)
_FLAG = st.sampled_from(["", "", "", "", "balancing_debit", "balancing_credit", "both", "forced"])
_FIRST = st.fixed_dictionaries(
    {
        "number": _NUMBERS,
        "kind": st.sampled_from(["SINGLE", "SINGLE", "PENDING"]),
        "pair": st.one_of(_USUAL, _USUAL, _PAIRS),
        "amount": st.integers(1, 100),
        "timeout": st.sampled_from([0, 0, 600]),
        "flag": _FLAG,
        "movement": st.sampled_from(["model.move", "model.move", "refund.pay"]),
    }
)
_LATER = st.fixed_dictionaries(
    {
        "number": _NUMBERS,
        "kind": st.sampled_from(["POST", "POST", "VOID"]),
        "pending": _NUMBERS,
        "amount": st.integers(0, 60),
        "keep_rest": st.booleans(),
    }
)
_CHAIN = st.one_of(
    *[st.lists(st.one_of(_FIRST, _FIRST, _LATER), min_size=1, max_size=1)] * 4,
    st.lists(st.one_of(_FIRST, _LATER), min_size=2, max_size=4),
)
BATCH = st.lists(_CHAIN, min_size=1, max_size=6)
BATCHES = st.lists(BATCH, min_size=1, max_size=3)
STATUSES = st.sampled_from(list(AccountStatus))
