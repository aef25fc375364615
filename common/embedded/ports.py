"""Free ports on the loopback interface.

Asking the kernel for port 0 gives ports of the range that outgoing connections also use, so a
freed one may be taken again before a server binds it. These come from below that range, at random,
so that two runs that choose at the same moment rarely meet; where they do, the loser's server does
not come up and its start is repeated on other ports.
"""

from __future__ import annotations

import secrets
import socket

# Below the first port that Linux hands to outgoing connections (32768), above the services that
# people run by habit.
_FIRST, _LAST = 20_000, 32_000
_TRIES_MAX = 1_000


def is_free(port: int) -> bool:
    """Whether nothing listens on the port of 127.0.0.1 right now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do it: connections of an earlier server in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose(count: int) -> list[int]:
    """Different ports that are free now.

    Raises:
        RuntimeError: the machine has not that many free ports in the range.
    """
    chosen: list[int] = []
    for _ in range(_TRIES_MAX):
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        if port not in chosen and is_free(port):
            chosen.append(port)
            if len(chosen) == count:
                return chosen
    raise RuntimeError(f"no {count} free ports between {_FIRST} and {_LAST}")
