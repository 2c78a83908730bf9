"""The writing tasks have Hugging Face's call forms and shapes, and on the same folders its answers too."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.generation.spelling import TEXTS
from trivium import load, pipeline
from trivium.errors import ConfigError, RequestError
from trivium.generation import SamplingConfig, generate, generate_text
from trivium.pipelines.writing import split_text
from trivium.tokenizer.chat_mask import encode_chat_prompt

GREEDY = {"max_new_tokens": 8, "do_sample": False}


def theirs(task: str, folder: Path) -> transformers.Pipeline:
    return transformers.pipeline(task, model=str(folder), device="cpu")


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_text_generation_equals_transformers(name: str, folders: dict[str, Path]) -> None:
    ours, reference = pipeline("text-generation", model=folders[name]), theirs("text-generation", folders[name])
    assert ours(TEXTS[0], **GREEDY) == reference(TEXTS[0], **GREEDY)
    assert ours(TEXTS[:2], **GREEDY) == reference(TEXTS[:2], **GREEDY)
    assert ours(text_inputs=TEXTS[:1], **GREEDY) == reference(TEXTS[:1], **GREEDY)
    short = {**GREEDY, "return_full_text": False}
    assert ours(TEXTS[0], **short) == reference(TEXTS[0], **short)
    beams = {**GREEDY, "num_beams": 3, "num_return_sequences": 2}
    assert ours(TEXTS[0], **beams) == reference(TEXTS[0], **beams)
    assert ours(TEXTS[:2], batch_size=2, **beams) == reference(TEXTS[:2], **beams)


def test_a_trained_gpt2_and_its_folders_wishes(gpt2_folder: Path) -> None:
    """Its task_specific_params say do_sample and 50 tokens in all; an argument wins over either."""
    ours, reference = pipeline("text-generation", model=gpt2_folder), theirs("text-generation", gpt2_folder)
    text = "Return the value of the"
    assert ours(text, do_sample=False, max_new_tokens=20) == reference(text, do_sample=False, max_new_tokens=20)
    first, second = ours(text, seed=1), ours(text, seed=2)
    assert first == ours(text, seed=1) != second, "the folder says do_sample"
    assert len(ours.tokenizer.encode(first[0]["generated_text"])) <= 50
    long = text * 15
    assert len(ours(long)[0]["generated_text"]) > len(long), "a longer prompt is no error"


@pytest.mark.parametrize("task", ["summarization", "translation_en_to_de", "text2text-generation"])
def test_rewriting_equals_generate(task: str, t5_folder: Path) -> None:
    """transformers 5 has no such pipelines: its generate with the task's parameters is the reference."""
    settings = json.loads((t5_folder / "config.json").read_text())["task_specific_params"].get(task, {})
    key = {"summarization": "summary_text", "text2text-generation": "generated_text"}.get(task, "translation_text")
    reader = transformers.AutoTokenizer.from_pretrained(t5_folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(t5_folder)
    prefix = settings.pop("prefix", "")
    expected = []
    for text in TEXTS:
        ids = reader(prefix + text, return_tensors="pt").input_ids
        written = model.generate(ids, **(settings or {"max_new_tokens": 256}))
        expected.append({key: reader.decode(written[0], skip_special_tokens=True)})
    ours = pipeline(task, model=t5_folder)
    assert ours(TEXTS) == expected
    assert ours(TEXTS[0]) == expected[:1]
    assert ours(TEXTS[:1]) == expected[:1]
    assert len(ours(TEXTS[0], num_beams=3, num_return_sequences=2)) == 2
    both = ours(TEXTS[:2], num_beams=3, num_return_sequences=2)
    assert [len(each) for each in both] == [2, 2]


def test_the_prefix_is_a_default(t5_folder: Path) -> None:
    ours = pipeline("summarization", model=t5_folder)
    plain = pipeline("text2text-generation", model=t5_folder)
    options = {"max_new_tokens": 12, "num_beams": 2, "min_length": 0}
    assert ours(TEXTS[0], prefix="", no_repeat_ngram_size=0, early_stopping=False, length_penalty=1.0, **options) == [
        {"summary_text": plain(TEXTS[0], **options)[0]["generated_text"]}
    ]


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_the_size_of_batches_changes_nothing(name: str, folders: dict[str, Path]) -> None:
    task = "text-generation" if name == "llama" else "text2text-generation"
    ours, texts = pipeline(task, model=folders[name], max_new_tokens=6), [*TEXTS, "", "a"]
    texts = [text or "the" for text in texts]
    for options in ({}, {"do_sample": True, "num_return_sequences": 2, "seed": 3}, {"num_beams": 2}):
        whole = ours(texts, batch_size=64, **options)
        assert whole == ours(texts, batch_size=1, **options) == ours(texts, batch_size=4, **options)
        assert list(ours(iter(texts), batch_size=1, **options)) == whole
    model, tokenizer = load(folders[name])
    config = SamplingConfig(max_new_tokens=6, do_sample=True, top_k=50)
    written = generate_text(model, tokenizer, texts, config)
    found = ours(texts, do_sample=True, return_full_text=False) if name == "llama" else ours(texts, do_sample=True)
    assert [each[0]["generated_text"] if name == "llama" else each["generated_text"] for each in found] == written


def test_an_iterable_is_read_as_results_are_asked_for(folders: dict[str, Path]) -> None:
    ours, read = pipeline("text-generation", model=folders["llama"], max_new_tokens=2), []

    def source() -> Iterator[str]:
        for number in range(1000):
            read.append(number)
            yield TEXTS[number % 4]

    results = ours(source(), batch_size=2)
    assert read == []
    first = next(results)
    assert first == ours(TEXTS[0])
    assert len(read) == 16
    assert list(ours(iter([]))) == [] and ours([]) == []


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_stream_joined_is_the_new_text(name: str, folders: dict[str, Path]) -> None:
    task = "text-generation" if name == "llama" else "text2text-generation"
    ours = pipeline(task, model=folders[name])
    options = {"max_new_tokens": 12, "do_sample": True, "seed": 2}
    pieces = list(ours(TEXTS[0], stream=True, **options))
    whole = ours(TEXTS[0], **options, **({"return_full_text": False} if name == "llama" else {}))
    assert "".join(pieces) == whole[0]["generated_text"]
    assert len(pieces) > 1
    with pytest.raises(ConfigError, match="a stream of several texts"):
        ours(TEXTS, stream=True)
    with pytest.raises(ConfigError, match="a stream with num_beams=2"):
        ours(TEXTS[0], stream=True, num_beams=2)


def test_long_prompts_are_refused_or_cut_as_asked(gpt2_folder: Path) -> None:
    ours = pipeline("text-generation", model=gpt2_folder, do_sample=False, max_new_tokens=8)
    long = " ".join(TEXTS) * 9
    count = len(ours.tokenizer.encode(long))
    with pytest.raises(RequestError, match=rf"the text has {count} tokens; this model reads at most 128; pass trunc"):
        ours(long)
    model, tokenizer = load(gpt2_folder)
    kept = tokenizer.encode(long)[-120:]
    (expected,) = generate(model, [kept], SamplingConfig(max_new_tokens=8), tokenizer=tokenizer)
    assert len(expected.ids) == 8
    for options in ({"truncation": True}, {"handle_long_generation": "hole"}):
        assert ours(long, **options) == [{"generated_text": long + (expected.text or "")}]


@pytest.fixture
def short_sighted(t5_folder: Path, tmp_path: Path) -> Path:
    """A T5 whose tokenizer says that it reads 40 tokens."""
    folder = tmp_path / "short"
    shutil.copytree(t5_folder, folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 40}))
    return folder


def test_long_texts_are_refused_or_cut_as_asked(short_sighted: Path) -> None:
    ours, text = pipeline("summarization", model=short_sighted, max_new_tokens=9, min_length=0), TEXTS[1] * 3
    count = len(ours.tokenizer.encode("summarize: " + text, add_special=True))
    message = rf"the text has {count} tokens; this model reads at most 40; pass truncation=True .*long='map_reduce'"
    with pytest.raises(RequestError, match=message):
        ours(text)
    reader = transformers.AutoTokenizer.from_pretrained(short_sighted)
    cut = reader("summarize: " + text, truncation=True, max_length=40).input_ids
    kept = reader.decode(cut, skip_special_tokens=True).removeprefix("summarize: ")
    assert ours(text, truncation=True) == ours(kept, truncation=False)
    whole, part = (ours(text, truncation=cut, num_beams=1, logprobs=True)[0]["logprobs"] for cut in (False, True))
    assert whole != part, "read whole, as asked"


def test_a_long_summary_is_the_summary_of_summaries(short_sighted: Path) -> None:
    ours = pipeline("summarization", model=short_sighted, max_new_tokens=9, min_length=0)
    text = " ".join(TEXTS[:2]) * 4
    parts = list(split_text(text, lambda part: len(ours.tokenizer.encode("summarize: " + part)) < 40))
    assert len(parts) > 3 and "".join(parts) == text
    joined = " ".join(ours(part)[0]["summary_text"].strip() for part in parts)
    while len(ours.tokenizer.encode("summarize: " + joined, add_special=True)) > 40:
        parts = list(split_text(joined, lambda part: len(ours.tokenizer.encode("summarize: " + part)) < 40))
        joined = " ".join(ours(part)[0]["summary_text"].strip() for part in parts)
    assert ours(text, long="map_reduce") == ours(joined)
    greedy = {"long": "map_reduce", "num_beams": 1, "min_new_tokens": 4}  # else a model this small may write nothing
    (whole,) = ours(text, **greedy)
    assert "".join(ours(text, stream=True, **greedy)) == whole["summary_text"] != ""
    with pytest.raises(RequestError, match=r"the summaries of \d+ parts have \d+ tokens"):
        ours(text, long="map_reduce", max_new_tokens=60, min_new_tokens=60)


@pytest.mark.parametrize("size", [1, 3, 7, 20, 400])
def test_parts_of_a_text_end_where_sentences_do_and_join_to_it(size: int) -> None:
    text = "One. Two words! Three “quoted.” Words here? 春眠不觉晓。处处闻啼鸟！\nA line\n\nlongwordwithoutany. end"
    parts = list(split_text(text, lambda part: len(part) <= size))
    assert "".join(parts) == text
    assert all(len(part) <= size for part in parts)
    if size == 20:
        assert parts[:3] == ["One. Two words! ", "Three “quoted.” ", "Words here? 春眠不觉晓。"]
    if size == 400:
        assert parts == [text]


def test_logprobs_and_stop_strings(folders: dict[str, Path]) -> None:
    ours = pipeline("text-generation", model=folders["llama"], return_full_text=False, max_new_tokens=20)
    (found,) = ours(TEXTS[0], logprobs=True)
    assert 4 < len(found["logprobs"]) <= 20 and all(value <= 0 for value in found["logprobs"])
    stop = found["generated_text"][4:6]
    for name in ("stop", "stop_strings", "stop_sequence"):
        assert ours(TEXTS[0], **{name: stop}) == [{"generated_text": found["generated_text"].partition(stop)[0]}]


def test_a_chat_is_answered_as_in_transformers(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "chat"
    shutil.copytree(folders["llama"], folder)
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
    )
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}))
    ours, reference = pipeline("text-generation", model=folder), theirs("text-generation", folder)
    chat = [{"role": "user", "content": "Return the axis."}]
    assert ours(chat, **GREEDY) == reference(chat, **GREEDY)
    assert ours([chat, chat], **GREEDY) == reference([chat, chat], **GREEDY)
    assert ours(chat, return_full_text=False, **GREEDY) == reference(chat, return_full_text=False, **GREEDY)
    begun = [*chat, {"role": "assistant", "content": "The"}]
    assert ours(begun, **GREEDY) == reference(begun, **GREEDY)
    # A template without a prompt of its own: the answer is asked for as training has it.
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template.partition("{% if")[0]}))
    ours = pipeline("text-generation", model=folder, return_full_text=False, **GREEDY)
    asked = ours.tokenizer.decode(encode_chat_prompt(ours.tokenizer, chat))
    assert asked == "user: Return the axis.\nassistant: " and ours(chat) == ours(asked)
    with pytest.raises(RequestError, match="texts and chats in one list"):
        ours([chat, "text"])
    with pytest.raises(ConfigError, match="template"):
        pipeline("text-generation", model=folders["llama"])(chat)


def test_control_tokens_in_a_text_are_text_unless_asked_for(t5_folder: Path) -> None:
    ours, text = pipeline("text2text-generation", model=t5_folder), "Return the <extra_id_0> of the <extra_id_1>."
    reader = transformers.AutoTokenizer.from_pretrained(t5_folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(t5_folder)
    written = model.generate(reader(text, return_tensors="pt").input_ids, max_new_tokens=9)
    options = {"max_new_tokens": 9, "logprobs": True}
    asked, plain = (ours(text, split_special_tokens=split, **options)[0] for split in (False, True))
    assert asked["generated_text"] == reader.decode(written[0], skip_special_tokens=True)
    assert plain == ours(text, **options)[0] and plain["logprobs"] != asked["logprobs"]


def test_an_opened_model_needs_its_tokenizer(folders: dict[str, Path]) -> None:
    model, tokenizer = load(folders["llama"])
    ours = pipeline("text-generation", model=model, tokenizer=tokenizer, device=-1)
    assert ours(TEXTS[0], **GREEDY) == pipeline("text-generation", model=folders["llama"])(TEXTS[0], **GREEDY)
    with pytest.raises(ConfigError, match="without its tokenizer"):
        pipeline("text-generation", model=model)


REFUSED: list[tuple[str, str | None, dict[str, Any], str]] = [
    ("summon", "llama", {}, r"no task 'summon' .*expected one of text-generation"),
    ("text-generatoin", "llama", {}, "did you mean text-generation"),
    ("token-classification", None, {}, "needs a model: no starter serves it"),
    ("translation_en_to_zh", None, {}, "opus-mt-en-zh"),
    ("fill-mask", "llama", {}, "family decoder; fill-mask needs encoder"),
    ("text-generation", "bert", {}, "family encoder; text-generation needs decoder"),
    ("text-generation", "llama", {"max_tokens": 3}, "has no option max_tokens; expected for example max_new_tokens"),
    ("text-generation", "llama", {"batch_size": 0}, "batch_size is 0; expected at least 1"),
    ("text-generation", "llama", {"long": "map_reduce"}, "text-generation has no option long"),
    ("summarization", "t5", {"long": "map"}, "long is 'map'; expected 'map_reduce' or nothing"),
    (
        "summarization",
        "t5",
        {"truncation": "only_first"},
        "'only_first'; expected True, False or nothing",
    ),
    ("text-generation", "llama", {"handle_long_generation": "cut"}, "expected 'hole' or nothing"),
]


@pytest.mark.parametrize(("task", "name", "options", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_what_it_cannot_do_is_said(
    task: str, name: str | None, options: dict[str, Any], message: str, folders: dict[str, Path]
) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline(task, model=folders[name] if name else None, **options)


def test_wrong_inputs_are_said(folders: dict[str, Path], t5_folder: Path) -> None:
    ours = pipeline("text-generation", model=folders["llama"])
    with pytest.raises(RequestError, match="0 inputs; expected one argument"):
        ours()
    with pytest.raises(RequestError, match="2 inputs; expected one argument"):
        ours("a", "b")
    with pytest.raises(RequestError, match="an input of type int"):
        ours(3)
    with pytest.raises(RequestError, match="an input of type int"):
        ours([3])
    with pytest.raises(RequestError, match="the prompt is empty"):
        ours("")
    with pytest.raises(ConfigError, match=r"does not know translation_en_to_zh; expected one of translation_en_to_de"):
        pipeline("translation_en_to_zh", model=t5_folder)
