"""The main job in twenty seconds: all three families, on a few files, held-out text kept apart."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.shelf import fill_shelf
from trivium.data.shards import Shards
from trivium.demo import run_demo
from trivium.hub.starters import read_language, served_tasks
from trivium.story import ASKED
from trivium.tokenizer import Tokenizer

# One worker, or each would train a demo of its own.
pytestmark = pytest.mark.xdist_group("demo")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("a folder with spaces")
    with pytest.MonkeyPatch.context() as patch:  # whatever starters there are
        patch.setattr("trivium.hub.starters.starters_folder", lambda: home / "none")
        run_demo(minutes=0.2, out=home / "demo", limit_files=400)
        yield home / "demo"


def test_demo_json_has_every_key(demo: Path) -> None:
    report = json.loads((demo / "demo.json").read_text())
    assert set(report) == {"machine", "seconds", "decoder", "encoder", "encoder_decoder", "rewriting"}
    common = {"parameters", "tokens", "loss_before", "loss_after", "bits_per_byte", "folder"}
    for family in ("decoder", "encoder", "encoder_decoder"):
        assert common <= set(report[family])
        assert report[family]["loss_after"] < report[family]["loss_before"]
        assert (Path(report[family]["folder"]) / "model.safetensors").is_file()
    assert {"masked_accuracy", "baseline_accuracy"} <= set(report["encoder"])
    wanted = {"spans_test", "exact", "token_accuracy", "baseline_exact", "baseline_token_accuracy"}
    assert wanted <= set(report["rewriting"]) and report["rewriting"]["spans_test"] > 0


def test_the_folders_open_in_transformers(demo: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer

    readers = {"writer": AutoModelForCausalLM, "reader": AutoModelForMaskedLM, "rewriter": AutoModelForSeq2SeqLM}
    for name, reader in readers.items():
        reader.from_pretrained(demo / name / "final")
        assert AutoTokenizer.from_pretrained(demo / name / "final")("Return the").input_ids


def test_the_report_is_self_contained(demo: Path) -> None:
    for name in ("writer", "reader", "rewriter"):
        page = (demo / name / "report.html").read_text()
        assert "<svg" in page and not re.search(r"(src|href)=", page) and "<script" not in page


def test_no_held_out_text_was_trained_on(demo: Path) -> None:
    tokenizer = Tokenizer.load(demo / "data" / "tokenizer")
    train = Shards(demo / "data", "train")
    seen = tokenizer.decode(np.asarray(train.read(0, train.num_tokens)).tolist())
    held = [json.loads(line)["text"] for line in (demo / "data" / "valid.jsonl").read_text().splitlines()]
    assert held and not [text for text in held if len(text) > 80 and text in seen]


def test_a_second_time_it_answers_at_once(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((demo / "demo.json").read_text())
    run_demo(minutes=0.2, out=demo, limit_files=400)
    after = json.loads((demo / "demo.json").read_text())
    assert {name: before[name] for name in before if name != "seconds"} == {
        name: after[name] for name in after if name != "seconds"
    }
    assert "trivium generate" in capsys.readouterr().out


def test_starters_answer_first(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_shelf(tmp_path / "shelf", monkeypatch)
    report = run_demo(minutes=0.2, out=demo, limit_files=400)
    said = capsys.readouterr().out
    assert list(report["starters"]) == ["poet-zh", "reader-en", "summarizer-en"]
    assert said.index("poet-zh: 《春夜》") < said.index("summarizer-en: Tessel is") < said.index("Machine: ")


def test_each_question_has_a_starter_that_answers_it_and_each_starter_one() -> None:
    folders = [path.parent for path in (Path(__file__).parents[1] / "starters").glob("*/config.json")]
    served = {(served_tasks(folder)[0], read_language(folder)) for folder in folders}
    assert set(ASKED) == served


def test_it_speaks_chinese(demo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    run_demo(minutes=0.2, out=demo, limit_files=400)
    assert "编码器阅读" in capsys.readouterr().out


def test_own_chinese_text(tmp_path: Path) -> None:
    characters = list("春眠不觉晓处闻啼鸟白日依山尽黄河入海流床前明月光疑是地上霜红豆生南国来发几枝")
    generator = np.random.default_rng(0)
    lines = ("".join(generator.choice(characters, 5)) for _ in range(4000))
    text = "\n\n".join(f"{line}," + next(lines) + "。" for line in lines)
    (tmp_path / "诗.txt").write_text(text, encoding="utf-8")
    report = run_demo(str(tmp_path / "诗.txt"), minutes=0.05, out=tmp_path / "out")
    assert report["decoder"]["loss_after"] < report["decoder"]["loss_before"]
