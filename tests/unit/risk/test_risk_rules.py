"""Rules are data: read strictly, judged purely, with days of the business zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

import services.risk
from common.money import Money
from services.risk.domain import (
    DEGRADED,
    Action,
    CounterRule,
    Rules,
    action_differs,
    judge_alone,
    judge_degraded,
    uses_of,
)
from services.risk.rulebook import RulesFileError, hasher, read_rules, rules_from_json

DEFAULT = Path(services.risk.__file__).parent / "rules" / "default.toml"
HASH = hasher("test")
SHANGHAI = ZoneInfo("Asia/Shanghai")


def action(amount_minor: int = 1000, kind: str = "pay", **hashes: str) -> Action:
    """Return an action."""
    return Action(
        action_id="pay_1",
        action=kind,
        amount=Money("USD", amount_minor),
        product="quick_pay",
        user_id="usr_1",
        card_id="crd_1",
        hashes=hashes or {"user": HASH("user", "usr_1"), "card": HASH("card", "crd_1")},
    )


def default_rules() -> Rules:
    """Return the rules of a new installation."""
    return rules_from_json(1, read_rules(DEFAULT, HASH))


def test_default_rules_let_ordinary_actions_pass() -> None:
    rules = default_rules()
    assert judge_alone(rules, action()) == ()
    assert judge_alone(rules, action(20_000_001)) == ("quick_pay_amount",)
    assert set(judge_alone(rules, action(50_000_001, "recharge"))) == {
        "quick_pay_amount",
        "recharge_amount",
    }
    assert {use.code for use in uses_of(rules, action(), datetime.now(UTC), SHANGHAI)} == {
        "user_daily_count",
        "user_daily_sum",
        "card_daily_count",
        "card_daily_sum",
    }


def test_policy_without_counters_goes_by_action_and_amount() -> None:
    rules = default_rules()
    assert judge_degraded(rules, action(20_000)) == ()
    assert judge_degraded(rules, action(20_001)) == (DEGRADED,)
    assert judge_degraded(rules, action(20_001, "recharge")) == ()
    assert judge_degraded(rules, action(1, "withdraw")) == (DEGRADED,)


def test_blocked_values_are_kept_as_hashes_only(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text('[blocked]\nips = ["203.0.113.7"]\nusers = ["usr_bad"]\n')
    content = read_rules(file, HASH)
    assert "203.0.113.7" not in str(content)
    assert "usr_bad" not in str(content)
    rules = rules_from_json(1, content)
    assert judge_alone(rules, action(ip=HASH("ip", "203.0.113.7"))) == ("ip_blocked",)
    assert judge_alone(rules, action(user=HASH("user", "usr_bad"))) == ("user_blocked",)
    assert judge_alone(rules, action(ip=HASH("ip", "203.0.113.8"))) == ()
    assert HASH("ip", "x") != HASH("device", "x")
    assert HASH("ip", "x") != hasher("other")("ip", "x")


@pytest.mark.parametrize(
    "text",
    [
        "counters = 3",
        "[[counters]]\ncode = 'a_b'",
        "surprise = 1",
        "[[amounts]]\ncode='a_b'\nactions=['pay']\namount_max_minor=-1",
        "[[amounts]]\ncode='a_b'\nactions=['pay']\namount_max_minor=1\n" * 2,
        (
            "[[counters]]\ncode='a_b'\nactions=['pay']\ndimension='user'\nmeasure='count'\nlimit=1\n"
            "window=100000"
        ),
        "[[",
    ],
)
def test_wrong_file_of_rules_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(RulesFileError):
        read_rules(file, HASH)


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)).map(  # noqa: DTZ001 - made aware
        lambda at: at.replace(tzinfo=UTC)
    ),
    st.sampled_from(["Asia/Shanghai", "UTC", "America/New_York"]),
)
def test_day_ends_at_midnight_of_the_business_zone(at: datetime, zone_name: str) -> None:
    zone = ZoneInfo(zone_name)
    rules = Rules(1, counters=(CounterRule("daily", ("pay",), "user", "sum", 10),))
    (use,) = uses_of(rules, action(7), at, zone)
    ends_at = datetime.fromtimestamp(use.counter_ends_ms / 1000, UTC)
    assert at < ends_at + timedelta(milliseconds=1)
    assert ends_at - at <= timedelta(hours=25)
    local = ends_at.astimezone(zone)
    assert (local.hour, local.minute, local.second) == (0, 0, 0)
    assert use.counter.endswith(at.astimezone(zone).date().isoformat())
    assert use.held_until_ms <= use.kept_until_ms == use.counter_ends_ms
    assert (use.add, use.limit) == (7, 10)


def test_repeat_with_another_amount_is_named() -> None:
    assert action_differs(action(), action()) == ""
    assert action_differs(action(1), action(2)) == "amount.amount_minor"
    assert action_differs(action(), action(kind="recharge")) == "action"
