"""Installed as `sitecustomize` where name spaces are not allowed: every connection but a local one is refused."""

from __future__ import annotations

import socket
from typing import Any

_FAMILIES = {socket.AF_INET, socket.AF_INET6}


class OfflineSocket(socket.socket):
    """A socket that raises OSError instead of connecting to another machine."""

    def connect(self, address: Any) -> None:
        """Connect to a Unix socket; refuse an Internet address."""
        if self.family in _FAMILIES:
            raise OSError(f"the network is cut in this test: refused {address!r}")
        super().connect(address)

    def connect_ex(self, address: Any) -> int:
        """As `connect`, for callers that want a number."""
        self.connect(address)
        return 0


def offline_lookup(host: Any, *_: Any, **__: Any) -> list[Any]:
    """Stands for `socket.getaddrinfo`: no name resolves."""
    raise socket.gaierror(f"the network is cut in this test: refused to look up {host!r}")


socket.socket = OfflineSocket
socket.getaddrinfo = offline_lookup
