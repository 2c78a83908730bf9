"""Packed rows against a list of every token: nothing lost, nothing repeated, documents told apart."""

import itertools

import numpy as np
import pytest

from trivium.data.pack import PackedRows
from trivium.errors import ConfigError, DataError


def make_stream(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(sum(lengths), dtype=np.uint16), np.cumsum([0, *lengths])


def make_rows(lengths: list[int], **sizes: int) -> PackedRows:
    tokens, offsets = make_stream(lengths)
    return PackedRows(lambda start, stop: tokens[start:stop], offsets, **sizes)


def documents_of(offsets: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return np.searchsorted(offsets, ids, side="right") - 1


LENGTHS = [5, 1, 12, 3, 30, 1, 1, 7, 2]


@pytest.mark.parametrize("row_tokens", [1, 2, 5, 7, 16, 61, 62, 63, 200])
@pytest.mark.parametrize("lead", [0, 1, 3])
def test_rows_hold_every_token_once_and_in_order(row_tokens: int, lead: int) -> None:
    rows = make_rows(LENGTHS, row_tokens=row_tokens, lead=lead)
    _, offsets = make_stream(LENGTHS)
    seen = []
    for index in range(len(rows)):
        ids, segments = rows.row(index)
        assert ids.dtype == segments.dtype == np.int64 and len(ids) == len(segments) <= row_tokens
        document = documents_of(offsets, ids)
        expected = np.unique(document, return_inverse=True)[1] + 1
        assert np.array_equal(segments, expected)
        seen.append(ids)
        framed = len(ids) + 2 * lead * segments.max(initial=0)
        # A piece's own end token becomes the closing frame, so at lead 1 a framed row fits row_tokens + 2.
        ends = np.isin(ids, offsets[1:] - 1).sum()
        assert lead != 1 or framed - ends <= row_tokens + 2
    assert np.array_equal(np.concatenate(seen), np.arange(sum(LENGTHS)))


@pytest.mark.parametrize("row_tokens", [1, 4, 7, 61, 62])
def test_overlap_makes_every_token_but_the_first_a_target_once(row_tokens: int) -> None:
    rows = make_rows(LENGTHS, row_tokens=row_tokens, overlap=1)
    targets = [rows.row(index)[0][1:] for index in range(len(rows))]
    assert np.array_equal(np.concatenate(targets), np.arange(1, sum(LENGTHS)))
    assert all(len(row) for row in targets)


def test_random_layouts_agree_with_a_scan() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        lengths = rng.integers(1, 20, rng.integers(1, 30)).tolist()
        row_tokens, overlap = int(rng.integers(1, 40)), int(rng.integers(0, 2))
        rows = make_rows(lengths, row_tokens=row_tokens, overlap=overlap)
        document = np.repeat(np.arange(len(lengths)), lengths)
        for index in range(len(rows)):
            part = slice(index * row_tokens, (index + 1) * row_tokens + overlap)
            ids, segments = rows.row(index)
            assert np.array_equal(ids, np.arange(len(document))[part])
            assert segments.tolist() == [
                number + 1 for number, (_, run) in enumerate(itertools.groupby(document[part])) for _ in run
            ]


def test_a_row_reads_its_own_tokens_only() -> None:
    reads = []
    tokens, offsets = make_stream([1000] * 1000)

    def read(start: int, stop: int) -> np.ndarray:
        reads.append((start, stop))
        return tokens[start:stop]

    PackedRows(read, offsets, row_tokens=128, overlap=1).row(7000)
    assert reads == [(7000 * 128, 7000 * 128 + 129)]


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(DataError, match="no token"):
        make_rows([], row_tokens=4)
    with pytest.raises(ConfigError, match="rows of 0 tokens"):
        make_rows([3], row_tokens=0)
    with pytest.raises(ConfigError, match="row 1 of 1"):
        make_rows([3], row_tokens=4).row(1)
    assert len(make_rows([1], row_tokens=4, overlap=1)) == 1
