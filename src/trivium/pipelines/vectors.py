"""The tasks that give vectors: hidden states of every token, and how similar sentences are.

Legend: B batch, T tokens, D hidden size.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trivium.errors import ConfigError, RequestError
from trivium.generation.packed import evaluation_copy
from trivium.model import Side, Transformer
from trivium.pipelines.loaded import Loaded, Options, batches

OPTIONS = ("return_tensors", "truncation", "batch_size")
SIMILARITY = ("pooling", "truncation", "batch_size")


def extract_features(loaded: Loaded, items: Sequence[str], options: Options) -> list[Any]:
    """The last hidden states of each text, `(1, T, D)` as nested lists, or a tensor with `return_tensors=True`."""
    hidden = [found[None].clone() for found in _hidden(loaded, items, options)]
    return hidden if options.get("return_tensors") else [each.tolist() for each in hidden]


def compare_sentences(loaded: Loaded, items: Sequence[Any], options: Options) -> list[list[float]]:
    """Cosines of each `{"source_sentence", "sentences"}`: the source against each sentence, from −1 to 1.

    A sentence's vector is the mean of its tokens' (Reimers and Gurevych 2019), or the first token's with
    `pooling="cls"`.
    """
    groups = [_sentences(item) for item in items]
    vectors_BD = embed_texts(loaded, [text for group in groups for text in group], options)
    results, first = [], 0
    for group in groups:
        source_D, others_BD = vectors_BD[first], vectors_BD[first + 1 : first + len(group)]
        results.append((others_BD @ source_D).tolist())
        first += len(group)
    return results


def embed_texts(loaded: Loaded, texts: Sequence[str], options: Options) -> Tensor:
    """One vector of length 1 for each text, float32 `(B, D)`."""
    pooling = options.get("pooling") or "mean"
    if pooling not in ("mean", "cls"):
        raise ConfigError(f"pooling is {pooling!r}; expected mean or cls; choose one")
    pooled = [found.mean(0) if pooling == "mean" else found[0] for found in _hidden(loaded, texts, options)]
    return F.normalize(torch.stack(pooled), dim=-1)


@torch.inference_mode()
def _hidden(loaded: Loaded, texts: Sequence[str], options: Options) -> list[Tensor]:
    """Each text's hidden states `(T, D)` without padding, float32 on the host, in the order of the texts."""
    model, device = evaluation_copy(loaded.model), loaded.model.embedding.tokens.weight.device
    rows = loaded.encode_texts(texts, truncation=options.get("truncation"))
    if any(not row for row in rows):
        raise RequestError("an empty text; expected at least one token; leave it out")
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    tokens = 512 if device.type == "cpu" else 16384
    for batch in batches([len(row) for row in rows], options.get("batch_size"), tokens=tokens):
        side = Side.from_ids([rows[index] for index in batch], pad_id=model.config.pad_id).to(device)
        hidden_BTD = read_hidden(model, side).float().cpu()
        for row, index in enumerate(batch):
            found[index] = hidden_BTD[row, : len(rows[index])]
    return found


def read_hidden(model: Transformer, side: Side, types_BT: Tensor | None = None) -> Tensor:
    """Hidden states `(B, T, D)` of what a model reads: the encoder's where there is one."""
    return model.decode(side) if model.encoder is None else model.encode(side, types_BT)


def _sentences(item: Any) -> list[str]:
    source = item.get("source_sentence") if isinstance(item, dict) else None
    others = item.get("sentences") if isinstance(item, dict) else None
    if not isinstance(source, str) or not isinstance(others, list) or not all(isinstance(x, str) for x in others):
        raise RequestError("an input without source_sentence and sentences; expected a text and a list; pass both")
    return [source, *others]
