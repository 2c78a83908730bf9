"""How good a model is: likelihoods and metrics. Reads models and data, never trains."""

from trivium.evaluation.likelihood import LossReport, evaluate_loss
from trivium.evaluation.run import evaluate_file

__all__ = ["LossReport", "evaluate_file", "evaluate_loss"]
