"""The rules of webhooks without sockets: addresses, schedule, breaker, signature, Retry-After."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Verifier

from services.notify.domain.addresses import is_public_address, refusal_of
from services.notify.domain.breaker import FAILURES_MAX, Breaker
from services.notify.domain.deliveries import (
    ATTEMPTS_MAX,
    MOVES,
    RETRY_DELAYS_SECONDS,
    Answer,
    Claim,
    DeliveryState,
    conclude,
)
from services.notify.signature import headers_of, secret_text
from services.notify.transport import read_retry_after

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example.com/webhooks",
        "https://shop.example.com:8443/webhooks?a=b",
        "https://93.184.215.14/",
        "https://[2606:4700::1111]/",
    ],
)
def test_registering_a_public_address_is_allowed(url: str) -> None:
    assert refusal_of(url, private_allowed=False) == ""


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example.com/",
        "ftp://shop.example.com/",
        "https:///path",
        "https://user:word@shop.example.com/",
        "https://shop.example.com/#part",
        "https://shop.example.com\\@inside/",
        "https://shop.example.com:0/",
        "https://shop.example.com:99999/",
        "https://sho p.example.com/",
        "https://sho\np.example.com/",
        "https://shöp.example.com/",
        "https://localhost/",
        "https://shop.localhost./",
        "https://postgres/",
        "https://payment.default.svc/",
        "https://metadata.google.internal/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.0.0.0x1/",
        "https://10.0.0.8/",
        "https://169.254.169.254/latest/meta-data",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://[::1]/",
        "https://[fd00::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::a00:1]/",
        "https://[2002:a00:1::]/",
        "https://[::1",
        f"https://shop.example.com/{'a' * 500}",
    ],
)
def test_registering_what_is_not_the_publics_is_refused(url: str) -> None:
    assert refusal_of(url, private_allowed=False)


def test_allowing_private_addresses_still_refuses_nonsense() -> None:
    assert refusal_of("http://127.0.0.1:8080/webhooks", private_allowed=True) == ""
    assert refusal_of("file:///etc/passwd", private_allowed=True)
    assert refusal_of("http://", private_allowed=True)


@given(st.ip_addresses(v=4, network="10.0.0.0/8") | st.ip_addresses(v=6, network="fc00::/7"))
def test_judging_private_addresses_never_passes_them(address: object) -> None:
    assert not is_public_address(str(address))
    if ":" not in str(address):
        assert not is_public_address(f"::ffff:{address}")


def _claim(tries: int) -> Claim:
    return Claim("dlv_1", 1, tries, tries, "msg_1", "whk_1", "", b"", False, "", "")


def test_concluding_follows_the_schedule_then_parks() -> None:
    failed = Answer(http_status=500)
    for tries in range(ATTEMPTS_MAX - 1):
        outcome = conclude(_claim(tries), failed, NOW, 0.5)
        assert outcome.state is DeliveryState.PENDING
        delay = timedelta(seconds=RETRY_DELAYS_SECONDS[tries + 1])
        assert outcome.next_attempt_at == NOW + delay
    last = conclude(_claim(ATTEMPTS_MAX - 1), failed, NOW, 0.5)
    assert (last.state, last.next_attempt_at) == (DeliveryState.PARKED, None)


@given(st.integers(0, ATTEMPTS_MAX - 2), st.floats(0, 1))
def test_concluding_with_chance_stays_near_the_schedule(tries: int, chance: float) -> None:
    outcome = conclude(_claim(tries), Answer(problem="timeout"), NOW, chance)
    assert outcome.next_attempt_at is not None
    seconds = (outcome.next_attempt_at - NOW).total_seconds()
    expected = RETRY_DELAYS_SECONDS[tries + 1]
    assert 0.9 * expected - 1e-5 <= seconds <= 1.1 * expected + 1e-5


@given(
    st.integers(0, ATTEMPTS_MAX - 1),
    st.none()
    | st.builds(
        Answer,
        http_status=st.sampled_from([0, 200, 204, 299, 301, 400, 404, 408, 410, 429, 500, 503]),
        retry_after=st.none() | st.timedeltas(timedelta(), timedelta(days=9)),
    ),
)
def test_concluding_only_makes_legal_moves(tries: int, answer: Answer | None) -> None:
    outcome = conclude(_claim(tries), answer, NOW, 0.5)
    pending = outcome.state is DeliveryState.PENDING
    assert pending or outcome.state in MOVES[DeliveryState.PENDING]
    assert pending == (outcome.next_attempt_at is not None)
    delivered = answer is not None and 200 <= answer.http_status < 300
    assert (outcome.state is DeliveryState.DELIVERED) == delivered
    if outcome.next_attempt_at is not None and answer is not None:
        assert outcome.next_attempt_at - NOW <= timedelta(hours=24)
        if answer.retry_after is not None:
            least = min(answer.retry_after, timedelta(hours=24))
            assert outcome.next_attempt_at - NOW >= least


def test_failing_opens_the_breaker_with_growing_pauses() -> None:
    breaker = Breaker()
    for _ in range(FAILURES_MAX):
        assert breaker.room(0.0, 64) == 64
        breaker.note_failure(0.0)
    assert (breaker.room(4.9, 64), breaker.room(5.0, 64)) == (0, 1)
    breaker.note_failure(4.0)  # was under way: the pause is not longer for it
    assert breaker.room(5.0, 64) == 1
    breaker.note_failure(5.0)
    assert (breaker.room(14.9, 64), breaker.room(15.0, 64)) == (0, 1)
    for _ in range(50):
        breaker.note_failure(1e6)
    assert breaker.room(1e6 + 60, 64) == 1
    breaker.note_success()
    assert breaker.room(0.0, 64) == 64


@given(st.binary(max_size=200), st.binary(min_size=24, max_size=64))
def test_signing_agrees_with_the_library(noise: bytes, key: bytes) -> None:
    body = base64.b64encode(noise)
    headers = headers_of(key, "msg_1", "biz_1", datetime.now(UTC), body)
    Verifier(secret_text(key)).verify(body, headers, json_parse=False)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("soon", None),
        ("-5", None),
        ("120", 120),
        (" 0 ", 0),
        ("99999999999999", 10**7),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60),
        ("Fri, 02 Jan 2026 03:00:05 GMT", 0),
    ],
)
def test_reading_retry_after_takes_seconds_and_dates(text: str, seconds: int | None) -> None:
    pause = read_retry_after(text, lambda: NOW)
    assert pause == (None if seconds is None else timedelta(seconds=seconds))
