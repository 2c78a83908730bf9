"""The command line: one thin function a verb, imports inside, results to stdout, messages to stderr.

Exit codes: 0, 1 the run failed, 2 usage or bad input, 75, 130 and 143 after a signal, with everything saved.
"""

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="trivium: the encoder reads, the decoder writes, the encoder-decoder rewrites.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
tokenizer_app = typer.Typer(help="Train a tokenizer, or see what one does.", no_args_is_help=True)
data_app = typer.Typer(help="Prepare text for training, or see what is in it.", no_args_is_help=True)
app.add_typer(tokenizer_app, name="tokenizer")
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def main() -> None:
    """Run the command line; every error that a user can cause is one sentence on stderr."""
    from trivium.errors import CheckpointError, TriviumError
    from trivium.machine import share_cores

    share_cores()
    debug = _take_debug(sys.argv)
    try:
        app()
    except TriviumError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, CheckpointError) else 2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # the last place that can turn a traceback into a sentence
        if debug:
            raise
        print(f"error: {type(error).__name__}: {error} (run again with --debug for the traceback)", file=sys.stderr)
        sys.exit(1)


def _take_debug(words: list[str]) -> bool:
    """Remove `--debug` wherever it stands among the options; what follows `--` is the user's own text."""
    options = words[: words.index("--")] if "--" in words else words
    if "--debug" not in options:
        return False
    words.remove("--debug")
    return True


def _show_version(wanted: bool) -> None:
    if wanted:
        from trivium import __version__

        print(f"trivium {__version__}")
        raise typer.Exit


@app.callback()
def describe_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """The options of all verbs: `--debug` is taken by `main`, `--version` by its callback."""


@tokenizer_app.command("train")
def train_tokenizer_command(
    text: Annotated[Path, typer.Argument(help="A text file or a folder.")],
    out: Annotated[Path, typer.Option(help="Folder to save to.")],
    kind: Annotated[str, typer.Option(help="bpe, wordpiece or unigram.")] = "bpe",
    vocab_size: Annotated[int, typer.Option(help="Number of tokens.")] = 8192,
    num_sentinels: Annotated[int, typer.Option(help="T5's tokens for gaps.")] = 64,
    seed: Annotated[int, typer.Option(help="Chooses the sample of a text too long to hold.")] = 0,
) -> None:
    """Learn a tokenizer from text and save it as a Hugging Face folder."""
    from trivium.data.source import read_documents
    from trivium.tokenizer.train import train_tokenizer

    _refuse_file(out)
    texts = (document.text for document in read_documents(text))
    tokenizer = train_tokenizer(
        texts,
        kind=kind,  # type: ignore[arg-type]  # any other word is refused by name
        vocab_size=vocab_size,
        num_sentinels=num_sentinels,
        seed=seed,
    )
    tokenizer.save(out)
    print(f"{tokenizer.vocab_size} tokens in {out}")


@tokenizer_app.command("inspect")
def inspect_tokenizer_command(
    folder: Annotated[Path, typer.Argument(help="A folder with tokenizer.json.")],
    text: Annotated[str, typer.Argument(help="Text, or the path of a text file.")],
    as_json: Json = False,
) -> None:
    """Show the tokens of a text, bytes per token and tokens per second."""
    from trivium.data.source import read_documents
    from trivium.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(folder)
    is_file = len(text) < 1000 and Path(text).is_file()
    texts = [document.text for document in read_documents(Path(text))] if is_file else [text]
    report = tokenizer.measure(texts)
    shown = [tokenizer.token_text(token) for token in tokenizer.encode(texts[0][:400])]
    _print(
        {
            "kind": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "tokens": report.tokens,
            "bytes_per_token": round(report.bytes_per_token, 3),
            "tokens_per_second": round(report.tokens_per_second),
            "first_tokens": shown,
        },
        as_json,
    )


@data_app.command("prepare")
def prepare_command(
    text: Annotated[str, typer.Argument(help="A file, a folder, or `python` for this installation's documentation.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    vocab_size: Annotated[int, typer.Option(help="Size of the tokenizer that is trained.")] = 4096,
    tokenizer: Annotated[str, typer.Option(help="Use this tokenizer's folder instead of training one.")] = "",
) -> None:
    """Split, tokenize and shard text for training; held-out text leaves first."""
    from trivium.data.prepare import TokenizerConfig, prepare_data
    from trivium.data.shards import read_manifest

    _open_tokenizer(tokenizer)
    source: Any = "python" if text == "python" else Path(text)
    config = TokenizerConfig(vocab_size=vocab_size, folder=tokenizer)
    folder = prepare_data(source, out, tokenizer=config, progress=_say)
    parts = read_manifest(folder)["parts"]
    for name, part in parts.items():
        print(f"{name}: {part['documents']:,} documents, {part['tokens']:,} tokens, {part['bytes']:,} bytes")
    print(f"in {folder}")


@data_app.command("inspect")
def inspect_data_command(
    path: Annotated[Path, typer.Argument(help="A text file, a folder, or a prepared folder.")], as_json: Json = False
) -> None:
    """Show what a file, folder or prepared folder holds."""
    from trivium.data.prepare import inspect_data

    _print(inspect_data(path), as_json)


@app.command("plan")
def plan_command(
    name: Annotated[str, typer.Argument(help="A published size such as gpt3-175b, or a model folder.")],
    seq_len: Annotated[int, typer.Option(help="Tokens in a sequence; 0: the longest that the model has.")] = 0,
    as_json: Json = False,
) -> None:
    """Show the parameters, operations per token and memory of a size, without building it."""
    from dataclasses import asdict

    from trivium.model.sizes import plan_model

    model: Any = name
    if Path(name).is_dir():
        from trivium.hub.auto import load_model_config

        model = load_model_config(name)
    plan = plan_model(model, seq_len=seq_len)
    if as_json:
        _print({**asdict(plan), "training_bytes": plan.training_bytes}, as_json)
        return
    giga = {"weights": plan.weight_bytes, "gradients": plan.gradient_bytes, "AdamW": plan.optimizer_bytes}
    memory = ", ".join(f"{part} {size / 2**30:,.1f}" for part, size in giga.items())
    shown = {
        "parameters": f"{plan.parameters:,}",
        "FLOPs per token": f"{plan.forward_flops_per_token:.3g} forward, {plan.training_flops_per_token:.3g} in "
        f"training (at {plan.seq_len} tokens)",
        "weights": f"{plan.weight_bytes / 2**30:,.1f} GiB in float32, {plan.weight_bytes / 2**31:,.1f} in bfloat16",
        "training": f"{plan.training_bytes / 2**30:,.1f} GiB without activations ({memory})",
    }
    _print(shown, as_json)


@app.command("pretrain")
def pretrain_command(
    recipe: Annotated[str, typer.Argument(help="A YAML recipe.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value …")] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget of training time, instead of the recipe's.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget the run and start over.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model from nothing; the same command resumes."""
    from dataclasses import asdict

    from trivium.data.source import list_files
    from trivium.training.pretraining import pretrain
    from trivium.training.recipe import load_recipe

    budget = [] if minutes is None else [f"budget={{minutes: {_finite(minutes)}}}"]
    loaded = load_recipe(recipe, [*budget, *(overrides or [])])
    _refuse_file(Path(loaded.run))
    _open_tokenizer(loaded.data.tokenizer.folder)
    if loaded.data.source != "python":
        list_files(Path(loaded.data.source))
    result = pretrain(loaded, restart=restart, progress=_say)
    _print({**asdict(result), "report": str(Path(loaded.run) / "report.html")}, as_json)


@app.command("generate")
def generate_command(
    folder: Annotated[str, typer.Argument(help="A model folder or hub name.")],
    prompt: Annotated[str, typer.Argument(help="Text to continue, to rewrite, or with [MASK] to fill.")],
    greedy: Annotated[bool, typer.Option("--greedy", help="Always take the likeliest token.")] = False,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 64,
    temperature: Annotated[float, typer.Option(help="Below 1: safer.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Choose among the k likeliest; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Choose among the likeliest that hold this share.")] = 0.95,
    num_beams: Annotated[int, typer.Option(help="Beam search with so many beams.")] = 1,
    seed: Annotated[int, typer.Option(help="Equal seeds write equal texts.")] = 0,
    as_json: Json = False,
) -> None:
    """Write with a decoder, rewrite with an encoder-decoder, or fill an encoder's masks."""
    from trivium.generation.fill import fill_mask
    from trivium.generation.settings import SamplingConfig
    from trivium.generation.text import generate_text, stream_text
    from trivium.hub.auto import load

    plain = greedy or num_beams > 1
    config = SamplingConfig(
        max_new_tokens=max_new_tokens,
        do_sample=not plain,
        temperature=1.0 if plain else temperature,
        top_k=0 if plain else top_k,
        top_p=1.0 if plain else top_p,
        num_beams=num_beams,
        seed=seed,
    )
    model, tokenizer = load(folder)
    if model.config.family == "encoder":
        found = fill_mask(model, tokenizer, prompt, top_k=top_k or 5)
        rows = [[{"token": each.token_text, "probability": each.probability} for each in gap] for gap in found]
        if as_json:
            _print({"fills": rows}, as_json)
        for number, gap in enumerate([] if as_json else rows, start=1):
            print(f"gap {number}: " + "  ".join(f"{each['token']!r} {each['probability']:.1%}" for each in gap))
    elif as_json:
        (answer,) = generate_text(model, tokenizer, [prompt], config)
        _print({"prompt": prompt, "text": answer}, as_json)
    elif num_beams > 1:
        print(generate_text(model, tokenizer, [prompt], config)[0])
    else:
        for piece in stream_text(model, tokenizer, prompt, config):
            print(piece, end="", flush=True)
        print()


@app.command("convert")
def convert_command(
    source: Annotated[Path, typer.Argument(help="A folder with pytorch_model.bin, a GGUF file, or any model folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write, or a file that ends in .gguf.")],
    storage: Annotated[str, typer.Option(help="In GGUF: float32, float16, bfloat16 or q8_0.")] = "float16",
) -> None:
    """Turn pickled weights or a GGUF file into a safetensors folder, or a folder into a GGUF file for llama.cpp."""
    from trivium.hub.auto import load, load_model
    from trivium.hub.gguf import export_gguf, import_gguf
    from trivium.hub.pickled import convert_pickle

    if out.suffix == ".gguf":
        export_gguf(*load(str(source)), out, storage=storage)
        print(f"{storage} in {out}")
        return
    (import_gguf if source.suffix == ".gguf" else convert_pickle)(source, out)
    print(f"{load_model(out, dtype='stored').config.family} in {out}")


@app.command("run")
def run_command(
    task: Annotated[str, typer.Argument(help="summarization, translation_en_to_zh, text-classification, …")],
    folder: Annotated[str, typer.Argument(help="A model folder or hub name.")],
    options: Annotated[list[str] | None, typer.Argument(help="name=value …, such as num_beams=4")] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Each line is an input; one result a line.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each result as one line of JSON.")] = False,
) -> None:
    """Do a task with the text on standard input: trivium run TASK DIR < file."""
    from trivium.pipelines.command import decode_input, read_options, run_task, show_result

    text = decode_input(sys.stdin.buffer.read())
    for result in run_task(task, folder, text, lines=lines, options=read_options(options or [])):
        print(show_result(result, as_json=as_json, lines=lines), flush=True)


@app.command("evaluate")
def evaluate_command(
    folder: Annotated[str, typer.Argument(help="A model folder or hub name.")],
    file: Annotated[Path, typer.Argument(help="Text that the model has not seen.")],
    as_json: Json = False,
) -> None:
    """Loss, perplexity and bits per byte of a model on a text file."""
    from trivium.evaluation.run import evaluate_file

    report = evaluate_file(folder, file)
    names = ("loss", "perplexity", "bits_per_byte", "tokens")
    _print({name: getattr(report, name) for name in names}, as_json)


@app.command("doctor")
def doctor_command(as_json: Json = False) -> None:
    """Show what this machine is, what is missing, and what to do."""
    import platform
    from dataclasses import asdict
    from importlib.metadata import version

    from trivium import __version__
    from trivium.machine import describe_problems, inspect_machine

    machine, problems = inspect_machine(), describe_problems()
    versions = {"python": platform.python_version(), "torch": version("torch"), "trivium": __version__}
    if as_json:
        rows = [{"problem": problem, "remedy": remedy} for problem, remedy in problems]
        _print({**asdict(machine), **versions, "problems": rows}, as_json)
        return
    rates = f"float32 {machine.float32_gflops} GFLOP/s, bfloat16 {machine.bfloat16_gflops}"
    shown = {
        "processor": f"{machine.processor} ({machine.machine_class})",
        "cores": machine.cores,
        "memory": f"{machine.memory_bytes / 2**30:.1f} GiB",
        "device": machine.device,
        "computes in": f"{machine.compute_dtype} (measured: {rates})",
        "C++ compiler": machine.compiler or "none",
        **versions,
    }
    _print({**shown, "missing": "nothing" if not problems else f"{len(problems)}, see below"}, as_json)
    for problem, remedy in problems:
        print(f"\n{problem}\n    {remedy}")


@app.command("demo")
def demo_command(
    minutes: Annotated[float, typer.Option(help="Training time of all three models together.")] = 6.0,
    text: Annotated[str, typer.Option(help="Your own file or folder instead of Python's documentation.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = Path("runs/demo"),
    restart: Annotated[bool, typer.Option("--restart", help="Forget an earlier demo in that folder.")] = False,
) -> None:
    """Train a writer, a reader and a rewriter on real text, and see what they do."""
    from trivium.demo import run_demo

    _refuse_file(out)
    run_demo(text or None, minutes=_finite(minutes), out=out, restart=restart)


def _print(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(values, ensure_ascii=False))
        return
    width = max(map(len, values))
    for name, value in values.items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
        print(f"{name:<{width}}  {text}")


def _refuse_file(out: Path) -> None:
    """A folder to write that is a file would be found out only after the work."""
    from trivium.errors import ConfigError

    if out.is_file():
        raise ConfigError(f"{out} is a file; expected a folder to write to; name another")


def _open_tokenizer(folder: str) -> None:
    """A wrong folder is found before any text is read."""
    from trivium.tokenizer.tokenizer import Tokenizer

    if folder:
        Tokenizer.load(folder)


def _finite(minutes: float) -> float:
    """Training time that begins and ends."""
    from trivium.errors import ConfigError

    if not 0 < minutes < math.inf:
        raise ConfigError(f"--minutes is {minutes}; expected a number above 0, such as 6; change it")
    return minutes


def _say(message: str) -> None:
    print(f"{message} …", file=sys.stderr, flush=True)
