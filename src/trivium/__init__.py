"""trivium (三艺): one toolkit for the whole life of a language model.

The encoder reads, the decoder writes, the encoder–decoder rewrites; all three are one Transformer. Names below are
the public surface; each is imported when it is first used, so that `import trivium` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trivium.config import load_config as load_config
    from trivium.data.prepare import prepare_data as prepare_data
    from trivium.errors import CheckpointError as CheckpointError
    from trivium.errors import ConfigError as ConfigError
    from trivium.errors import DataError as DataError
    from trivium.errors import HubError as HubError
    from trivium.errors import RequestError as RequestError
    from trivium.errors import TriviumError as TriviumError
    from trivium.evaluation.run import evaluate_file as evaluate_file
    from trivium.evaluation.systems import evaluate_task as evaluate_task
    from trivium.generation.fill import fill_mask as fill_mask
    from trivium.generation.settings import SamplingConfig as SamplingConfig
    from trivium.generation.text import generate_text as generate_text
    from trivium.generation.text import stream_text as stream_text
    from trivium.generation.write import generate as generate
    from trivium.hub.adapter import load_adapter as load_adapter
    from trivium.hub.adapter import save_adapter as save_adapter
    from trivium.hub.auto import load as load
    from trivium.hub.auto import load_model as load_model
    from trivium.hub.auto import save_model as save_model
    from trivium.hub.auto_tokenizer import AutoTokenizer as AutoTokenizer
    from trivium.hub.pickled import convert_pickle as convert_pickle
    from trivium.machine import inspect_machine as inspect_machine
    from trivium.model.adapter import LoraConfig as LoraConfig
    from trivium.model.adapter import add_adapter as add_adapter
    from trivium.model.adapter import merge_adapter as merge_adapter
    from trivium.model.config import ModelConfig as ModelConfig
    from trivium.model.init import build_model as build_model
    from trivium.model.sizes import count_parameters as count_parameters
    from trivium.model.sizes import plan_model as plan_model
    from trivium.model.transformer import Transformer as Transformer
    from trivium.pipelines.automodel import AutoModel as AutoModel
    from trivium.pipelines.automodel import AutoModelForCausalLM as AutoModelForCausalLM
    from trivium.pipelines.automodel import AutoModelForMaskedLM as AutoModelForMaskedLM
    from trivium.pipelines.automodel import AutoModelForQuestionAnswering as AutoModelForQuestionAnswering
    from trivium.pipelines.automodel import AutoModelForSeq2SeqLM as AutoModelForSeq2SeqLM
    from trivium.pipelines.automodel import AutoModelForSequenceClassification as AutoModelForSequenceClassification
    from trivium.pipelines.automodel import AutoModelForTokenClassification as AutoModelForTokenClassification
    from trivium.pipelines.build import pipeline as pipeline
    from trivium.tasks.task import Task as Task
    from trivium.tokenizer.tokenizer import Tokenizer as Tokenizer
    from trivium.tokenizer.train import train_tokenizer as train_tokenizer
    from trivium.training.finetuning import finetune as finetune
    from trivium.training.pretraining import pretrain as pretrain
    from trivium.training.recipe import Recipe as Recipe
    from trivium.training.recipe import load_recipe as load_recipe
    from trivium.training.tuning import TuneRecipe as TuneRecipe

__version__ = "0.1.0"

# Where each public name lives.
_HOMES = {
    "AutoModel": "pipelines.automodel",
    "AutoModelForCausalLM": "pipelines.automodel",
    "AutoModelForMaskedLM": "pipelines.automodel",
    "AutoModelForQuestionAnswering": "pipelines.automodel",
    "AutoModelForSeq2SeqLM": "pipelines.automodel",
    "AutoModelForSequenceClassification": "pipelines.automodel",
    "AutoModelForTokenClassification": "pipelines.automodel",
    "AutoTokenizer": "hub.auto_tokenizer",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "HubError": "errors",
    "LoraConfig": "model.adapter",
    "ModelConfig": "model.config",
    "Recipe": "training.recipe",
    "RequestError": "errors",
    "SamplingConfig": "generation.settings",
    "Task": "tasks.task",
    "Tokenizer": "tokenizer.tokenizer",
    "Transformer": "model.transformer",
    "TriviumError": "errors",
    "TuneRecipe": "training.tuning",
    "add_adapter": "model.adapter",
    "build_model": "model.init",
    "convert_pickle": "hub.pickled",
    "count_parameters": "model.sizes",
    "evaluate_file": "evaluation.run",
    "evaluate_task": "evaluation.systems",
    "fill_mask": "generation.fill",
    "finetune": "training.finetuning",
    "generate": "generation.write",
    "generate_text": "generation.text",
    "inspect_machine": "machine",
    "load": "hub.auto",
    "load_adapter": "hub.adapter",
    "load_config": "config",
    "load_model": "hub.auto",
    "load_recipe": "training.recipe",
    "merge_adapter": "model.adapter",
    "pipeline": "pipelines.build",
    "plan_model": "model.sizes",
    "prepare_data": "data.prepare",
    "pretrain": "training.pretraining",
    "save_adapter": "hub.adapter",
    "save_model": "hub.auto",
    "stream_text": "generation.text",
    "train_tokenizer": "tokenizer.train",
}

__all__ = [
    *_HOMES,
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trivium' has no attribute {name!r}")
    return getattr(import_module(f"trivium.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
