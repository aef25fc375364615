"""Adapters: one file per protocol of an outside party, found at start-up by its name.

An adapter is a docstring, a configuration, pure conversions, and a class that overrides only the
verbs it supports. It is told which of our channels it serves, so that two merchant contracts with
one party are two channels over one adapter. Whoever calls goes through `services.channel.guard`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from common.clock import Clock
from services.channel.results import (
    Acknowledgement,
    Callback,
    ChannelResult,
    ChannelVerbUnsupportedError,
    PayRequest,
    QueryRequest,
    RawCallback,
    RefundRequest,
    Verb,
)
from services.channel.transport import Transport


class AdapterConfig(BaseModel):
    """Settings of one channel: addresses, numbers and keys. Secrets are `SecretStr`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Adapter:
    """Base of all adapters: every verb answers that it is not supported."""

    code: ClassVar[str]
    """Name of the protocol; equal to the name of its file."""

    config_type: ClassVar[type[AdapterConfig]]

    capabilities: ClassVar[frozenset[Verb]] = frozenset()
    """The verbs that the class overrides; worked out, never written by hand."""

    shows_codes: bool = False
    """Whether `pay` only makes a code, and money moves when a payer scans it. Such a code may be
    asked for again under its reference until it is known."""

    acknowledgement: ClassVar[Acknowledgement] = Acknowledgement(200, b"ok")
    """The answer that stops the channel from repeating a callback."""

    refusal: ClassVar[Acknowledgement] = Acknowledgement(500, b"fail")
    """The answer that makes the channel repeat a callback."""

    def __init_subclass__(cls) -> None:
        """Work out the capabilities."""
        super().__init_subclass__()
        cls.capabilities = frozenset(
            verb for verb in Verb if getattr(cls, verb.value) is not getattr(Adapter, verb.value)
        )

    def __init__(
        self, channel: str, config: AdapterConfig, transport: Transport, clock: Clock
    ) -> None:
        del config  # each adapter keeps its own, with the keys read
        self.channel = channel
        self.transport = transport
        self.clock = clock

    def _unsupported(self, verb: Verb) -> ChannelVerbUnsupportedError:
        return ChannelVerbUnsupportedError(channel=self.channel, verb=verb)

    async def pay(self, request: PayRequest) -> ChannelResult:
        """Take money. SUCCEEDED, or PENDING (with what the payer has to do next, if anything).

        A repeat of the same request has no second effect. Raises the failures of
        `services.channel.results`; a refusal is a DeclinedError.
        """
        raise self._unsupported(Verb.PAY)

    async def query(self, request: QueryRequest) -> ChannelResult:
        """Ask how a payment stands: any state but CONFLICT. A refusal is FAILED, not an error."""
        raise self._unsupported(Verb.QUERY)

    async def close(self, request: QueryRequest) -> ChannelResult:
        """End a payment unpaid.

        CLOSED: nobody can pay any more. SUCCEEDED: it was paid already. NOT_FOUND: nothing to
        close, which says nothing about a request that is still on its way.
        """
        raise self._unsupported(Verb.CLOSE)

    async def void(self, request: RefundRequest) -> ChannelResult:
        """Take back a whole payment before the channel settles it; answers like `refund`."""
        raise self._unsupported(Verb.VOID)

    async def refund(self, request: RefundRequest) -> ChannelResult:
        """Give back all or part: SUCCEEDED or PENDING; a refusal is a DeclinedError."""
        raise self._unsupported(Verb.REFUND)

    async def query_refund(self, request: RefundRequest) -> ChannelResult:
        """Ask how a refund or void stands: SUCCEEDED, PENDING, FAILED or NOT_FOUND."""
        raise self._unsupported(Verb.QUERY_REFUND)

    async def parse_callback(self, raw: RawCallback) -> Callback:
        """Verify a callback's signature and read it.

        Raises CallbackSignatureInvalidError before it believes anything.
        """
        raise self._unsupported(Verb.PARSE_CALLBACK)


class AdapterRegistryError(Exception):
    """The adapters' folder or a channel's settings are wrong; the process must not start."""


_PACKAGE: Final = __name__


@cache
def load_adapters() -> Mapping[str, type[Adapter]]:
    """Import every adapter file and return the classes by code.

    Raises AdapterRegistryError when a file does not hold exactly one adapter of its own name.
    """
    found: dict[str, type[Adapter]] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{_PACKAGE}.{module_info.name}")
        classes = [
            value
            for value in vars(module).values()
            if inspect.isclass(value)
            and issubclass(value, Adapter)
            and value.__module__ == module.__name__
        ]
        if [one.code for one in classes] != [module_info.name]:
            raise AdapterRegistryError(
                f"adapters/{module_info.name}.py must define one adapter with code"
                f" {module_info.name!r}, not {[one.code for one in classes]}"
            )
        found[module_info.name] = classes[0]
    return found


def build_adapter(
    code: str, channel: str, config: Mapping[str, object], transport: Transport, clock: Clock
) -> Adapter:
    """Return the adapter `code` for our channel `channel`, set up from its stored settings.

    Raises AdapterRegistryError, which names the wrong fields and never their values.
    """
    adapter = load_adapters().get(code)
    if adapter is None:
        raise AdapterRegistryError(f"no adapter has the code {code!r}")
    try:
        parsed = adapter.config_type.model_validate(dict(config))
        return adapter(channel, parsed, transport, clock)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
        raise AdapterRegistryError(f"settings of channel {channel}: wrong {fields}") from None
    except ValueError:
        raise AdapterRegistryError(f"settings of channel {channel}: a key is unreadable") from None
