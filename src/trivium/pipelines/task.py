"""Which tasks there are, as data: what a model must be, which options a call has, what computes it, how results look.

A translation between two named languages (`translation_en_to_zh`) is the task `translation` with its folder's prefix.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from trivium.errors import ConfigError
from trivium.pipelines import answering, entities, filling, labelling, vectors, writing
from trivium.pipelines.loaded import Loaded, Options
from trivium.pipelines.reading import Read, one_or_many, questions, sentences, texts_and_labels

Run = Callable[[Loaded, Sequence[Any], Options], list[Any]]


@dataclass(frozen=True)
class Task:
    """One task. `families` and `heads` say which models do it, `models` names small published ones that suit it.

    `run` gives one result for each input; `unwrap`, `lone` and `boxed` say in which box Hugging Face hands them out:
    results of one entry without their list when there are many texts; the result alone for a list of one text; a
    single text's result in a list unless `top_k` was asked for.
    """

    families: tuple[str, ...]
    models: tuple[str, ...]
    run: Run
    options: tuple[str, ...]
    heads: tuple[str, ...] = ("language",)
    read: Read = one_or_many
    settings: Options = field(default_factory=dict)
    writes: bool = False
    unwrap: bool = False
    lone: bool = False
    boxed: bool = False


_SAMPLES = {"max_new_tokens": 64, "top_k": 50}  # 50 is what Hugging Face samples from where nobody says a number
_ANSWERS = {"max_new_tokens": 256, "top_k": 50}
_READERS, _ALL = ("encoder", "decoder"), ("encoder", "decoder", "encoder_decoder")
_ANY = ("language", "sequence", "token", "span", "none")
_TO_TEXT: dict[str, Any] = {
    "families": ("encoder_decoder",),
    "run": writing.rewrite_texts,
    "options": writing.OPTIONS,
    "settings": _ANSWERS,
    "writes": True,
    "unwrap": True,
}

TASKS: dict[str, Task] = {
    "text-generation": Task(
        families=("decoder",),
        models=("gpt2", "distilgpt2", "HuggingFaceTB/SmolLM2-135M"),
        run=writing.continue_texts,
        options=writing.CONTINUING,
        settings=_SAMPLES,
        writes=True,
    ),
    "text2text-generation": Task(models=("t5-small", "google/flan-t5-small"), **_TO_TEXT),
    "summarization": Task(
        models=("t5-small", "sshleifer/distilbart-cnn-6-6"), **{**_TO_TEXT, "options": writing.SUMMARIZING}
    ),
    "translation": Task(models=("Helsinki-NLP/opus-mt-en-zh", "t5-small"), **_TO_TEXT),
    "fill-mask": Task(
        families=("encoder",),
        models=("distilbert-base-uncased", "bert-base-chinese", "distilroberta-base"),
        run=filling.fill_texts,
        options=filling.OPTIONS,
        lone=True,
    ),
    "text-classification": Task(
        families=_ALL,
        heads=("sequence",),
        models=("distilbert-base-uncased-finetuned-sst-2-english", "uer/roberta-base-finetuned-jd-binary-chinese"),
        run=labelling.label_texts,
        options=labelling.OPTIONS,
        boxed=True,
    ),
    "zero-shot-classification": Task(
        families=_ALL,
        heads=("sequence",),
        models=("typeform/distilbert-base-uncased-mnli", "cross-encoder/nli-distilroberta-base"),
        run=labelling.label_freely,
        options=labelling.ZERO_SHOT,
        read=texts_and_labels,
    ),
    "token-classification": Task(
        families=_READERS,
        heads=("token",),
        models=("dslim/distilbert-NER", "dslim/bert-base-NER"),
        run=entities.label_tokens,
        options=entities.OPTIONS,
    ),
    "question-answering": Task(
        families=_READERS,
        heads=("span",),
        models=("distilbert-base-cased-distilled-squad", "deepset/tinyroberta-squad2"),
        run=answering.answer_questions,
        options=answering.OPTIONS,
        read=questions,
        lone=True,
    ),
    "feature-extraction": Task(
        families=_ALL,
        heads=_ANY,
        models=("sentence-transformers/all-MiniLM-L6-v2", "distilbert-base-uncased"),
        run=vectors.extract_features,
        options=vectors.OPTIONS,
    ),
    "sentence-similarity": Task(
        families=_ALL,
        heads=_ANY,
        models=("sentence-transformers/all-MiniLM-L6-v2", "BAAI/bge-small-zh-v1.5"),
        run=vectors.compare_sentences,
        options=vectors.SIMILARITY,
        read=sentences,
    ),
}
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}
_LANGUAGES = re.compile(r"translation_\w+_to_\w+")


def find_task(name: str) -> Task:
    """The task of a name or alias; raises `ConfigError` that names the nearest one there is."""
    known = ALIASES.get(name, name)
    if _LANGUAGES.fullmatch(known):
        known = "translation"
    if known not in TASKS:
        near = get_close_matches(name, [*TASKS, *ALIASES], n=1, cutoff=0.4)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(f"there is no task {name!r}{hint}; expected one of {', '.join(TASKS)}; choose one")
    return TASKS[known]
