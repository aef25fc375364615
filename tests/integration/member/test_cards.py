"""Bank cards: bound once, sealed at rest, shown to `channel` alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from paymesh.member.v1 import BindCardRequest, CreateUserRequest, RevealCardRequest

from common.context import CallContext, Mode, bound
from common.errors import RemoteError
from common.sealing import SealBrokenError, Sealer
from services.member.domain import CardElements
from services.member.flows.bind_card import CardVault, NewCard, bind_card
from services.member.flows.rotate_card_keys import rotate_card_keys
from services.member.store import MemberStore
from tests.integration.member.conftest import IDS, World, merchant_call

NUMBER = "6222021234567890128"
VISA = "4111111111111111"


@pytest.fixture
async def owner(world: World) -> tuple[str, CallContext]:
    """A user's id, and the circumstances of its merchant's calls."""
    call = merchant_call(IDS.new("mer"))
    with bound(call):
        answer = await world.member("edge").CreateUser(
            CreateUserRequest(request_id="u", merchant_user_no="1", currency_codes=["USD"])
        )
    return answer.user.id, call


async def bind(world: World, owner: tuple[str, CallContext], **changed: Any) -> Any:
    request = {
        "request_id": IDS.new("req"),
        "user_id": owner[0],
        "card_number": VISA,
        "holder_name": "Ada Lovelace",
        "identity_number": "X123",
        "phone": "+4412345",
        **changed,
    }
    with bound(owner[1]):
        return (await world.member("edge").BindCard(BindCardRequest(**request))).card


async def reason_of(call: Any) -> tuple[str, str | None]:
    with pytest.raises(RemoteError) as refused:
        await call
    return refused.value.remote_reason, refused.value.field


async def test_a_bound_card_shows_its_last_digits_and_channel_reads_it_in_full(
    world: World, owner: tuple[str, CallContext]
) -> None:
    card = await bind(world, owner)
    with bound(owner[1]):
        shown = await world.member("channel").RevealCard(RevealCardRequest(card_id=card.id))

    assert (card.user_id, card.last_four) == (owner[0], "1111")
    assert shown.card == card
    assert (shown.card_number, shown.holder_name, shown.phone) == (
        VISA,
        "Ada Lovelace",
        "+4412345",
    )


async def test_nothing_of_a_card_lies_in_the_clear(
    world: World, owner: tuple[str, CallContext]
) -> None:
    card = await bind(world, owner)

    async with world.pool.acquire() as connection:
        rows = await connection.fetch(
            "SELECT cards::text AS text FROM cards WHERE id = $1"
            " UNION ALL SELECT history::text FROM history WHERE id = $1",
            card.id,
        )
    text = "\n".join(row["text"] for row in rows)
    for secret in (VISA, "Ada", "Lovelace", "X123", "4412345"):
        assert secret not in text
        assert secret.encode().hex() not in text


async def test_only_channel_may_see_a_number(world: World, owner: tuple[str, CallContext]) -> None:
    card = await bind(world, owner)
    request = RevealCardRequest(card_id=card.id)

    for caller in ("edge", "payment", "operator"):
        with bound(owner[1]):
            assert (await reason_of(world.member(caller).RevealCard(request)))[0] == (
                "PERMISSION_DENIED"
            )
    for call in (
        merchant_call(IDS.new("mer")),
        merchant_call(owner[1].principal.merchant_id, Mode.TEST),
    ):
        with bound(call):
            assert (await reason_of(world.member("channel").RevealCard(request)))[0] == "NOT_FOUND"


async def test_an_unbound_card_is_not_shown(world: World, owner: tuple[str, CallContext]) -> None:
    card = await bind(world, owner)
    async with world.pool.acquire() as connection:
        await connection.execute("UPDATE cards SET unbound_at = now() WHERE id = $1", card.id)

    with bound(owner[1]):
        reason, _ = await reason_of(
            world.member("channel").RevealCard(RevealCardRequest(card_id=card.id))
        )

    assert reason == "NOT_FOUND"
    assert (await bind(world, owner)).id != card.id


@pytest.mark.parametrize("number", ["4111111111111112", "0" * 11 + "1", "6222021234567890123"])
async def test_a_number_with_a_wrong_check_digit_is_refused(
    world: World, owner: tuple[str, CallContext], number: str
) -> None:
    assert await reason_of(bind(world, owner, card_number=number)) == (
        "CARD_NUMBER_INVALID",
        "card_number",
    )


async def test_binding_to_somebody_elses_user_is_refused(
    world: World, owner: tuple[str, CallContext]
) -> None:
    stranger = merchant_call(IDS.new("mer"))

    assert (await reason_of(bind(world, (owner[0], stranger))))[0] == "NOT_FOUND"
    assert (await reason_of(bind(world, (IDS.new("usr"), owner[1]))))[0] == "NOT_FOUND"


async def test_binding_again_answers_the_same_card_and_names_what_differs(
    world: World, owner: tuple[str, CallContext]
) -> None:
    request_id = IDS.new("req")
    first = await bind(world, owner, request_id=request_id)

    assert await bind(world, owner, request_id=request_id) == first
    assert await bind(world, owner) == first
    assert await reason_of(bind(world, owner, request_id=request_id, card_number=NUMBER)) == (
        "ID_CONFLICT",
        "card_number",
    )
    assert await reason_of(bind(world, owner, request_id=request_id, holder_name="Eve")) == (
        "ID_CONFLICT",
        "holder_name",
    )
    assert (await reason_of(bind(world, owner, holder_name="Eve")))[0] == "STATE_CONFLICT"


async def test_copies_at_once_bind_one_card(world: World, owner: tuple[str, CallContext]) -> None:
    cards = await asyncio.gather(*(bind(world, owner) for _ in range(20)))

    assert len({one.id for one in cards}) == 1


async def test_a_master_key_is_replaced_without_opening_a_card(
    world: World, owner: tuple[str, CallContext]
) -> None:
    """Under old and new keys cards open; once all are resealed, the old key can go."""
    parts = world.parts()
    store = MemberStore(world.pool)
    elements = CardElements(NUMBER, "Ada", "", "")
    old = CardVault(Sealer({"k1": b"one"}), b"hash")
    both = CardVault(Sealer({"k2": b"two", "k1": b"one"}), b"hash")
    new = CardVault(Sealer({"k2": b"two"}), b"hash")
    async with world.pool.acquire() as connection:
        await connection.execute("DELETE FROM cards")
    card = await bind_card(parts, old, NewCard(IDS.new("req"), owner[0], elements), owner[1])

    assert both.open(card) == elements
    with pytest.raises(SealBrokenError):
        new.open(card)
    assert await rotate_card_keys(store, both) == 1

    resealed = await store.find_card(card.tenant_id, card.mode, card.id)
    assert resealed is not None
    assert (new.open(resealed), resealed.key_id) == (elements, "k2")
    assert await rotate_card_keys(store, both) == 0


async def test_a_sealed_card_does_not_open_in_another_row(
    world: World, owner: tuple[str, CallContext]
) -> None:
    from dataclasses import replace

    vault = CardVault(Sealer({"k1": b"one"}), b"hash")
    card = await bind_card(
        world.parts(),
        vault,
        NewCard(IDS.new("req"), owner[0], CardElements(NUMBER, "Ada", "", "")),
        owner[1],
    )

    with pytest.raises(SealBrokenError):
        vault.open(replace(card, id=IDS.new("crd")))
