"""From a recipe to a trained model folder: prepare, build, restore, train, evaluate, save, report.

The same call on the same run folder resumes; a finished run gives its result at once.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from trivium.config import save_config, to_dict
from trivium.data.loader import Loader, TokenSource
from trivium.data.objective import Vocabulary
from trivium.data.prepare import TokenizerConfig, prepare_data
from trivium.data.shards import Shards
from trivium.errors import ConfigError
from trivium.hub.auto import load_model, save_model
from trivium.hub.resolve import resolve_folder
from trivium.machine import compute_fingerprint, keep_freed_memory
from trivium.model import Transformer, build_model
from trivium.model.start import (
    set_bigram_start,
    set_copy_start,
    set_gap_start,
    set_left_start,
    set_neighbour_start,
    set_unigram_start,
)
from trivium.tokenizer import Tokenizer
from trivium.training.checkpoint import TrainState, keep_compute_dtype, list_checkpoints, lock_run, restore_latest
from trivium.training.course import Materials
from trivium.training.loop import Samples, train
from trivium.training.monitor import Monitor
from trivium.training.optim import build_optimizers
from trivium.training.recipe import Recipe, design_model, find_change, load_recipe, resolve_recipe
from trivium.training.report import write_report
from trivium.training.storage import Storage, clear_unfinished, put_folder, put_text, start_over, unfinished_name

COUNTED_BATCHES = 200
BIGRAM_TOKENS = 20_000_000
BIGRAM_VOCABULARY = 6000  # its square must fit in memory a few times
BIGRAM_SMOOTHING = 300.0  # of 5 … 2000, the lowest held-out loss at rank 62 and 127


@dataclass(frozen=True)
class PretrainResult:
    """What a run came to. `folder` is an ordinary Hugging Face folder; losses are nats per target token."""

    folder: str
    parameters: int
    steps: int
    tokens: int
    seconds: float
    loss_before: float
    loss_after: float
    perplexity: float
    bits_per_byte: float
    accuracy: float


def pretrain(
    recipe: Recipe,
    *,
    restart: bool = False,
    on_evaluate: Samples | None = None,
    progress: Callable[[str], None] | None = None,
    quiet: bool = False,
) -> PretrainResult:
    """Train a model from nothing, or one that exists, as the recipe says and save it to `run/final`.

    `on_evaluate(model, progress)` may return sample texts for the log and the report. A run may be continued with
    another budget, but not with another model or other data: that is a `ConfigError`. Raises `DataError` and
    `CheckpointError` too; after a signal it saves and raises `SystemExit`.
    """
    run = Path(recipe.run)
    with lock_run(run):
        if restart:
            start_over(run)
        clear_unfinished(run)
        same = _compare_recipes(run, recipe)
        if same and (run / "result.json").is_file():
            return PretrainResult(**json.loads((run / "result.json").read_text(encoding="utf-8")))
        keep_freed_memory()
        materials = gather_materials(recipe, progress)
        # Before the new budget is written: else, were this run stopped, the old result would pass for its own.
        (run / "result.json").unlink(missing_ok=True)
        Storage().sync(run)
        save_config(materials.recipe, unfinished_name(run / "config.yaml"))
        unfinished_name(run / "config.yaml").replace(run / "config.yaml")
        state = _begin(materials, fresh=not list_checkpoints(run))
        restore_latest(state, run, materials.fingerprint)
        with Monitor(run, name=recipe.family, lines=state.counters.lines, quiet=quiet) as monitor:
            train(state, materials, monitor, on_evaluate)
        return _finish(state, materials)


def gather_materials(recipe: Recipe, progress: Callable[[str], None] | None = None) -> Materials:
    """Prepare the data if need be, and open what the loop reads."""
    recipe = resolve_recipe(recipe)  # what cannot be is refused before any work
    data, run = recipe.data, Path(recipe.run)
    folder = prepare_data(
        "python" if data.source == "python" else Path(data.source),
        data.prepared or run / "data",
        tokenizer=choose_tokenizer(recipe),
        seed=recipe.seed,
        limit_files=data.limit_files or None,
        progress=progress,
    )
    tokenizer = Tokenizer.load(folder / "tokenizer")
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    assert recipe.objective is not None
    objective = recipe.objective

    def open_part(part: str, *, micro_rows: int) -> Loader:
        return Loader(
            Shards(folder, part),
            vocabulary,
            objective=objective,
            seq_len=data.seq_len,
            rows_per_batch=data.rows_per_batch,
            micro_rows=micro_rows,
            seed=recipe.seed,
        )

    loader = open_part("train", micro_rows=data.micro_rows)
    valid = open_part("valid", micro_rows=min(8, data.rows_per_batch))
    part = Shards(folder, "valid", verify=False)
    fingerprint = keep_compute_dtype(run, compute_fingerprint())
    return Materials(
        recipe=recipe,
        train=loader,
        valid=valid,
        bytes_per_token=part.num_bytes / max(part.num_tokens, 1),
        tokenizer=tokenizer.dress_for(recipe.family),
        fingerprint={**fingerprint, "data": loader.fingerprint},
        compute_dtype=getattr(torch, fingerprint["compute_dtype"]),
        device=fingerprint["device"],
    )


def choose_tokenizer(recipe: Recipe) -> TokenizerConfig:
    """The recipe's tokenizer, or that of the model to go on from."""
    return TokenizerConfig(folder=str(resolve_folder(recipe.model))) if recipe.model else recipe.data.tokenizer


def count_targets(loader: Loader, vocab_size: int) -> torch.Tensor:
    """Log frequency of each token among the objective's targets, `(vocab_size,)`, from a few hundred batches."""
    counts = np.full(vocab_size, 0.1)
    for step in range(COUNTED_BATCHES):
        batch = loader.batch_at(step)
        counts += np.bincount(batch.targets[batch.weights > 0].numpy(), minlength=vocab_size)
    return torch.from_numpy(np.log(counts / counts.sum()))


def factor_bigrams(source: TokenSource, vocab_size: int, *, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tables `(vocab_size, rank)` whose product is about log P(next | current) / P(next) in the training tokens.

    Up to a constant for each current token, which a softmax ignores: log(1 + count / (smoothing · P(next))) is 0 for
    pairs never seen, so that a low rank suffices. Rare tokens weigh less. Tokens never seen get zeros.
    """
    ids = np.asarray(source.read(0, min(int(source.offsets[-1]), BIGRAM_TOKENS))).astype(np.int64)
    pairs = np.bincount(ids[:-1] * vocab_size + ids[1:], minlength=vocab_size**2).reshape(vocab_size, vocab_size)
    counts = torch.from_numpy(pairs.astype(np.float32))
    total = counts.sum()
    ratio = torch.log1p(counts / (BIGRAM_SMOOTHING * (counts.sum(0) / total + 1e-7)))
    row_weight, column_weight = (counts.sum(1, keepdim=True) + 1).sqrt(), (counts.sum(0) + 1).sqrt()
    torch.manual_seed(0)
    u, s, v = torch.svd_lowrank(ratio * row_weight * column_weight, q=min(rank, vocab_size), niter=2)
    known = (row_weight > 1).float()
    return u * s.sqrt() / row_weight * known, v * s.sqrt() / column_weight[:, None]


def _begin(materials: Materials, *, fresh: bool = True) -> TrainState:
    """A model and its optimizers; a `fresh` one predicts token frequencies, another one waits for a checkpoint."""
    recipe = materials.recipe
    if recipe.model:
        model = open_model(recipe, materials.tokenizer).to(materials.device)
    else:
        config = design_model(recipe, materials.tokenizer)
        model = build_model(config, seed=recipe.seed, device=materials.device, zero_outputs=True)
        if fresh:
            _set_start(model, materials)
    model.set_checkpointing(recipe.size.checkpoint_activations)
    return TrainState(model, build_optimizers(model, recipe.optimizer, compute_dtype=materials.compute_dtype))


def open_model(recipe: Recipe, tokenizer: Tokenizer) -> Transformer:
    """The model that a recipe goes on from, in float32; `ConfigError` if its tokenizer has more words than it."""
    model = load_model(recipe.model, dtype=torch.float32, head="language")
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ConfigError(
            f"the tokenizer of {recipe.model} has {tokenizer.vocab_size} tokens, its model {model.config.vocab_size}; "
            "expected no more; take a folder whose files belong together"
        )
    return model.train()


def _set_start(model: Transformer, materials: Materials) -> None:
    """Token frequencies, what follows what, and where to look, written into the weights: see model/start.py."""
    recipe, config = materials.recipe, model.config
    if recipe.size.copy_start:
        set_copy_start(model, count_targets(materials.train, config.vocab_size).to(materials.device), seed=recipe.seed)
        return
    if recipe.family == "encoder_decoder":
        set_gap_start(model, materials.tokenizer.sentinel_ids, seed=recipe.seed)
    if recipe.family == "encoder":
        set_neighbour_start(model, seed=recipe.seed)
    if recipe.size.unigram_start:
        set_unigram_start(model, count_targets(materials.train, config.vocab_size).to(materials.device))
    if recipe.size.unigram_start and not config.tie_embeddings and config.vocab_size <= BIGRAM_VOCABULARY:
        left, right = factor_bigrams(materials.train.source, config.vocab_size, rank=config.hidden_size)
        set_bigram_start(model, left.to(materials.device), right.to(materials.device))
        if recipe.family == "encoder_decoder":
            set_left_start(model)


def _finish(state: TrainState, materials: Materials) -> PretrainResult:
    """Write `final/`, the report and, when all else is there, the result."""
    recipe, counters, after = materials.recipe, state.counters, state.counters.evaluation
    run, storage = Path(recipe.run), Storage()
    result = PretrainResult(
        folder=str(run / "final"),
        parameters=sum(parameter.numel() for parameter in state.model.parameters()),
        steps=counters.step,
        tokens=counters.tokens,
        seconds=counters.elapsed_seconds,
        loss_before=counters.loss_before,
        loss_after=after["loss"],
        perplexity=after["perplexity"],
        bits_per_byte=after["bits_per_byte"],
        accuracy=after["accuracy"],
    )
    begun = f"from {recipe.model}" if recipe.model else "from nothing"
    text = (
        f"Pretrained {begun} on {counters.tokens:,} tokens of `{recipe.data.source}` in "
        f"{counters.elapsed_seconds:,.0f} s; held-out loss {after['loss']:.3f} nats per target token"
    )
    # Of masks and gaps, bits per byte count the hidden tokens alone: beside a decoder's they would mislead.
    text += f", {after['bits_per_byte']:.3f} bits per byte." if recipe.family == "decoder" else "."
    unfinished = unfinished_name(run / "final")
    save_model(state.model, unfinished, tokenizer=materials.tokenizer, card={"title": run.name, "text": text})
    put_folder(storage, unfinished, run / "final")
    write_report(run, recipe=to_dict(recipe), manifest=materials.train.source, result=asdict(result))
    put_text(storage, run / "result.json", json.dumps(asdict(result), indent=1) + "\n")
    return result


def _compare_recipes(run: Path, recipe: Recipe) -> bool:
    """Whether the run was begun with exactly this recipe; raises `ConfigError` if it cannot be continued with it."""
    path = run / "config.yaml"
    if not path.is_file() or not (list_checkpoints(run) or (run / "result.json").is_file()):
        return False
    old, new = load_recipe(path), resolve_recipe(recipe)
    if change := find_change(old, new):
        raise ConfigError(f"{run} holds another run ({change}); expected the same recipe; use --restart or another run")
    return old.budget == new.budget
