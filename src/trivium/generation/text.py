"""Text in, text out: a model and its tokenizer together."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from trivium.generation.row import start_rows
from trivium.generation.sample import SamplingConfig
from trivium.generation.stream import TextStream
from trivium.generation.write import generate, write_rows
from trivium.model import Transformer

if TYPE_CHECKING:
    from trivium.tokenizer import Tokenizer


def encode_prompts(model: Transformer, tokenizer: "Tokenizer", texts: Sequence[str]) -> list[list[int]]:
    """Ids of prompts as this family reads them: a decoder continues the text, an encoder–decoder reads it whole."""
    return tokenizer.encode_batch(texts, add_special=model.config.family == "encoder_decoder")


def generate_text(
    model: Transformer, tokenizer: "Tokenizer", texts: Sequence[str], config: SamplingConfig | None = None
) -> list[str]:
    """What the model writes after (or, encoder–decoder, in answer to) each text; the prompts are not repeated."""
    prompts = encode_prompts(model, tokenizer, texts)
    return [found.text or "" for found in generate(model.eval(), prompts, config, tokenizer=tokenizer)]


def stream_text(
    model: Transformer, tokenizer: "Tokenizer", text: str, config: SamplingConfig | None = None
) -> Iterator[str]:
    """The same for one text, in pieces as they become certain; joined they equal `generate_text`'s answer."""
    config = config or SamplingConfig()
    prompts = encode_prompts(model.eval(), tokenizer, [text])
    (row,) = rows = start_rows(model.config, prompts, config, tokenizer=tokenizer)
    stream, given = TextStream(tokenizer, config.stop), 0
    for _ in write_rows(model, prompts, rows, config):
        if row.finish_reason != "eos":
            stream.push(row.history[-1])
        yield stream.text[given:]
        given = len(stream.text)
    yield stream.flush()[given:]
