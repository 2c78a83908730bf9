"""Tokenizers as others left them: from the files of a folder to one fast tokenizer and its settings.

`tokenizer.json` is taken as it is. From older files (vocab.txt; vocab.json with merges.txt; SentencePiece; Marian's
two of them) the fast tokenizer is put together as transformers 5 does, and a SentencePiece model of an unknown class
as its own file says. Runs no code of a folder.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from trivium.errors import HubError
from trivium.folder import inside, read_bytes, read_json
from trivium.tokenizer.frame import frame
from trivium.tokenizer.guard import guarded
from trivium.tokenizer.role import text_of
from trivium.tokenizer.spiece import PieceModel, parse_pieces
from trivium.tokenizer.splitter import QWEN2_WORDS, split_words

Backend = tokenizers.Tokenizer
Settings = dict[str, Any]
PIECE_FILES = ("spiece.model", "tokenizer.model", "sentencepiece.model", "sentencepiece.bpe.model")
# The order in which transformers gives new ids.
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# What the class of a folder's tokenizer, or the type of its model, means for older files.
_KINDS = {
    "bert": ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "bert", "distilbert", "electra"),
    "gpt2": ("GPT2Tokenizer", "CodeGenTokenizer", "gpt2", "gpt_neo", "gptj", "codegen"),
    "roberta": ("RobertaTokenizer", "BartTokenizer", "LongformerTokenizer", "roberta", "bart", "longformer"),
    "qwen": ("Qwen2Tokenizer", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
    "t5": ("T5Tokenizer", "MT5Tokenizer", "t5", "mt5"),
    "llama": ("LlamaTokenizer", "CodeLlamaTokenizer", "llama", "mistral"),
    "marian": ("MarianTokenizer", "marian"),
}
_END = "<|endoftext|>"
_CLASSIC = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
# Roles that a kind has unless its settings say otherwise.
_NAMED: dict[str, dict[str, str]] = {
    "bert": {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    | {"mask_token": "[MASK]"},
    "gpt2": {"unk_token": _END, "bos_token": _END, "eos_token": _END},
    "roberta": _CLASSIC | {"sep_token": "</s>", "cls_token": "<s>", "pad_token": "<pad>", "mask_token": "<mask>"},
    "qwen": {"unk_token": _END, "eos_token": _END, "pad_token": _END},
    "t5": {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    "llama": dict(_CLASSIC),
    "marian": {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
}
_TYPED_INPUTS = ["input_ids", "token_type_ids", "attention_mask"]


def read_folder(folder: Path) -> tuple[Backend, Settings]:
    """The fast tokenizer of a folder and its settings, special tokens named; raises `HubError` with what is wrong."""
    settings = _read_settings(folder)
    kind = _kind_of(folder, settings)
    if (folder / "tokenizer.json").is_file():
        backend = guarded(folder, lambda: Backend.from_str(read_bytes(folder, "tokenizer.json").decode()))
        # Asked one by one: a dictionary of the whole vocabulary takes as long as a third of reading the file.
        candidates = _NAMED.get(kind, {}).items()
        named: Settings = {role: text for role, text in candidates if backend.token_to_id(text) is not None}
        settings = named | settings
    else:
        build, kind = _builder(folder, kind)
        settings = {**_NAMED.get(kind, {}), **settings}
        backend = guarded(folder, lambda: build(folder, settings))
    if kind == "bert":
        settings.setdefault("model_input_names", _TYPED_INPUTS)
    if kind == "llama" and settings.get("tokenizer_class") != "PreTrainedTokenizerFast":
        settings.setdefault("padding_side", "left")  # as its class has it
    guarded(folder, lambda: backend.add_tokens(list(_tokens_to_add(folder, backend, settings))))
    if not (folder / "tokenizer.json").is_file():
        guarded(folder, lambda: _put_round(backend, settings, kind))
    return backend, settings


def _read_settings(folder: Path) -> Settings:
    settings: Settings = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            found = guarded(folder, partial(read_json, inside(folder, name)))
            settings |= found
    if (folder / "chat_template.jinja").is_file():
        settings["chat_template"] = guarded(folder, lambda: read_bytes(folder, "chat_template.jinja").decode())
    extra = settings.get("additional_special_tokens")
    if extra and not settings.get("extra_special_tokens"):
        settings["extra_special_tokens"] = extra
    return settings


def _kind_of(folder: Path, settings: Settings) -> str:
    names: list[Any] = [settings.get("tokenizer_class")]
    if (folder / "config.json").is_file():
        config = read_json(inside(folder, "config.json"))
        names += [config.get("tokenizer_class"), config.get("model_type")]
    for name in names:
        name = name.removesuffix("Fast") if isinstance(name, str) else ""
        for kind, known in _KINDS.items():
            if name in known:
                return kind
    return ""


def _builder(folder: Path, kind: str) -> tuple[Callable[[Path, Settings], Backend], str]:
    """What puts a tokenizer together from the files that are there, and the kind that it is after all."""
    has = {path.name for path in folder.iterdir()}
    if {"source.spm", "vocab.json"} <= has:
        return _marian, "marian"
    if {"vocab.json", "merges.txt"} <= has:
        if kind not in ("gpt2", "roberta", "qwen"):
            kind = "roberta" if "<mask>" in read_json(inside(folder, "vocab.json")) else "gpt2"
        return _byte_level(kind), kind
    if pieces := [name for name in PIECE_FILES if name in has]:
        model = parse_pieces(read_bytes(folder, pieces[0]))
        if kind == "t5" or (not kind and pieces[0] == "spiece.model"):
            return (lambda _, settings: _t5(model, settings)), "t5"
        if kind == "llama":
            return (lambda _, settings: _llama(model, settings)), "llama"
        return (lambda _, settings: _pieces(model, settings)), ""
    if "vocab.txt" in has:
        return _bert, "bert"
    wanted = "vocab.txt, vocab.json with merges.txt, or a SentencePiece model"
    raise HubError(f"{folder} has no tokenizer.json; expected that, {wanted}; get or save the tokenizer's files")


def _bert(folder: Path, settings: Settings) -> Backend:
    read_bytes(folder, "vocab.txt")  # of a size that can be read
    vocabulary = models.WordPiece.read_file(str(inside(folder, "vocab.txt")))
    backend = Backend(models.WordPiece(vocabulary, unk_token=text_of(settings["unk_token"]) or "[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=settings.get("strip_accents"),
        lowercase=bool(settings.get("do_lower_case", True)),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def _byte_level(kind: str) -> Callable[[Path, Settings], Backend]:
    def build(folder: Path, settings: Settings) -> Backend:
        for name in ("vocab.json", "merges.txt"):
            read_bytes(folder, name)  # of a size that can be read
        files = str(inside(folder, "vocab.json")), str(inside(folder, "merges.txt"))
        vocabulary, merges = models.BPE.read_file(*files)
        model = models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
        backend, space = Backend(model), bool(settings.get("add_prefix_space", False))
        backend.decoder = decoders.ByteLevel()
        if kind == "qwen":
            backend.normalizer = normalizers.NFC()
            backend.pre_tokenizer = split_words(QWEN2_WORDS, space=space)
        else:
            backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
        return backend

    return build


def _t5(model: PieceModel, settings: Settings) -> Backend:
    count = int(settings.get("extra_ids", 100))
    if not 0 <= count <= 10_000:
        raise ValueError(f"extra_ids is {count}")
    sentinels = [f"<extra_id_{index}>" for index in range(count)]
    settings.setdefault("extra_special_tokens", sentinels)
    backend = model.unigram([(text, 0.0) for text in reversed(sentinels)], byte_fallback=False)
    backend.add_tokens(model.added)
    split = pre_tokenizers.WhitespaceSplit()
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.Metaspace(prepend_scheme="always")])
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    return backend


def _llama(model: PieceModel, settings: Settings) -> Backend:
    space = settings.get("add_prefix_space") in (None, True)
    scheme = ("always" if settings.get("legacy", False) else "first") if space else "never"
    backend = model.bpe(byte_fallback=True)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(content=" ", left=1)] if space else steps)
    settings.setdefault("add_bos_token", True)
    backend.add_tokens(model.added)
    return backend


def _pieces(model: PieceModel, settings: Settings) -> Backend:
    """A SentencePiece model of no known kind, as its own file describes it."""
    if model.kind == 2:
        backend = model.bpe(unk_token=model.names["unk"], byte_fallback=model.byte_fallback)
    else:
        backend = model.unigram()
    backend.normalizer = model.normalizer()
    steps: list[Any] = [decoders.Replace("▁", " ")]
    steps += [decoders.ByteFallback(), decoders.Fuse()] if model.byte_fallback else [decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, *([decoders.Strip(content=" ", left=1)] if model.space_first else [])])
    for role in ("bos", "eos", "unk"):
        if model.ids[role] >= 0:
            settings.setdefault(f"{role}_token", model.names[role])
    backend.add_tokens(model.added)
    return backend


def _marian(folder: Path, settings: Settings) -> Backend:
    """Pieces and scores of the source language's SentencePiece model, ids of the vocabulary that both share."""
    if settings.get("separate_vocabs") or (folder / "target_vocab.json").exists():
        raise HubError(
            f"{folder} has a vocabulary for each language; expected one for both; choose a Marian model that has"
        )
    model = parse_pieces(read_bytes(folder, "source.spm"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # a saved copy is one file
    ids = read_json(inside(folder, "vocab.json"))
    if sorted(map(str, ids.values())) != sorted(map(str, range(len(ids)))):
        raise ValueError(f"vocab.json does not number its {len(ids)} pieces from 0 on")
    scores = {text: score for text, score, kind in model.pieces if kind == 1}
    # What only the target language has is never the better spelling, but keeps its id for decoding.
    worst = min(scores.values(), default=0.0) - 100.0
    ordered = sorted(ids, key=ids.__getitem__)
    unk = ids[text_of(settings["unk_token"]) or ""]
    backend = Backend(models.Unigram([(text, scores.get(text, worst)) for text in ordered], unk, False))
    backend.normalizer = model.normalizer()
    ends = decoders.Replace(Regex(r"\A +| +\z"), "")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), ends])
    codes = [text for text in ordered if text.startswith(">>") and text.endswith("<<")]
    backend.add_tokens([AddedToken(text, normalized=False) for text in codes])
    return backend


def _tokens_to_add(folder: Path, backend: Backend, settings: Settings) -> Iterable[AddedToken]:
    """Tokens that the settings name beyond the vocabulary, in the order in which they get new ids."""
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    named = [settings[role] for role in _ROLES if settings.get(role)]
    extra = settings.get("extra_special_tokens") or []
    extra = list(extra.values() if isinstance(extra, dict) else extra)
    special = {text_of(token) for token in [*named, *extra]}
    listed: dict[int, Any] = {int(key): token for key, token in (settings.get("added_tokens_decoder") or {}).items()}
    if not listed and (folder / "added_tokens.json").is_file():
        for content, index in read_json(inside(folder, "added_tokens.json")).items():
            listed[int(index)] = {"content": content, "special": content in special}
    old = not (folder / "tokenizer.json").is_file()
    has = backend.model.token_to_id
    for token in [*(listed[index] for index in sorted(listed)), *named, *extra]:
        text, options = text_of(token), dict(token) if isinstance(token, dict) else {}
        if text is None or text in known or (not old and has(text) is not None):
            continue
        known.add(text)
        control = text in special or options.get("special") is True
        flags = {flag: bool(options[flag]) for flag in ("lstrip", "rstrip", "single_word") if flag in options}
        yield AddedToken(text, special=control, normalized=bool(options.get("normalized", not control)), **flags)


def _put_round(backend: Backend, settings: Settings, kind: str) -> None:
    """The special tokens round a text and a pair, as each kind puts them."""
    first, last, cls, sep = (
        text_of(settings.get(role)) or "" for role in ("bos_token", "eos_token", "cls_token", "sep_token")
    )
    if kind == "roberta":
        backend.post_processor = processors.RobertaProcessing(
            (sep, backend.token_to_id(sep) or 0),
            (cls, backend.token_to_id(cls) or 0),
            trim_offsets=bool(settings.get("trim_offsets", True)),
            add_prefix_space=bool(settings.get("add_prefix_space", False)),
        )
        return
    if kind == "bert":
        frame(backend, f"{cls} $A {sep}", f"{cls} $A {sep} $B:1 {sep}:1")
    elif kind == "t5":
        frame(backend, f"$A {last}", f"$A {last} $B {last}")
    elif kind == "marian":
        frame(backend, f"$A {last}", f"$A $B {last}")
    else:
        before, after = first if settings.get("add_bos_token") else "", last if settings.get("add_eos_token") else ""
        single = f"{before} $A {after}"
        frame(backend, single, f"{single} {before and before + ':1'} $B:1 {after and after + ':1'}")
