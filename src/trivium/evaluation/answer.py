"""What a model answers to the samples of a task, in the form that metrics compare: texts, labels, tags, spans.

Batches hold texts of similar length and results come in the order of the samples: neither changes an answer.

Legend: B batch, T tokens, C classes.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trivium.data.batch import collate
from trivium.generation.packed import evaluation_copy, prepare_decoding
from trivium.generation.settings import SamplingConfig, combine_settings
from trivium.generation.write import generate
from trivium.model import Transformer
from trivium.tasks import Sample, Task
from trivium.tokenizer import Tokenizer

ROWS = 16
LONGEST_ANSWER = 30  # tokens of an extracted answer


def answer_samples(
    model: Transformer,
    tokenizer: Tokenizer,
    task: Task,
    samples: Sequence[Sample],
    *,
    decoding: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
    rows: int = ROWS,
) -> tuple[list[Any], list[Any]]:
    """(answers, references), one of each for each row, whatever its windows: the likeliest span of all, the mean of
    the scores of a label, the tags of all words.

    `decoding` is laid over the task's settings, of several each over those before; `rows` are read together.
    Raises what `generate` raises.
    """
    if task.writes:
        layers = (decoding,) if isinstance(decoding, Mapping) else decoding
        config = combine_settings({"max_new_tokens": task.answer_tokens}, task.decoding, *layers)
        return _write(model, tokenizer, samples, config, rows), [sample.reference for sample in samples]
    scores = _score(model, samples, rows)
    if task.kind == "answer":
        return _extract(samples, scores)
    labels = model.config.labels
    if task.kind == "tags":
        return _join_tags(samples, scores, labels)
    scores, references = _combine(samples, scores)
    if task.problem == "regression":
        return [row.tolist() if len(row) > 1 else float(row[0]) for row in scores], references
    if task.problem == "multi":
        return [[labels[place] for place in (row > 0).nonzero()[:, 0].tolist()] for row in scores], references
    return [labels[int(row.argmax())] for row in scores], references


def _write(
    model: Transformer, tokenizer: Tokenizer, samples: Sequence[Sample], config: SamplingConfig, count: int
) -> list[str]:
    order = sorted(range(len(samples)), key=lambda index: -len(samples[index].prompt))
    prepared = prepare_decoding(model, count * config.num_beams, new_tokens=config.max_new_tokens)
    answers = [""] * len(samples)
    for start in range(0, len(order), count):
        rows = order[start : start + count]
        prompts = [list(samples[row].prompt) for row in rows]
        # Drawn by what is asked, not by its place, so that order changes nothing when a text is sampled.
        seeds = [config.seed + zlib.crc32(repr(prompt).encode()) for prompt in prompts]
        for row, found in zip(rows, generate(prepared, prompts, config, tokenizer=tokenizer, seeds=seeds), strict=True):
            answers[row] = (found.text or "").strip()
    return answers


@torch.inference_mode()
def _score(model: Transformer, samples: Sequence[Sample], count: int) -> list[Tensor]:
    """What `classify` gives for each sample, without padding."""
    model, device = evaluation_copy(model), model.embedding.tokens.weight.device
    order = sorted(range(len(samples)), key=lambda index: -samples[index].example.num_tokens)
    found: list[Tensor] = [torch.empty(0)] * len(samples)
    for start in range(0, len(order), count):
        rows = order[start : start + count]
        batch = collate([samples[row].example for row in rows], model.config.pad_id).to(device)
        scores = model.classify(batch.inputs, types_BT=batch.types).float().cpu()
        for place, row in enumerate(rows):
            whole = scores[place]
            found[row] = whole if whole.dim() == 1 else whole[: len(samples[row].example.input_ids)]
    return found


def _combine(samples: Sequence[Sample], scores: Sequence[Tensor]) -> tuple[list[Tensor], list[Any]]:
    """The mean of the scores of a row's windows, and what each row expects."""
    windows: dict[int, list[Tensor]] = {}
    for sample, scores_C in zip(samples, scores, strict=True):
        windows.setdefault(sample.number, []).append(scores_C)
    references = {sample.number: sample.reference for sample in samples}
    return [torch.stack(each).mean(0) for each in windows.values()], [references[number] for number in windows]


def _join_tags(
    samples: Sequence[Sample], scores: Sequence[Tensor], labels: Sequence[str]
) -> tuple[list[Any], list[Any]]:
    """The tags of each row's words over its windows; a word that was cut in two is judged by its beginning, and one
    that was cut off, or has no token, has the tag of no name."""
    rows: dict[int, list[str]] = {}
    seen: dict[int, set[int]] = {}
    references = {sample.number: list(sample.reference) for sample in samples}
    for sample, scores_TC in zip(samples, scores, strict=True):
        assert sample.encoded is not None
        places = np.flatnonzero(sample.example.weights > 0)
        found = [labels[best] for best in scores_TC.argmax(-1)[torch.from_numpy(places)].tolist()]
        row = rows.setdefault(sample.number, ["O"] * len(sample.reference))
        known = seen.setdefault(sample.number, set())
        for place, tag in zip(places.tolist(), found, strict=True):
            word = sample.encoded.offsets[place][0]
            row[word] = row[word] if word in known else tag
            known.add(word)
    return list(rows.values()), list(references.values())


def _extract(samples: Sequence[Sample], scores: Sequence[Tensor]) -> tuple[list[Any], list[Any]]:
    """The likeliest span of each question over all of its windows, as text of the context; empty if the first token
    of every window is likelier."""
    best: dict[int, tuple[float, str]] = {}
    references: dict[int, Any] = {}
    for sample, scores_T2 in zip(samples, scores, strict=True):
        encoded = sample.encoded
        assert encoded is not None
        inside_T = torch.tensor([side == 1 for side in encoded.sides])
        logs_T2 = scores_T2.log_softmax(0)
        pairs_TT = logs_T2[:, 0, None] + logs_T2[None, :, 1]
        allowed_TT = (inside_T[:, None] & inside_T[None, :]).triu().tril(LONGEST_ANSWER - 1)
        pairs_TT = pairs_TT.masked_fill(~allowed_TT, -torch.inf)
        first, last = divmod(int(pairs_TT.argmax()), len(encoded.ids))
        null, score = float(logs_T2[0].sum()), float(pairs_TT[first, last])
        text = sample.row["context"][encoded.offsets[first][0] : encoded.offsets[last][1]] if score > null else ""
        found = (max(score, null), text)
        # A window without the answer says so; what another window finds comes before that.
        if sample.number not in best or (bool(text), found[0]) > (bool(best[sample.number][1]), best[sample.number][0]):
            best[sample.number] = found
        references[sample.number] = sample.reference
    return [best[number][1] for number in references], list(references.values())
