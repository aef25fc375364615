"""Settings of the edge."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from common.settings import PaymeshSettings


class EdgeSettings(PaymeshSettings):
    """Settings of the edge, `PAYMESH_EDGE_…`."""

    model_config = SettingsConfigDict(env_prefix="PAYMESH_EDGE_")

    http_host: str = "127.0.0.1"
    """The address that merchants and channels reach."""

    http_port: int = Field(default=8080, ge=0, le=65535)
    """The port for HTTP; 0 takes a free one."""

    http_port_shared: bool = False
    """Let several processes of one machine listen on the same port (SO_REUSEPORT)."""

    tenant_id: str = "default"
    """The tenant whose merchants come through this door."""

    body_bytes_max: int = Field(default=65_536, ge=1_024, le=65_536)
    """Longest body that is read, of merchants and of channels."""

    head_bytes_max: int = Field(default=32_768, ge=4_096)
    """Longest request line with headers."""

    head_seconds: float = Field(default=10.0, gt=0)
    """Longest that the headers of a request may take to arrive once the first byte is there."""

    body_seconds: float = Field(default=10.0, gt=0)
    """Longest that a body may take to arrive."""

    request_seconds: float = Field(default=15.0, gt=0)
    """Deadline of a whole request, passed on to every call that it causes."""

    keep_alive_seconds: int = Field(default=75, ge=1)
    """How long an idle connection stays open."""

    drain_seconds: int = Field(default=10, ge=1)
    """Longest that a stopping edge waits for the requests under way."""

    requests_in_flight_max: int = Field(default=1_024, ge=1)
    """Requests served at once; those beyond are refused with OVERLOADED, nothing begun. Those of
    one service take three quarters of them at most."""

    rate_per_second: int = Field(default=5_000, ge=0)
    """Requests that one merchant may send per second, in one process; 0 for no limit."""

    rate_burst: int = Field(default=10_000, ge=1)
    """Requests that a merchant may send at once after a quiet time."""

    signature_window_seconds: int = Field(default=300, ge=1)
    """How far `created` of a signature may be from our clock, to either side."""

    redis_away: Literal["refuse", "accept"] = "accept"
    """What becomes of requests while nonces cannot be checked. `accept`: they go on, so that shops
    can sell. A changing request that is replayed then still has one effect only, because its
    Idempotency-Key is covered by the signature and kept by the noun's own row; a reading one can be
    read again by whoever has caught it, within the window. `refuse`: UNAVAILABLE, nothing
    executed."""

    idempotency_seconds: int = Field(default=86_400, ge=86_400)
    """How long the answer to an Idempotency-Key is kept ready; the noun's row keeps it for ever."""

    keys_max: int = Field(default=10_000, ge=1)
    """Merchant keys that are remembered."""

    keys_unknown_seconds: float = Field(default=5.0, ge=0)
    """How long a key id that does not exist is remembered as such."""

    refusals_waiting_max: int = Field(default=10_000, ge=1)
    """Refusals that wait to be written; those beyond are counted and dropped."""

    refusals_per_second_max: int = Field(default=200, ge=1)
    """Refusals written per second: an attacker shall not fill the disk."""

    journal_waiting_max: int = Field(default=50_000, ge=1)
    """Requests that wait to be taken down; those beyond are counted and dropped."""

    journal_keep_days: int = Field(default=35, ge=1)
    """How long the journal of requests is kept. The rows of orders, payments and refunds, which
    tell what the requests did, stay for ever."""
