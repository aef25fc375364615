"""What a client makes by itself is what the platform makes: ids, and proofs of who calls."""

from __future__ import annotations

import pytest
from paymesh.account.ids import derive_id, new_id
from paymesh.mesh.identity import CALLER_KEY, PRINCIPAL_KEY, Identity

from common.clock import SystemClock
from common.context import ActorType, Mode
from common.errors import UnauthenticatedError
from common.ids import IdFactory, book_of, derive, is_id, time_of
from common.mesh.caller_token import CallerTokens
from common.mesh.key_ring import KeyRing
from common.mesh.principal_token import PrincipalTokens

CLOCK = SystemClock()


@pytest.mark.parametrize("book", [0, 1, 33, 1023])
def test_making_an_id_beside_an_account_lands_in_its_book(book: int) -> None:
    account_id = IdFactory(CLOCK).new("acc", book)
    made = new_id("tfr", beside=account_id)
    assert is_id(made, "tfr")
    assert book_of(made) == book
    assert abs((time_of(made) - CLOCK.now()).total_seconds()) < 60
    assert made != new_id("tfr", beside=account_id)


def test_deriving_an_id_gives_what_the_platform_derives() -> None:
    parent = IdFactory(CLOCK).new("ord", 7)
    assert derive_id("tfr", parent, "capture", 2) == derive("tfr", parent, "capture", 2)
    with pytest.raises(ValueError, match="is no id"):
        derive_id("tfr", "order 7", "capture")


@pytest.mark.parametrize("secret", ["bare", "k7:first,k6:second"])
def test_proving_a_name_is_believed_by_whoever_shares_the_secret(secret: str) -> None:
    metadata = dict(Identity("ledger_client", secret).metadata())
    callers = CallerTokens(KeyRing.parse(secret, "caller"), CLOCK)
    assert callers.read(str(metadata[CALLER_KEY]), CLOCK.monotonic()) == "ledger_client"
    assert PRINCIPAL_KEY not in metadata
    strangers = CallerTokens(KeyRing.parse("other", "caller"), CLOCK)
    with pytest.raises(UnauthenticatedError):
        strangers.read(str(metadata[CALLER_KEY]), CLOCK.monotonic())


def test_proving_a_principal_gives_its_world_and_roles() -> None:
    identity = Identity(
        "ledger_client",
        "mesh",
        principal_secret="run:people",
        tenant_id="acme",
        mode="TEST",
        actor_type="OPERATOR",
        actor_id="ada",
        roles=["operator"],
    )
    token = dict(identity.metadata())[PRINCIPAL_KEY]
    assert isinstance(token, bytes)
    principals = PrincipalTokens(KeyRing.parse("run:people", "principal"), CLOCK)
    principal = principals.verify(token, CLOCK.monotonic())
    assert (principal.tenant_id, principal.mode) == ("acme", Mode.TEST)
    assert (principal.actor_type, principal.actor_id) == (ActorType.OPERATOR, "ada")
    assert principal.roles == ("operator",)


def test_naming_another_world_without_the_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="principal_secret"):
        Identity("ledger_client", "mesh", tenant_id="acme")


def test_proofs_are_made_anew_before_they_end() -> None:
    now = [1_000_000.0]
    identity = Identity("ledger_client", "mesh", now=lambda: now[0])
    first = identity.metadata()
    now[0] += 1_700
    assert identity.metadata() is first
    now[0] += 200
    assert identity.metadata() != first
