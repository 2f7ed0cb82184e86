"""The systems: each a folder that turns a prompt into an asset, and none knows another.

A system has `accepts: tuple[type, ...]` and `generate(prompt, *, seed: int, report: Report) -> Asset`; `api.SYSTEMS` is
the table of them.
"""
