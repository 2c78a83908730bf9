"""Text in, text out: a model and its tokenizer together. Leaves the model's mode and weights as they are."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from trivium.errors import ConfigError
from trivium.generation.row import start_rows
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
    config = config or SamplingConfig()
    if config.num_beams > 1:
        raise ConfigError(
            f"a stream with num_beams={config.num_beams}; expected one beam, since the best of several is known only "
            "at the end; set num_beams=1 or use generate_text"
        )
    if config.num_return_sequences > 1:
        raise ConfigError(
            f"a stream with num_return_sequences={config.num_return_sequences}; expected one text to follow; "
            "set it to 1 or use generate_text"
        )
    prompts = tokenizer.encode_batch([text], add_special=True)
    (row,) = rows = start_rows(model.config, prompts, config, tokenizer=tokenizer)
    row.stream, given = TextStream(tokenizer, config.stop), 0
    for _ in write_rows(model, prompts, rows, config):
        if len(row.stream.text) > given:
            yield row.stream.text[given:]
            given = len(row.stream.text)
    if rest := row.stream.flush()[given:]:
        yield rest
