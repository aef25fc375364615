"""Merchants, keys and users, with the real ledger opening their accounts."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from paymesh.account import account_id_for
from paymesh.account.v1 import GetAccountsRequest
from paymesh.edge import generate_key
from paymesh.member.v1 import (
    AddMerchantKeyRequest,
    CreateUserRequest,
    GetMerchantKeyRequest,
    GetMerchantRequest,
    GetUserRequest,
    ListFactsRequest,
    ListStoryRequest,
    MemberStatus,
    Merchant,
    RegisterMerchantRequest,
    RevokeMerchantKeyRequest,
    SetMerchantStatusRequest,
)

from common.audit import find_break
from common.context import CallContext, Mode, Principal, bound
from common.errors import Outcome, RemoteError, UnavailableError
from services.member.flows.create_user import NewUser, create_user
from services.member.flows.finish_openings import finish_openings
from tests.integration.member.conftest import IDS, OPERATOR, World, merchant_call, of_tenant


async def register(world: World, **changed: Any) -> Merchant:
    request = {
        "request_id": IDS.new("req"),
        "merchant_no": IDS.new("num"),
        "name": "CDNOW",
        "currency_codes": ["USD"],
        **changed,
    }
    with bound(OPERATOR):
        answer = await world.member("operator").RegisterMerchant(RegisterMerchantRequest(**request))
    merchant: Merchant = answer.merchant
    return merchant


async def reason_of(call: Any) -> tuple[str, str | None]:
    with pytest.raises(RemoteError) as refused:
        await call
    return refused.value.remote_reason, refused.value.field


async def account_exists(world: World, account_id: str, mode: Mode) -> bool:
    operator = CallContext(Principal(mode=mode, actor_id="ada", roles=("operator",)))
    with bound(operator):
        found = await world.account().GetAccounts(GetAccountsRequest(ids=[account_id]))
    return [one.id for one in found.accounts] == [account_id]


async def test_registering_a_merchant_opens_its_accounts_in_both_worlds(world: World) -> None:
    merchant = await register(world, currency_codes=["USD", "JPY"])

    assert merchant.status == MemberStatus.MEMBER_STATUS_ACTIVE
    assert merchant.version == 2
    for mode in (Mode.LIVE, Mode.TEST):
        for kind in ("merchant_pending", "merchant_settled"):
            for code in ("USD", "JPY"):
                account_id = account_id_for(merchant.id, kind, code, tenant_id="default", mode=mode)
                assert await account_exists(world, account_id, mode)


async def test_registering_again_answers_the_same_and_conflicts_name_the_field(
    world: World,
) -> None:
    request = {"request_id": IDS.new("req"), "merchant_no": IDS.new("num")}
    first = await register(world, **request)

    assert await register(world, **request) == first
    assert await reason_of(register(world, **{**request, "name": "Other"})) == (
        "ID_CONFLICT",
        "name",
    )
    assert await reason_of(register(world, merchant_no=request["merchant_no"])) == (
        "MERCHANT_NUMBER_USED",
        "merchant_no",
    )


async def test_registering_with_a_strange_currency_writes_nothing(world: World) -> None:
    number = IDS.new("num")

    reason, _ = await reason_of(register(world, merchant_no=number, currency_codes=["ABC"]))

    assert reason == "CURRENCY_UNKNOWN"
    assert (await register(world, merchant_no=number)).merchant_no == number


async def test_registering_is_for_operators(world: World) -> None:
    request = RegisterMerchantRequest(
        request_id="r", merchant_no="n", name="x", currency_codes=["USD"]
    )
    for caller, call in (("edge", merchant_call(IDS.new("mer"))), ("operator", CallContext())):
        with bound(call):
            reason, _ = await reason_of(world.member(caller).RegisterMerchant(request))
        assert reason == "PERMISSION_DENIED"


async def set_status(world: World, merchant_id: str, status: Any, **changed: Any) -> Any:
    request = {
        "request_id": IDS.new("req"),
        "merchant_id": merchant_id,
        "status": status,
        "reason": "checked",
        **changed,
    }
    with bound(OPERATOR):
        answer = await world.member("operator").SetMerchantStatus(
            SetMerchantStatusRequest(**request)
        )
    return answer.merchant


async def test_a_status_moves_as_the_table_says_and_repeats_change_nothing(world: World) -> None:
    merchant = await register(world)
    request_id = IDS.new("req")
    suspended = MemberStatus.MEMBER_STATUS_SUSPENDED
    closed = MemberStatus.MEMBER_STATUS_CLOSED
    active = MemberStatus.MEMBER_STATUS_ACTIVE

    first = await set_status(world, merchant.id, suspended, request_id=request_id)
    again = await set_status(world, merchant.id, suspended, request_id=request_id)
    other = await reason_of(set_status(world, merchant.id, closed, request_id=request_id))
    twice = await reason_of(set_status(world, merchant.id, suspended))
    back = await set_status(world, merchant.id, active)
    end = await set_status(world, merchant.id, closed)
    late = await reason_of(set_status(world, merchant.id, active))

    assert (first.status, first.version) == (suspended, 3)
    assert again == first
    assert other == ("ID_CONFLICT", "status")
    assert twice[0] == "STATE_CONFLICT"
    assert (back.status, end.status) == (active, closed)
    assert late[0] == "STATE_CONFLICT"
    async with world.pool.acquire() as connection:
        actions = await connection.fetch(
            "SELECT action FROM audit WHERE subject = $1 ORDER BY position",
            f"merchant {merchant.id}",
        )
        assert [row["action"] for row in actions] == [
            "merchant.register",
            *["merchant.set_status"] * 3,
        ]
        assert await find_break(connection) is None


async def test_concurrent_status_changes_are_made_one_after_the_other(world: World) -> None:
    merchant = await register(world)

    results = await asyncio.gather(
        *(set_status(world, merchant.id, MemberStatus.MEMBER_STATUS_SUSPENDED) for _ in range(5)),
        return_exceptions=True,
    )

    done = [one for one in results if not isinstance(one, BaseException)]
    assert len(done) == 1
    assert done[0].version == 3


async def add_key(world: World, merchant_id: str, **changed: Any) -> Any:
    request = {
        "request_id": IDS.new("req"),
        "merchant_id": merchant_id,
        "public_key": generate_key()[1],
        "mode": "LIVE",
        **changed,
    }
    with bound(OPERATOR):
        answer = await world.member("operator").AddMerchantKey(AddMerchantKeyRequest(**request))
    return answer.key


async def test_a_key_is_good_until_it_is_revoked(world: World) -> None:
    merchant = await register(world)
    key = await add_key(world, merchant.id, mode="TEST")
    edge = world.member("edge")
    good = await edge.GetMerchantKey(GetMerchantKeyRequest(key_id=key.id))

    revoke = RevokeMerchantKeyRequest(request_id=IDS.new("req"), key_id=key.id)
    with bound(OPERATOR):
        revoked = (await world.member("operator").RevokeMerchantKey(revoke)).key
        again = (await world.member("operator").RevokeMerchantKey(revoke)).key
    seen = await edge.GetMerchantKey(GetMerchantKeyRequest(key_id=key.id))

    assert good.key == key
    assert good.merchant.id == merchant.id
    assert (good.key.mode, good.ttl_seconds) == ("TEST", 10)
    assert not good.key.HasField("revoked_at")
    assert revoked.HasField("revoked_at")
    assert revoked == again == seen.key
    assert await reason_of(edge.GetMerchantKey(GetMerchantKeyRequest(key_id=IDS.new("key")))) == (
        "NOT_FOUND",
        None,
    )


async def test_registering_a_key_again_answers_the_same(world: World) -> None:
    merchant = await register(world)
    request = {"request_id": IDS.new("req"), "public_key": generate_key()[1]}

    first = await add_key(world, merchant.id, **request)

    assert await add_key(world, merchant.id, **request) == first
    other = {**request, "public_key": generate_key()[1]}
    assert await reason_of(add_key(world, merchant.id, **other)) == ("ID_CONFLICT", "public_key")


@pytest.mark.parametrize("key", [b"\0" * 32, b"\x01" + b"\0" * 31, b"\xff" * 32])
async def test_bytes_that_are_no_public_key_are_refused(world: World, key: bytes) -> None:
    merchant = await register(world)

    assert await reason_of(add_key(world, merchant.id, public_key=key)) == (
        "PUBLIC_KEY_INVALID",
        "public_key",
    )


async def test_a_key_for_nobody_is_refused(world: World) -> None:
    assert (await reason_of(add_key(world, IDS.new("mer"))))[0] == "NOT_FOUND"


async def create(world: World, merchant_id: str, **changed: Any) -> Any:
    request = {
        "request_id": IDS.new("req"),
        "merchant_user_no": IDS.new("num"),
        "currency_codes": ["USD"],
        **changed,
    }
    with bound(merchant_call(merchant_id)):
        return (await world.member("edge").CreateUser(CreateUserRequest(**request))).user


async def test_many_users_at_once_are_registered_with_their_wallets(world: World) -> None:
    merchant_id = IDS.new("mer")

    users = await asyncio.gather(*(create(world, merchant_id) for _ in range(300)))

    assert {one.status for one in users} == {MemberStatus.MEMBER_STATUS_ACTIVE}
    assert len({one.id for one in users}) == 300
    for user in users[::50]:
        account_id = account_id_for(
            user.id, "user_available", "USD", tenant_id="default", mode="LIVE"
        )
        assert await account_exists(world, account_id, Mode.LIVE)


async def test_copies_of_one_registration_at_once_make_one_user(world: World) -> None:
    merchant_id = IDS.new("mer")
    request = {"request_id": IDS.new("req"), "merchant_user_no": "1"}

    users = await asyncio.gather(*(create(world, merchant_id, **request) for _ in range(20)))

    assert len({one.id for one in users}) == 1
    assert {one.version for one in users} == {2}


async def test_a_user_registered_again_conflicts_by_name(world: World) -> None:
    merchant_id = IDS.new("mer")
    request = {"request_id": IDS.new("req"), "merchant_user_no": "1"}
    first = await create(world, merchant_id, **request)

    assert await create(world, merchant_id, **request) == first
    assert await reason_of(create(world, merchant_id, **{**request, "merchant_user_no": "2"})) == (
        "ID_CONFLICT",
        "merchant_user_no",
    )
    assert await reason_of(
        create(world, merchant_id, **request, currency_codes=["USD", "EUR"])
    ) == ("ID_CONFLICT", "currency_codes")
    assert await reason_of(create(world, merchant_id, merchant_user_no="1")) == (
        "MERCHANT_NUMBER_USED",
        "merchant_user_no",
    )
    # Another merchant's numbers and ids are its own.
    assert (await create(world, IDS.new("mer"), **request)).id != first.id


async def test_a_bad_registration_does_not_harm_its_neighbours(world: World) -> None:
    merchant_id = IDS.new("mer")

    results = await asyncio.gather(
        *(create(world, merchant_id) for _ in range(5)),
        create(world, merchant_id, currency_codes=["ABC"]),
        create(world, merchant_id, merchant_user_no="same"),
        create(world, merchant_id, merchant_user_no="same"),
        return_exceptions=True,
    )

    failed = sorted(one.remote_reason for one in results if isinstance(one, RemoteError))
    assert failed == ["CURRENCY_UNKNOWN", "MERCHANT_NUMBER_USED"]


async def test_a_merchant_sees_only_its_own_users_of_its_world(world: World) -> None:
    merchant_id = IDS.new("mer")
    user = await create(world, merchant_id)
    edge = world.member("edge")
    request = GetUserRequest(user_id=user.id)

    with bound(merchant_call(merchant_id)):
        assert (await edge.GetUser(request)).user == user
    for call in (
        merchant_call(IDS.new("mer")),
        merchant_call(merchant_id, Mode.TEST),
        merchant_call(""),
        of_tenant(merchant_call(merchant_id), "other"),
    ):
        with bound(call):
            assert (await reason_of(edge.GetUser(request)))[0] == "NOT_FOUND"
    with bound(CallContext(Principal(actor_id="payment"))):
        assert (await world.member("payment").GetUser(request)).user == user


async def test_a_merchant_is_read_by_services_and_by_itself(world: World) -> None:
    merchant = await register(world)
    request = GetMerchantRequest(merchant_id=merchant.id)

    assert (await world.member("trade").GetMerchant(request)).merchant == merchant
    with bound(merchant_call(merchant.id)):
        assert (await world.member("trade").GetMerchant(request)).merchant == merchant
    with bound(merchant_call(IDS.new("mer"))):
        assert (await reason_of(world.member("trade").GetMerchant(request)))[0] == "NOT_FOUND"


async def test_a_user_left_opening_is_finished_by_a_repeat_or_by_the_sweep(world: World) -> None:
    """The process dies, or the ledger is away, between the row and the accounts."""

    async def away(_: object) -> None:
        raise UnavailableError(target="account", outcome=Outcome.NOT_EXECUTED)

    merchant_id = IDS.new("mer")
    call = merchant_call(merchant_id)
    broken = world.parts(away)
    asked = [NewUser(IDS.new("req"), str(number), ("USD",)) for number in range(2)]
    for one in asked:
        with pytest.raises(UnavailableError) as failed:
            await create_user(broken, one, call)
        assert failed.value.outcome is Outcome.UNKNOWN

    async def unfinished() -> set[str]:
        with bound(OPERATOR):
            answer = await world.member("operator").ListFacts(ListFactsRequest(kind="unfinished"))
        return {one.key for one in answer.facts if one.values["noun"] == "user"}

    left = await unfinished()
    assert len(left) == 2
    repeated = await create_user(world.parts(), asked[0], call)
    assert await unfinished() == left - {repeated.id}
    assert await finish_openings(world.parts(), -timedelta(minutes=1).total_seconds()) == 1
    assert await unfinished() == set()


async def test_the_sweep_finishes_merchants_too(world: World) -> None:
    merchant = await register(world)
    async with world.pool.acquire() as connection:
        await connection.execute(
            "UPDATE merchants SET status = 'OPENING', version = version + 1 WHERE id = $1",
            merchant.id,
        )

    assert await finish_openings(world.parts(), -60) == 1

    found = await world.member("trade").GetMerchant(GetMerchantRequest(merchant_id=merchant.id))
    assert found.merchant.status == MemberStatus.MEMBER_STATUS_ACTIVE


async def test_stories_are_found_by_id_by_number_and_by_story(world: World) -> None:
    merchant_id = IDS.new("mer")
    number = IDS.new("num")
    user = await create(world, merchant_id, merchant_user_no=number)

    subjects = (
        {"subject_id": user.id},
        {"subject_id": number},
        {"biz_trace_id": "biz_1"},
        {"subject_id": "nothing"},
    )
    with bound(OPERATOR):
        operator = world.member("operator")
        stories = [await operator.ListStory(ListStoryRequest(**one)) for one in subjects]

    lines = [item.summary for item in stories[0].items]
    assert lines == ["OPENING", "OPENING → ACTIVE"]
    assert stories[1] == stories[0]
    assert stories[0].biz_trace_id == "biz_1"
    assert f"user {user.id}" in {item.subject for item in stories[2].items}
    assert list(stories[3].items) == []


async def test_facts_are_paged_and_known_by_kind(world: World) -> None:
    with bound(OPERATOR):
        operator = world.member("operator")
        assert await reason_of(operator.ListFacts(ListFactsRequest(kind="other"))) == (
            "FIELD_INVALID",
            "kind",
        )
        empty = await operator.ListFacts(ListFactsRequest(kind="unfinished", page_size=1))
    assert (list(empty.facts), empty.next_page_token) == ([], "")
