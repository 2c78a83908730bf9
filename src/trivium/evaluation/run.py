"""A model folder and a text file to four numbers: what `trivium evaluate` prints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.data.loader import Loader
from trivium.data.objective import ObjectiveConfig, Vocabulary
from trivium.data.source import read_documents
from trivium.errors import ConfigError, DataError
from trivium.evaluation.likelihood import LossReport, evaluate_loss
from trivium.hub.auto import load
from trivium.model import ModelConfig
from trivium.tokenizer import Tokenizer

OBJECTIVES = {
    "decoder": ObjectiveConfig("causal"),
    "encoder": ObjectiveConfig("masked"),
    "encoder_decoder": ObjectiveConfig("span_corruption"),
}


@dataclass(frozen=True)
class TokenArray:
    """Documents already encoded, in memory, as a Loader reads them."""

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    fingerprint: str = "memory"

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """The ids of a range."""
        return self.ids[start:stop]


def evaluate_file(folder: str | Path, path: str | Path, *, seq_len: int = 0) -> LossReport:
    """Loss of a model on a text file, each document read from its beginning, in rows of `seq_len` tokens.

    A decoder is scored on every token; an encoder on a fixed random 15 % that is masked, an encoder–decoder on
    fixed random gaps: compare like with like. Raises `DataError`, `HubError` for what cannot be read.
    """
    if not Path(path).exists():
        raise DataError(f"there is nothing at {path}; expected a text file; check the path")
    model, tokenizer = load(str(folder))
    return evaluate_texts(model.eval(), tokenizer, [document.text for document in read_documents(Path(path))], seq_len)


def evaluate_texts(model: Any, tokenizer: Tokenizer, texts: list[str], seq_len: int = 0) -> LossReport:
    """`evaluate_file` for texts and a model in memory."""
    config: ModelConfig = model.config
    vocabulary = Vocabulary.from_tokenizer(tokenizer, start_id=config.decoder_start_id)
    rows = [[*ids, vocabulary.end_id] for ids in tokenizer.encode_batch(texts)]
    if not rows:
        raise DataError("there is no text to score; expected at least one sentence; give more text")
    ids = np.concatenate([np.array(row, dtype=np.int64) for row in rows])
    offsets = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    longest = config.max_positions or 512
    if seq_len > longest:
        raise ConfigError(f"rows of {seq_len} tokens for a model of {longest} positions; lower seq_len")
    loader = Loader(
        TokenArray(ids, offsets),
        vocabulary,
        objective=OBJECTIVES[config.family],
        seq_len=seq_len or min(longest, 512),
        rows_per_batch=8,
    )
    size = sum(len(text.encode()) for text in texts)
    return evaluate_loss(model, loader.valid_batches(), bytes_per_token=size / len(ids))
