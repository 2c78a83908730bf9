"""Text in, text out: a model and its tokenizer together. Leaves the model's mode and weights as they are."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from trivium.errors import ConfigError
from trivium.generation.row import Row, start_rows
from trivium.generation.settings import SamplingConfig
from trivium.generation.stream import TextStream
from trivium.generation.write import generate, write_rows
from trivium.model import Transformer

if TYPE_CHECKING:
    from trivium.tokenizer import Tokenizer


def generate_text(
    model: Transformer, tokenizer: "Tokenizer", texts: Sequence[str], config: SamplingConfig | None = None
) -> list[str]:
    """What the model writes after (or, encoder–decoder, in answer to) each text; the prompts are not repeated.

    `num_return_sequences` answers to one text stand next to each other. Raises what `generate` raises.
    """
    prompts = tokenizer.encode_batch(texts, add_special=True)
    return [found.text or "" for found in generate(model, prompts, config, tokenizer=tokenizer)]


def stream_text(
    model: Transformer, tokenizer: "Tokenizer", text: str, config: SamplingConfig | None = None
) -> Iterator[str]:
    """The same for one text, in pieces as they become certain; joined they equal `generate_text`'s answer.

    Raises what `generate` raises, and `ConfigError` for beams, whose text is known only at the end, or several answers.
    """
    (prompt,) = tokenizer.encode_batch([text], add_special=True)
    return stream_ids(model, tokenizer, prompt, config or SamplingConfig())


def stream_ids(
    model: Transformer, tokenizer: "Tokenizer", prompt: Sequence[int], config: SamplingConfig
) -> Iterator[str]:
    """The same after a prompt that is token ids already."""
    for name in ("num_beams", "num_return_sequences"):
        if (found := getattr(config, name)) > 1:
            raise ConfigError(
                f"a stream with {name}={found}; expected one text to follow, since the best of several is known only "
                f"at the end; set {name}=1 or use generate_text"
            )
    (row,) = rows = start_rows(model.config, [prompt], config, tokenizer=tokenizer)
    row.stream = TextStream(tokenizer, config.stop)
    return _pieces(row, write_rows(model, [prompt], rows, config))


def _pieces(row: Row, steps: Iterator[None]) -> Iterator[str]:
    assert row.stream is not None
    given = 0
    for _ in steps:
        if len(row.stream.text) > given:
            yield row.stream.text[given:]
            given = len(row.stream.text)
    if rest := row.stream.flush()[given:]:
        yield rest
