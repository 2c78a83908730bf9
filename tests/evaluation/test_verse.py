"""Form and copying of verse, by hand; and a model that writes to the titles of held-out poems."""

import json
from pathlib import Path

import pytest

from tests.generation.spelling import speaker
from trivium.errors import ConfigError, DataError
from trivium.evaluation import verse
from trivium.evaluation.verse import CopyRate, evaluate_verse, find_seen, has_form, measure_copying
from trivium.generation.settings import SamplingConfig
from trivium.hub.auto import save_model

QUIET = ["床前明月光，", "疑是地上霜。", "举头望明月，", "低头思故乡。"]
DAWN = ["春眠不觉晓，", "处处闻啼鸟。", "夜来风雨声，", "花落知多少。"]
TOWER = ["白日依山尽，", "黄河入海流。", "欲穷千里目，", "更上一层楼。"]


def rows_of(*poems: list[str], form: str = "五言绝句") -> str:
    rows = [{"title": f"其{n}", "author": "某", "form": form, "lines": poem} for n, poem in enumerate(poems)]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_form_by_hand() -> None:
    assert has_form("\n".join(QUIET), "五言绝句")
    assert not has_form("\n".join(QUIET), "七言绝句") and not has_form("\n".join(QUIET), "五言律诗")
    assert has_form("\n".join(QUIET + DAWN), "五言律诗")
    for wrong in (
        QUIET[:3],
        [*QUIET, ""],
        ["床前明月，", *QUIET[1:]],
        ["床前明月光", *QUIET[1:]],
        ["床前\ufffd月光，", *QUIET[1:]],
    ):
        assert not has_form("\n".join(wrong), "五言绝句"), wrong


def test_copying_by_hand(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(rows_of(QUIET, DAWN), encoding="utf-8")
    mixed = "\n".join([*QUIET[:2], DAWN[0], TOWER[1]])  # three verses of four, one couplet of two
    crossed = "\n".join([QUIET[1], QUIET[2], *TOWER[:1]])  # no couplet there; the last has no fellow
    seen = find_seen([mixed, crossed], tmp_path / "train.jsonl")
    assert measure_copying([mixed], seen) == CopyRate(0.75, 0.5)
    assert measure_copying([mixed, crossed], seen) == CopyRate(5 / 7, 1 / 3)
    assert measure_copying(["nothing"], seen) == CopyRate(0.0, 0.0)


@pytest.mark.parametrize("first_verse", [False, True])
def test_a_model_writes_to_held_out_titles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_verse: bool) -> None:
    (tmp_path / "train.jsonl").write_text(rows_of(QUIET, DAWN), encoding="utf-8")
    (tmp_path / "test.jsonl").write_text(rows_of(TOWER, [*DAWN[:1], *TOWER[1:]]), encoding="utf-8")
    model, tokenizer = speaker("llama")
    save_model(model, tmp_path / "poet", tokenizer=tokenizer)
    prompts: list[str] = []

    def answer(model: object, tokenizer: object, texts: list[str], config: SamplingConfig) -> list[str]:
        prompts.extend(texts)
        return ["\n".join(QUIET[first_verse:]) + "\n", "\n".join(TOWER[:2])]

    report = evaluate_verse(tmp_path / "poet", tmp_path, config=SamplingConfig(max_new_tokens=4))
    assert len(report.poems) == 2 and report.legal == 0, "random weights"
    monkeypatch.setattr(verse, "generate_text", answer)
    report = evaluate_verse(tmp_path / "poet", tmp_path, first_verse=first_verse)
    assert sorted(prompts)[0].startswith("《其0》某 五言绝句\n" + (TOWER[0] + "\n" if first_verse else ""))
    assert report.legal == 1 and report.legal_share == 0.5
    copied = CopyRate(3 / 5, 1 / 3) if first_verse else CopyRate(4 / 6, 2 / 3)
    assert report.copied == copied and report.real == CopyRate(0.0 if first_verse else 1 / 8, 0.0)


@pytest.mark.parametrize("poems", [0, -1])
def test_no_poems_have_no_shares(poems: int) -> None:
    with pytest.raises(ConfigError, match=rf"poems is {poems}; expected 1 or more, .*; raise it"):
        evaluate_verse("nowhere", "nowhere", poems=poems)


def test_other_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test.jsonl cannot be read"):
        evaluate_verse("nowhere", tmp_path)
    for row in ('{"text": "a"}\n', "[1]\n"):
        (tmp_path / "test.jsonl").write_text(row)
        with pytest.raises(DataError, match="expected the source poetry-zh"):
            evaluate_verse("nowhere", tmp_path)
