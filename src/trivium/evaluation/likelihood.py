"""Loss, perplexity, bits per byte and top-1 accuracy of a model on batches, in chunks of bounded memory."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from trivium.data.batch import Batch
from trivium.errors import DataError
from trivium.model import Transformer

CHUNK_LOGITS = 4_000_000


@dataclass(frozen=True)
class LossReport:
    """`loss` in nats per target token, `bits_per_byte` of the text, `accuracy` of the likeliest token."""

    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    accuracy: float


@torch.inference_mode()
def evaluate_loss(model: Transformer, batches: Iterable[Batch], *, bytes_per_token: float) -> LossReport:
    """Mean loss over every target of positive weight; independent of how rows are batched.

    `bytes_per_token` of the text turns nats per token into bits per byte. Raises `DataError` without a target.
    """
    training = model.training
    model.eval()
    loss, weight, right, count = 0.0, 0.0, 0.0, 0
    for batch in batches:
        hidden = model.head.prepare(model(batch.inputs, batch.context)).flatten(0, 1)
        weights, targets = batch.weights.flatten(), batch.targets.flatten()
        chosen = weights > 0
        hidden, weights, targets = hidden[chosen], weights[chosen], targets[chosen]
        rows = max(CHUNK_LOGITS // model.config.vocab_size, 1)
        for begin in range(0, len(hidden), rows):
            part = slice(begin, begin + rows)
            logits = F.linear(hidden[part], model.head.vocabulary, model.head.bias)
            losses = F.cross_entropy(logits.float(), targets[part], reduction="none").double()
            loss += float((losses * weights[part]).sum())
            right += float(((logits.argmax(-1) == targets[part]) * weights[part]).sum())
        weight += float(weights.sum())
        count += len(hidden)
    model.train(training)
    if weight == 0:
        raise DataError("there is no token to score; expected at least one whole sentence of text; give more text")
    mean = loss / weight
    return LossReport(
        loss=mean,
        perplexity=math.exp(min(mean, 700.0)),
        bits_per_byte=mean / math.log(2) / bytes_per_token,
        tokens=count,
        accuracy=right / weight,
    )
