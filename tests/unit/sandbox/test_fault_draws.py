"""Draws of faults depend on what they are told to depend on, and on nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import FieldInvalidError
from services.sandbox.faults.callbacks import wrong_amount_minor
from services.sandbox.faults.fate import invented
from services.sandbox.faults.plan import (
    PARTIES,
    PPM,
    Asked,
    FaultKind,
    FaultRule,
    Verb,
    check_rules,
    drawn_number,
    is_hit,
    makes_sense,
)

SEEDS = st.integers(-(2**63), 2**63 - 1)
NUMBERS = st.text("abcdefghjkmnpqrstvwxyz0123456789", min_size=8, max_size=32)
ASKED = st.builds(
    Asked,
    party=st.sampled_from(PARTIES),
    merchant_number=st.sampled_from(["1", "2"]),
    verb=st.sampled_from(Verb),
    reference=NUMBERS,
    amount_minor=st.integers(0, 10**15),
)
RULES = st.builds(
    FaultRule,
    rule_id=st.text("abc_.-", min_size=1, max_size=40),
    kind=st.sampled_from(FaultKind),
    rate_ppm=st.integers(0, PPM),
    delay_ms=st.just(1),
)
ORDINALS = st.integers(0, 1000)


@given(SEEDS, RULES, ASKED, ORDINALS)
def test_drawing_twice_gives_the_same(
    seed: int, rule: FaultRule, asked: Asked, ordinal: int
) -> None:
    assert is_hit(seed, rule, asked, ordinal) == is_hit(seed, rule, replace(asked), ordinal)
    # Neither who asks, nor the amount, nor the fields that only choose requests turn the draw.
    other = replace(asked, merchant_number="9", amount_minor=7)
    assert drawn_number(seed, rule.rule_id, asked, ordinal) == drawn_number(
        seed, rule.rule_id, other, ordinal
    )


def test_drawing_gives_the_same_on_every_machine_and_version() -> None:
    asked = Asked(
        party="alipay", merchant_number="1", verb=Verb.PAY, reference="pay1", amount_minor=5
    )
    assert [drawn_number(7, "slow", asked, ordinal) % PPM for ordinal in range(3)] == [
        887351,
        314256,
        777335,
    ]


@given(SEEDS, RULES, ASKED, ORDINALS, st.integers(0, PPM))
def test_raising_the_rate_only_adds_hits(
    seed: int, rule: FaultRule, asked: Asked, ordinal: int, rate_ppm: int
) -> None:
    low, high = sorted((rule.rate_ppm, rate_ppm))
    if is_hit(seed, replace(rule, rate_ppm=low), asked, ordinal):
        assert is_hit(seed, replace(rule, rate_ppm=high), asked, ordinal)


@given(SEEDS, RULES, ASKED, ORDINALS)
def test_no_rate_hits_nothing_and_the_full_rate_each(
    seed: int, rule: FaultRule, asked: Asked, ordinal: int
) -> None:
    assert not is_hit(seed, replace(rule, rate_ppm=0), asked, ordinal)
    everything = replace(rule, rate_ppm=PPM)
    assert is_hit(seed, everything, asked, ordinal) == makes_sense(
        rule.kind, asked.party, asked.verb
    )


@given(RULES, ASKED)
def test_rules_hit_only_what_they_name(rule: FaultRule, asked: Asked) -> None:
    for named in (
        replace(rule, party="elsewhere"),
        replace(rule, merchant_number="3"),
        replace(rule, verb="other"),
        replace(rule, amount_minor=asked.amount_minor + 1),
    ):
        assert not named.concerns(asked)


@pytest.mark.parametrize("turned", ["seed", "rule", "reference", "verb", "ordinal"])
def test_share_of_hits_is_the_rate_whatever_is_turned(turned: str) -> None:
    """30 % over 20,000 draws; five standard deviations are 1.6 %."""
    rule = FaultRule(rule_id="r", kind=FaultKind.SLOW, rate_ppm=300_000, delay_ms=1)
    asked = Asked(
        party="alipay", merchant_number="1", verb=Verb.PAY, reference="pay", amount_minor=5
    )
    hits = 0
    for number in range(20_000):
        seed, ordinal, one, about = 1, 0, rule, asked
        if turned == "seed":
            seed = number
        elif turned == "rule":
            one = replace(rule, rule_id=f"r{number}")
        elif turned == "ordinal":
            ordinal = number
        else:
            verb = Verb.QUERY if turned == "verb" else Verb.PAY
            about = replace(asked, reference=f"pay{number}", verb=verb)
        hits += is_hit(seed, one, about, ordinal)
    assert abs(hits / 20_000 - 0.3) < 0.016


@given(st.text("abcdefghjkmnpqrstvwxyz0123456789", min_size=1, max_size=64))
def test_invented_numbers_are_others_of_the_same_length(number: str) -> None:
    assert invented(number) != number
    assert len(invented(number)) == len(number)
    assert invented(number).isalnum()


@given(st.integers(1, 10**15))
def test_wrong_amounts_of_callbacks_are_near_no_real_one(amount_minor: int) -> None:
    told = wrong_amount_minor(amount_minor)
    assert 0 < told <= 10**15
    assert abs(told - amount_minor) > 1


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ([FaultRule(rule_id="a", kind=FaultKind.DECLINE)] * 2, "rules[1].rule_id"),
        ([FaultRule(rule_id="a", kind=FaultKind.DECLINE, party="paypal")], "rules[0].party"),
        ([FaultRule(rule_id="a", kind=FaultKind.DECLINE, verb="fly")], "rules[0].verb"),
        ([FaultRule(rule_id="a", kind=FaultKind.DECLINE, verb="refund")], "rules[0].verb"),
        ([FaultRule(rule_id="a", kind=FaultKind.REFUND_REFUSED, verb="pay")], "rules[0].verb"),
        (
            [
                FaultRule(
                    rule_id="a", kind=FaultKind.SLOW, party="unionpay", verb="close", delay_ms=1
                )
            ],
            "rules[0].verb",
        ),
        (
            [
                FaultRule(
                    rule_id="a",
                    kind=FaultKind.CALLBACK_CONTRADICTORY,
                    party="alipay",
                    verb="refund",
                )
            ],
            "rules[0].verb",
        ),
        ([FaultRule(rule_id="a", kind=FaultKind.SLOW)], "rules[0].delay_ms"),
        ([FaultRule(rule_id="a", kind=FaultKind.OUTAGE)], "rules[0].delay_ms"),
        ([FaultRule(rule_id="a", kind=FaultKind.CALLBACK_LATE)], "rules[0].delay_ms"),
    ],
)
def test_rules_that_never_could_hit_are_refused(rules: list[FaultRule], field: str) -> None:
    with pytest.raises(FieldInvalidError) as refused:
        check_rules(rules)
    assert refused.value.field == field


def test_every_kind_makes_sense_somewhere() -> None:
    check_rules(
        [FaultRule(rule_id=kind.value, kind=kind, delay_ms=1) for kind in FaultKind],
    )
