"""What both ends of `MeshService/Exchange` share: limits, and metadata in and out of frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from paymesh.mesh.v1 import Call, Hello, MetadataEntry

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

KEPT_ENTRIES_MAX: Final = 512
KEPT_ENTRY_BYTES_MAX: Final = 512
"""Most entries of metadata that a stream keeps, and the largest of them: 256 KiB a stream."""

NEVER_KEPT: Final = frozenset({"traceparent", "tracestate"})
"""Keys whose values differ with every call."""

Metadata = Sequence[tuple[str, str | bytes]]
"""Metadata as gRPC gives it: pairs, repeats allowed; bytes under keys that end in `-bin`."""

Pairs = tuple[tuple[str, str | bytes], ...]
"""The same, read."""


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


def write_metadata(entries: Entries, metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Append metadata to a call or an answer."""
    add = entries.add
    for key, value in metadata:
        add(key=key, value=value.encode() if isinstance(value, str) else value)


def _read_pair(entry: MetadataEntry) -> tuple[str, str | bytes]:
    key, value = entry.key, entry.value
    return key, value if key.endswith("-bin") else value.decode("utf-8", "replace")


def read_metadata(entries: Iterable[MetadataEntry]) -> Pairs:
    """Return metadata as gRPC would: bytes under `-bin` keys, text under the others."""
    return tuple(_read_pair(entry) for entry in entries)


class MetadataWriter:
    """The sender's memory of the metadata that a stream's peer keeps."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str | bytes], tuple[int, int]] = {}
        self._slots: list[tuple[str, str | bytes] | None] = [None] * (KEPT_ENTRIES_MAX + 1)
        self._next = 0

    def find(self, metadata: Metadata) -> tuple[list[int], list[tuple[str, str | bytes]], int]:
        """Return the numbers of kept entries, the entries that are new, and the size of all."""
        known = self._known
        indexes: list[int] = []
        new: list[tuple[str, str | bytes]] = []
        size = 0
        for pair in metadata:
            kept = known.get(pair)
            if kept is not None:
                indexes.append(kept[0])
                size += kept[1]
            else:
                new.append(pair)
                size += len(pair[0]) + len(pair[1])
        return indexes, new, size

    def add(self, call: Call, new: Iterable[tuple[str, str | bytes]]) -> None:
        """Write new entries into a call; those worth it are kept by the peer from now on."""
        for pair in new:
            key, value = pair
            raw = value.encode() if isinstance(value, str) else value
            size = len(key) + len(raw)
            slot = self._next % KEPT_ENTRIES_MAX + 1
            keeps = size <= KEPT_ENTRY_BYTES_MAX and key not in NEVER_KEPT
            if not keeps or slot in call.metadata_indexes or pair in self._known:
                call.metadata.add(key=key, value=raw)
                continue
            self._next += 1
            old = self._slots[slot]
            if old is not None:
                del self._known[old]
            self._slots[slot] = pair
            self._known[pair] = (slot, size)
            call.metadata.add(key=key, value=raw, index=slot)
            call.metadata_indexes.append(slot)


class MetadataReader:
    """The receiver's memory of the metadata that its peer said to keep."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, str | bytes] | None] = [None] * (KEPT_ENTRIES_MAX + 1)

    def read(self, call: Call) -> Pairs:
        """Return a call's metadata; raises ProtocolError for what was never kept."""
        kept = self._kept
        pairs: list[tuple[str, str | bytes]] = []
        for entry in call.metadata:
            index = entry.index
            if not index:
                pairs.append(_read_pair(entry))
            elif index > KEPT_ENTRIES_MAX or len(entry.value) > KEPT_ENTRY_BYTES_MAX:
                raise ProtocolError("metadata that is too much to keep")
            else:
                kept[index] = _read_pair(entry)
        try:
            pairs += [kept[index] for index in call.metadata_indexes]  # type: ignore[misc]
        except IndexError:
            raise ProtocolError("metadata that is too much to keep") from None
        if None in pairs:
            raise ProtocolError("metadata that was never sent")
        return tuple(pairs)
