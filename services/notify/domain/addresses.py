"""Where webhooks may go.

A merchant names the address, the platform connects to it from inside its own network: without
these rules a webhook would be a way to reach what only the inside may reach (OWASP: server-side
request forgery). The name is judged when it is registered; what it resolves to, at every connect.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

URL_LENGTH_MAX: Final = 500

# Names that never leave a network: RFC 6761, RFC 6762, RFC 8375, and what clouds use inside.
_PRIVATE_SUFFIXES: Final = (".localhost", ".local", ".internal", ".home.arpa", ".svc")
# Addresses that carry an IPv4 address to a translator (RFC 6052), which may be a private one.
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")


def is_public_address(text: str) -> bool:
    """Say whether an IP address is one of the public internet's hosts.

    IPv6 addresses that stand for an IPv4 one (mapped, 6to4, Teredo, NAT64) are judged by it.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    inner = _inner(address)
    if inner is not None:
        return _is_host(inner)
    return _is_host(address)


def refusal_of(url: str, *, private_allowed: bool) -> str:
    """Return the rule that an address for webhooks breaks; empty when it breaks none.

    `private_allowed` lets http and private addresses pass.
    """
    if len(url) > URL_LENGTH_MAX or not url.isascii() or not url.isprintable() or " " in url:
        return f"must be ASCII without spaces, at most {URL_LENGTH_MAX} characters"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "must be a well-formed URL"
    if parts.scheme != "https" and not (private_allowed and parts.scheme == "http"):
        return "must begin with https://"
    if not host or port == 0 or "\\" in url:
        return "must name a host"
    if "@" in parts.netloc:
        return "must not hold a user's name or password"
    if "#" in url:
        return "must not have a fragment"
    return "" if private_allowed else _host_refusal(host)


def _host_refusal(host: str) -> str:
    rule = "must name a host of the public internet"
    name = host.rstrip(".")
    try:
        ip_address(name)
    except ValueError:
        last = name.rpartition(".")[2]
        # `127.1`, `0x7f000001`, `2130706433`: resolvers read these as addresses.
        is_numeric = last.isdigit() or last.startswith("0x")
        is_private = "." not in name or name.endswith(_PRIVATE_SUFFIXES)
        return rule if is_numeric or is_private else ""
    return "" if is_public_address(name) else rule


def _inner(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _is_host(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )
