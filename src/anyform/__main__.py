"""`python -m anyform` is the `anyform` command."""

from __future__ import annotations

import sys

from anyform.cli import main

sys.exit(main())
