"""A model under the calls that Hugging Face users type: tensors in, tensors out, over the one `Transformer`.

The edge where foreign masks and labels become ours: padding may lie left, right or between; −100 means not learned.

Legend: B batch, T sequence, S source length, V vocabulary, C classes, X any.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium.errors import ConfigError, RequestError
from trivium.generation.settings import SamplingConfig, combine_settings
from trivium.generation.write import generate
from trivium.hub.auto import save_model
from trivium.model import ModelConfig, Side, Transformer
from trivium.model.init import resize_vocabulary
from trivium.pipelines.vectors import read_hidden
from trivium.tokenizer import Tokenizer

_NOT_LEARNED = -100
_DEFAULTS = {"max_new_tokens": 20, "top_k": 50}  # what transformers' generate does where nobody says more


@dataclass
class ModelOutput:
    """What a call gives: `output.logits`, `output["logits"]` or, as a tuple without what is absent, `output[0]`."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    encoder_last_hidden_state: Tensor | None = None

    def __getitem__(self, key: int | str) -> Tensor:
        found = getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]
        if found is None:
            raise KeyError(key)
        return torch.as_tensor(found)

    def to_tuple(self) -> tuple[Tensor, ...]:
        """The tensors that there are, in order."""
        values = (getattr(self, field.name) for field in fields(self))
        return tuple(value for value in values if value is not None)


class OpenedModel:
    """One `Transformer` with a folder's decoding settings, called as Hugging Face's models are.

    `model.transformer` is the network itself, `model.config` its `ModelConfig`, `model.generation` the settings,
    `model.tasks` those of single tasks, such as the `prefix` of a source, which pipelines and fine-tuning go by.
    """

    def __init__(
        self,
        transformer: Transformer,
        generation: Mapping[str, Any] | None = None,
        tasks: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        self.transformer, self.generation, self.tasks = transformer, dict(generation or {}), dict(tasks or {})

    @property
    def config(self) -> ModelConfig:
        """The shape of the network."""
        return self.transformer.config

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.transformer.embedding.tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights."""
        return self.transformer.embedding.tokens.weight.dtype

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
    ) -> ModelOutput:
        """Scores `(B, T, V)`, `(B, C)` or `(B, T, C)` as the head says, hidden states, and with `labels` their loss.

        `labels` are as transformers wants them: not shifted for a decoder, −100 where nothing is learned. Raises
        `RequestError` for an encoder–decoder without anything for its decoder to read.
        """
        if self.config.family == "encoder_decoder" and self.config.head == "sequence":
            output = ModelOutput(logits=self.transformer.classify(right_padded(input_ids, attention_mask)[0]))
        elif self.config.family == "encoder_decoder":
            output = self._rewrite(input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, labels)
        else:
            output = self._read(input_ids, attention_mask, token_type_ids)
        if output.start_logits is not None and start_positions is not None and end_positions is not None:
            assert output.end_logits is not None
            ends = (output.start_logits, start_positions), (output.end_logits, end_positions)
            output.loss = torch.stack([_span_loss(logits, places) for logits, places in ends]).mean()
        elif labels is not None and output.logits is not None:
            output.loss = _loss(self.config, output.logits, labels)
        return output

    def _read(self, ids_BT: Tensor, mask_BT: Tensor | None, types_BT: Tensor | None) -> ModelOutput:
        model, config = self.transformer, self.config
        side, order_BT = right_padded(ids_BT, mask_BT)
        types_BT = None if types_BT is None else types_BT.gather(1, order_BT)
        hidden_BTD = read_hidden(model, side, types_BT)
        output = ModelOutput(last_hidden_state=_replaced(hidden_BTD, order_BT))
        if config.head == "language":
            output.logits = _replaced(model.head(hidden_BTD), order_BT)
        elif model.classifier is not None:
            scores = model.classifier(hidden_BTD, side.segments)
            scores = scores if config.head == "sequence" else _replaced(scores, order_BT)
            if config.head == "span":
                output.start_logits, output.end_logits = scores[..., 0], scores[..., 1]
            else:
                output.logits = scores
        return output

    def _rewrite(
        self,
        ids_BS: Tensor,
        mask_BS: Tensor | None,
        decoder_ids_BT: Tensor | None,
        decoder_mask_BT: Tensor | None,
        labels_BT: Tensor | None,
    ) -> ModelOutput:
        if decoder_ids_BT is None:
            if labels_BT is None:
                raise RequestError(
                    "an encoder_decoder was called with input_ids alone; expected what its decoder reads; "
                    "pass decoder_input_ids or labels, or call generate"
                )
            decoder_ids_BT = self._shifted(labels_BT)
        context, order_BS = right_padded(ids_BS, mask_BS)
        side, order_BT = right_padded(decoder_ids_BT, decoder_mask_BT)
        memory_BSD = self.transformer.encode(context)
        hidden_BTD = self.transformer.decode(side, memory_BSD=memory_BSD, memory_segments=context.segments)
        output = ModelOutput(
            last_hidden_state=_replaced(hidden_BTD, order_BT), encoder_last_hidden_state=_replaced(memory_BSD, order_BS)
        )
        if self.config.head == "language":
            output.logits = _replaced(self.transformer.head(hidden_BTD), order_BT)
        return output

    def _shifted(self, labels_BT: Tensor) -> Tensor:
        """What the decoder reads to predict labels: its start token, then all of them but the last."""
        config = self.config
        start = config.pad_id if config.decoder_start_id is None else config.decoder_start_id
        shifted_BT = labels_BT.roll(1, dims=1)
        shifted_BT[:, 0] = start
        return shifted_BT.masked_fill(shifted_BT == _NOT_LEARNED, config.pad_id)

    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        inputs: Tensor | None = None,
        tokenizer: Tokenizer | None = None,
        **settings: Any,
    ) -> Tensor:
        """Token ids as transformers' `generate` gives them, padded on the right, under its argument names.

        A decoder's rows are the prompt as it was given and its continuation, an encoder–decoder's its start token and
        the answer; `num_return_sequences` rows stand next to each other. Without a `seed`, sampling takes one from
        torch's global generator. Raises what `trivium.generate` raises.
        """
        ids_BT = input_ids if input_ids is not None else inputs
        if ids_BT is None:
            raise RequestError("generate without input_ids; expected the ids of a prompt; pass tokenizer(text)'s")
        pad = settings.pop("pad_token_id", None)
        pad = self.config.pad_id if pad is None else pad
        settings.pop("use_cache", None)  # there is no other way here
        if bool(torch.as_tensor(settings.pop("token_type_ids", 0)).any()):
            raise RequestError("token_type_ids that are not 0 in generate; expected a single text; leave them out")
        if settings.get("seed") is None:
            settings["seed"] = int(torch.randint(2**31, (1,)))
        if attention_mask is None and pad != self.config.eos_id:
            attention_mask = ids_BT != pad
        side, _ = right_padded(ids_BT, attention_mask)
        config = self._settings(ids_BT.shape[1], settings)
        prompts = [row[segments > 0].tolist() for row, segments in zip(side.ids, side.segments, strict=True)]
        rows = [found.ids for found in generate(self.transformer, prompts, config, tokenizer=tokenizer)]
        before_BT = ids_BT
        if self.config.family == "encoder_decoder":
            before_BT = self._shifted(ids_BT.new_zeros(len(ids_BT), 1))
        before_BT = before_BT.repeat_interleave(config.num_return_sequences, 0)
        after = Side.from_ids(rows, pad_id=pad).ids.to(ids_BT.device)
        return torch.cat([before_BT, after], 1)

    def _settings(self, length: int, given: Mapping[str, Any]) -> SamplingConfig:
        """The settings of a call; total lengths count what stands in a row, padding too, as transformers does."""
        config = combine_settings(_DEFAULTS, self.generation, given)
        if self.config.family != "decoder" or not (config.max_length or config.min_length):
            return config
        least = max(config.min_new_tokens, config.min_length - length)
        most = config.max_length - length if config.max_length else config.max_new_tokens
        if most < 1:
            raise RequestError(
                f"input_ids of {length} columns with max_length={config.max_length}, which counts them too; expected "
                "room to write; set max_new_tokens instead"
            )
        return replace(config, max_length=0, min_length=0, max_new_tokens=most, min_new_tokens=max(least, 0))

    def save_pretrained(self, folder: str | Path, *, tokenizer: Tokenizer | None = None) -> None:
        """Write a folder that transformers opens; raises `HubError` when no published architecture expresses it."""
        save_model(self.transformer, folder, tokenizer=tokenizer, generation=self.generation, tasks=self.tasks)

    def resize_token_embeddings(self, new_num_tokens: int) -> None:
        """Make room for tokens that were added (`len(tokenizer)`), or cut some off; new ones begin at the mean."""
        self.transformer = resize_vocabulary(self.transformer, new_num_tokens)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The network's parameters, for an optimizer."""
        return self.transformer.parameters()

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The same with our names."""
        return self.transformer.named_parameters()

    def train(self, mode: bool = True) -> "OpenedModel":
        """Switch dropout on (or off)."""
        self.transformer.train(mode)
        return self

    def eval(self) -> "OpenedModel":
        """Switch dropout off."""
        return self.train(False)

    def to(self, target: str | torch.device | torch.dtype) -> "OpenedModel":
        """Move to a device, or change the type of the weights."""
        self.transformer.to(target)
        return self


def right_padded(ids_BT: Tensor, mask_BT: Tensor | None) -> tuple[Side, Tensor]:
    """A foreign batch as a `Side`: what is not masked moves to the front; and where each token came from, `(B, T)`.

    Raises `RequestError` for ids and a mask of different shapes.
    """
    if ids_BT.dim() != 2 or (mask_BT is not None and mask_BT.shape != ids_BT.shape):
        shapes = [tuple(each.shape) for each in (ids_BT, mask_BT) if each is not None]
        raise RequestError(
            f"input_ids and attention_mask of shapes {shapes}; expected (batch, length) for both; fix it"
        )
    seen_BT = torch.ones_like(ids_BT) if mask_BT is None else (mask_BT != 0).to(ids_BT)
    order_BT = seen_BT.argsort(dim=1, descending=True, stable=True)
    positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand_as(ids_BT)
    return Side(ids_BT.gather(1, order_BT), positions_BT, seen_BT.gather(1, order_BT)), order_BT


def _replaced(values_BTX: Tensor, order_BT: Tensor) -> Tensor:
    """Values back where their tokens were."""
    return torch.empty_like(values_BTX).scatter(1, order_BT[..., None].expand_as(values_BTX), values_BTX)


def _loss(config: ModelConfig, logits: Tensor, labels: Tensor) -> Tensor:
    """The mean loss that transformers gives these labels."""
    if config.head == "sequence" and config.problem == "regression":
        return F.mse_loss(logits.squeeze(-1), labels.to(logits).view_as(logits.squeeze(-1)))
    if config.head == "sequence" and config.problem == "multi":
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits))
    if config.family == "decoder" and config.head == "language":  # each token is predicted by those before it
        logits, labels = logits[:, :-1], labels[:, 1:]
    if labels.shape != logits.shape[:-1]:
        found = f"labels of shape {tuple(labels.shape)} for scores of shape {tuple(logits.shape)}"
        raise ConfigError(f"{found}; expected one label for each score but the classes; reshape them")
    return F.cross_entropy(logits.flatten(0, -2).float(), labels.flatten(), ignore_index=_NOT_LEARNED)


def _span_loss(logits_BT: Tensor, places_B: Tensor) -> Tensor:
    """Where an answer begins or ends; a place outside the row is not learned."""
    longest = logits_BT.shape[1]
    places_B = places_B.view(-1).clamp(0, longest)
    return F.cross_entropy(logits_BT.float(), places_B, ignore_index=longest)
