"""Learning-rate schedules: pure functions of progress, 0 at the first step and 1 at the end of the budget.

Each gives the factor by which the peak rate is multiplied. Because they know only progress, the same schedule lies
over steps, tokens or minutes.
"""

import math
from dataclasses import dataclass
from typing import Literal

from trivium.errors import ConfigError


@dataclass(frozen=True)
class ScheduleConfig:
    """`warmup` and `decay` are shares of the budget, `floor` the factor at the end; `decay` is WSD's alone."""

    name: Literal["constant", "linear", "cosine", "wsd", "inverse_square_root"] = "wsd"
    warmup: float = 0.03
    decay: float = 0.5
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.warmup < 1 and 0 < self.decay <= 1 and 0 <= self.floor <= 1):
            raise ConfigError(
                f"warmup {self.warmup}, decay {self.decay}, floor {self.floor}; expected shares of the budget "
                "between 0 and 1; change them"
            )


def rate_factor(config: ScheduleConfig, progress: float) -> float:
    """The factor at `progress` in [0, 1]: linear warm-up, then the named curve.

    cosine: Loshchilov and Hutter 2017. wsd: constant, then linear decay over the last `decay` (Hu et al. 2024).
    inverse_square_root: √(warmup / progress), of Vaswani et al. 2017.
    """
    if progress < config.warmup:
        # Never quite zero: the first step should learn something.
        return max(progress / config.warmup, 0.01)
    if config.name == "constant":
        return 1.0
    if config.name == "inverse_square_root":
        return math.sqrt(max(config.warmup, 1e-3) / max(progress, config.warmup, 1e-3))
    if config.name == "wsd":
        left = min((1 - progress) / config.decay, 1.0)
    else:
        left = (1 - progress) / (1 - config.warmup)
        if config.name == "cosine":
            left = (1 + math.cos(math.pi * (1 - left))) / 2
    return config.floor + (1 - config.floor) * max(left, 0.0)
