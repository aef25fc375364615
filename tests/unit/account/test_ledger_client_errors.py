"""What a call raises says whether the ledger may have acted."""

from __future__ import annotations

import pytest
from paymesh.account.results import (
    CallRefusedError,
    LedgerAwayError,
    LedgerError,
    OutcomeUnknownError,
    error_from,
)
from paymesh.mesh.errors import EXECUTED, NOT_EXECUTED, UNKNOWN, Failure


@pytest.mark.parametrize(
    ("outcome", "is_final", "was_sent", "raised"),
    [
        (NOT_EXECUTED, True, False, CallRefusedError),
        (NOT_EXECUTED, False, False, LedgerAwayError),
        (NOT_EXECUTED, True, True, OutcomeUnknownError),
        (NOT_EXECUTED, False, True, OutcomeUnknownError),
        (UNKNOWN, False, False, OutcomeUnknownError),
        (UNKNOWN, False, True, OutcomeUnknownError),
        # Done, with an answer that was too large or no message: never said to have done nothing.
        (EXECUTED, True, False, OutcomeUnknownError),
    ],
)
def test_failing_says_nothing_was_done_only_where_that_is_sure(
    outcome: str, *, is_final: bool, was_sent: bool, raised: type[LedgerError]
) -> None:
    failure = Failure("MESSAGE_TOO_LARGE", "words", outcome, "NEVER")
    assert type(error_from(failure, is_final=is_final, was_sent=was_sent)) is raised
