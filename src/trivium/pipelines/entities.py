"""The task that labels tokens, and how labelled tokens become named things in a text.

Tokens of one word may disagree: `aggregation_strategy` says who decides. A text that is too long can be read in
windows that overlap by `stride` tokens.

Legend: B batch, T tokens, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trivium.errors import ConfigError
from trivium.generation.packed import evaluation_copy
from trivium.pipelines.loaded import Answer, Loaded, Options, batches
from trivium.tokenizer import Encoded, Tokenizer

OPTIONS = ("aggregation_strategy", "ignore_labels", "stride", "truncation", "batch_size")
_STRATEGIES = ("none", "simple", "first", "average", "max")


@dataclass(frozen=True)
class Token:
    """One token of a text or several that make a word: their scores by class, and where they stand."""

    scores: Tensor
    index: int
    texts: tuple[str, ...]
    start: int
    end: int
    is_subword: bool


@torch.inference_mode()
def label_tokens(loaded: Loaded, items: Sequence[str], options: Options) -> list[list[Answer]]:
    """For each text the tokens (or, with an `aggregation_strategy`, the things) whose label is not to be ignored."""
    strategy = str(options.get("aggregation_strategy") or "none").lower()
    if strategy not in _STRATEGIES:
        raise ConfigError(f"aggregation_strategy is {strategy!r}; expected one of {', '.join(_STRATEGIES)}; choose one")
    model, windows = evaluation_copy(loaded.model), [_windows(loaded, text, options, strategy) for text in items]
    flat = [(text, window) for text, found in enumerate(windows) for window in found]
    found: list[list[tuple[int, list[Answer]]]] = [[] for _ in items]
    for batch in batches([len(window.ids) for _, window in flat], options.get("batch_size") or 16):
        side, types_BT = loaded.side([flat[index][1] for index in batch])
        scores_BTC = model.classify(side, types_BT=types_BT).float().softmax(-1).cpu()
        for row, index in enumerate(batch):
            text, window = flat[index]
            tokens = _tokens(loaded.tokenizer, items[text], window, scores_BTC[row])
            found[text].append((index, _entities(loaded, tokens, options, strategy)))
    return [_join([entities for _, entities in sorted(each, key=lambda pair: pair[0])]) for each in found]


def _windows(loaded: Loaded, text: str, options: Options, strategy: str) -> list[Encoded]:
    stride = options.get("stride")
    if stride is None:
        return [loaded.encode(text, truncation=options.get("truncation"))]
    if strategy == "none":
        raise ConfigError("stride without aggregation_strategy; expected one, since windows share tokens; set it")
    return loaded.windows(text, longest=loaded.limit, overlap=stride)


def _tokens(tokenizer: Tokenizer, text: str, encoded: Encoded, scores_TC: Tensor) -> list[Token]:
    prefix = getattr(tokenizer.backend.model, "continuing_subword_prefix", None)
    tokens = []
    for index, (token, (start, end), side) in enumerate(zip(encoded.ids, encoded.offsets, encoded.sides, strict=True)):
        if side is None:
            continue
        stored, shown = tokenizer.backend.id_to_token(token) or "", text[start:end]
        if token == tokenizer.unk_id:
            stored, inside = shown, False
        elif prefix:
            inside = len(stored) != len(shown)
        else:  # no mark of its own inside words: what no space precedes goes on with the word
            inside = start > 0 and " " not in text[start - 1 : start + 1]
        tokens.append(Token(scores_TC[index], index, (stored,), start, end, inside))
    return tokens


def _entities(loaded: Loaded, tokens: list[Token], options: Options, strategy: str) -> list[Answer]:
    ignored = options.get("ignore_labels")
    ignored = ("O",) if ignored is None else tuple(ignored)
    if strategy not in ("none", "simple"):
        tokens = _words(tokens, _DECIDE[strategy])
    labels = loaded.model.config.labels
    found = [(labels[int(token.scores.argmax())], float(token.scores.max()), token) for token in tokens]
    if strategy != "none":
        return [entity for entity in _groups(loaded.tokenizer, found) if entity["entity_group"] not in ignored]
    return [
        {"entity": label, "score": score, "index": token.index, "word": token.texts[0]}
        | {"start": token.start, "end": token.end}
        for label, score, token in found
        if label not in ignored
    ]


def _words(tokens: list[Token], decide: Callable[[list[Token]], Tensor]) -> list[Token]:
    """Tokens of one word made one."""
    words: list[list[Token]] = []
    for token in tokens:
        if token.is_subword and words:
            words[-1].append(token)
        else:
            words.append([token])
    return [
        Token(decide(word), word[0].index, sum((each.texts for each in word), ()), word[0].start, word[-1].end, False)
        for word in words
    ]


_DECIDE: dict[str, Callable[[list[Token]], Tensor]] = {
    "first": lambda word: word[0].scores,
    "average": lambda word: torch.stack([token.scores for token in word]).mean(0),
    "max": lambda word: max(word, key=lambda token: float(token.scores.max())).scores,
}


def _groups(tokenizer: Tokenizer, found: list[tuple[str, float, Token]]) -> list[Answer]:
    """Neighbours with one label made one thing; a `B-` begins a new one."""
    groups: list[list[tuple[str, float, Token]]] = []
    for label, score, token in found:
        same = bool(groups) and _kind(groups[-1][-1][0]) == _kind(label)
        if same and not label.startswith("B-"):
            groups[-1].append((label, score, token))
        else:
            groups.append([(label, score, token)])
    return [
        {
            "entity_group": group[0][0].split("-", 1)[-1],
            "score": sum(score for _, score, _ in group) / len(group),
            "word": _spell(tokenizer, [text for _, _, token in group for text in token.texts]),
            "start": group[0][2].start,
            "end": group[-1][2].end,
        }
        for group in groups
    ]


def _kind(label: str) -> str:
    return label[2:] if label.startswith(("B-", "I-")) else label


def _spell(tokenizer: Tokenizer, stored: list[str]) -> str:
    decoder: Any = tokenizer.backend.decoder
    return " ".join(stored) if decoder is None else str(decoder.decode(stored))


def _join(windows: list[list[Answer]]) -> list[Answer]:
    """Of things that overlap where two windows do, the longer one, or the likelier of two as long."""
    if len(windows) == 1:
        return windows[0]
    kept: list[Answer] = []
    for entity in sorted((each for window in windows for each in window), key=lambda each: each["start"]):
        if kept and kept[-1]["start"] <= entity["start"] < kept[-1]["end"]:
            kept[-1] = max(kept[-1], entity, key=lambda each: (each["end"] - each["start"], each["score"]))
        else:
            kept.append(entity)
    return kept
