"""`paymesh books subjects|voucher|book|reverse`, against a ledger that is really served."""

from __future__ import annotations

import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hosted_services import HostedKit, calling, hosting, operator_call
from rich.console import Console

import services.account.wiring
from common.errors import RemoteError
from services.cli import voucher_writing
from services.cli.operator import Operator
from services.cli.voucher_writing import VERBS

ACCOUNTANT = operator_call("operator", "accountant")


@pytest.fixture(scope="module")
async def kit(database_url: str) -> AsyncIterator[HostedKit]:
    async with hosting(database_url, [services.account.wiring], {}) as kit:
        yield kit


@pytest.fixture
def run(kit: HostedKit) -> Callable[..., Awaitable[str]]:
    """Runs a verb as an accountant, and returns what it printed."""

    async def run(verb: str, **asked: Any) -> str:
        operator = Operator(kit.host, ACCOUNTANT.principal)
        printed = io.StringIO()
        console = Console(file=printed, width=200)
        asked = {"as_json": False, "request_id": ""} | asked
        if verb in ("subjects", "voucher"):
            asked.pop("request_id")
        assert await calling(ACCOUNTANT, lambda: VERBS[verb](operator, console, **asked)) == 0
        return printed.getvalue()

    return run


RENT = {
    "summary": "Rent of January",
    "currency": "CNY",
    "debit": ["6602=500.00"],
    "credit": ["2241.07=300", "4001=200.0"],
    "value_on": "",
}


async def test_booking_showing_and_taking_back_print_what_happened(
    run: Callable[..., Awaitable[str]],
) -> None:
    booked = await run("book", **RENT)
    assert re.search(r"6602 +500\.00 CNY", booked)
    assert re.search(r"2241\.07 +300\.00 CNY", booked)
    (voucher_id,) = re.findall(r"voucher: (vch_\w+), no\. 1 of", booked)
    taken_back = await run("reverse", voucher_id=voucher_id, reason="paid by the landlord")
    assert re.search(r"6602 +500\.00 CNY", taken_back)
    shown = json.loads(await run("voucher", voucher_id=voucher_id, as_json=True))
    assert f"voucher: {shown['reversed_by_id']}" in taken_back
    assert shown["lines"][0]["debit_minor"] == 50_000


async def test_booking_again_under_a_request_id_prints_the_same(
    run: Callable[..., Awaitable[str]],
) -> None:
    first = await run("book", **RENT, request_id="rent", as_json=True)
    assert await run("book", **RENT, request_id="rent", as_json=True) == first


@pytest.mark.parametrize("line", ["6602", "6602=", "6602=1,00", "6602=0.001", "6602=x", "=5.0.0"])
async def test_a_line_that_is_none_is_named(run: Callable[..., Awaitable[str]], line: str) -> None:
    with pytest.raises(SystemExit) as ended:
        await run("book", **{**RENT, "debit": [line]})
    assert f"{line!r} is not SUBJECT=AMOUNT" in str(ended.value)


async def test_what_the_ledger_refuses_is_its_own_message(
    run: Callable[..., Awaitable[str]],
) -> None:
    with pytest.raises(RemoteError, match="differ by -1"):
        await run("book", **{**RENT, "debit": ["6602=499.99"]})


async def test_the_chart_is_printed_with_the_kinds_of_account(
    run: Callable[..., Awaitable[str]],
) -> None:
    assert re.search(
        r"2202\.01 +Due to merchants, pending +liability +credit +merchant_pending",
        await run("subjects"),
    )
    assert len(json.loads(await run("subjects", as_json=True))["subjects"]) > 50


async def test_a_currency_that_is_none_is_named(run: Callable[..., Awaitable[str]]) -> None:
    with pytest.raises(SystemExit, match="there is no currency 'cny'"):
        await run("book", **{**RENT, "currency": "cny"})


async def test_booking_without_an_answer_says_how_to_repeat_it(
    kit: HostedKit, run: Callable[..., Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    await run("book", **RENT)
    async with kit.pools["account"].transaction() as connection:
        await connection.execute("SELECT FROM voucher_cursors FOR UPDATE")
        monkeypatch.setattr(voucher_writing, "_TIMEOUT_SECONDS", 0.5)
        with pytest.raises(SystemExit) as ended:
            await run("book", **RENT)
    monkeypatch.undo()
    (request_id,) = re.findall(r"repeat it with --request-id (cli-[0-9a-f]{16})$", str(ended.value))
    first = await run("book", **RENT, request_id=request_id)
    assert await run("book", **RENT, request_id=request_id) == first
