"""A sandbox of one's own for each test: it may be stopped, killed and started again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from outside_parties import Channels, Receiver, receiving, sandbox_settings

from services.channel.transport import open_session
from services.sandbox.config import SandboxSettings
from services.sandbox.credentials import SandboxCredentials, make_sandbox_credentials
from services.sandbox.serving import Sandbox


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> SandboxCredentials:
    """Keys of both sides."""
    return make_sandbox_credentials(tmp_path_factory.mktemp("credentials"))


@pytest.fixture
def settings(tmp_path: Path, credentials: SandboxCredentials) -> SandboxSettings:
    """Settings of this test's sandbox."""
    return sandbox_settings(tmp_path, credentials)


@pytest.fixture
async def sandbox(settings: SandboxSettings) -> AsyncIterator[Sandbox]:
    """A running sandbox."""
    one = Sandbox(settings)
    async with one.running():
        yield one
    await one.close()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """The HTTP session of this test."""
    async with open_session() as one:
        yield one


@pytest.fixture
def channels(
    sandbox: Sandbox, credentials: SandboxCredentials, session: aiohttp.ClientSession
) -> Channels:
    """Our channels."""
    return Channels(credentials, session, sandbox.url, sandbox.url)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Where callbacks go."""
    async with receiving() as one:
        yield one
