"""Once only, by Redis: nonces, and answers under an Idempotency-Key.

Neither is the true record. A replayed change has one effect because the noun's own row holds its
request id; Redis lets concurrent copies meet and gives a repeat its answer without work. With
Redis emptied everything is still right, only a little slower.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
from dataclasses import dataclass, field
from typing import Final, Literal

import orjson
from redis.exceptions import RedisError

from common.errors import Outcome, Retry, UnavailableError
from common.redis import Argument, RedisPipeline, Script
from services.edge.errors import IdempotencyKeyInUseError, NonceReplayedError

_log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS: Final = 1.0
# A lock outlives a process that died with it by this much; while its request runs it is renewed.
_LOCK_SECONDS: Final = 4.0
_RENEW_EVERY_SECONDS: Final = 1.0
_BUSY: Final = b"busy"
_LOCK_MS: Final = int(_LOCK_SECONDS * 1000)
_AWAY: Final = (UnavailableError, RedisError)
# The lock may be another's by now, and its answer too: whoever changes it names its own token.
_KEEP: Final = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
""")
_END: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return end
if ARGV[2] == '' then redis.call('DEL', KEYS[1])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
""")
# What a refusal must say to be kept: final, and the same however often it is asked.
_KEPT_STATUSES: Final = frozenset({402, 409, 422})


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer as it was sent the first time."""

    status: int
    content_type: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def dump(self, fingerprint: str) -> bytes:
        """Return the form that Redis keeps."""
        head = orjson.dumps([fingerprint, self.status, self.content_type, self.headers])
        return head + b"\n" + self.body


def _load(stored: bytes) -> tuple[str, StoredAnswer]:
    head, _, body = stored.partition(b"\n")
    fingerprint, status, content_type, headers = orjson.loads(head)
    return fingerprint, StoredAnswer(status, content_type, body, headers)


def is_kept(status: int, retry: str) -> bool:
    """Say whether an answer stays under its key: done, or refused for good.

    Invalid requests are refused again by themselves and may be corrected under the same key; what
    may go well later is never kept (the rules of money, 1).
    """
    return 200 <= status < 300 or (
        status in _KEPT_STATUSES and retry in (Retry.NEVER, Retry.NEW_ID)
    )


class Nonces:
    """Nonces of signatures, each taken once."""

    def __init__(
        self,
        redis: RedisPipeline,
        window_seconds: int,
        *,
        when_away: Literal["refuse", "accept"],
    ) -> None:
        self._redis = redis
        # A signature is good for one window either side of our clock.
        self._lifetime_ms = window_seconds * 2 * 1000
        self._when_away = when_away

    async def take(self, key_id: str, nonce: str) -> None:
        """Take a nonce.

        Raises:
            NonceReplayedError: it was taken before.
            UnavailableError: Redis is away, and that is no reason to go on.
        """
        name = self._redis.key("edge", "nonce", key_id, nonce)
        try:
            taken = await self._redis.execute("SET", name, b"1", "NX", "PX", self._lifetime_ms)
        except _AWAY as error:
            if self._when_away == "accept":
                return
            raise _away() from error
        if not taken:
            raise NonceReplayedError


def _away() -> UnavailableError:
    return UnavailableError(
        target="redis",
        outcome=Outcome.NOT_EXECUTED,
        retry=Retry.AFTER_DELAY,
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


@dataclass(frozen=True, slots=True)
class Turn:
    """One request's right to answer under its key."""

    name: str
    fingerprint: str
    is_held: bool
    """False when the key is another content's: the service decides, and nothing is kept."""
    token: bytes = _BUSY
    """What the lock says while this turn holds it: a stalled process never ends another's turn."""


class IdempotencyKeys:
    """Lets concurrent copies of a request meet, and repeats get the first answer."""

    def __init__(
        self,
        redis: RedisPipeline,
        *,
        keep_seconds: int,
        when_away: Literal["refuse", "accept"],
        holder: str,
    ) -> None:
        """Make the keys of one process; `holder` is its name among all, made anew at each start."""
        self._redis = redis
        self._keep_ms = keep_seconds * 1000
        self._when_away = when_away
        self._holder = holder
        self._turns = itertools.count()
        self._held: dict[bytes, str] = {}
        self._renewing: asyncio.Task[None] | None = None

    async def begin(
        self, mode: str, merchant_id: str, rpc: str, key: str, content: bytes
    ) -> Turn | StoredAnswer:
        """Take the key's turn, or return the answer that it was given before.

        `content` is what the request says, in a form that does not depend on how it was written.
        A key that stands for other content goes on to the service, whose row names what differs.

        Raises:
            IdempotencyKeyInUseError: a copy is being worked on.
            UnavailableError: Redis is away, and that is no reason to go on.
        """
        # Merchants choose keys; a hash keeps them short and of one alphabet.
        digest = hashlib.sha256("\x1f".join((mode, merchant_id, rpc, key)).encode()).hexdigest()
        name = self._redis.key("edge", "once", digest)
        fingerprint = hashlib.sha256(content).hexdigest()
        token = b"%s %s %d" % (_BUSY, self._holder.encode(), next(self._turns))
        try:
            is_first = await self._redis.execute("SET", name, token, "NX", "PX", _LOCK_MS)
            before = None if is_first else await self._redis.execute("GET", name)
        except _AWAY as error:
            if self._when_away == "accept":
                return Turn(name, fingerprint, is_held=False)
            raise _away() from error
        if is_first:
            self._hold(name, token)
            return Turn(name, fingerprint, is_held=True, token=token)
        # Nothing there: the copy ended just now without an answer to keep.
        if before is None or before.startswith(_BUSY):
            raise IdempotencyKeyInUseError(retry_after_seconds=RETRY_AFTER_SECONDS)
        stored_fingerprint, answer = _load(before)
        if stored_fingerprint == fingerprint:
            return answer
        return Turn(name, fingerprint, is_held=False)

    def _hold(self, name: str, token: bytes) -> None:
        self._held[token] = name
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name="idempotency locks")

    async def _renew(self) -> None:
        """Keep the locks of requests that take long, while there are any."""
        renewed: set[bytes] = set()
        try:
            while self._held:
                await asyncio.sleep(_RENEW_EVERY_SECONDS)
                old = [token for token in self._held if token in renewed]
                renewed = set(self._held)
                for token in old:
                    name = self._held.get(token)
                    if name is not None:
                        await self._run(_KEEP, name, token, b"", _LOCK_MS)
        finally:
            self._renewing = None

    async def finish(self, turn: Turn, answer: StoredAnswer | None) -> None:
        """Keep the answer, or None to let a repeat go through; never fails."""
        if not turn.is_held:
            return
        self._held.pop(turn.token, None)
        kept = b"" if answer is None else answer.dump(turn.fingerprint)
        await self._run(_END, turn.name, turn.token, kept, self._keep_ms)

    async def _run(self, script: Script, name: str, *arguments: Argument) -> None:
        """Run a script on a lock; without Redis the lock falls away by itself."""
        try:
            await self._redis.run_script(script, [name], arguments)
        except _AWAY as error:
            _log.warning("an idempotency lock was not kept or ended: %r", error)
