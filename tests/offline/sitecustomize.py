"""Outgoing socket calls -> a refusal and a line in a file, in any Python process that finds this module.

Python imports a module of this name by itself, and the `no_network` fixture puts this folder on PYTHONPATH,
so processes that a test starts are guarded from their first line. Only this machine can be reached: loopback,
Unix sockets and the machine's own names. The file keeps what was tried, because code that gives up quietly
would otherwise go unseen.
"""

import ipaddress
import os
import socket
import sys
from typing import Any

LOG = "FASTFACE_TEST_NETWORK_LOG"  # the file; without it the guard does nothing
_CONNECTS = {"socket.connect", "socket.sendto", "socket.sendmsg"}  # arguments: socket, address
_LOOKUPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}  # arguments: host, ...
_OWN_NAMES = {"", "localhost", socket.gethostname(), socket.gethostname().split(".")[0]}


def is_local(host: object) -> bool:
    """Tell whether `host` (a name or an address, as text or bytes, or None) is this machine."""
    if isinstance(host, (bytes, bytearray)):
        host = host.decode("ascii", "replace")
    if host is None or host in _OWN_NAMES:
        return True
    try:
        address = ipaddress.ip_address(str(host).split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified or str(address) in _own_addresses()


def _own_addresses() -> set[str]:
    try:
        return set(socket.gethostbyname_ex(socket.gethostname())[2])
    except OSError:
        return set()


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    log = os.environ.get(LOG)
    if not log or (event not in _CONNECTS and event not in _LOOKUPS):
        return
    target = arguments[0] if event in _LOOKUPS else arguments[1]
    if event in _CONNECTS:
        if not isinstance(target, tuple):  # a Unix socket's path, or None for a connected socket
            return
        target = target[0]
    if is_local(target):
        return
    line = f"{os.path.basename(sys.argv[0] or 'python')} {event} {target}\n"
    with open(log, "a", encoding="utf-8") as file:
        file.write(line)
    raise ConnectionRefusedError(f"this test allows no network, and something asked for it: {line.strip()}")


sys.addaudithook(_guard)
