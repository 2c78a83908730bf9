"""One-liners: `pipeline(task, model=…)` and the objects that Hugging Face users call, over the one Transformer."""

from trivium.pipelines.build import Pipeline, pipeline

__all__ = ["Pipeline", "pipeline"]
