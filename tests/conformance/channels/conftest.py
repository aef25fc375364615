"""Every channel against the live sandbox, over sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from outside_parties import Channels, Proxy, Receiver, proxying, receiving, sandbox_settings

from services.channel.guard import Guard
from services.channel.transport import open_session
from services.sandbox.credentials import SandboxCredentials, make_sandbox_credentials
from services.sandbox.serving import Sandbox

CODES = ("alipay_a", "alipay_b", "unionpay_a", "unionpay_b")


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> SandboxCredentials:
    """Keys of both sides."""
    return make_sandbox_credentials(tmp_path_factory.mktemp("credentials"))


@pytest.fixture(scope="module")
async def sandbox(
    tmp_path_factory: pytest.TempPathFactory, credentials: SandboxCredentials
) -> AsyncIterator[Sandbox]:
    """A running sandbox."""
    folder: Path = tmp_path_factory.mktemp("sandbox")
    one = Sandbox(sandbox_settings(folder, credentials))
    async with one.running():
        yield one
    await one.close()


@pytest.fixture(scope="module")
async def channels(sandbox: Sandbox, credentials: SandboxCredentials) -> AsyncIterator[Channels]:
    """Our channels."""
    async with open_session() as session:
        yield Channels(credentials, session, sandbox.url, sandbox.url)


@pytest.fixture(params=CODES)
def code(request: pytest.FixtureRequest) -> str:
    """Each of our channels in turn."""
    return str(request.param)


@pytest.fixture
def guard(channels: Channels, code: str) -> Guard:
    """The channel under test."""
    return channels.guard(code)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Where callbacks go."""
    async with receiving() as one:
        yield one


@pytest.fixture
async def proxy(sandbox: Sandbox) -> AsyncIterator[Proxy]:
    """A proxy before the sandbox that misbehaves on demand."""
    async with proxying(sandbox.url) as one:
        yield one
