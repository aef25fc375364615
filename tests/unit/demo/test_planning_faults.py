"""The plan of faults: the same for the same seed, complete, accepted by those it concerns."""

from __future__ import annotations

from collections import Counter

import pytest

from services.cli.demo.faults import (
    EVERY_SERVICE,
    NO_FAULTS,
    PPM,
    SERVERS,
    FaultPlan,
    Incident,
    KillError,
    Rule,
    What,
    add_kills,
    pays_twice,
    plan_faults,
)
from services.cli.demo.saboteur import fault_kinds
from services.cli.sources import SERVICES
from services.sandbox.faults import plan as sandbox

SEEDS = range(1, 40)
SIZES = (1, 15, 60, 150, 500, 1_000, 6_919, 70_000)


def _count(plan: FaultPlan, what: What) -> Counter[str]:
    return Counter(incident.target for incident in plan.incidents if incident.what is what)


@pytest.mark.parametrize("purchases", SIZES)
def test_planning_twice_gives_the_same_plan(purchases: int) -> None:
    for seed in SEEDS:
        assert plan_faults(seed, purchases) == plan_faults(seed, purchases)


def test_other_seeds_give_other_plans() -> None:
    plans = [plan_faults(seed, 500) for seed in SEEDS]
    assert len({plan.incidents for plan in plans}) == len(plans)
    assert len({plan.rules for plan in plans}) == len(plans)


@pytest.mark.parametrize("purchases", SIZES)
def test_every_incident_comes_within_the_replay_in_order(purchases: int) -> None:
    for seed in SEEDS:
        places = [incident.place for incident in plan_faults(seed, purchases).incidents]
        assert places == sorted(places)
        assert places[0] >= 1
        assert places[-1] <= purchases


@pytest.mark.parametrize("purchases", [500, 6_919])
def test_every_server_and_several_services_are_killed(purchases: int) -> None:
    for seed in SEEDS:
        kills = _count(plan_faults(seed, purchases), What.KILL)
        assert set(SERVERS) <= set(kills)
        assert len(set(kills) & set(SERVICES)) >= 5


def test_whole_replay_kills_every_service_and_restarts_all_in_turn() -> None:
    for seed in SEEDS:
        plan = plan_faults(seed, 6_919)
        assert set(_count(plan, What.KILL)) == {*SERVICES, *SERVERS}
        assert _count(plan, What.RESTART)[EVERY_SERVICE] >= 1


def test_short_run_is_battered_less() -> None:
    for seed in SEEDS:
        plan = plan_faults(seed, 60)
        assert 4 <= _count(plan, What.KILL).total() <= 6
        assert _count(plan, What.PAUSE).total() == 2
        assert sum(incident.seconds for incident in plan.incidents) <= 11


@pytest.mark.parametrize("purchases", SIZES)
def test_pauses_last_ten_seconds_at_most(purchases: int) -> None:
    for seed in SEEDS:
        for incident in plan_faults(seed, purchases).incidents:
            assert 0 <= incident.seconds <= 10
            assert (incident.seconds > 0) >= (incident.what is What.PAUSE)


@pytest.mark.parametrize("purchases", SIZES)
def test_every_kind_of_fault_has_rules_that_the_sandbox_takes(purchases: int) -> None:
    for seed in SEEDS:
        rules = plan_faults(seed, purchases).rules
        assert {rule.kind for rule in rules} == set(fault_kinds())
        assert len(rules) <= 200
        sandbox.check_rules([_of_sandbox(rule) for rule in rules])


def _of_sandbox(rule: Rule) -> sandbox.FaultRule:
    return sandbox.FaultRule(
        rule_id=rule.rule_id,
        kind=sandbox.FaultKind(rule.kind),
        party=rule.party,
        verb=rule.verb,
        amount_minor=rule.amount_minor,
        rate_ppm=rule.rate_ppm,
        delay_ms=rule.delay_ms,
        hits_max=rule.hits_max,
    )


def test_most_requests_of_a_kind_go_well() -> None:
    """So that an order is paid after a few attempts, whatever the seed."""
    for purchases in SIZES:
        for seed in SEEDS:
            rules = plan_faults(seed, purchases).rules
            taking = [rule for rule in rules if rule.kind in ("DECLINE", "WRONG_AMOUNT")]
            assert sum(rule.rate_ppm for rule in taking) < PPM // 4


def test_some_customers_pay_twice_by_seed_and_line_alone() -> None:
    for seed in SEEDS:
        twice = [pays_twice(seed, line) for line in range(1, 2_000)]
        assert twice == [pays_twice(seed, line) for line in range(1, 2_000)]
        assert 0.02 < sum(twice) / len(twice) < 0.08


def test_chosen_kills_come_at_their_places() -> None:
    plan = add_kills(NO_FAULTS, ["payment@20", "postgres@5"], 100)
    assert plan.incidents == (
        Incident(5, What.KILL, "postgres", 1.0, joins=True),
        Incident(20, What.KILL, "payment", joins=True),
    )
    planned = plan_faults(1, 100)
    together = add_kills(planned, ["payment@20"], 100)
    assert set(together.incidents) == {*planned.incidents, plan.incidents[1]}
    assert together.rules == planned.rules


@pytest.mark.parametrize(
    "text",
    ["payment", "payment@", "@3", "payment@0", "payment@101", "payment@x", "bank@3", "payment@-1"],
)
def test_kill_at_no_place_is_refused(text: str) -> None:
    with pytest.raises(KillError, match=text):
        add_kills(NO_FAULTS, [text], 100)
