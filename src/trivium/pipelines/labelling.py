"""The tasks that label whole texts: with a model's own classes, or with any words through entailment.

Legend: B batch, C classes, N candidate labels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trivium.errors import ConfigError, RequestError
from trivium.generation.packed import evaluation_copy
from trivium.pipelines.loaded import Answer, Loaded, Options, batches
from trivium.tokenizer import Encoded

OPTIONS = ("top_k", "function_to_apply", "truncation", "batch_size")
ZERO_SHOT = ("candidate_labels", "hypothesis_template", "multi_label", "truncation", "batch_size")
_FUNCTIONS = ("none", "sigmoid", "softmax")


def label_texts(loaded: Loaded, items: Sequence[Any], options: Options) -> list[Any]:
    """The best label of each text (or `{"text", "text_pair"}`) with its score; with `top_k` a list, None for all."""
    rows = [loaded.encode(*_texts(item), truncation=options.get("truncation")) for item in items]
    scores_BC = _apply(loaded, score_rows(loaded, rows, options), options.get("function_to_apply"))
    labels, results = loaded.model.config.labels, list[Any]()
    for scores in scores_BC.tolist():
        ranked: list[Answer] = [
            {"label": labels[place], "score": scores[place]}
            for place in sorted(range(len(labels)), key=lambda place: -scores[place])
        ]
        results.append(ranked[: options["top_k"]] if "top_k" in options else ranked[0])
    return results


def label_freely(loaded: Loaded, items: Sequence[str], options: Options) -> list[Answer]:
    """`{"sequence", "labels", "scores"}` of each text, best label first, for words that no training has named.

    Each label becomes a hypothesis that the text may entail (Yin et al. 2019); with `multi_label` each stands alone,
    else they compete. Raises `ConfigError` for a model that knows no entailment.
    """
    labels, hypotheses = _hypotheses(options)
    yes = _entailment(loaded)
    truncation = options.get("truncation")
    rows = [loaded.encode(text, each, truncation=truncation) for text in items for each in hypotheses]
    logits_BNC = score_rows(loaded, rows, options).view(len(items), len(labels), -1)
    if options.get("multi_label") or len(labels) == 1:
        no = -1 if yes == 0 else 0
        scores_BN = logits_BNC[..., [no, yes]].softmax(-1)[..., 1]
    else:
        scores_BN = logits_BNC[..., yes].softmax(-1)
    results = []
    for text, scores in zip(items, scores_BN.tolist(), strict=True):
        order = sorted(range(len(labels)), key=lambda place: -scores[place])
        ranked: Answer = {"labels": [labels[place] for place in order], "scores": [scores[place] for place in order]}
        results.append({"sequence": text} | ranked)
    return results


@torch.inference_mode()
def score_rows(loaded: Loaded, rows: Sequence[Encoded], options: Options) -> Tensor:
    """Scores `(B, C)` of encoded texts before any function, in the order of `rows`, computed in even batches."""
    model, classes = evaluation_copy(loaded.model), len(loaded.model.config.labels)
    scores_BC = torch.zeros(len(rows), classes)
    for batch in batches([len(row.ids) for row in rows], options.get("batch_size") or 16):
        side, types_BT = loaded.side([rows[index] for index in batch])
        scores_BC[batch] = model.classify(side, types_BT=types_BT).float().cpu()
    return scores_BC


def _texts(item: Any) -> tuple[str, str | None]:
    if isinstance(item, str):
        return item, None
    if isinstance(item, dict) and isinstance(item.get("text"), str) and set(item) <= {"text", "text_pair"}:
        return item["text"], item.get("text_pair")
    raise RequestError(
        f"an input of type {type(item).__name__}; expected a string, or a dict with text and text_pair; pass one"
    )


def _apply(loaded: Loaded, logits_BC: Tensor, function: str | None) -> Tensor:
    config = loaded.model.config
    if function is None:
        alone = config.problem == "multi" or len(config.labels) == 1
        function = "none" if config.problem == "regression" else "sigmoid" if alone else "softmax"
    if function not in _FUNCTIONS:
        raise ConfigError(f"function_to_apply is {function!r}; expected one of {', '.join(_FUNCTIONS)}; choose one")
    if function == "none":
        return logits_BC
    return logits_BC.sigmoid() if function == "sigmoid" else logits_BC.softmax(-1)


def _hypotheses(options: Options) -> tuple[list[str], list[str]]:
    labels = options.get("candidate_labels")
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(",") if label.strip()]
    if not labels:
        raise RequestError("no candidate_labels; expected at least one word to choose from; pass a list of them")
    template = options.get("hypothesis_template") or "This example is {}."
    if template.format(labels[0]) == template:
        raise ConfigError(f"hypothesis_template is {template!r}; expected {{}} where the label goes; add it")
    return list(labels), [template.format(label) for label in labels]


def _entailment(loaded: Loaded) -> int:
    labels = loaded.model.config.labels
    for place, label in enumerate(labels):
        if label.lower().startswith("entail"):
            return place
    raise ConfigError(
        f"the model's labels are {', '.join(labels[:4])}; expected one that begins with “entail”; choose a model that "
        "was trained on natural language inference"
    )
