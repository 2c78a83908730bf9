"""What the loop needs of a run, whatever is trained: settings, batches that are functions of the step, a score.

Pretraining's own are `Materials`; fine-tuning's are in finetuning.py.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from trivium.data.batch import Batch
from trivium.data.loader import Loader
from trivium.evaluation.likelihood import evaluate_loss
from trivium.model import Transformer
from trivium.tokenizer import Tokenizer
from trivium.training.optim import OptimizerConfig
from trivium.training.recipe import BudgetConfig, LossConfig, Recipe, SaveConfig
from trivium.training.schedule import ScheduleConfig


class Settings(Protocol):
    """The part of a recipe that the loop reads."""

    @property
    def run(self) -> str:
        """The run folder; the others are the configs of the same names."""

    @property
    def seed(self) -> int: ...
    @property
    def budget(self) -> BudgetConfig: ...
    @property
    def save(self) -> SaveConfig: ...
    @property
    def schedule(self) -> ScheduleConfig: ...
    @property
    def optimizer(self) -> OptimizerConfig: ...
    @property
    def loss(self) -> LossConfig: ...


class BatchSource(Protocol):
    """Batches by number: data/loader.py's `Loader`, data/examples.py's `ExampleLoader`."""

    @property
    def num_micro_steps(self) -> int: ...
    @property
    def tokens_per_batch(self) -> int: ...
    @property
    def steps_per_epoch(self) -> float: ...
    def batch_at(self, step: int, micro_step: int = 0) -> Batch: ...
    def valid_batches(self, limit_rows: int | None = None) -> Iterator[Batch]: ...


class Course(Protocol):
    """A run as the loop sees it."""

    @property
    def recipe(self) -> Settings: ...
    @property
    def train(self) -> BatchSource: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def fingerprint(self) -> dict[str, str]: ...
    @property
    def compute_dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> str: ...
    def score(self, model: Transformer) -> dict[str, Any]:
        """Named numbers of the held-out part, `loss` among them."""


@dataclass(frozen=True)
class Materials:
    """Pretraining's: the recipe, the data of both parts, and what a checkpoint records."""

    recipe: Recipe
    train: Loader
    valid: Loader
    bytes_per_token: float
    tokenizer: Tokenizer
    fingerprint: dict[str, str]
    compute_dtype: torch.dtype = torch.float32
    device: str = "cpu"

    def score(self, model: Transformer) -> dict[str, Any]:
        """Loss, perplexity, bits per byte and accuracy on the held-out part."""
        batches = (batch.to(self.device) for batch in self.valid.valid_batches(self.recipe.data.valid_rows))
        return asdict(evaluate_loss(model, batches, bytes_per_token=self.bytes_per_token))
