"""Fetches RabbitMQ and Erlang as Debian's packages, without root.

No Python or Node package ships a real AMQP broker, and installing one needs root. Debian's package
client can download into a private folder as anyone, and a package unpacks anywhere. Two changes
make the result work from there, and fast: a start script for Erlang that finds itself, and the
plug-ins that a plain broker does not need set aside, since Erlang looks through the folder of each
of them for every module that it loads (7 s to boot with them, 3 s without).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

# Change it when what `fetch` makes changes: older copies are then fetched anew.
_RECIPE = "1"
_PACKAGES = (
    "rabbitmq-server",
    *("erlang-asn1", "erlang-base", "erlang-crypto", "erlang-eldap", "erlang-inets"),
    *("erlang-mnesia", "erlang-os-mon", "erlang-parsetools", "erlang-public-key"),
    *("erlang-runtime-tools", "erlang-ssl", "erlang-syntax-tools", "erlang-tools", "erlang-xmerl"),
)
_ERLANG_START = """\
#!/bin/sh
# Starts Erlang from where it was unpacked: Debian's own script knows only /usr/lib/erlang.
ROOTDIR=$(cd "$(dirname "$0")/../root/usr/lib/erlang" && pwd)
BINDIR=$(echo "$ROOTDIR"/erts-*/bin)
EMU=beam PROGNAME=erl
export ROOTDIR BINDIR EMU PROGNAME
exec "$BINDIR/erlexec" "$@"
"""
_ELSE_URL = (
    "Install RabbitMQ (on Debian, as root: apt-get install rabbitmq-server), or set "
    "PAYMESH_AMQP_URL to the address of a running broker, such as amqp://user:password@host/."
)


class PackagesError(Exception):
    """RabbitMQ could not be fetched; the message says what to do."""


def fetch(local_folder: Path) -> bool:
    """See to it that there is a RabbitMQ to start; whether anything had to be fetched.

    A fetch that broke off leaves only a `.partial` folder, which the next one replaces.

    Raises:
        PackagesError: no package client, no network, or a broken package.
    """
    local_folder = local_folder.resolve()  # the package client joins paths that are not absolute
    target = local_folder / "rabbitmq"
    mark = target / "complete"
    if mark.exists() and mark.read_text() == _RECIPE:
        return False
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        if any(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server")):
            return False
        raise PackagesError(f"There is no RabbitMQ here, and no apt-get to fetch it. {_ELSE_URL}")
    partial = local_folder / "rabbitmq.partial"
    shutil.rmtree(partial, ignore_errors=True)
    root = partial / "root"
    root.mkdir(parents=True)
    packages = _download(partial / "packages")
    for package in packages:
        _run(["dpkg-deb", "-x", str(package), str(root)], partial)
    shutil.rmtree(partial / "packages")
    start = partial / "bin/erl"
    start.parent.mkdir()
    start.write_text(_ERLANG_START)
    start.chmod(0o755)
    # Loads the native libraries, so that one that the machine lacks is named now and not later.
    _run([str(start), "-noshell", "-eval", "ok = crypto:start(), halt(0)."], partial)
    for plugins in root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/plugins"):
        _set_aside(plugins, partial / "plugins-unused")
    (partial / "complete").write_text(_RECIPE)
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)
    return True


def _download(folder: Path) -> list[Path]:
    state, cache = folder / "state", folder / "cache"
    for made in (state / "lists/partial", cache / "archives/partial"):
        made.mkdir(parents=True)
    options = {
        "Dir::State": state,
        "Dir::State::lists": state / "lists",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": cache,
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "",
    }
    client = ["apt-get", "-qq"]
    for key, value in options.items():
        client += ["-o", f"{key}={value}"]
    _run([*client, "update"], folder)
    _run([*client, "download", *_PACKAGES], folder)
    return sorted(folder.glob("*.deb"))


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(  # noqa: S603 - our own commands
        command,
        cwd=folder,
        # Erlang does not start without a HOME, which a bare container may not set.
        env={"HOME": str(folder), **os.environ, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise PackagesError(
            f"Fetching RabbitMQ failed at `{Path(command[0]).name}`:\n{said}\n"
            f"Is the network there, and does `apt-get update` work? Then run it again. {_ELSE_URL}"
        )


def _set_aside(plugins: Path, unused: Path) -> None:
    """Move the plug-ins that the server itself does not depend on to another folder."""
    folders = {path.name.rpartition("-")[0]: path for path in plugins.iterdir() if path.is_dir()}
    needed: set[str] = set()
    queue = ["rabbit"]
    while queue:
        name = queue.pop()
        if name in needed or name not in folders:
            continue
        needed.add(name)
        description = (folders[name] / "ebin" / f"{name}.app").read_text()
        for names in re.findall(r"\{(?:included_)?applications,\s*\[([^\]]*)\]", description):
            queue += re.findall(r"\w+", names)
    unused.mkdir()
    for name, folder in folders.items():
        if name not in needed:
            folder.replace(unused / folder.name)
