"""How well gaps are filled: the same held-out gaps for an encoder–decoder, a decoder, and the commonest span.

Every filler is asked token by token with the true earlier tokens before it, and takes its likeliest token; a gap is
exact when all of its tokens are right, which is when greedy filling would write exactly it. The encoder–decoder
reads both sides of a gap, the decoder only the left side. The length of a gap is given to all of them: the tokens
that end a span or a text are no answers.

Legend: B batch, T target sequence, V vocabulary.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trivium.data.batch import Batch
from trivium.data.objective import Vocabulary
from trivium.model import Side, Transformer


@dataclass(frozen=True)
class Gap:
    """A removed span: its document piece, restored, and where in it the span lies; and the span in the batch."""

    document: tuple[int, ...]
    start: int
    stop: int
    row: int
    column: int

    @property
    def span(self) -> tuple[int, ...]:
        """The removed ids."""
        return self.document[self.start : self.stop]


@dataclass(frozen=True)
class GapScore:
    """Shares of gaps filled exactly and of their tokens that are right, of `gaps` in all."""

    gaps: int
    exact: float
    token_accuracy: float


def read_gaps(batch: Batch, vocabulary: Vocabulary) -> list[Gap]:
    """The gaps of a span-corruption batch, with the documents put together again."""
    assert batch.context is not None
    sentinels = set(vocabulary.sentinel_ids)
    gaps: list[Gap] = []
    for row in range(len(batch.targets)):
        for segment in range(1, int(batch.inputs.segments[row].max()) + 1):
            columns = torch.nonzero(batch.inputs.segments[row] == segment)[:, 0].tolist()
            spans: dict[int, tuple[list[int], int]] = {}
            current: list[int] = []
            for column in columns:
                token = int(batch.targets[row, column])
                if token in sentinels:
                    current = []
                    spans[token] = (current, column + 1)
                elif token != vocabulary.end_id:
                    current.append(token)
            document: list[int] = []
            found = []
            for token in batch.context.ids[row][batch.context.segments[row] == segment].tolist():
                if token in spans:
                    found.append((len(document), len(document) + len(spans[token][0]), spans[token][1]))
                    document += spans[token][0]
                else:
                    document.append(token)
            gaps += [Gap(tuple(document), start, stop, row, column) for start, stop, column in found if stop > start]
    return gaps


@torch.inference_mode()
def score_rewriter(model: Transformer, batches: Iterable[Batch], vocabulary: Vocabulary) -> GapScore:
    """An encoder–decoder, which sees both sides of each gap."""
    model.eval()
    truth, answers = [], []
    for batch in batches:
        likeliest = _answer(model.head(model(batch.inputs, batch.context)), vocabulary)
        for gap in read_gaps(batch, vocabulary):
            truth.append(gap.span)
            answers.append(likeliest[gap.row][gap.column : gap.column + len(gap.span)])
    return compare_spans(truth, answers)


@torch.inference_mode()
def score_writer(model: Transformer, batches: Iterable[Batch], vocabulary: Vocabulary) -> GapScore:
    """A decoder on the same gaps, which sees what stands before them, after the end token that opens a document."""
    model.eval()
    truth, answers = [], []
    for batch in batches:
        gaps = read_gaps(batch, vocabulary)
        documents = sorted({gap.document for gap in gaps})
        if not documents:
            continue
        side = Side.from_ids([(vocabulary.end_id, *each) for each in documents], pad_id=vocabulary.pad_id)
        likeliest = dict(zip(documents, _answer(model.head(model(side)), vocabulary), strict=True))
        for gap in gaps:
            truth.append(gap.span)
            answers.append(likeliest[gap.document][gap.start : gap.stop])
    return compare_spans(truth, answers)


def score_commonest(train: Iterable[Batch], valid: Iterable[Batch], vocabulary: Vocabulary) -> GapScore:
    """What knowing nothing of the text gets: exact by the commonest training span of the gap's length, tokens by
    the commonest token of training spans."""
    spans: dict[int, Counter[tuple[int, ...]]] = {}
    for batch in train:
        for gap in read_gaps(batch, vocabulary):
            spans.setdefault(len(gap.span), Counter())[gap.span] += 1
    tokens = Counter(token for counter in spans.values() for span, count in counter.items() for token in span * count)
    token = tokens.most_common(1)[0][0]
    truth = [gap.span for batch in valid for gap in read_gaps(batch, vocabulary)]
    commonest = {length: counter.most_common(1)[0][0] for length, counter in spans.items()}
    by_span = compare_spans(truth, [commonest.get(len(span), (token,) * len(span)) for span in truth])
    by_token = compare_spans(truth, [(token,) * len(span) for span in truth])
    return GapScore(by_span.gaps, by_span.exact, by_token.token_accuracy)


def _answer(logits_BTV: torch.Tensor, vocabulary: Vocabulary) -> list[list[int]]:
    """The likeliest ordinary token of each place."""
    allowed = torch.zeros(logits_BTV.shape[-1], dtype=torch.bool)
    allowed[: len(vocabulary.ordinary)] = torch.from_numpy(vocabulary.ordinary)
    found: list[list[int]] = logits_BTV.masked_fill(~allowed.to(logits_BTV.device), -torch.inf).argmax(-1).tolist()
    return found


def compare_spans(truth: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> GapScore:
    """Exact spans and right tokens, place by place."""
    right = [np.equal(span, answer) for span, answer in zip(truth, answers, strict=True)]
    tokens = sum(len(each) for each in right)
    return GapScore(
        gaps=len(right),
        exact=sum(bool(each.all()) for each in right) / max(len(right), 1),
        token_accuracy=float(sum(each.sum() for each in right)) / max(tokens, 1),
    )
