"""Settings of a process, typed and documented in one place, read from `PAYMESH_…` variables.

A service's own settings are a subclass of `PaymeshSettings` in its `config.py`, with a prefix of
their own. `describe_settings` turns any of them into rows for a page of documentation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import Field, SecretStr
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, SettingsConfigDict

DEVELOPMENT_SECRET = "development-only-secret"  # noqa: S105 - said to be one; refused in production


class PaymeshSettings(BaseSettings):
    """What every class of settings has in common: the docstring under a field documents it."""

    model_config = SettingsConfigDict(
        env_prefix="PAYMESH_",
        use_attribute_docstrings=True,
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
    )


class Settings(PaymeshSettings):
    """Settings of one process."""

    environment: Literal["development", "production"] = "development"
    """In production, secrets that were left at their development values stop the process."""

    postgres_url: SecretStr = SecretStr("postgresql://paymesh@127.0.0.1:5432/paymesh")
    """PostgreSQL, `postgresql://role:password@host[,host]/database`. When the role may create
    roles, each service gets a role and schema of its own under it; otherwise the role itself is
    used. `PAYMESH_<SERVICE>_POSTGRES_URL` puts one service elsewhere."""

    postgres_connections_max: int = Field(default=8, ge=2, le=200)
    """Most connections of one service's pool in one process."""

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """Redis (protocol of 7.0), `redis://:password@host:port/number`."""

    redis_namespace: str = ""
    """What every key begins with, where several installations share a server."""

    amqp_url: SecretStr = SecretStr("amqp://guest:guest@127.0.0.1:5672/")
    """RabbitMQ, `amqp://user:password@host:port/virtual-host`; `none` where there is none, as for a
    ledger that stands alone: events wait in the outbox, and none are heard."""

    amqp_namespace: str = ""
    """What every exchange and queue begins with, where several installations share a broker."""

    otlp_endpoint: str = ""
    """Where spans and metrics go by OTLP over gRPC, `http://host:4317`; empty for nowhere."""

    trace_sampling_ratio: float = Field(default=0.01, ge=0, le=1)
    """Share of traces that are recorded; an incoming trace's own decision is kept."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least serious lines that are written."""

    log_json: bool = True
    """Lines as JSON, for machines; otherwise for eyes."""

    principal_key: SecretStr = SecretStr(DEVELOPMENT_SECRET)
    """Key of the signed principal that travels with every call: `id:secret`, several separated by
    commas, of which the first signs and all are accepted."""

    page_token_key: SecretStr = SecretStr(DEVELOPMENT_SECRET)
    """Key that signs the page tokens of lists."""

    topology_path: str = "topology/processes.toml"
    """The file that says which services share a process and how calls travel."""

    business_time_zone: str = "Asia/Shanghai"
    """The zone in which business days begin and end."""

    drain_seconds: float = Field(default=15.0, gt=0)
    """Longest a stopping process waits for the calls that it has accepted."""

    def postgres_url_of(
        self, service: str, environment: Mapping[str, str] | None = None
    ) -> SecretStr:
        """Return where a service's schema is: its own variable, or the common one."""
        variables = os.environ if environment is None else environment
        own = variables.get(f"PAYMESH_{service.upper()}_POSTGRES_URL", "")
        return SecretStr(own) if own else self.postgres_url


@dataclass(frozen=True)
class SettingDescription:
    """One row of the page of settings."""

    variable: str
    """The environment variable."""
    kind: str
    """The type, as code says it."""
    default: str
    """The default, hidden for secrets; empty where one must be given."""
    meaning: str
    """What it does."""
    is_secret: bool


def describe_settings(settings: type[BaseSettings]) -> list[SettingDescription]:
    """Return a row for each setting of a class, in the order of its fields."""
    prefix = settings.model_config.get("env_prefix", "")
    rows = []
    for name, field in settings.model_fields.items():
        is_secret = field.annotation is SecretStr
        default = "" if field.default is PydanticUndefined else str(field.default)
        rows.append(
            SettingDescription(
                variable=f"{prefix}{name}".upper(),
                kind=_kind_of(field.annotation),
                default="(secret)" if is_secret and default else default,
                meaning=" ".join((field.description or "").split()),
                is_secret=is_secret,
            )
        )
    return rows


def _kind_of(annotation: object) -> str:
    """Return a type as code says it, without the modules of its parts."""
    if get_args(annotation):
        return re.sub(r"\b[a-z_]+\.(?=[A-Za-z])", "", str(annotation))
    return getattr(annotation, "__name__", str(annotation))


class SettingMissingError(Exception):
    """A setting must be given before the process may start; the message names it."""


def check_production(settings: Settings, *others: BaseSettings) -> None:
    """Refuse development secrets in production, in the process's settings and in `others`.

    Raises:
        SettingMissingError: a secret still has its development value.
    """
    if settings.environment != "production":
        return
    for one in (settings, *others):
        prefix = type(one).model_config.get("env_prefix", "")
        for name in type(one).model_fields:
            value = getattr(one, name)
            if isinstance(value, SecretStr) and value.get_secret_value() == DEVELOPMENT_SECRET:
                variable = f"{prefix}{name}".upper()
                raise SettingMissingError(f"{variable} must be set in production")
