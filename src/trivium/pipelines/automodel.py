"""`AutoModel…`: Hugging Face's names for opening a folder, each a family and a head of the one `Transformer`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trivium.errors import ConfigError
from trivium.hub.auto import load_model, read_generation
from trivium.hub.decoding import read_tasks
from trivium.hub.resolve import resolve_folder
from trivium.model.config import Head, Problem
from trivium.pipelines.opened import OpenedModel

# Keywords of theirs that change nothing here, `label2id` because it says what `id2label` does.
_IDLE = {"label2id", "token", "trust_remote_code", "use_safetensors", "device_map", "low_cpu_mem_usage"}
_IDLE |= {"attn_implementation", "ignore_mismatched_sizes"}
_PROBLEMS: dict[str, Problem] = {
    "single_label_classification": "single",
    "multi_label_classification": "multi",
    "regression": "regression",
}


@dataclass(frozen=True)
class Opener:
    """Opens folders whose model belongs to one of `families`, with `head`."""

    name: str
    head: Head
    families: tuple[str, ...]

    def from_pretrained(
        self,
        name: str | Path,
        *,
        num_labels: int | None = None,
        id2label: Mapping[Any, str] | None = None,
        problem_type: str | None = None,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
        **others: Any,
    ) -> OpenedModel:
        """The model of a folder or hub name, in evaluation mode, float32 unless `dtype` says otherwise.

        `num_labels` or `id2label` ask for a head of other classes than the folder has; it begins at random and a
        `UserWarning` says so. Raises `HubError` for what cannot be had, `ConfigError` for a model of another family.
        """
        if unknown := sorted(others.keys() - _IDLE):
            expected = "expected num_labels, id2label, problem_type, dtype or revision"
            raise ConfigError(f"{self.name}.from_pretrained has no {unknown[0]}; {expected}; drop it")
        folder = resolve_folder(name if revision is None else f"{name}@{revision}")
        model = load_model(folder, dtype=dtype, head=self.head, labels=_labels(num_labels, id2label))
        if model.config.family not in self.families:
            other = next(each.name for each in _OPENERS if model.config.family in each.families)
            raise ConfigError(
                f"{name} is a model of family {model.config.family}; {self.name} opens "
                f"{' or '.join(self.families)}; use {other}"
            )
        if problem_type is not None:
            if problem_type not in _PROBLEMS:
                raise ConfigError(f"problem_type is {problem_type!r}; expected one of {', '.join(_PROBLEMS)}; choose")
            model.config = replace(model.config, problem=_PROBLEMS[problem_type])
        return OpenedModel(model, read_generation(folder), read_tasks(folder))

    def __call__(self, name: str | Path, **options: Any) -> OpenedModel:
        """The same as `from_pretrained`."""
        return self.from_pretrained(name, **options)


def _labels(num_labels: int | None, id2label: Mapping[Any, str] | None) -> list[str] | None:
    if id2label is not None:
        labels = [id2label[key] for key in sorted(id2label, key=int)]
        if num_labels not in (None, len(labels)):
            raise ConfigError(
                f"num_labels={num_labels} with {len(labels)} names in id2label; expected as many; fix one"
            )
        return labels
    if num_labels is not None and num_labels < 1:
        raise ConfigError(f"num_labels is {num_labels}; expected at least 1; set it accordingly")
    return None if num_labels is None else [f"LABEL_{index}" for index in range(num_labels)]


_READERS, _ALL = ("encoder", "decoder"), ("encoder", "decoder", "encoder_decoder")
AutoModelForCausalLM = Opener("AutoModelForCausalLM", "language", ("decoder",))
AutoModelForMaskedLM = Opener("AutoModelForMaskedLM", "language", ("encoder",))
AutoModelForSeq2SeqLM = Opener("AutoModelForSeq2SeqLM", "language", ("encoder_decoder",))
AutoModelForSequenceClassification = Opener("AutoModelForSequenceClassification", "sequence", _ALL)
AutoModelForTokenClassification = Opener("AutoModelForTokenClassification", "token", _READERS)
AutoModelForQuestionAnswering = Opener("AutoModelForQuestionAnswering", "span", _READERS)
AutoModel = Opener("AutoModel", "none", _ALL)
_OPENERS = (AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM)
