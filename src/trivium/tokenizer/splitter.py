"""How text is split into words before a byte-level BPE: the ways that models have, by llama.cpp's names."""

from collections.abc import Callable

from tokenizers import Regex, pre_tokenizers

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_WORDS = _WORDS % ""  # words with one leading mark, single digits


def split_words(pattern: str, *, space: bool = False) -> pre_tokenizers.PreTokenizer:
    """Words by a pattern, then bytes as printable characters; `space` puts one before the text."""
    words = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False)])


# llama.cpp's names; the first that splits like a tokenizer is written.
SPLITTERS: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "qwen2": lambda: split_words(QWEN2_WORDS),
    "llama-bpe": lambda: split_words(_WORDS % "{1,3}"),
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}
