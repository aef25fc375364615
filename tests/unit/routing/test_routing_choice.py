"""Choices are deterministic, follow the weights, and never take a channel that may not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import services.routing
from common.errors import AmountOutOfRangeError
from common.money import Money
from services.routing.domain import (
    ChannelRule,
    RuleSet,
    choose,
    fault_of,
    reason_against,
)
from services.routing.errors import ChannelNotEligibleError
from services.routing.flows.choose_channel import choose_channel
from services.routing.rulebook import RulesFileError, read_rules

DEFAULT = Path(services.routing.__file__).parent / "rules" / "default.toml"
USD = Money("USD", 1234)


def rule(channel: str, weight: int = 50, **changes: object) -> ChannelRule:
    """Return a rule."""
    values: dict[str, object] = {
        "product": "qr_pay",
        "currency_codes": ("USD", "CNY"),
        "amount_min_minor": 1,
        "amount_max_minor": 100_000,
        **changes,
    }
    return ChannelRule(channel=channel, weight=weight, **values)  # type: ignore[arg-type]


rules_of_any_kind = st.lists(
    st.builds(
        ChannelRule,
        channel=st.sampled_from([f"bank_{letter}" for letter in "abcdefgh"]),
        product=st.sampled_from(["qr_pay", "quick_pay"]),
        currency_codes=st.sets(st.sampled_from(["USD", "CNY", "JPY"]), min_size=1).map(tuple),
        amount_min_minor=st.integers(1, 500),
        amount_max_minor=st.integers(1, 2000),
        weight=st.integers(0, 100),
        suspended=st.booleans(),
    ),
    unique_by=lambda one: (one.channel, one.product),
)
payment_ids = st.integers(0, 2**60).map(lambda number: f"pay_{number:026d}")


@given(
    rules_of_any_kind,
    payment_ids,
    st.sampled_from(["qr_pay", "quick_pay"]),
    st.builds(Money, st.sampled_from(["USD", "CNY", "JPY"]), st.integers(1, 2500)),
    st.sets(st.sampled_from(["bank_a", "bank_b", "bank_c"])),
)
def test_choosing_ranks_exactly_the_eligible(
    rules: list[ChannelRule], payment_id: str, product: str, amount: Money, excluded: set[str]
) -> None:
    in_force = RuleSet(3, tuple(rules))
    choice = choose(in_force, payment_id, product, amount, excluded)
    of_product = {one.channel: one for one in rules if one.product == product}
    eligible = {
        code for code, one in of_product.items() if not reason_against(one, amount, excluded)
    }
    assert {one.channel for one in choice.candidates} == eligible
    for said in choice.candidates:
        one = of_product[said.channel]
        assert not one.suspended
        assert one.weight > 0
        assert said.channel not in excluded
        assert amount.currency_code in one.currency_codes
        assert one.amount_min_minor <= amount.amount_minor <= one.amount_max_minor
    if of_product:
        assert {one.channel for one in choice.rejections} == set(of_product) - eligible
    assert all(one.reason for one in (*choice.candidates, *choice.rejections))
    assert choice == choose(in_force, payment_id, product, amount, excluded)


@given(payment_ids)
def test_excluding_the_first_promotes_the_second(payment_id: str) -> None:
    in_force = RuleSet(
        1, tuple(rule(f"bank_{letter}", 10 * place + 5) for place, letter in enumerate("abcdef"))
    )
    order = [one.channel for one in choose(in_force, payment_id, "qr_pay", USD, ()).candidates]
    for place in range(1, len(order)):
        rest = choose(in_force, payment_id, "qr_pay", USD, order[:place]).candidates
        assert [one.channel for one in rest] == order[place:]


@settings(max_examples=15)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=4), st.integers(0, 2**40))
def test_shares_follow_the_weights(weights: list[int], first: int) -> None:
    in_force = RuleSet(1, tuple(rule(f"bank_{n}", weight) for n, weight in enumerate(weights)))
    count = 2000
    firsts = [
        choose(in_force, f"pay_{first + n:026d}", "qr_pay", USD, ()).candidates[0].channel
        for n in range(count)
    ]
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        # Six standard deviations of a fair draw: about one failure in half a milliard.
        bound = 6 * (count * share * (1 - share)) ** 0.5
        assert abs(firsts.count(f"bank_{number}") - count * share) <= bound


def test_no_channel_left_says_why_for_each() -> None:
    in_force = RuleSet(
        7,
        (
            rule("bank_a", suspended=True),
            rule("bank_b", currency_codes=("EUR",)),
            rule("bank_c", amount_max_minor=1000),
            rule("bank_d", amount_min_minor=2000),
            rule("bank_e"),
            rule("bank_f", 0),
        ),
    )
    with pytest.raises(ChannelNotEligibleError) as caught:
        choose_channel(in_force, "pay_1", "qr_pay", USD, {"bank_e"})
    assert caught.value.metadata["why"] == (
        "bank_a: suspended; bank_b: currency USD not taken; bank_c: amount above 1000; "
        "bank_d: amount below 2000; bank_e: tried already; bank_f: weight 0"
    )
    with pytest.raises(ChannelNotEligibleError) as caught:
        choose_channel(in_force, "pay_1", "cheque", USD, ())
    assert "no channel has this product" in caught.value.metadata["why"]
    for amount_minor in (0, -1):
        with pytest.raises(AmountOutOfRangeError):
            choose_channel(in_force, "pay_1", "qr_pay", Money("USD", amount_minor), ())


def test_default_rules_give_each_product_two_channels() -> None:
    rules = read_rules(DEFAULT)
    for product in ("balance", "qr_pay", "quick_pay"):
        for currency in ("USD", "CNY", "EUR", "JPY"):
            choice = choose(RuleSet(1, rules), "pay_1", product, Money(currency, 1), ())
            assert len(choice.candidates) == 2


def test_rules_that_contradict_each_other_are_named() -> None:
    good = [rule("bank_a"), rule("bank_b")]
    assert fault_of(good) is None
    cases = [
        ([], "rules"),
        ([*good, rule("bank_a")], "rules[0].channel"),
        ([rule("bank_a", amount_min_minor=5, amount_max_minor=4)], "rules[0].amount_min_minor"),
        ([rule("bank_a", amount_min_minor=0)], "rules[0].amount_min_minor"),
        ([*good, rule("bank_c", currency_codes=("XXX",))], "rules[2].currency_codes"),
        ([rule("bank_a", currency_codes=())], "rules[0].currency_codes"),
        ([rule("bank_a", 0), rule("bank_b", 0)], "rules.weight"),
        ([*good, replace(rule("bank_a", 0), product="quick_pay")], "rules.weight"),
    ]
    for rules, field in cases:
        fault = fault_of(rules)
        assert fault is not None
        assert fault[0] == field


def test_unreadable_file_of_rules_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    for text in ("", "rules = 3", "[[rules]]\nchannel = 'a'", "[[rules"):
        file.write_text(text)
        with pytest.raises(RulesFileError):
            read_rules(file)
    with pytest.raises(RulesFileError):
        read_rules(tmp_path / "nothing.toml")
