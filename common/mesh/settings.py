"""Settings of the mesh in one process."""

from __future__ import annotations

from pathlib import Path

from paymesh.mesh.frames import Limits
from paymesh.mesh.stream_channel import StreamSettings
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from common.settings import DEVELOPMENT_SECRET, PaymeshSettings


class MeshSettings(PaymeshSettings):
    """How a process serves and calls."""

    model_config = SettingsConfigDict(env_prefix="PAYMESH_MESH_")

    secret: SecretStr = SecretStr(DEVELOPMENT_SECRET)
    """Key that services prove their names with where there is no mTLS: `id:secret`, several
    separated by commas, of which the first signs and all are accepted."""

    listen_host: str = "127.0.0.1"
    """The address that the process listens on."""

    calls_in_flight_max: int = Field(default=2_048, ge=1)
    """Most calls that the process works on at once; beyond it, calls are refused (OVERLOADED)."""

    stream_calls_max: int = Field(default=1_024, ge=1)
    """Most calls in flight on one stream."""

    message_bytes_max: int = Field(default=4_194_304, ge=65_536)
    """Largest request or response."""

    frame_bytes_max: int = Field(default=262_144, ge=65_536)
    """Largest frame of a stream; larger messages are cut into parts."""

    deadline_default_seconds: float = Field(default=5.0, gt=0)
    """Time for a call whose caller names none and is itself without a deadline."""

    deadline_reserve_seconds: float = Field(default=0.005, ge=0)
    """What a service keeps of its own time, to say that the calls it made took too long."""

    connect_patience_seconds: float = Field(default=1.0, ge=0)
    """How long a call waits for a peer that is away."""

    stream_age_max_seconds: float = Field(default=300.0, gt=0)
    """Streams are replaced after this, so that new instances of a peer get their share."""

    retries_max: int = Field(default=2, ge=0)
    """Most repeats of one call, where repeating is safe."""

    retry_pause_seconds: float = Field(default=0.02, gt=0)
    """Pause before the first repeat; each further pause doubles."""

    breaker_failures: int = Field(default=20, ge=1)
    """So many failures in a row open the breaker of a target."""

    breaker_open_seconds: float = Field(default=1.0, gt=0)
    """How long an open breaker refuses before it lets one call try."""

    tls_certificate_path: Path | None = None
    """Certificate chain of the process (PEM), with the names of its services as DNS names; with
    it come mutual TLS and identities from certificates."""

    tls_key_path: Path | None = None
    """Private key of the certificate (PEM)."""

    tls_authority_path: Path | None = None
    """Certificate of the authority that signs the mesh's certificates (PEM)."""

    @property
    def has_tls(self) -> bool:
        """Say whether calls between processes are encrypted and mutually authenticated."""
        return self.tls_certificate_path is not None

    @property
    def limits(self) -> Limits:
        """What this process takes on a stream."""
        return Limits(self.frame_bytes_max, self.message_bytes_max, self.stream_calls_max)

    @property
    def stream(self) -> StreamSettings:
        """How this process's streams to others behave."""
        return StreamSettings(
            limits=self.limits,
            patience_seconds=self.connect_patience_seconds,
            age_max_seconds=self.stream_age_max_seconds,
        )
