"""Whether a broker answers, asked in a few frames.

The client library is made for connections that last: its attempts that fail while a broker boots
leave objects behind that complain when they are collected. This one opens the virtual host, which
is the last thing to become ready, and says goodbye.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import TypeVar

from pamqp import commands, constants, frame, header
from pamqp.base import Frame
from pamqp.exceptions import PAMQPException

_Wanted = TypeVar("_Wanted")

# Kind, channel, size of payload, before each frame; an end mark after it.
_FRAME_HEAD = struct.Struct(">BHI")


async def broker_answers(port: int, user: str, password: str, timeout_seconds: float) -> bool:
    """Whether the default virtual host of a broker on 127.0.0.1 opens for a user."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(header.ProtocolHeader(*constants.VERSION).marshal())
            await _expect(reader, commands.Connection.Start)
            _send(
                writer,
                commands.Connection.StartOk(
                    client_properties={"product": "paymesh"},
                    mechanism="PLAIN",
                    response=f"\0{user}\0{password}",
                    locale="en_US",
                ),
            )
            tune = await _expect(reader, commands.Connection.Tune)
            _send(
                writer,
                commands.Connection.TuneOk(
                    channel_max=tune.channel_max, frame_max=tune.frame_max, heartbeat=0
                ),
            )
            _send(writer, commands.Connection.Open(virtual_host="/"))
            await _expect(reader, commands.Connection.OpenOk)
            _send(writer, commands.Connection.Close(200, "", 0, 0))
            await _expect(reader, commands.Connection.CloseOk)
    except (OSError, EOFError, TimeoutError, PAMQPException):
        return False
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    return True


def _send(writer: asyncio.StreamWriter, command: Frame) -> None:
    writer.write(frame.marshal(command, 0))


async def _expect(reader: asyncio.StreamReader, wanted: type[_Wanted]) -> _Wanted:
    head = await reader.readexactly(_FRAME_HEAD.size)
    _, _, size = _FRAME_HEAD.unpack(head)
    received = frame.unmarshal(head + await reader.readexactly(size + 1))[2]
    if not isinstance(received, wanted):
        raise EOFError(f"a broker that said {received} instead of {wanted}")
    return received
