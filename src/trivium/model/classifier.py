"""From hidden states to labels: of a text, of each of its tokens, or where an answer begins and ends.

Legend: B batch, T sequence, D hidden size, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium.model.config import ModelConfig
from trivium.model.layer import drop, make_linear


class ClassifierHead(nn.Module):
    """A linear map to the labels (Devlin et al. 2018, §4; Radford et al. 2018, §3.2).

    An encoder's text is its first token through one more dense layer: tanh, or ReLU in the family of DistilBERT,
    which is the one without token types. A decoder's text is its last token, the only one that has seen all of it;
    beside an encoder, through the dense layer too (Lewis et al. 2019, §3.1).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.is_text, self.is_causal = config.head == "sequence", config.family != "encoder"
        pools = self.is_text and config.family != "decoder"
        self.dense = make_linear(config.hidden_size, config.hidden_size) if pools else None
        self.activation = torch.tanh if config.token_types or self.is_causal else F.relu
        classes = 2 if config.head == "span" else len(config.labels)
        self.output = make_linear(config.hidden_size, classes, bias=pools or not self.is_text)
        self.dropout = 0.0 if config.head == "span" or (self.is_text and self.is_causal) else config.dropout

    def forward(self, hidden_BTD: Tensor, segments_BT: Tensor) -> Tensor:
        """Scores before the softmax: `(B, C)` of a text, else `(B, T, C)`."""
        if self.is_text and self.is_causal:
            last_B = (segments_BT != 0).sum(1).sub(1).clamp(min=0)
            hidden_BTD = hidden_BTD[torch.arange(len(last_B), device=last_B.device), last_B]
        elif self.is_text:
            hidden_BTD = hidden_BTD[:, 0]
        if self.dense is not None:
            hidden_BTD = self.activation(self.dense(hidden_BTD))
        return torch.as_tensor(self.output(drop(hidden_BTD, self.dropout if self.training else 0.0)))
