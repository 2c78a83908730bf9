"""The command line as a person meets it: exit codes, one-sentence errors, the whole small life of a model."""

import json
import pydoc_data.topics
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import trivium
from trivium.cli import main
from trivium.errors import CheckpointError, ConfigError, DataError, HubError, RequestError


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command, in this process."""
    monkeypatch.setattr(sys, "argv", ["trivium", *map(str, words)])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "my text"
    folder.mkdir()
    for number, topic in enumerate(list(pydoc_data.topics.topics.values())[:16]):
        (folder / f"{number:02d}.txt").write_text(topic, encoding="utf-8")
    return folder


RECIPE = {
    "family": "decoder",
    "data": {"seq_len": 32, "rows_per_batch": 2, "valid_rows": 8, "tokenizer": {"vocab_size": 512}},
    "size": {"width": 32, "layers": 1, "head_size": 16},
    "budget": {"steps": 6},
}

WRONG = [
    (["pretrain", "missing.yaml"], "there is no recipe at missing.yaml"),
    (
        ["finetune", "summarization", "model", "rows.jsonl", "--map", "source"],
        "a mapping says 'source'; expected such as",
    ),
    (["finetune", "summarisation", "model", "rows.jsonl"], "did you mean summarization?"),
    (["pretrain", "R", "size.widht=64"], "did you mean size.width?"),
    (["pretrain", "R", "size.width=wide"], "size.width is 'wide'"),
    (["pretrain", "R", "data.source=nowhere.txt"], "there is nothing at nowhere.txt"),
    (["pretrain", "R", "budget.minutes=3"], "exactly one of them"),
    (["generate", "nowhere", "text"], "nowhere"),
    (["evaluate", "nowhere", "nowhere.txt"], "there is nothing at nowhere.txt"),
    (["evaluate", "loss", "nowhere.txt"], "evaluate loss without a model"),
    (["evaluate", "summarization", "R"], "neither a model nor a baseline"),
    (["evaluate", "sumarization", "R", "--baseline", "lead"], "did you mean summarization?"),
    (["evaluate", "summarization", "nowhere", "--baseline", "lead"], "nowhere"),
    (["evaluate", "summarization", "R", "--baseline", "best"], "baseline 'best' for summarization; expected one of"),
    (["tokenizer", "train", "nowhere.txt", "--out", "t"], "there is nothing at nowhere.txt"),
    (["data", "inspect", "nowhere.txt"], "there is nothing at nowhere.txt"),
    (["demo", "--text", "nowhere.txt", "--minutes", "0.1"], "there is nothing at nowhere.txt"),
    (["pretrain", "R", "family=writer"], "family is 'writer'"),
    (["pretrain", "R", "size.width"], "'size.width' is no override"),
    (["pretrain", "R", "schema=9"], "upgrade trivium"),
    (["pretrain", "R", "run=R"], "R is a file; expected a folder"),
    (["pretrain", "R", "--minutes", "0"], "--minutes is 0.0; expected a number above 0"),
    (["pretrain", "R", "--minutes", "inf"], "--minutes is inf; expected a number above 0"),
    (["pretrain", "R", "data.tokenizer.folder=nowhere"], "nowhere is no folder"),
    (["data", "prepare", "R", "--out", "d", "--tokenizer", "nowhere"], "nowhere is no folder"),
    (["tokenizer", "train", "R", "--out", "R"], "R is a file; expected a folder"),
    (["tokenizer", "train", "R", "--out", "t", "--kind", "words"], "'words' is no kind of tokenizer"),
    (["tokenizer", "inspect", "nowhere", "text"], "nowhere is no folder"),
    (["generate", "nowhere", "text", "--top-p", "3"], "top_p is 3.0"),
    (["generate", "nowhere", "text", "--max-new-tokens", "-1"], "max_new_tokens is -1"),
    (["demo", "--minutes", "nan"], "--minutes is nan"),
    (["demo", "--out", "R"], "R is a file; expected a folder"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_said_in_one_sentence(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("R").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    code, out, err = run(monkeypatch, capsys, *words)
    assert code == 2
    assert message in err and "Traceback" not in err and out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["R"]  # before any work
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1


@pytest.mark.parametrize(
    "words",
    [["no-such-verb"], ["pretrain"], ["demo", "--minutes", "six"], ["generate", "a", "b", "--no-such-option"], []],
    ids=" ".join,
)
def test_usage_errors_exit_with_2(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(monkeypatch, capsys, *words)
    assert code == 2 and "Traceback" not in err


def test_the_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, capsys, "--version") == (0, f"trivium {trivium.__version__}\n", "")


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (ConfigError("a"), 2, "error: a\n"),
        (DataError("a"), 2, "error: a\n"),
        (HubError("a"), 2, "error: a\n"),
        (RequestError("a"), 2, "error: a\n"),
        (CheckpointError("a"), 1, "error: a\n"),
        (ValueError("a"), 1, "error: ValueError: a (run again with --debug for the traceback)\n"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(143), 143, ""),
        (SystemExit(75), 75, ""),
    ],
    ids=repr,
)
def test_each_end_has_its_code(
    error: BaseException,
    expected: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*words: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("trivium.data.prepare.inspect_data", fail)
    assert run(monkeypatch, capsys, "data", "inspect", "text") == (expected, "", message)
    if isinstance(error, Exception):
        with pytest.raises(type(error)):
            run(monkeypatch, capsys, "data", "inspect", "text", "--debug")


def test_debug_after_two_dashes_is_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(monkeypatch, capsys, "tokenizer", "inspect", "--", "nowhere", "--debug")
    assert code == 2 and err.startswith("error: nowhere is no folder")


def test_doctor_names_problems_and_remedies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trivium.machine.describe_problems", lambda: [("no spanner", "buy one")])
    code, out, _ = run(monkeypatch, capsys, "doctor", "--json")
    found = json.loads(out)
    assert code == 0 and found["problems"] == [{"problem": "no spanner", "remedy": "buy one"}]
    assert {"processor", "machine_class", "cores", "memory_bytes", "compute_dtype", "compiler", "torch"} <= set(found)
    code, out, _ = run(monkeypatch, capsys, "doctor")
    assert code == 0 and "1, see below" in out and out.endswith("no spanner\n    buy one\n")


def test_the_whole_small_life(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "run": str(tmp_path / "run")}), encoding="utf-8")
    code, out, _ = run(monkeypatch, capsys, "tokenizer", "train", text, "--out", tmp_path / "tok", "--vocab-size", 500)
    assert code == 0 and "500 tokens" in out
    code, out, _ = run(monkeypatch, capsys, "tokenizer", "inspect", tmp_path / "tok", "return the value", "--json")
    assert code == 0 and json.loads(out)["bytes_per_token"] > 1
    code, out, _ = run(monkeypatch, capsys, "data", "inspect", text, "--json")
    assert code == 0 and json.loads(out)["documents"] >= 16
    code, out, _ = run(monkeypatch, capsys, "data", "prepare", text, "--out", tmp_path / "data", "--vocab-size", 512)
    assert code == 0 and "train:" in out
    code, out, _ = run(monkeypatch, capsys, "pretrain", recipe, f"data.source={text}", "--json")
    result = json.loads(out)
    assert code == 0 and result["steps"] == 6 and Path(result["report"]).is_file()
    words = ("generate", result["folder"], "The value", "--greedy", "--max-new-tokens", 5)
    code, streamed, _ = run(monkeypatch, capsys, *words)
    code, out, _ = run(monkeypatch, capsys, *words, "--json")
    assert code == 0 and json.loads(out)["text"] == streamed[:-1]
    code, out, _ = run(monkeypatch, capsys, "evaluate", result["folder"], text / "03.txt", "--json")
    assert code == 0 and set(json.loads(out)) == {"loss", "perplexity", "bits_per_byte", "tokens"}
    words = ("evaluate", "loss", text / "03.txt", "--model", result["folder"], "--json")
    assert run(monkeypatch, capsys, *words)[:2] == (0, out)
    code, out, _ = run(monkeypatch, capsys, "doctor", "--json")
    assert code == 0 and json.loads(out)["cores"] >= 1


def test_systems_are_compared_from_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for part in ("train", "test"):
        rows = [{"article": f"{part} {each} text. More of it.", "title": f"{each} text"} for each in "abc"]
        (data / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ["evaluate", "summarization", data, "--baseline", "lead", "--baseline", "nearest", "--limit", 2]
    words += ["--map", "source=article", "--map", "target=title", "--out", out]
    code, table, _ = run(monkeypatch, capsys, *words)
    assert code == 0 and table.startswith("system ") and f"texts side by side: {out / 'comparison.html'}" in table
    code, line, _ = run(monkeypatch, capsys, *words, "--json")
    assert code == 0 and {each["name"] for each in json.loads(line)["systems"]} == {"lead", "nearest"}
    assert json.loads((out / "comparison.json").read_text(encoding="utf-8"))["texts"] == 2
    monkeypatch.chdir(tmp_path)
    code, table, _ = run(monkeypatch, capsys, *words[:-2])
    page = Path("runs/evaluation/summarization/comparison.html")
    assert code == 0 and f"texts side by side: {page}" in table and page.is_file()
    code, _, said = run(monkeypatch, capsys, *words[:-1], page / "out")
    assert code == 2 and f"{page} is a file; expected a folder to write to" in said


def test_the_installed_script_runs() -> None:
    done = subprocess.run([sys.executable, "-m", "trivium", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "rewrites" in done.stdout


def test_a_shelf_without_starters_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trivium.hub.starters.starters_folder", lambda: tmp_path / "shelf")
    said = f"there are no starters in {tmp_path / 'shelf'}; trivium starter make RECIPE makes one\n"
    assert run(monkeypatch, capsys, "starter", "list") == (0, "", said)
    assert run(monkeypatch, capsys, "starter", "list", "--json") == (0, "{}\n", "")


def test_sources_are_listed_and_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trivium.sources.catalogue import SOURCES, Source

    code, out, _ = run(monkeypatch, capsys, "data", "sources", "list")
    assert code == 0 and "poetry-zh" in out and "text: regular verse" in out
    assert json.loads(run(monkeypatch, capsys, "data", "sources", "list", "--json")[1]).keys() == SOURCES.keys()
    monkeypatch.setitem(SOURCES, "small", Source("one row", "text", lambda harvest: iter([("train", {"text": "a"})])))
    code, out, _ = run(monkeypatch, capsys, "data", "sources", "build", "small", "--out", tmp_path / "small")
    assert code == 0 and out.startswith("train  1 rows\n") and (tmp_path / "small" / "LICENCES.json").is_file()
    code, _, err = run(monkeypatch, capsys, "data", "sources", "build", "small", "--out", tmp_path / "small")
    assert code == 2 and "exists; expected a new folder" in err and "Traceback" not in err
    code, _, err = run(monkeypatch, capsys, "data", "sources", "build", "smal", "--out", tmp_path / "other")
    assert code == 2 and "there is no source 'smal'; expected one of debian-descriptions" in err
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code, _, err = run(monkeypatch, capsys, "data", "sources", "build", "debian-descriptions", "--out", tmp_path / "d")
    assert code == 2 and "comes by apt-get, which is not installed" in err
    assert "Debian's package indexes" in err and not (tmp_path / "d").exists()
