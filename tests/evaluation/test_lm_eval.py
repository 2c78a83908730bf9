"""trivium inside lm-eval: log-likelihoods and texts of local tasks equal those of lm-eval's own `hf` model."""

import importlib.util
import json
import random
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.training.tuned import ANIMALS, COLOURS, make_model, make_tokenizer, write_rows
from trivium.errors import ConfigError
from trivium.evaluation import lm_eval as adapter
from trivium.generation import SamplingConfig, generate

ROOT = Path(__file__).parent.parent.parent
MISSING = importlib.util.find_spec("lm_eval") is None
needs_lm_eval = [
    pytest.mark.lm_eval,
    pytest.mark.skipif(MISSING, reason="lm-eval is not installed: pip install 'trivium[lm-eval]'"),
    pytest.mark.filterwarnings("ignore"),  # of its dependencies
]
LOCAL = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
"""
CHOICE = (
    LOCAL
    + """
task: trivium_choice
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}]
"""
)
ROLLING = (
    LOCAL
    + """
task: trivium_rolling
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: word_perplexity}}]
"""
)
WRITING = (
    LOCAL
    + """
task: trivium_writing
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{text}}}}"
generation_kwargs: {{until: ["{stop}"], max_gen_toks: 12, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three tasks and their rows, of lengths from an empty context to more than a model reads."""
    folder, draw, rows = tmp_path_factory.mktemp("tasks"), random.Random(3), []
    for number in range(12):
        question = " ".join(draw.choices([*ANIMALS, *COLOURS], k=draw.choice((1, 3, 9, 40)))) if number else ""
        choices = [" " + " ".join(draw.choices(COLOURS, k=draw.randint(1, 3))) for _ in range(3)]
        rows.append({"question": question, "choices": choices, "answer": 0, "text": question + choices[1]})
    write_rows(folder / "rows.jsonl", rows)
    write_rows(folder / "asked.jsonl", rows[1:])
    for name, text, file in (
        ("choice", CHOICE, "rows"),
        ("rolling", ROLLING, "rows"),
        ("writing", WRITING, "asked"),
    ):
        (folder / f"{name}.yaml").write_text(text.format(file=folder / f"{file}.jsonl", stop="brown"), encoding="utf-8")
    return folder


def answers(model: str, folder: Path, tasks: Path, names: list[str], **settings: Any) -> dict[str, list[Any]]:
    """Every response of a model to the requests of some tasks, in order."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    found = simple_evaluate(
        model=model,
        model_args={"pretrained": str(folder), **settings},
        tasks=names,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        batch_size=5,
        device="cpu",
        bootstrap_iters=0,
    )
    return {name: [sample["resps"] for sample in samples] for name, samples in found["samples"].items()}


def flat(value: Any) -> list[float]:
    if isinstance(value, list | tuple):
        return [each for part in value for each in flat(part)]
    return [1.0 if value in (True, "True") else 0.0 if value in (False, "False") else float(value)]


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HF_HOME", str(tmp_path / "hf")), ("HF_DATASETS_CACHE", str(tmp_path / "data"))):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


class TestBesideLmEval:
    pytestmark = needs_lm_eval

    @pytest.mark.parametrize("kind", ["decoder", "gpt2", "encoder_decoder"])
    def test_the_answers_are_those_of_hf(self, kind: str, tmp_path: Path, tasks: Path, private: None) -> None:
        names = ["trivium_choice", "trivium_rolling", "trivium_writing"]
        if kind == "encoder_decoder":
            names = names[2:] + names[:1]
        folder = make_folder(tmp_path / "model", kind)
        theirs = answers("hf", folder, tasks, names, dtype="float32")
        adapter.register()
        ours = answers("trivium", folder, tasks, names)
        assert ours.keys() == theirs.keys() == set(names)
        for name in names:
            if name == "trivium_writing":
                written, expected = flat_text(ours[name]), flat_text(theirs[name])
                if kind == "encoder_decoder":  # there `hf` adds the length of the padded source to max_gen_toks
                    assert all(map(str.startswith, expected, written))
                else:
                    assert written == expected
                assert any(written)
            else:
                assert len(flat(ours[name])) == len(flat(theirs[name])) >= 12
                assert flat(ours[name]) == pytest.approx(flat(theirs[name]), abs=1e-4)

    def test_the_command_line(self, tmp_path: Path, tasks: Path, private: None) -> None:
        folder = make_folder(tmp_path / "model", "decoder")
        words = ["run", "--model", "trivium", "--model_args", f"pretrained={folder}", "--tasks", "trivium_choice"]
        words += ["--include_path", str(tasks), "--output_path", str(tmp_path / "out"), "--log_samples"]
        done = subprocess.run(
            [sys.executable, "-m", "trivium.evaluation.lm_eval", *words], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert "trivium_choice" in done.stdout and "acc" in done.stdout
        (file,) = (tmp_path / "out").rglob("results_*.json")
        assert json.loads(file.read_text(encoding="utf-8"))["config"]["model"] == "trivium"


def flat_text(value: Any) -> list[str]:
    return [each for part in value for each in flat_text(part)] if isinstance(value, list | tuple) else [value]


def make_folder(folder: Path, kind: str) -> Path:
    tokenizer = make_tokenizer()
    if kind == "gpt2":  # learned positions, which end
        shape = {"position": "learned", "max_positions": 32, "norm": "layer", "activation": "gelu_tanh"}
        shape |= {"gated_ffn": False, "qkv_bias": True, "bias": True, "tie_embeddings": True}
        return make_model(folder, "decoder", tokenizer, **shape)
    shapes: dict[str, dict[str, Any]] = {"decoder": {"max_positions": 64}, "encoder_decoder": {"tie_embeddings": True}}
    return make_model(folder, kind, tokenizer, **shapes.get(kind, {}))


def test_without_lm_eval_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(ConfigError, match=r"pip install 'trivium\[lm-eval\]'"):
        adapter.register()
    with pytest.raises(SystemExit, match="2"):
        adapter.main()
    assert capsys.readouterr().err.startswith("error: lm-eval was asked for")


def test_the_entry_point_gives_a_model_of_lm_evals_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    (entry,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lm_eval.models"].items()
    point = EntryPoint(*entry, "lm_eval.models")
    theirs = type("TemplateLM", (), {})
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", SimpleNamespace(TemplateLM=theirs))
    made = point.load()
    assert point.name == "trivium" and made.__mro__[1:3] == (adapter.Scorer, theirs)
    assert (made.__module__, made.__name__) == (point.module, point.attr), "lm-eval compares them"
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(ConfigError, match="lm-eval was asked for and is missing"):
        point.load()
    with pytest.raises(AttributeError, match="no attribute 'OtherLM'"):
        adapter.OtherLM  # noqa: B018  # that it raises is what is tested


def ask(scorer: Any, text: str, until: list[str]) -> str:
    return scorer.generate_until([SimpleNamespace(args=(text, {"until": until, "max_gen_toks": 6}))])[0]


def test_a_folders_ends_and_bans_hold(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", "decoder")
    hook = SimpleNamespace(add_partial=lambda *_: None)

    def made() -> Any:
        scorer = adapter.Scorer(str(folder), trust_remote_code=True, dtype="float32")
        scorer.cache_hook = hook
        return scorer

    scorer = made()
    whole = ask(scorer, "the owl is", [])
    ids = scorer.tokenizer.encode("the owl is")
    (free,) = generate(scorer.model, [ids], SamplingConfig(max_new_tokens=6), tokenizer=scorer.tokenizer)
    assert whole == free.text and len(free.ids) == 6
    end = next(each for each in free.ids if each not in free.ids[:1])
    file = folder / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": [scorer.config.eos_id, end], "do_sample": True}), encoding="utf-8")
    (short,) = generate(
        scorer.model, [ids], SamplingConfig(max_new_tokens=6, eos_token_id=(end,)), tokenizer=scorer.tokenizer
    )
    assert ask(made(), "the owl is", []) == short.text != whole
    file.write_text(json.dumps({"suppress_tokens": [free.ids[0]]}), encoding="utf-8")
    assert ask(made(), "the owl is", []) != whole
    assert ask(made(), "", []), "no context is a context of one token"
    with pytest.raises(ConfigError, match=r"--model_args has parallelize; expected pretrained, .*; drop it"):
        adapter.Scorer(str(folder), parallelize=True)


def test_a_control_token_ends_an_answer_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer: Any = adapter.Scorer(str(make_folder(tmp_path / "model", "decoder")))
    scorer.cache_hook = SimpleNamespace(add_partial=lambda *_: None)
    control = next(each for each in sorted(scorer.tokenizer.control_ids) if each != scorer.config.eos_id)
    word = scorer.tokenizer.backend.id_to_token(control)
    seen = []
    monkeypatch.setattr(adapter, "generate", lambda model, prompts, config, **_: seen.append(config) or [])
    with pytest.raises(ValueError, match="zip"):
        ask(scorer, "the owl is", ["brown", word, ""])
    assert seen[0].stop == ("brown",) and set(seen[0].eos_token_id) == {scorer.config.eos_id, control}


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="family encoder with head language for lm-eval"):
        adapter.Scorer(str(make_folder(tmp_path / "model", "encoder")))
