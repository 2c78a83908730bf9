"""Settings of objectives, and the ids that they need of a tokenizer."""

from typing import cast

import numpy as np
import pytest

from tests.data.rows import CONFIG, make_vocabulary
from trivium.data.objective import ObjectiveConfig, Vocabulary
from trivium.data.rewriting import raw_length
from trivium.errors import ConfigError
from trivium.tokenizer import Tokenizer


@pytest.mark.parametrize(
    "change", [{"mask_rate": 0.0}, {"noise_density": 1.0}, {"mean_span": 0.5}, {"mask_random": 0.3}]
)
def test_rates_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        ObjectiveConfig(**change)


def test_a_tokenizer_without_the_needed_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="no token for mask_id"):
        make_vocabulary(mask_id=-1).need("mask_id")
    with pytest.raises(ConfigError, match="seq_len 2 holds no corrupted text"):
        raw_length(2, CONFIG)


class FakeTokenizer:
    """The attributes of a tokenizer that `Vocabulary` reads."""

    vocab_size = 20
    pad_id, bos_id, eos_id, unk_id, mask_id, cls_id, sep_id = 0, None, None, 1, 4, 2, 3
    sentinel_ids = (18, 19)
    control_ids = frozenset({0, 1, 2, 3, 4, 5, 18, 19})  # 5: one without a role

    def word_starts(self) -> np.ndarray:
        return np.arange(20) % 2 == 0


def test_vocabulary_reads_a_tokenizer() -> None:
    vocabulary = Vocabulary.from_tokenizer(cast(Tokenizer, FakeTokenizer()))
    assert (vocabulary.end_id, vocabulary.pad_id, vocabulary.sentinel_ids) == (3, 0, (18, 19))
    assert vocabulary.ordinary_ids.tolist() == list(range(6, 18))
    FakeTokenizer.sep_id = None
    with pytest.raises(ConfigError, match="neither an eos nor a sep"):
        Vocabulary.from_tokenizer(cast(Tokenizer, FakeTokenizer()))
