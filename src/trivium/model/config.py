"""The shape of a model: one frozen record that expresses all three families.

Every published architecture that trivium knows is a value of `ModelConfig`; hub/family.py maps other
people's config files to it and back. No torch here, so sizes can be planned without allocating anything.
"""

from dataclasses import dataclass
from typing import Literal

from trivium.errors import ConfigError

Family = Literal["encoder", "decoder", "encoder_decoder"]
Position = Literal["learned", "sinusoidal", "rope", "relative"]
Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]
Head = Literal["language", "sequence", "token", "span", "none"]
Problem = Literal["single", "multi", "regression"]


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained length.

    `linear` divides every frequency by `factor` (Chen et al. 2023); `llama3` divides only the slow ones, with a
    smooth ramp between the two wavelength bounds (Llama 3 report, 2024); `yarn` ramps between rotations
    `beta_fast` and `beta_slow` and rescales attention (Peng et al. 2023).
    """

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    original_positions: int = 8192
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0


@dataclass(frozen=True)
class ModelConfig:
    """One Transformer (Vaswani et al. 2017), in any of its three arrangements.

    Sizes are counts, `dropout` is a probability. `num_layers` counts the blocks of the only stack, or of the
    decoder when there are two; `num_encoder_layers` those of the encoder beside it. Raises `ConfigError` when
    the numbers cannot form a model.
    """

    family: Family
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    ffn_size: int
    num_encoder_layers: int = 0
    num_kv_heads: int = 0  # 0: as many as num_heads
    head_size: int = 0  # 0: hidden_size / num_heads
    max_positions: int = 0  # 0: no limit
    position: Position = "rope"
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    relative_buckets: int = 32
    relative_max_distance: int = 128
    window: int = 0  # 0: a query sees its whole document
    norm: Literal["layer", "rms"] = "rms"
    norm_placement: Literal["pre", "post"] = "pre"
    norm_epsilon: float = 1e-6
    embedding_norm: bool = False
    embedding_scale: bool = False  # multiply token embeddings by √hidden_size (2017)
    token_types: int = 0  # BERT's segment A / segment B embeddings
    activation: Activation = "silu"
    gated_ffn: bool = True
    qkv_bias: bool = False
    bias: bool = False  # every other linear of the blocks
    qk_norm: bool = False  # RMSNorm on each head's queries and keys (Qwen3)
    attention_scale: bool = True  # 1/√head_size; T5 folds it into its initialisation
    tie_embeddings: bool = True
    head_transform: bool = False  # BERT's dense + activation + norm before the vocabulary
    head_bias: bool = False
    head_scale: bool = False  # T5 with a tied head multiplies hidden states by hidden_size^-0.5
    dropout: float = 0.0
    pad_id: int = 0
    bos_id: int | None = None
    eos_id: int | None = None
    decoder_start_id: int | None = None
    head: Head = "language"  # what is made of hidden states: classifier.py has all but the language's
    labels: tuple[str, ...] = ()  # names of the classes of a text or token; of the numbers of a regression
    problem: Problem = "single"  # one class of a text, any number of them, or numbers

    def __post_init__(self) -> None:
        for name, derived in (
            ("num_kv_heads", self.num_heads),
            ("head_size", self.hidden_size // max(self.num_heads, 1)),
        ):
            if getattr(self, name) == 0:
                object.__setattr__(self, name, derived)
        self._check()

    def _check(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "ffn_size", "head_size"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}; expected a positive count; set it in the model config"
                )
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"{self.num_heads} heads cannot share {self.num_kv_heads} key/value heads evenly; "
                "set num_kv_heads to a divisor of num_heads"
            )
        if (self.family == "encoder_decoder") != (self.num_encoder_layers > 0):
            raise ConfigError(
                f"family {self.family} with num_encoder_layers={self.num_encoder_layers}; "
                "expected encoder layers exactly for an encoder_decoder; set num_encoder_layers accordingly"
            )
        if self.head in ("sequence", "token") and not self.labels:
            raise ConfigError(f"head {self.head} without labels; expected the names of the classes; set labels")
        if (self.head, self.problem, len(self.labels)) == ("sequence", "single", 1):
            raise ConfigError(f"one class, {self.labels[0]}, to choose from; expected two; set problem=regression")
        if self.head in ("token", "span") and self.family == "encoder_decoder":
            raise ConfigError(
                f"head {self.head} on an encoder_decoder; expected an encoder or a decoder; set head=sequence for texts"
            )
        if self.position == "learned" and self.max_positions < 1:
            raise ConfigError("learned positions need a table size; expected max_positions ≥ 1; set it")
        if self.position in ("rope", "sinusoidal") and self.head_size % 2:
            raise ConfigError(
                f"head_size {self.head_size} is odd; expected an even size for rotary positions; change it"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout is {self.dropout}; expected a probability in [0, 1); lower it")
