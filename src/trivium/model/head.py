"""From hidden states to scores over the vocabulary.

`prepare` is everything before the big matrix, so that the loss can multiply by it in chunks; `forward` is both.

Legend: B batch, T sequence, D hidden size, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium.errors import ConfigError
from trivium.model.config import ModelConfig
from trivium.model.layer import ACTIVATIONS, make_linear, make_norm


class LanguageHead(nn.Module):
    """A linear map to the vocabulary, tied to the token embedding or its own, after BERT's transform if any.

    In a model with another head it has no parameters and refuses to score.
    """

    weight: nn.Parameter | None

    def __init__(self, config: ModelConfig, tokens: nn.Embedding) -> None:
        super().__init__()
        self.config, speaks = config, config.head == "language"
        self.scale = config.hidden_size**-0.5 if config.head_scale else 1.0
        transforms = config.head_transform and speaks
        self.transform = make_linear(config.hidden_size, config.hidden_size) if transforms else None
        self.norm = make_norm(config) if transforms else None
        self.activation = ACTIVATIONS[config.activation]
        shape = (config.vocab_size, config.hidden_size)
        self.weight = nn.Parameter(torch.empty(shape)) if speaks and not config.tie_embeddings else None
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if speaks and config.head_bias else None
        # In a tuple, so that the shared embedding is not registered as a second set of parameters.
        self._shared = (tokens,)

    @property
    def vocabulary(self) -> Tensor:
        """The matrix `(V, D)` that scores each token, whoever owns it; `ConfigError` where the model has no such."""
        if self.config.head != "language":
            raise ConfigError(
                f"a model with head {self.config.head} scores no tokens; expected a language head; "
                "use Transformer.classify or hidden states, or load it with head='language'"
            )
        return self._shared[0].weight if self.weight is None else self.weight

    def prepare(self, hidden_BTD: Tensor) -> Tensor:
        """Hidden states ready for the plain linear map, same shape."""
        if self.transform is not None and self.norm is not None:
            hidden_BTD = self.norm(self.activation(self.transform(hidden_BTD)))
        return hidden_BTD if self.scale == 1.0 else hidden_BTD * self.scale

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """Scores `(B, T, V)` before the softmax."""
        return F.linear(self.prepare(hidden_BTD), self.vocabulary, self.bias)
