"""The loss of a task head: of a class, several classes, numbers, tags, or the two ends of an answer.

Legend: B batch, T sequence, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from trivium.data.batch import Batch
from trivium.model import Transformer


def label_loss(model: Transformer, batch: Batch, *, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """The sum of the losses of a batch's rows (or tagged words) by weight, and the scores that `classify` gave.

    Cross-entropy for one class, a word's tag, or an answer's ends (half for each, padding excluded); binary
    cross-entropy, the mean over classes, for several; squared error, the mean over numbers, for a regression.
    """
    scores = model.classify(batch.inputs, types_BT=batch.types)
    if scores.dtype in (torch.bfloat16, torch.float16):
        scores = scores.float()
    problem, weights_B = model.config.problem, batch.weights[:, 0]
    if model.config.head == "token":
        losses_N = F.cross_entropy(
            scores.flatten(0, 1), batch.targets.flatten(), reduction="none", label_smoothing=label_smoothing
        )
        return (losses_N * batch.weights.flatten()).sum(), scores
    assert batch.labels is not None
    if model.config.head == "span":
        visible_BT2 = scores.masked_fill(batch.inputs.segments[..., None] == 0, torch.finfo(scores.dtype).min)
        losses_B2 = F.cross_entropy(visible_BT2, batch.labels, reduction="none")
        return (losses_B2.mean(1) * weights_B).sum(), scores
    if problem == "single":
        losses_B = F.cross_entropy(scores, batch.labels, reduction="none", label_smoothing=label_smoothing)
    elif problem == "multi":
        losses_B = F.binary_cross_entropy_with_logits(scores, batch.labels.to(scores.dtype), reduction="none").mean(1)
    else:
        losses_B = (scores - batch.labels.to(scores.dtype).view_as(scores)).square().mean(1)
    return (losses_B * weights_B).sum(), scores


@torch.inference_mode()
def evaluate_labels(model: Transformer, batches: "list[Batch]") -> float:
    """The mean of `label_loss` over every row or tagged word of positive weight."""
    training = model.training
    model.eval()
    total, weight = 0.0, 0.0
    for batch in batches:
        total += float(label_loss(model, batch)[0])
        weight += batch.num_targets if model.config.head == "token" else float(batch.weights[:, 0].sum())
    model.train(training)
    return total / max(weight, 1.0)
