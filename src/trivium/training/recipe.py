"""A recipe: every number of a run in one frozen value, most of them derived from one dial, the width.

Composes the configs that live beside the code they configure. Knows how a width becomes layers, heads and a
learning rate for each family; builds nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from trivium.config import load_config, to_dict
from trivium.data.objective import ObjectiveConfig
from trivium.data.prepare import TokenizerConfig
from trivium.errors import ConfigError
from trivium.hub.auto import load_model_config
from trivium.model import ModelConfig
from trivium.tokenizer import Tokenizer
from trivium.training.optim import OptimizerConfig
from trivium.training.schedule import ScheduleConfig


@dataclass(frozen=True)
class DataConfig:
    """`source` is a file, a folder, or `python` for the documentation of this installation.

    A step reads `rows_per_batch` rows of `seq_len` tokens, `micro_rows` at a time (0: all at once). `valid_rows`
    bounds what is evaluated during training. `limit_files` shortens the Python corpus (0: all of it).
    """

    source: str = "python"
    prepared: str = ""  # where the prepared folder is kept; beside the run by default
    seq_len: int = 128
    rows_per_batch: int = 8
    micro_rows: int = 0
    valid_rows: int = 256
    limit_files: int = 0
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)


@dataclass(frozen=True)
class SizeConfig:
    """The dial: `width` is the hidden size; `layers` 0 derives the depth from it.

    `copy_start` begins an encoder–decoder with a circuit that copies, for summaries and the like.
    """

    width: int = 128
    layers: int = 0
    head_size: int = 32
    dropout: float = 0.0
    checkpoint_activations: bool = False
    unigram_start: bool = True
    copy_start: bool = False

    def __post_init__(self) -> None:
        if self.width < self.head_size or self.width % self.head_size:
            raise ConfigError(
                f"width {self.width} is no multiple of head_size {self.head_size}; expected whole heads; change one"
            )

    @property
    def num_layers(self) -> int:
        """Depth: a layer for each 43 of width, which is 3 at 128 and 12 at 512."""
        return self.layers or max(2, round(self.width / 43))


@dataclass(frozen=True)
class BudgetConfig:
    """How long to train: exactly one of minutes of training time, steps, tokens of text, or epochs of the data."""

    STANDS_ALONE: ClassVar[bool] = True  # one unit named is another default gone
    minutes: float = 0.0
    steps: int = 0
    tokens: int = 0
    epochs: float = 0.0

    def __post_init__(self) -> None:
        if sum(value > 0 for value in (self.minutes, self.steps, self.tokens, self.epochs)) != 1:
            raise ConfigError(
                f"a budget of {self.minutes} minutes, {self.steps} steps, {self.tokens} tokens and {self.epochs} "
                "epochs; expected exactly one of them; set budget.minutes, budget.steps, budget.tokens or budget.epochs"
            )


@dataclass(frozen=True)
class SaveConfig:
    """When to save and to evaluate: every so many steps (0: never), and at shares of the budget."""

    every_steps: int = 500
    keep_last: int = 2
    evaluate_every_steps: int = 0
    evaluate_at: tuple[float, ...] = (0.25, 0.5, 0.75)
    best: str = ""  # the score whose best checkpoint is kept, with a minus where less is better; none: the last one is
    patience: int = 0  # evaluations without a better one after which training ends (0: never)


@dataclass(frozen=True)
class LossConfig:
    """Options of the cross-entropy: see training/loss.py."""

    label_smoothing: float = 0.0
    z_loss: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """All of a pretraining run. `objective` None takes the family's own: causal, masked or span corruption.

    `model` is a folder, a hub name or `starter:NAME` to go on from, with its size and tokenizer, its dropout too.
    Empty: a fresh model.
    """

    family: Literal["decoder", "encoder", "encoder_decoder"] = "decoder"
    model: str = ""
    run: str = "runs/pretrain"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    size: SizeConfig = field(default_factory=SizeConfig)
    objective: ObjectiveConfig | None = None
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    budget: BudgetConfig = field(default_factory=lambda: BudgetConfig(minutes=10.0))
    save: SaveConfig = field(default_factory=SaveConfig)


DEFAULT_OBJECTIVES = {
    "decoder": ObjectiveConfig("causal"),
    "encoder": ObjectiveConfig("masked"),
    "encoder_decoder": ObjectiveConfig("span_corruption"),
}
# Peak rates at width 128, found by sweeps in docs/log.md; they fall with the square root of the width.
RATES = {"decoder": 3e-3, "encoder": 2e-3, "encoder_decoder": 1.5e-3}


def load_recipe(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from a YAML file and `key.sub=value` overrides; raises `ConfigError` before any work."""
    return load_config(Recipe, path, overrides)


def choose_objective(recipe: Recipe) -> ObjectiveConfig:
    """The recipe's objective, or its family's own."""
    return recipe.objective or DEFAULT_OBJECTIVES[recipe.family]


def choose_rate(recipe: Recipe) -> float:
    """The recipe's peak learning rate, or the one that its family and width call for."""
    return recipe.optimizer.rate or RATES[recipe.family] * float((128 / recipe.size.width) ** 0.5)


def resolve_recipe(recipe: Recipe) -> Recipe:
    """The same recipe with everything that was left to the family, the dial or the model written out.

    Raises `ConfigError` for a model of another family, `HubError` for one that cannot be had.
    """
    size = recipe.size
    if recipe.model:
        known = load_model_config(recipe.model)
        if known.family != recipe.family:
            raise ConfigError(
                f"{recipe.model} is of family {known.family}, the recipe of {recipe.family}; expected the same; "
                f"set family={known.family}"
            )
        size = replace(
            size, width=known.hidden_size, layers=known.num_layers, head_size=known.hidden_size // known.num_heads
        )
    recipe = replace(recipe, size=replace(size, layers=size.num_layers))
    return replace(
        recipe,
        objective=choose_objective(recipe),
        optimizer=replace(recipe.optimizer, rate=choose_rate(recipe)),
    )


def find_change(old: Recipe, new: Recipe) -> str | None:
    """The first setting in which two resolved recipes would make different runs, as `key: old → new`.

    Budget, intervals, and where files lie may change between a run and its continuation.
    """
    data = replace(old.data, prepared=new.data.prepared, valid_rows=new.data.valid_rows)
    old = replace(old, budget=new.budget, save=new.save, run=new.run, data=data)
    before, after = _flatten(to_dict(old)), _flatten(to_dict(new))
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return f"{changed[0]}: {before.get(changed[0])} → {after.get(changed[0])}" if changed else None


def _flatten(settings: dict[str, Any], place: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flatten(value, f"{place}{name}.") if isinstance(value, dict) else {place + name: value}
    return flat


def design_model(recipe: Recipe, tokenizer: Tokenizer) -> ModelConfig:
    """The architecture of a recipe: Qwen3-type decoder, BERT-type encoder, or T5-type encoder–decoder."""
    size = recipe.size
    sizes: dict[str, Any] = {
        "vocab_size": -(-tokenizer.vocab_size // 32) * 32,
        "hidden_size": size.width,
        "num_layers": size.num_layers,
        "num_heads": size.width // size.head_size,
        "head_size": size.head_size,
    }
    if recipe.family == "decoder":
        return ModelConfig(
            family="decoder",
            ffn_size=-(-size.width * 8 // 3 // 32) * 32,
            max_positions=max(2048, recipe.data.seq_len),
            qk_norm=True,
            tie_embeddings=False,
            dropout=size.dropout,
            pad_id=tokenizer.pad_id or 0,
            eos_id=tokenizer.eos_id,
            **sizes,
        )
    if recipe.family == "encoder":
        return ModelConfig(
            family="encoder",
            ffn_size=4 * size.width,
            position="learned",
            max_positions=max(512, recipe.data.seq_len),
            norm="layer",
            norm_placement="post",
            norm_epsilon=1e-12,
            embedding_norm=True,
            token_types=2,
            activation="gelu",
            gated_ffn=False,
            qkv_bias=True,
            bias=True,
            head_transform=True,
            head_bias=True,
            dropout=size.dropout,
            pad_id=tokenizer.pad_id or 0,
            **sizes,
        )
    return ModelConfig(
        family="encoder_decoder",
        num_encoder_layers=size.num_layers,
        ffn_size=-(-size.width * 8 // 3 // 32) * 32,
        position="relative",
        activation="gelu_tanh",
        attention_scale=False,
        head_scale=False,
        tie_embeddings=False,
        dropout=size.dropout,
        pad_id=tokenizer.pad_id or 0,
        eos_id=tokenizer.eos_id,
        decoder_start_id=tokenizer.pad_id or 0,
        **sizes,
    )
