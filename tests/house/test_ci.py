"""The network guard that CI uses where name spaces are not allowed really cuts the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_guard_refuses_connections_and_names(root: Path) -> None:
    code = (
        "import runpy, socket, sys\nrunpy.run_path(sys.argv[1])\n"
        "server = socket.socket(); server.bind(('127.0.0.1', 0)); server.listen()\n"
        "for attempt in (lambda: socket.create_connection(server.getsockname()),\n"
        "                lambda: socket.socket().connect(server.getsockname()),\n"
        "                lambda: socket.socket().connect_ex(server.getsockname())):\n"
        "    try:\n        attempt()\n    except OSError as error:\n        print(error)\n"
    )
    command = [sys.executable, "-c", code, str(root / ".ci" / "no_network.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.startswith("the network is cut in this test") for line in done.stdout.splitlines()] == [True] * 3
