"""The tokenizer in a GGUF file's metadata, in and out; what its pieces mean is tokenizer/pieces.py's business."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trivium.errors import HubError

if TYPE_CHECKING:
    from trivium.tokenizer.pieces import PieceTable


def read_pieces(metadata: Mapping[str, Any]) -> "PieceTable":
    """The tokenizer in a GGUF file's metadata; `HubError` for a file without one."""
    from trivium.tokenizer.pieces import PieceTable

    found = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in metadata.items()
        if key.startswith("tokenizer.ggml.")
    }
    roles = {role: found.get(f"{role}_token_id") for role in ("bos", "eos", "unknown", "padding")}
    if not isinstance(found.get("tokens"), list):
        raise HubError("the GGUF file has no tokenizer; expected tokenizer.ggml.tokens; use another file")
    return PieceTable(
        model=str(found.get("model")),
        splitter=str(found.get("pre", "default")),
        tokens=found["tokens"],
        kinds=found.get("token_type") or [1] * len(found["tokens"]),
        merges=found.get("merges") or [],
        scores=found.get("scores") or [],
        roles={role: int(index) for role, index in roles.items() if index is not None},
        add_bos=bool(found.get("add_bos_token", found.get("model") == "llama")),
        space_first=bool(found.get("add_space_prefix", True)),
        chat_template=metadata.get("tokenizer.chat_template") or "",
    )


def write_pieces(writer: Any, pieces: "PieceTable") -> None:
    """Put a tokenizer into the metadata that a `GGUFWriter` will write."""
    writer.add_tokenizer_model(pieces.model)
    writer.add_tokenizer_pre(pieces.splitter)
    writer.add_token_list(pieces.tokens)
    writer.add_token_types(pieces.kinds)
    if pieces.merges:
        writer.add_token_merges(pieces.merges)
    if pieces.scores:
        writer.add_token_scores(pieces.scores)
    for role, index in pieces.roles.items():
        writer.add_uint32(f"tokenizer.ggml.{role}_token_id", index)
    writer.add_add_bos_token(pieces.add_bos)
    writer.add_add_space_prefix(pieces.space_first)
    if pieces.chat_template:
        writer.add_chat_template(pieces.chat_template)
