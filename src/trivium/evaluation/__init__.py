"""How good a model is: likelihoods, metrics, baselines and comparisons. Reads models and data, never trains."""

from trivium.evaluation.baselines import run_baseline
from trivium.evaluation.compare import Comparison, compare_outputs
from trivium.evaluation.likelihood import LossReport, evaluate_loss
from trivium.evaluation.page import write_page
from trivium.evaluation.rouge import RougeScores, rouge_corpus
from trivium.evaluation.run import evaluate_file

__all__ = [
    "Comparison",
    "LossReport",
    "RougeScores",
    "compare_outputs",
    "evaluate_file",
    "evaluate_loss",
    "rouge_corpus",
    "run_baseline",
    "write_page",
]
