"""How weights begin: every rule in one function, with its source.

| architecture | embeddings | matrices | outputs of residual branches | source |
|---|---|---|---|---|
| relative positions (T5) | 1 | fan-in^-½, queries × head_size^-½ | fan-in^-½ | Raffel et al. 2020, Mesh TensorFlow |
| sinusoidal (2017) | D^-½ | Xavier uniform | Xavier uniform | Vaswani et al. 2017, Glorot and Bengio 2010 |
| LayerNorm (GPT-2, BERT) | 0.02 | 0.02 | 0.02 / √(2 layers) in decoders | Radford et al. 2019, Devlin et al. 2018 |
| task heads | | 0.02 | | Devlin et al. 2018 |
| RMSNorm + RoPE (modern) | 1 / √D | fan-in^-½ | 0 if `zero_outputs`, else fan-in^-½ / √(2 layers) | nanoGPT speedruns |

Norms begin at 1, biases at 0. Numbers are standard deviations of a normal distribution unless said otherwise.
"""

from collections.abc import Container
from dataclasses import replace

import torch
from torch import Tensor, nn

from trivium.model.config import ModelConfig
from trivium.model.transformer import Transformer

RESIDUAL_OUTPUTS = ("attention.output.weight", "ffn.down.weight")


@torch.no_grad()
def resize_vocabulary(model: Transformer, vocab_size: int) -> Transformer:
    """The same model, weights shared, for another number of tokens: rows are cut off, or new ones begin at the mean.

    There they change the others' probabilities little (Hewitt 2021). The given model stays as it is.
    """

    def fit(rows: Tensor) -> Tensor:
        more = max(vocab_size - len(rows), 0)
        return torch.cat([rows[:vocab_size], rows.mean(0, keepdim=True).expand(more, *rows.shape[1:])])

    names = {"embedding.tokens.weight", "head.weight", "head.bias"}
    state = {name: fit(each.detach()) if name in names else each for name, each in model.named_parameters()}
    with torch.device("meta"):
        resized = Transformer(replace(model.config, vocab_size=vocab_size))
    resized.load_state_dict({name: nn.Parameter(each.contiguous()) for name, each in state.items()}, assign=True)
    return resized.train(model.training)


def build_model(
    config: ModelConfig,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    zero_outputs: bool = False,
) -> Transformer:
    """A model with fresh weights: built on the meta device, materialised once in place, then initialised."""
    with torch.device("meta"):
        model = Transformer(config)
    model = model.to(dtype).to_empty(device=device)
    initialize(model, seed=seed, zero_outputs=zero_outputs)
    return model


@torch.no_grad()
def initialize(
    model: Transformer, *, seed: int = 0, zero_outputs: bool = False, names: Container[str] | None = None
) -> None:
    """Fill every parameter by the table above; equal seeds give equal weights on equal devices.

    `zero_outputs` starts every residual branch at 0, so that the untrained model is its embedding and its head
    (what start.py relies on). `names` are the only parameters to fill, all others stay as they are.
    """
    generator = torch.Generator(device=next(model.parameters()).device).manual_seed(seed)
    for name, parameter in model.named_parameters():
        if names is not None and name not in names:
            continue
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.dim() == 1:
            parameter.fill_(1.0)
        elif zero_outputs and name.endswith(RESIDUAL_OUTPUTS):
            parameter.zero_()
        elif model.config.position == "sinusoidal" and not name.startswith("embedding."):
            nn.init.xavier_uniform_(parameter, generator=generator)
        else:
            parameter.normal_(0.0, _deviation(name, parameter, model.config), generator=generator)


def _deviation(name: str, parameter: Tensor, config: ModelConfig) -> float:
    fan_in = float(parameter.shape[1] ** -0.5)
    if name.startswith("classifier."):
        return 0.02
    depth = float((2 * config.num_layers) ** -0.5) if config.family == "decoder" else 1.0
    if config.position == "relative":
        if name.startswith(("embedding.", "head.")):
            return 1.0
        return fan_in * float(config.head_size**-0.5 if "query" in name else 1.0)
    if config.position == "sinusoidal":
        return float(config.hidden_size**-0.5)
    residual = depth if name.endswith(RESIDUAL_OUTPUTS) else 1.0
    return (0.02 if config.norm == "layer" else fan_in) * residual
