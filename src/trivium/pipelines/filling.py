"""The task of filling masked tokens."""

from collections.abc import Sequence
from typing import Any

from trivium.errors import ConfigError
from trivium.generation.fill import Fill, check_filler, fill_rows, mask_ids
from trivium.pipelines.loaded import Answer, Loaded, Options, batches
from trivium.tokenizer import Tokenizer

OPTIONS = ("top_k", "targets", "truncation", "batch_size")


def fill_texts(loaded: Loaded, items: Sequence[str], options: Options) -> list[Any]:
    """Candidates of each text's mask, best first: a list, or a list of such lists for a text with several masks."""
    model, tokenizer = loaded.model, loaded.tokenizer
    check_filler(model, tokenizer)
    cut_to = loaded.limit if options.get("truncation") else 0
    rows = [mask_ids(model, tokenizer, text, cut_to=cut_to) for text in items]
    targets = None if options.get("targets") is None else _target_ids(tokenizer, options["targets"])
    answers: list[Any] = [None] * len(items)
    for batch in batches([len(row) for row in rows], options.get("batch_size") or 16):
        chosen = [rows[index] for index in batch]
        found = fill_rows(model, tokenizer, chosen, top_k=options.get("top_k") or 5, targets=targets)
        for index, gaps in zip(batch, found, strict=True):
            shown = [[_candidate(fill) for fill in gap] for gap in gaps]
            answers[index] = shown[0] if len(shown) == 1 else shown
    return answers


def _candidate(fill: Fill) -> Answer:
    return {"score": fill.probability, "token": fill.token, "token_str": fill.token_text, "sequence": fill.sequence}


def _target_ids(tokenizer: Tokenizer, targets: str | Sequence[str]) -> list[int]:
    """One id a target: as it is spelled in the vocabulary, or as the one token that it is encoded to."""
    vocabulary, found = tokenizer.backend.get_vocab(), list[int]()
    for target in [targets] if isinstance(targets, str) else targets:
        ids = [vocabulary[target]] if target in vocabulary else tokenizer.encode(target, add_special=False)
        if len(ids) != 1:
            raise ConfigError(
                f"the target {target!r} is {len(ids)} tokens for this model; expected one; choose a word that is one"
            )
        found += [] if ids[0] in found else ids
    if not found:
        raise ConfigError("targets is empty; expected at least one word; name one or leave it out")
    return found
