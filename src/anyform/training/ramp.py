"""A number that changes while an optimisation runs, as a function of the part that is done."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from anyform.errors import BadSetting

Shape = Literal["linear", "sqrt"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ramp:
    """From `start` to `end` while the part that is done goes from `begin` to `finish`; constant before and after.

    begin, finish: shares of the whole in [0, 1], so that a ramp keeps its meaning for any number of steps. shape:
    "linear", or "sqrt": start + (end − start) √part, which falls fast and then slowly.
    """

    start: float
    end: float
    begin: float = 0.0
    finish: float = 1.0
    shape: Shape = "linear"

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.finish <= 1:
            raise BadSetting(f"a ramp needs 0 <= begin < finish <= 1, not {self.begin} and {self.finish}")
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise BadSetting(f"a ramp goes between finite numbers, not from {self.start} to {self.end}")

    def at(self, part: float) -> float:
        """The value where `part` in [0, 1] of the whole is done."""
        done = min(max((part - self.begin) / (self.finish - self.begin), 0.0), 1.0)
        return self.start + (self.end - self.start) * (math.sqrt(done) if self.shape == "sqrt" else done)


def value_at(value: float | Ramp, part: float) -> float:
    """A constant as it is, a ramp at `part` in [0, 1]."""
    return value.at(part) if isinstance(value, Ramp) else float(value)
