"""Write docs/openapi.json: the API as its own server describes it. `make docs` runs this; a test compares."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "openapi.json"


def description() -> dict[str, Any]:
    """The OpenAPI document, from an application that is never started."""
    from anyform.server.guard import Rules
    from anyform.server.http import create_app
    from anyform.server.jobs import Service, Settings

    with tempfile.TemporaryDirectory() as home:
        service = Service(Settings(home=Path(home)))
        schema = create_app(service, Rules()).description
        service.stop()
    return schema


if __name__ == "__main__":
    PAGE.write_text(json.dumps(description(), indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
