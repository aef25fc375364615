"""What both ends of `MeshService/Exchange` share: limits, and metadata in and out of frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from paymesh.mesh.v1 import Hello, MetadataEntry

PROTOCOL_VERSION: Final = 1
EXCHANGE_METHOD: Final = "/paymesh.mesh.v1.MeshService/Exchange"

FRAME_BYTES_MIN: Final = 65_536
"""The smallest limit on frames that a side may ask for; below it, parts would be mostly head."""

METADATA_BYTES_MAX: Final = 8_192
"""Most bytes of metadata of one call, keys and values: what gRPC allows by default."""

CALL_HEAD_BYTES: Final = 64
"""Room reckoned for a call's or answer's numbers and tags."""

METHOD_BYTES_MAX: Final = 512
"""Longest method name that a side takes."""

Metadata = Sequence[tuple[str, str | bytes]]
"""Metadata as gRPC gives it: pairs, repeats allowed; bytes under keys that end in `-bin`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one side of a stream takes."""

    frame_bytes_max: int = 262_144
    """Largest frame. A quarter of it is the largest message that is not cut into parts: on
    loopback a frame of 256 KiB takes less than a millisecond, which is what a small call waits."""

    message_bytes_max: int = 4_194_304
    """Largest message; the same as gRPC's own default."""

    calls_max: int = 1_024
    """Most calls in flight."""

    @property
    def inline_bytes_max(self) -> int:
        """Largest message that travels in one piece."""
        return self.frame_bytes_max // 4

    @property
    def part_bytes(self) -> int:
        """Size of one part of a larger message."""
        return self.frame_bytes_max // 4

    @property
    def fill_bytes(self) -> int:
        """A frame that holds this much is full: one more entry might pass the limit."""
        return (
            self.frame_bytes_max
            - self.inline_bytes_max
            - METADATA_BYTES_MAX
            - METHOD_BYTES_MAX
            - CALL_HEAD_BYTES
        )

    def hello(self, service: str) -> Hello:
        """Return the first message of a side with these limits."""
        return Hello(
            version=PROTOCOL_VERSION,
            service=service,
            frame_bytes_max=self.frame_bytes_max,
            message_bytes_max=self.message_bytes_max,
            calls_max=self.calls_max,
        )


class ProtocolError(Exception):
    """The peer sent what the protocol does not allow; the stream ends."""


def limits_of(hello: Hello) -> Limits:
    """Return what the peer takes; raises ProtocolError when it speaks another protocol."""
    if hello.version != PROTOCOL_VERSION:
        raise ProtocolError(f"the peer speaks version {hello.version} of the mesh protocol")
    if hello.frame_bytes_max < FRAME_BYTES_MIN or not hello.calls_max:
        raise ProtocolError("the peer's limits leave no room for calls")
    return Limits(hello.frame_bytes_max, hello.message_bytes_max, hello.calls_max)


class Entries(Protocol):
    """A repeated field of metadata entries."""

    def add(self, *, key: str, value: bytes) -> MetadataEntry:
        """Append an entry."""
        ...


def metadata_bytes(metadata: Iterable[tuple[str, str | bytes]]) -> int:
    """Return the size of metadata, keys and values."""
    size = 0
    for key, value in metadata:
        size += len(key) + len(value)
    return size


def write_metadata(entries: Entries, metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Append metadata to a call or an answer."""
    add = entries.add
    for key, value in metadata:
        add(key=key, value=value.encode() if isinstance(value, str) else value)


def read_metadata(entries: Iterable[MetadataEntry]) -> tuple[tuple[str, str | bytes], ...]:
    """Return metadata as gRPC would: bytes under `-bin` keys, text under the others."""
    pairs: list[tuple[str, str | bytes]] = []
    for entry in entries:
        key = entry.key
        value = entry.value
        pairs.append((key, value if key.endswith("-bin") else value.decode("utf-8", "replace")))
    return tuple(pairs)
