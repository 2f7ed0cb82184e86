"""The service, the client and the live server of tests/server, for the faults that concern a server."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_place = Path(__file__).parents[2] / "server" / "conftest.py"
_spec = importlib.util.spec_from_file_location("server_fixtures", _place)
assert _spec is not None and _spec.loader is not None
_fixtures = sys.modules["server_fixtures"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)

light_system = _fixtures.light_system
make_service = _fixtures.make_service
service = _fixtures.service
client = _fixtures.client
connect = _fixtures.connect
wait_for = _fixtures.wait_for
live = _fixtures.live
