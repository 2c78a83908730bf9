"""Imported by every Python process whose PYTHONPATH has this folder: it speaks to this machine and to no other.

What was tried is also written to the file that GUARD_LOG names, since a library may swallow the error.
"""

import os
import sys
from typing import Any


def _refuse(host: object) -> None:
    if host in ("127.0.0.1", "localhost", "::1", "", None, b"127.0.0.1", b"localhost"):
        return
    if log := os.environ.get("GUARD_LOG"):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{host!r}\n")
    raise OSError(101, f"the network is blocked in this test: {host!r}")


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        if isinstance(arguments[-1], tuple):  # else a socket of this machine, or an established one
            _refuse(arguments[-1][0])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        _refuse(arguments[0])


sys.addaudithook(_guard)
