"""GGUF files, llama.cpp's format, in and out: decoders of Llama, Mistral, Qwen and GPT-2 type with their tokenizer.

A file becomes an ordinary config.json and tensors under Hugging Face's names, and back; from there on it is the table's
business. Quantised weights are dequantised. The only place that knows the `gguf` package, an extra.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trivium.errors import HubError
from trivium.hub.auto import assemble, save_model
from trivium.hub.convert import listing, replace_file
from trivium.hub.family import row_of, write_config
from trivium.hub.gguf_tokens import read_pieces, write_pieces
from trivium.hub.names import to_theirs
from trivium.model.config import ModelConfig
from trivium.model.position import rotary_frequencies
from trivium.model.transformer import Transformer

if TYPE_CHECKING:
    from trivium.tokenizer import Tokenizer
    from trivium.tokenizer.pieces import PieceTable

_KINDS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}
# Their module -> Hugging Face's, one layer's first.
_LLAMA = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LLAMA_REST = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_GPT2 = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_GPT2_REST = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
}
# model_type -> (the architecture's name in the file, layers' prefix, one layer, the rest)
_TYPES: dict[str, tuple[str, str, Mapping[str, str], Mapping[str, str]]] = {
    "llama": ("llama", "model.layers.", _LLAMA, _LLAMA_REST),
    "qwen2": ("qwen2", "model.layers.", _LLAMA, _LLAMA_REST),
    "qwen3": ("qwen3", "model.layers.", _LLAMA, _LLAMA_REST),
    "gpt2": ("gpt2", "transformer.h.", _GPT2, _GPT2_REST),
}
# Their key, after the architecture's name -> config.json's.
_KEYS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "context_length": "max_position_embeddings",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
_GPT2_KEYS = {
    "block_count": "n_layer",
    "embedding_length": "n_embd",
    "feed_forward_length": "n_inner",
    "context_length": "n_positions",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
_SAMPLES = (
    "Hello, world! It's 1984.",
    "def f(x):\n\treturn x ** 2  # Größe",
    "语言模型。三艺",
    " \n\n 😀 ok",
    "don't 12345",
)


def load_gguf(path: str | Path) -> tuple[Transformer, "Tokenizer"]:
    """Model (float32, evaluation mode) and tokenizer of a GGUF file; raises `HubError` for what cannot be read."""
    from trivium.tokenizer.pieces import from_pieces

    metadata, tensors = read_gguf(path)
    settings = _settings(metadata, tensors)
    model = assemble(settings, _to_hugging_face(settings, tensors), dtype=torch.float32)
    given = tensors.get("rope_freqs.weight")
    if given is not None and not torch.allclose(given, _rope_factors(model.config), rtol=1e-3):
        raise HubError(f"{path} scales rotary positions in a way of its own; expected Llama 3's; use another file")
    return model, from_pieces(read_pieces(metadata))


def import_gguf(path: str | Path, out: str | Path) -> Path:
    """Write a GGUF file as an ordinary Hugging Face folder, weights dequantised to float32; returns `out`."""
    model, tokenizer = load_gguf(path)
    return save_model(
        model, out, tokenizer=tokenizer, card={"title": Path(path).stem, "text": "Read from a GGUF file."}
    )


def export_gguf(
    model: Transformer, tokenizer: "Tokenizer", path: str | Path, *, storage: str = "float16", name: str = ""
) -> Path:
    """Write a decoder and its tokenizer as one GGUF file, which llama.cpp opens.

    Matrices are stored as `storage` says, vectors in float32. What the file says of the tokenizer is read back and must
    give the same ids. Raises `HubError` for models and tokenizers that the format or llama.cpp does not know.
    """
    from trivium.tokenizer.pieces import from_pieces, to_pieces

    if storage not in _KINDS:
        raise HubError(f"there is no storage {storage!r}; expected one of {', '.join(_KINDS)}; choose one")
    settings = write_config(model.config)
    if settings["model_type"] not in _TYPES:
        found = f"a {settings['model_type']} model has no place in a GGUF file"
        raise HubError(f"{found}; expected one of {', '.join(_TYPES)}; keep it as a Hugging Face folder")
    wide = model.config.num_heads * model.config.head_size
    if settings["model_type"] == "qwen2" and wide != model.config.hidden_size:
        found = f"{model.config.num_heads} heads of {model.config.head_size}"
        raise HubError(f"{found}; llama.cpp's Qwen2 expects heads as wide together as the model; keep the folder")
    pieces = to_pieces(tokenizer, vocab_size=model.config.vocab_size)
    again = from_pieces(pieces)
    for text in _SAMPLES:
        if tokenizer.encode(text) != again.encode(text):
            found = f"the tokenizer in a GGUF file would read {text!r} as other tokens"
            raise HubError(f"{found}; expected the same; keep the model as a Hugging Face folder")
    ours = {key: parameter.detach() for key, parameter in model.named_parameters()}
    tensors = _to_gguf(settings, model.config, to_theirs(row_of(settings).naming, model.config, ours))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda temporary: _write(temporary, settings, tensors, pieces, storage, name or path.stem))
    return path


def read_gguf(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The metadata of a GGUF file and its tensors in float32, under the file's own names.

    Raises `HubError` for a file that is missing, damaged, or stored in a way that cannot be dequantised.
    """
    library, path = _library(), Path(path)
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ValueError("it does not begin with GGUF")
        reader = library.GGUFReader(path)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
        tensors = {item.name: _dequantize(library, item) for item in reader.tensors}
    except Exception as error:  # what the package raises at a damaged or hostile file has no list
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise HubError(f"{path} cannot be read ({reason}); expected a complete GGUF file; get it again") from error
    return metadata, tensors


def _library() -> Any:
    try:
        import gguf
    except ImportError:
        raise HubError('the gguf package is missing; GGUF files need it; run: pip install "trivium[gguf]"') from None
    return gguf


def _dequantize(library: Any, item: Any) -> Tensor:
    numbers = item.data
    if numbers.dtype not in (np.float32, np.float16):
        numbers = library.quants.dequantize(numbers, item.tensor_type)
    shape = tuple(int(size) for size in reversed(item.shape))  # the file names the fastest axis first
    return torch.from_numpy(np.array(numbers, dtype=np.float32).reshape(shape))


def _settings(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The config.json that the file's metadata amount to."""
    architecture = metadata.get("general.architecture")
    model_type = next((name for name, row in _TYPES.items() if row[0] == architecture), None)
    if model_type is None or "token_embd.weight" not in tensors:
        names = ", ".join(row[0] for row in _TYPES.values())
        raise HubError(f"the GGUF file holds a {architecture!r} model; expected one of {names}; use another file")
    keys = _GPT2_KEYS if model_type == "gpt2" else _KEYS
    known: dict[str, Any] = {
        key: metadata[name] for ours, key in keys.items() if (name := f"{architecture}.{ours}") in metadata
    }
    known |= {"model_type": model_type, "vocab_size": len(tensors["token_embd.weight"])}
    known["tie_word_embeddings"] = "output.weight" not in tensors
    for role in ("bos", "eos", "padding"):
        if (index := metadata.get(f"tokenizer.ggml.{role}_token_id")) is not None:
            known[f"{role.removesuffix('ding')}_token_id"] = index
    biased = "blk.0.attn_q.bias" in tensors
    known |= {"attention_bias": biased, "mlp_bias": biased} if model_type == "llama" else {}
    return known | _rope_settings(metadata, str(architecture), tensors, known)


def _rope_settings(
    metadata: Mapping[str, Any], architecture: str, tensors: Mapping[str, Tensor], known: Mapping[str, Any]
) -> dict[str, Any]:
    """`rope_scaling`: as the metadata say, or, of Llama 3, what the file's factors come from."""
    kind = metadata.get(f"{architecture}.rope.scaling.type", "none")
    factor = metadata.get(f"{architecture}.rope.scaling.factor")
    original = metadata.get(f"{architecture}.rope.scaling.original_context_length")
    if (factors := tensors.get("rope_freqs.weight")) is not None:
        scaling = {"rope_type": "llama3", "factor": float(factors.max()), "low_freq_factor": 1.0}
        scaling |= {"high_freq_factor": 4.0, "original_max_position_embeddings": original or 8192}
        return {"rope_scaling": scaling}
    if kind in ("none", None) or factor is None:
        return {}
    return {"rope_scaling": {"rope_type": kind, "factor": factor, "original_max_position_embeddings": original}}


def _to_hugging_face(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    _, layers, inner, outer = _TYPES[settings["model_type"]]
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name == "rope_freqs.weight":
            continue  # it is a function of the config
        if match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name):
            number, module, kind = match.groups()
            theirs, place = inner.get(module), f"{layers}{number}."
        else:
            module, _, kind = name.rpartition(".")
            theirs, place = outer.get(module), ""
        if theirs is None:
            raise HubError(f"the GGUF file has a tensor {name}, unknown here; expected a plain model; use another file")
        found[f"{place}{theirs}.{kind}"] = _turn(settings, module, tensor, back=True)
    return found


def _to_gguf(settings: Mapping[str, Any], config: ModelConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    _, layers, inner, outer = _TYPES[settings["model_type"]]
    names = {theirs: ours for ours, theirs in inner.items()}, {theirs: ours for ours, theirs in outer.items()}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        place, module = "", name
        if match := re.fullmatch(re.escape(layers) + r"(\d+)\.(.+)", name):
            place, module = f"blk.{match[1]}.", match[2]
        module, _, kind = module.rpartition(".")
        if (ours := names[not place].get(module)) is None:
            raise HubError(f"a GGUF file has no place for {listing([name])}; expected a plain model; keep the folder")
        found[f"{place}{ours}.{kind}"] = _turn(settings, ours, tensor, back=False)
    if config.rope_scaling is not None and config.rope_scaling.kind == "llama3":
        found["rope_freqs.weight"] = _rope_factors(config)
    return found


def _rope_factors(config: ModelConfig) -> Tensor:
    """By how much each rotary frequency is divided."""
    scaled, _ = rotary_frequencies(config)
    plain, _ = rotary_frequencies(replace(config, rope_scaling=None))
    return (plain / scaled).float()


def _turn(settings: Mapping[str, Any], module: str, tensor: Tensor, *, back: bool) -> Tensor:
    """What the two formats lay out otherwise: GPT-2's matrices, and the rows of Llama's rotated heads.

    llama.cpp turns neighbouring pairs where Hugging Face turns halves; Qwen's files keep the halves.
    """
    if settings["model_type"] == "gpt2":
        turned = tensor.dim() == 2 and module.startswith(("attn_", "ffn_"))
        return tensor.T if turned else tensor
    if settings["model_type"] != "llama" or module not in ("attn_q", "attn_k"):
        return tensor
    heads = settings["num_attention_heads"]
    if module == "attn_k":
        heads = settings.get("num_key_value_heads") or heads
    shape = (heads, -1, 2) if back else (heads, 2, -1)
    return tensor.reshape(*shape, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def _write(
    path: Path,
    settings: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    pieces: "PieceTable",
    storage: str,
    name: str,
) -> None:
    library = _library()
    architecture = _TYPES[settings["model_type"]][0]
    writer = library.GGUFWriter(path, architecture)
    writer.add_name(name)
    for ours, key in (_GPT2_KEYS if architecture == "gpt2" else _KEYS).items():
        value = settings.get(key)
        if value is not None:
            add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
            add(f"{architecture}.{ours}", value)
    if architecture != "gpt2":
        writer.add_uint32(f"{architecture}.vocab_size", settings["vocab_size"])
        writer.add_uint32(f"{architecture}.rope.dimension_count", settings["head_dim"])
        writer.add_uint32(f"{architecture}.attention.value_length", settings["head_dim"])
        _write_rope(writer, architecture, settings.get("rope_scaling"))
    write_pieces(writer, pieces)
    kind = getattr(library.GGMLQuantizationType, _KINDS[storage])
    for key, tensor in tensors.items():
        numbers = tensor.float().contiguous().numpy()
        # Rows of Q8_0 come in blocks of 32; vectors are small, and every runtime wants them exact.
        whole = numbers.ndim == 1 or (storage == "q8_0" and numbers.shape[1] % 32)
        exact = whole or key.startswith("position_embd")
        chosen = library.GGMLQuantizationType.F32 if exact else kind
        writer.add_tensor(key, library.quants.quantize(numbers, chosen), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_rope(writer: Any, architecture: str, scaling: Mapping[str, Any] | None) -> None:
    if scaling is None:
        return
    if scaling["rope_type"] != "llama3":  # those of Llama 3 are a tensor
        writer.add_string(f"{architecture}.rope.scaling.type", scaling["rope_type"])
        writer.add_float32(f"{architecture}.rope.scaling.factor", scaling["factor"])
    if original := scaling.get("original_max_position_embeddings"):
        writer.add_uint32(f"{architecture}.rope.scaling.original_context_length", original)
