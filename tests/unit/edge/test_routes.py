"""Routes come from the contracts, all of them and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.domain import TokenBucket
from services.edge.peers import contract_services
from services.edge.rest.json_codec import JsonCodec
from services.edge.rest.routes import RouteError, RouteTable, build_routes

TABLE = build_routes(contract_services(), JsonCodec())


def test_every_change_takes_its_id_from_the_header() -> None:
    changes = [route for route in TABLE.routes if route.changes]

    assert changes
    assert all(route.takes_request_id for route in changes)


def test_known_routes_are_there() -> None:
    names = {route.name: (route.service, route.rpc) for route in TABLE.routes}

    assert names["POST /v1/orders"] == ("trade", "/paymesh.trade.v1.TradeService/CreateOrder")
    assert names["POST /v1/orders/{order_id}/payments"][0] == "payment"
    assert names["GET /v1/balances/{owner_id}"][0] == "account"
    assert names["POST /v1/users/{user_id}/cards"][0] == "member"
    assert names["POST /v1/webhook_endpoints"][0] == "notify"


def test_a_path_is_found_with_its_variables() -> None:
    by_verb, values = TABLE.find(b"/v1/orders/trd_1/payments")

    assert set(by_verb) == {"GET", "POST"}
    assert values == ("trd_1",)


@given(st.binary(max_size=60) | st.text("/v1orders.%2f", max_size=40).map(str.encode))
def test_any_path_is_found_or_not_and_never_breaks(path: bytes) -> None:
    by_verb, values = TABLE.find(path)

    assert all(len(route.variables) == len(values) for route in by_verb.values())
    assert not {".", "..", ""} & set(values)


def test_two_routes_of_one_path_stop_the_start() -> None:
    with pytest.raises(RouteError):
        RouteTable([TABLE.routes[0], TABLE.routes[0]])


@given(st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_a_bucket_never_lets_more_through_than_rate_and_burst(pauses: list[float]) -> None:
    bucket = TokenBucket(rate=2.0, burst=3.0, now_seconds=0.0)
    now, passed = 0.0, 0
    for pause in pauses:
        now += pause
        wait = bucket.take(now)
        passed += wait == 0
        assert wait <= 0.5
    assert passed <= 3 + 2 * now + 1e-6
