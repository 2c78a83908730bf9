"""Training: objectives in, weights out. The loop is explicit; who wants another imports the parts."""

from trivium.training.pretraining import PretrainResult, pretrain
from trivium.training.recipe import Recipe, load_recipe

__all__ = ["PretrainResult", "Recipe", "load_recipe", "pretrain"]
