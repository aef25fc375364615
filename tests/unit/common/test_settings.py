"""Settings come from the environment, keep secrets to themselves, and document themselves."""

from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from common.settings import (
    PaymeshSettings,
    SettingMissingError,
    Settings,
    check_production,
    describe_settings,
)


def test_reading_takes_variables_of_our_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYMESH_POSTGRES_URL", "postgresql://a:hush@h/d")
    monkeypatch.setenv("PAYMESH_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("PAYMESH_AMQP_NAMESPACE", "")
    monkeypatch.setenv("PAYMESH_UNKNOWN", "ignored")
    settings = Settings()
    assert settings.postgres_url.get_secret_value() == "postgresql://a:hush@h/d"
    assert settings.log_level == "DEBUG"
    assert "hush" not in repr(settings)


def test_reading_a_wrong_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYMESH_POSTGRES_CONNECTIONS_MAX", "many")
    with pytest.raises(ValidationError, match="postgres_connections_max"):
        Settings()


def test_a_service_may_have_a_database_of_its_own() -> None:
    settings = Settings(postgres_url=SecretStr("postgresql://common/d"))
    own = {"PAYMESH_ACCOUNT_POSTGRES_URL": "postgresql://own/d"}
    assert settings.postgres_url_of("account", own).get_secret_value() == "postgresql://own/d"
    assert settings.postgres_url_of("trade", own) == settings.postgres_url


def test_every_setting_says_what_it_does_and_no_secret_shows() -> None:
    rows = describe_settings(Settings)
    assert [row.variable for row in rows if not row.meaning] == []
    shown = {row.variable: row.default for row in rows}
    assert shown["PAYMESH_POSTGRES_CONNECTIONS_MAX"] == "8"
    assert shown["PAYMESH_PRINCIPAL_KEY"] == "(secret)"


def test_a_class_of_a_service_has_its_own_prefix() -> None:
    class Own(PaymeshSettings, env_prefix="PAYMESH_TRADE_"):
        expires_minutes: int = 30
        """Minutes."""

    (row,) = describe_settings(Own)
    assert (row.variable, row.kind, row.default) == ("PAYMESH_TRADE_EXPIRES_MINUTES", "int", "30")
    assert row.meaning == "Minutes."


def test_production_refuses_secrets_of_development() -> None:
    check_production(Settings())
    with pytest.raises(SettingMissingError, match="PAYMESH_PRINCIPAL_KEY"):
        check_production(Settings(environment="production"))
