"""The recipe of a fine-tuning run: task, data, limits, and how much of the model learns; rates from its width.

Composes configs as recipe.py does for pretraining. Builds nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trivium.errors import ConfigError
from trivium.model import ModelConfig
from trivium.model.adapter import LoraConfig
from trivium.tasks.parts import VALID_FRACTION
from trivium.tasks.sample import OnLong
from trivium.training.optim import OptimizerConfig
from trivium.training.recipe import BudgetConfig, LossConfig, SaveConfig
from trivium.training.schedule import ScheduleConfig


@dataclass(frozen=True)
class MixConfig:
    """One more data set of a mixture: its task, its share beside the others', what stands before its sources, and which
    of its columns means what."""

    task: str
    data: str
    weight: float = 1.0
    prefix: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TuneRecipe:
    """All of a fine-tuning run. `model` and `data` may be given to `finetune` itself.

    A step learns from `rows_per_batch` examples, `micro_rows` at a time (0: all at once). `source_tokens` 0 takes what
    the model reads, at most 512. `columns` says which column means what ({"source": "article"}). `freeze` holds
    patterns of parameter names that do not learn, such as `encoder.*`. With `lora` only an adapter learns. `pack` None
    lets examples share rows where that is faster. `swap` is the share of the examples that get other names, alike in
    source and target (data/swapping.py), and `dropout` the run's own instead of the model's. `valid_rows` bound the
    held-out loss, `scored_rows` the answers that are judged; without a held-out part in the data, `valid_fraction` of
    it is one. Raises `ConfigError` for numbers that cannot be.
    """

    task: str = "summarization"
    model: str = ""
    data: str = ""
    run: str = "runs/finetune"
    seed: int = 0
    rows_per_batch: int = 16
    micro_rows: int = 0
    source_tokens: int = 0
    target_tokens: int = 128
    on_long: OnLong = "refuse"
    pack: bool | None = None
    prefix: str | None = None
    swap: float = 0.0
    dropout: float | None = None
    columns: dict[str, str] = field(default_factory=dict)
    mix: tuple[MixConfig, ...] = ()
    weight: float = 1.0
    freeze: tuple[str, ...] = ()
    lora: LoraConfig | None = None
    valid_fraction: float = VALID_FRACTION
    valid_rows: int = 500
    scored_rows: int = 200
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(beta2=0.999))
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig("linear", warmup=0.06))
    budget: BudgetConfig = field(default_factory=lambda: BudgetConfig(epochs=3.0))
    save: SaveConfig = field(default_factory=lambda: SaveConfig(best="task"))

    def __post_init__(self) -> None:
        least = {"target_tokens": 1, "valid_rows": 1, "scored_rows": 1, "source_tokens": 0}
        small = [f"{name} {getattr(self, name)}" for name, most in least.items() if getattr(self, name) < most]
        small += [] if 0.0 < self.valid_fraction < 1.0 else [f"valid_fraction {self.valid_fraction}"]
        small += [] if 0.0 <= self.swap <= 1.0 else [f"swap {self.swap}"]
        small += [
            f"weight {each}" for each in (self.weight, *(mix.weight for mix in self.mix)) if not 0 < each < math.inf
        ]
        if small:
            raise ConfigError(
                f"a recipe with {', '.join(small)}; expected counts from 1, fractions between 0 and 1, weights above "
                "0; change them"
            )


# Peak rates at width 128, all weights learning; they fall with the width. An adapter learns ten times faster.
TUNE_RATES = {"decoder": 4e-4, "encoder": 2e-4, "encoder_decoder": 2e-3}
LORA_FACTOR = 10.0


def resolve_tuning(recipe: TuneRecipe, config: ModelConfig, *, best: str) -> TuneRecipe:
    """The same recipe with everything that was left to the model and the task written out."""
    rate = recipe.optimizer.rate or TUNE_RATES[config.family] * 128 / config.hidden_size * (
        LORA_FACTOR if recipe.lora else 1.0
    )
    save = replace(recipe.save, best=best if recipe.save.best == "task" else recipe.save.best)
    return replace(recipe, optimizer=replace(recipe.optimizer, rate=rate), save=save)


def find_tuning_change(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """The first setting in which two runs would differ, as `key: old → new`; length and places may change."""
    free = ("budget", "save", "run", "valid_rows", "scored_rows", "schema")
    changed = sorted(name for name in old.keys() | new.keys() if name not in free and old.get(name) != new.get(name))
    return f"{changed[0]}: {old.get(changed[0])} → {new.get(changed[0])}" if changed else None
