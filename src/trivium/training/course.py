"""What the loop needs of a run, whatever is trained: settings, batches that are functions of the step, a score.

Pretraining's own are `Materials`; fine-tuning's are in finetuning.py.
"""

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
    def seed(self) -> int:
        """What order and dropout depend on."""

    @property
    def budget(self) -> BudgetConfig:
        """How long."""

    @property
    def save(self) -> SaveConfig:
        """When to save, to evaluate and to stop early."""

    @property
    def schedule(self) -> ScheduleConfig:
        """The rate over the budget."""

    @property
    def optimizer(self) -> OptimizerConfig:
        """How weights move."""

    @property
    def loss(self) -> LossConfig:
        """Options of the cross-entropy."""


class BatchSource(Protocol):
    """Batches by number: data/loader.py's `Loader`, data/examples.py's `ExampleLoader`."""

    @property
    def num_micro_steps(self) -> int:
        """Micro-batches in a batch."""

    @property
    def tokens_per_batch(self) -> int:
        """Tokens that a step reads, as planned."""

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which all data are read once."""

    def batch_at(self, step: int, micro_step: int = 0) -> Batch:
        """What a micro-step trains on."""


class Course(Protocol):
    """A run as the loop sees it."""

    @property
    def recipe(self) -> Settings:
        """Its settings."""

    @property
    def train(self) -> BatchSource:
        """What it learns from."""

    @property
    def tokenizer(self) -> Tokenizer:
        """What its folders are saved with."""

    @property
    def fingerprint(self) -> dict[str, str]:
        """The machine, and a hash of the data, which a checkpoint must share."""

    @property
    def compute_dtype(self) -> torch.dtype:
        """What matrix products are computed in."""

    @property
    def device(self) -> str:
        """Where."""

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
