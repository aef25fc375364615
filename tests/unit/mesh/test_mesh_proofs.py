"""Proofs of callers and principals: made, verified once, expired, replaced, forged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from common.context import ActorType, Mode, Principal
from common.errors import UnauthenticatedError
from common.mesh.caller_token import LIFETIME_SECONDS, CallerTokens
from common.mesh.key_ring import KeyRing
from common.mesh.principal_token import PrincipalTokens

PRINCIPAL = Principal(
    tenant_id="t",
    mode=Mode.SHADOW,
    merchant_id="mer_1",
    actor_type=ActorType.OPERATOR,
    actor_id="ann",
    on_behalf_of="bob",
    roles=("operator", "approver"),
)


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def now(self) -> datetime:
        """Return the wall time."""
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        """Return the time for measuring."""
        return self.seconds


@pytest.fixture
def clock() -> HandClock:
    """A clock that stands still until it is moved."""
    return HandClock()


def callers(clock: HandClock, keys: str = "k1:one") -> CallerTokens:
    """Return what a process has that knows these keys."""
    return CallerTokens(KeyRing.parse(keys, "caller"), clock)


def principals(clock: HandClock, keys: str = "k1:one") -> PrincipalTokens:
    """Return what a process has that knows these keys."""
    return PrincipalTokens(KeyRing.parse(keys, "principal"), clock)


def test_caller_is_proven_to_another_process(clock: HandClock) -> None:
    token = callers(clock).make("payment", clock.seconds)
    assert callers(clock).read(token, clock.seconds) == "payment"


def test_caller_token_is_renewed_long_before_it_ends(clock: HandClock) -> None:
    tokens = callers(clock)
    first = tokens.make("payment", clock.seconds)
    assert tokens.make("payment", clock.seconds) == first
    clock.seconds += LIFETIME_SECONDS / 2
    assert tokens.make("payment", clock.seconds) != first
    assert callers(clock).read(first, clock.seconds) == "payment"


def test_caller_token_ends_also_where_it_is_remembered(clock: HandClock) -> None:
    token = callers(clock).make("payment", clock.seconds)
    reader = callers(clock)
    reader.read(token, clock.seconds)
    clock.seconds += LIFETIME_SECONDS + 1
    with pytest.raises(UnauthenticatedError):
        reader.read(token, clock.seconds)


@pytest.mark.parametrize(
    "forge",
    [
        lambda token: token.replace("payment", "account"),
        lambda token: token[:-1],
        lambda token: token + "0",
        lambda token: token.replace(".k1.", ".k2."),
        lambda token: "payment",
        lambda token: "",
        lambda token: "a.b.c.zz",
    ],
)
def test_caller_token_that_is_forged_is_refused(clock: HandClock, forge: object) -> None:
    token = callers(clock).make("payment", clock.seconds)
    assert callable(forge)
    with pytest.raises(UnauthenticatedError):
        callers(clock).read(forge(token), clock.seconds)


def test_keys_are_changed_without_a_pause(clock: HandClock) -> None:
    """Accept the new one everywhere, then sign with it, then forget the old one."""
    old = callers(clock, "k1:one").make("payment", clock.seconds)
    new = callers(clock, "k2:two,k1:one").make("payment", clock.seconds)
    assert callers(clock, "k2:two,k1:one").read(old, clock.seconds) == "payment"
    assert callers(clock, "k1:one,k2:two").read(new, clock.seconds) == "payment"
    with pytest.raises(UnauthenticatedError):
        callers(clock, "k2:two").read(old, clock.seconds)


def test_proof_for_one_purpose_is_none_for_another() -> None:
    caller, principal = KeyRing.parse("k1:one", "caller"), KeyRing.parse("k1:one", "principal")
    assert not principal.verify("k1", b"text", caller.sign(b"text"))


@pytest.mark.parametrize("keys", ["", "k1:", "k1:a,k1:b"])
def test_key_ring_without_proper_keys_is_refused(keys: str) -> None:
    with pytest.raises(ValueError, match="key"):
        KeyRing.parse(keys, "caller")


def test_principal_arrives_as_it_was_signed(clock: HandClock) -> None:
    token = principals(clock).sign(PRINCIPAL, clock.seconds)
    assert principals(clock).verify(token, clock.seconds) == PRINCIPAL


def test_principal_is_signed_once_for_half_its_life(clock: HandClock) -> None:
    tokens = principals(clock)
    first = tokens.sign(PRINCIPAL, clock.seconds)
    assert tokens.sign(PRINCIPAL, clock.seconds) is first
    clock.seconds += 1_800
    assert tokens.sign(PRINCIPAL, clock.seconds) != first


def test_principal_ends(clock: HandClock) -> None:
    token = principals(clock).sign(PRINCIPAL, clock.seconds)
    reader = principals(clock)
    reader.verify(token, clock.seconds)
    clock.seconds += 3_601
    with pytest.raises(UnauthenticatedError):
        reader.verify(token, clock.seconds)


def test_principal_with_any_bit_changed_is_refused(clock: HandClock) -> None:
    token = principals(clock).sign(PRINCIPAL, clock.seconds)
    reader = principals(clock)
    for place in range(len(token)):
        changed = bytearray(token)
        changed[place] ^= 1
        with pytest.raises(UnauthenticatedError):
            reader.verify(bytes(changed), clock.seconds)
