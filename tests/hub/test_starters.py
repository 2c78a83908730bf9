"""`starter:NAME` wherever a model is named; who serves a task is read from the folders; the real ones are small."""

import io
import sys
import warnings
from pathlib import Path

import pytest
import torch

from tests.generation.spelling import TEXTS
from tests.shelf import STARTERS, fill_shelf
from trivium import AutoModelForSeq2SeqLM, AutoTokenizer, finetune, load, pipeline
from trivium.cli import main
from trivium.errors import ConfigError, HubError
from trivium.hub.resolve import resolve_folder
from trivium.hub.starters import choose_starter, list_starters, read_card, served_tasks, starters_folder

ASKED = {"fill-mask": "Return the [MASK] of the array.", "text-generation": "《春夜》李白 五言绝句"}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fill_shelf(tmp_path / "shelf", monkeypatch)


def test_a_starter_is_named_wherever_a_model_is(shelf: Path, tmp_path: Path) -> None:
    assert list(list_starters()) == list(STARTERS) and resolve_folder("starter:poet-zh") == shelf / "poet-zh"
    assert load("starter:poet-zh")[0].config.family == "decoder"
    assert AutoModelForSeq2SeqLM.from_pretrained("starter:summarizer-en").config.family == "encoder_decoder"
    assert AutoTokenizer.from_pretrained("starter:reader-en").mask_token == "[MASK]"
    rows = [{"source": text, "target": text[:9]} for text in TEXTS] * 3
    settings = {"steps": 1, "run": str(tmp_path / "run"), "quiet": True, "on_long": "truncate"}
    tuned = finetune("starter:summarizer-en", "summarization", {"train": rows, "valid": rows[:2]}, **settings)
    assert load(tuned.folder)[0].config.family == "encoder_decoder"


def test_an_unknown_name_lists_the_known_ones(shelf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="no starter 'poet'; expected one of poet-zh, reader-en, summarizer-en"):
        load("starter:poet")
    monkeypatch.setattr("trivium.hub.starters.starters_folder", lambda: tmp_path / "nothing")
    with pytest.raises(HubError, match="no starter 'poet'; this installation has none"):
        load("starter:poet")


def test_cards_say_who_serves_a_task(shelf: Path) -> None:
    assert served_tasks(shelf / "summarizer-en") == ("summarization", "trivium", "text2text-generation")
    assert choose_starter("text2text-generation") == "starter:summarizer-en"
    card = shelf / "poet-zh" / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("- trivium", "- summarization"), encoding="utf-8")
    assert choose_starter("summarization") == "starter:summarizer-en", "whose own task it is comes first"
    with pytest.raises(ConfigError, match=r"no starter serves it \(poet-zh \(text-generation\), reader-en"):
        choose_starter("question-answering")
    card.write_text("no front matter")
    assert read_card(shelf / "poet-zh") == {} and choose_starter("summarization") == "starter:summarizer-en"
    card.write_text("---\na: [\n---\n")
    with pytest.raises(HubError, match="front matter that is no YAML"):
        read_card(shelf / "poet-zh")


def test_of_two_that_write_the_english_one_answers(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert choose_starter("text-generation") == "starter:poet-zh"
    assert pipeline("text-generation").model.config.family == "decoder"
    assert capsys.readouterr().err == "text-generation: no model was named, so starter:poet-zh does it (language: zh)\n"
    (shelf / "poet-zh").rename(shelf / "writer-en")
    fill_card = (shelf / "writer-en" / "README.md").read_text(encoding="utf-8").replace("language: zh", "language: en")
    (shelf / "a-poet").mkdir()
    for path in (shelf / "writer-en").iterdir():
        (shelf / "a-poet" / path.name).write_bytes(path.read_bytes())
    (shelf / "writer-en" / "README.md").write_text(fill_card, encoding="utf-8")
    assert choose_starter("text-generation") == "starter:writer-en"


def test_what_a_killed_packing_left_is_no_starter(shelf: Path) -> None:
    (shelf / "poet-zh").rename(shelf / ".poet-zh.new.tmp")
    assert list(list_starters()) == ["reader-en", "summarizer-en"]


def test_a_pipeline_without_a_model(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = pipeline("summarization", model=shelf / "summarizer-en")(TEXTS[0], max_new_tokens=5)
    assert capsys.readouterr().err == ""
    assert pipeline("summarization")(TEXTS[0], max_new_tokens=5) == expected
    assert (
        capsys.readouterr().err
        == "summarization: no model was named, so starter:summarizer-en does it (language: en)\n"
    )
    with pytest.raises(ConfigError, match="token-classification needs a model: no starter serves it"):
        pipeline("ner")


def test_run_without_a_model(shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (expected,) = pipeline("summarization", model=shelf / "summarizer-en")(TEXTS[0], max_new_tokens=5)

    def run(*words: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["trivium", "run", *words])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXTS[0].encode())))
        try:
            main()
        except SystemExit as end:
            assert end.code in (0, 2)
        return capsys.readouterr()

    out, err = run("summarization", "max_new_tokens=5")
    assert out == expected["summary_text"] + "\n" and err.count("\n") == 1 and "starter:summarizer-en" in err
    assert run("summarization", "starter:summarizer-en", "max_new_tokens=5") == (out, "")
    out, err = run("ner")
    assert (
        out == "" and err.startswith("error: token-classification needs a model: no starter") and err.count("\n") == 1
    )


def test_the_real_ones_are_small_and_answer_in_float32() -> None:
    sizes = {name: sum(path.stat().st_size for path in folder.rglob("*")) for name, folder in list_starters().items()}
    print(sizes)
    everything = sum(path.stat().st_size for path in starters_folder().rglob("*"))
    assert all(size <= 12_000_000 for size in sizes.values()) and everything <= 40_000_000
    for name, folder in list_starters().items():
        model, _ = load(folder)
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters()), name
        task = served_tasks(folder)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert pipeline(task, model=f"starter:{name}")(ASKED.get(task, TEXTS[0])), name
