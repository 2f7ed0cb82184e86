"""One lock for everything numba runs in parallel.

Two Python threads in numba's `workqueue` layer at once abort the process; under other layers the lock costs less than a
launch. Every call of a `parallel=True` kernel in this package is made inside `with LAUNCH:`.
"""

from __future__ import annotations

import threading

LAUNCH = threading.Lock()
