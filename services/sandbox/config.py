"""Settings of the sandbox: where it listens, what it remembers, whose contracts it holds."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr
from pydantic_settings import SettingsConfigDict

from common.settings import PaymeshSettings, SettingMissingError


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class AlipayMerchant(_Frozen):
    """An application that the simulated Alipay has a contract with."""

    app_id: str
    """The application's number."""
    merchant_public_key: str
    """The merchant's RSA key, PEM; requests are verified with it."""
    alipay_private_key: SecretStr
    """Alipay's own RSA key for this application, PEM; answers are signed with it."""


class UnionpayMerchant(_Frozen):
    """A merchant number that the simulated UnionPay has a contract with."""

    merchant_id: str
    """`merId`."""
    certificate: str
    """The merchant's signing certificate, PEM."""


class UnionpayParty(_Frozen):
    """The simulated UnionPay."""

    signing_certificate: str
    """The certificate that every answer carries, PEM."""
    signing_key: SecretStr
    """Its RSA key, PEM."""
    merchants: tuple[UnionpayMerchant, ...]
    """The merchants."""


class Parties(_Frozen):
    """Everything that the outside parties know of their merchants."""

    alipay: tuple[AlipayMerchant, ...] = ()
    """Applications at Alipay."""
    unionpay: UnionpayParty | None = None
    """UnionPay and its merchants."""


class SandboxSettings(PaymeshSettings):
    """How one sandbox process runs; from the environment, `PAYMESH_SANDBOX_…`."""

    model_config = SettingsConfigDict(env_prefix="PAYMESH_SANDBOX_")

    host: str = "127.0.0.1"
    """Address to listen on. The sandbox has no access control, so not the network's."""
    port: int = 8600
    """Port to listen on; 0 takes a free one."""
    database_file: Path = Path(".local/sandbox/sandbox.sqlite")
    """SQLite file with everything that the parties remember."""
    parties_file: Path = Path(".local/sandbox/sandbox.json")
    """The parties' keys and merchants, as `make_sandbox_credentials` writes them."""
    notify_intervals_seconds: tuple[float, ...] = (1, 2, 4, 8, 15, 30, 60)
    """Pauses between copies of a callback; the last one repeats until it is acknowledged. Real
    parties take minutes to hours and give up after a day."""
    notify_timeout_seconds: float = 5.0
    """How long a callback's receiver may take to answer."""
    processing_seconds: float = 2.0
    """How long the slow test cards stay in processing."""


def load_parties(file: Path) -> Parties:
    """Read the parties' keys and merchants.

    Raises SettingMissingError when the set-up has not made them.
    """
    if not file.exists():
        raise SettingMissingError(
            f"PAYMESH_SANDBOX_PARTIES_FILE names {file}, which does not exist;"
            " make_sandbox_credentials writes it"
        )
    return Parties.model_validate_json(file.read_bytes())
