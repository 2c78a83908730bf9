"""The tasks that write: continuing a text, rewriting it, summarising, translating; whole, in batches or in pieces.

Results have the keys that Hugging Face gives them. Sampling draws by the number of the text, so that the size of
batches changes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from trivium.data.sentence import split_sentences
from trivium.errors import RequestError
from trivium.generation.packed import prepare_decoding
from trivium.generation.row import Generation
from trivium.generation.settings import SETTINGS, SamplingConfig, combine_settings
from trivium.generation.text import stream_ids
from trivium.generation.write import generate
from trivium.pipelines.loaded import Answer, Loaded, Options, batches, too_long
from trivium.tokenizer.chat_mask import encode_chat_prompt
from trivium.tokenizer.windows import cut_end, until_end

_OURS = ("truncation", "prefix", "batch_size", "stream", "split_special_tokens")
OPTIONS = (*SETTINGS, "stop_strings", "stop_sequence", *_OURS)
_FORMS = ("return_full_text", "handle_long_generation", "long")
CONTINUING = (*OPTIONS, "return_full_text", "handle_long_generation")
SUMMARIZING = (*OPTIONS, "long")
# How many rows are written at once: 64 take 0.8 of the time of 16 on 2 cores, and their cache must fit in memory.
_ROWS, _CACHED_TOKENS = 64, 8192


def continue_texts(loaded: Loaded, items: Sequence[Any], options: Options) -> list[list[Answer]]:
    """For each text (or list of chat messages) `[{"generated_text": …}]`, one entry for each sequence asked for."""
    full, chats = options.get("return_full_text") is not False, [_is_chat(item) for item in items]
    written = write_texts(loaded, items, options)
    return [
        [
            _entry(found, "generated_text", _after(item, found.text or "", chat) if full else found.text)
            for found in answers
        ]
        for item, answers, chat in zip(items, written, chats, strict=True)
    ]


def rewrite_texts(loaded: Loaded, items: Sequence[Any], options: Options) -> list[list[Answer]]:
    """For each text `[{"generated_text": …}]`, or `summary_text` or `translation_text` as the task says."""
    name = _key(loaded.task)
    if options.get("long") == "map_reduce":
        items = [_reduce(loaded, text, options) for text in items]
    return [[_entry(found, name, found.text) for found in answers] for answers in write_texts(loaded, items, options)]


def write_texts(loaded: Loaded, items: Sequence[Any], options: Options) -> list[list[Generation]]:
    """What is written for each item, `num_return_sequences` texts each, in batches of similar length."""
    config, prompts = _prepare(loaded, items, options)
    copies = config.num_return_sequences
    model, answers = loaded.model, list[list[Generation]]([[]] * len(items))
    width = copies * config.num_beams
    sizes = [(len(prompt) + config.max_new_tokens) * width for prompt in prompts]
    cut = list(batches(sizes, options.get("batch_size"), tokens=_CACHED_TOKENS, rows=max(_ROWS // width, 1)))
    if len(cut) > 1:  # the decoder's weights are laid out once, not for each batch
        model = prepare_decoding(model, len(cut[0]) * width, new_tokens=config.max_new_tokens)
    for rows in cut:
        seeds = [config.seed + (loaded.first + row) * copies + copy for row in rows for copy in range(copies)]
        batch = [prompts[row] for row in rows]
        found = generate(model, batch, config, tokenizer=loaded.tokenizer, seeds=seeds)
        for place, row in enumerate(rows):
            answers[row] = found[place * copies : (place + 1) * copies]
    return answers


def stream_texts(loaded: Loaded, item: Any, options: Options) -> Iterator[str]:
    """What is written for one item in pieces as they become certain; the prompt is not among them."""
    if options.get("long") == "map_reduce":
        item = _reduce(loaded, item, options)
    config, (prompt,) = _prepare(loaded, [item], options)
    return stream_ids(loaded.model, loaded.tokenizer, prompt, config)


def _prepare(loaded: Loaded, items: Sequence[Any], options: Options) -> tuple[SamplingConfig, list[list[int]]]:
    """The settings of a call and the ids of its prompts, of which none is longer than the model reads."""
    given = {name: value for name, value in options.items() if name not in (*_OURS, *_FORMS)}
    if "stop_sequence" in given:
        given["stop"] = given.pop("stop_sequence")
    config = combine_settings(loaded.settings, given)
    prompts = _prompts(loaded, items, options, config)
    longest = max(map(len, prompts), default=0)
    if loaded.model.config.family == "decoder" and "max_length" not in given and longest >= config.max_length > 0:
        # A folder's total length (GPT-2's is 50) is a habit, not a limit: a longer prompt still gets an answer.
        config = replace(config, max_length=0)
    return config, prompts


def _prompts(loaded: Loaded, items: Sequence[Any], options: Options, config: SamplingConfig) -> list[list[int]]:
    prefix, truncation = options.get("prefix", loaded.prefix) or "", options.get("truncation")
    if options.get("handle_long_generation") == "hole":
        truncation = True
    chats = [item for item in items if _is_chat(item)]
    if chats and len(chats) < len(items):
        raise RequestError("texts and chats in one list; expected either; call once for each kind")
    if chats:
        prompts = [_chat_ids(loaded, chat) for chat in chats]
    elif options.get("split_special_tokens") is False:  # T5's <extra_id_0> in a text shall mean a gap
        prompts = [loaded.tokenizer.encode_control(prefix + _text(item), add_special=True) for item in items]
    elif loaded.separator:
        prompts = [_separated(loaded, prefix + _text(item)) for item in items]
    else:
        prompts = loaded.tokenizer.encode_batch([prefix + _text(item) for item in items], add_special=True)
    room = loaded.room(truncation)
    for row, prompt in enumerate(prompts):
        if not room or len(prompt) <= room:
            continue
        if not truncation:
            raise too_long(len(prompt), room, _advice(loaded))
        left = max(room - config.max_new_tokens, room // 2)
        if loaded.separator:
            prompts[row] = _separated(loaded, prefix + items[row], longest=left)
        elif loaded.model.config.family == "encoder_decoder":
            prompts[row] = loaded.encode(prefix + items[row], truncation=True).ids
        else:  # the end of the prompt is what is continued
            prompts[row] = prompt[-left:]
    return prompts


def _separated(loaded: Loaded, text: str, *, longest: int = 0) -> list[int]:
    """A text, or so much of it that `longest` tokens are not passed, and the separator, as fine-tuning showed them."""
    whole, after = loaded.tokenizer.pair(text), loaded.tokenizer.encode(loaded.separator, add_special=False)
    cut = cut_end(whole, 0, longest=longest - len(after)) if longest else whole
    if cut is None:
        raise too_long(len(whole.ids), longest)
    return [*until_end(cut), *after]


def _advice(loaded: Loaded) -> str:
    if loaded.model.config.family == "decoder" and not loaded.separator:
        return "pass truncation=True to keep its end, or shorten it"
    whole = loaded.model.config.position != "learned"
    more = "truncation=False to read it whole, which it was not trained for, " * whole
    more += "long='map_reduce' to summarise it in parts, " * (loaded.task == "summarization")
    return f"pass truncation=True to cut its end, {more}or shorten it"


def _reduce(loaded: Loaded, text: str, options: Options) -> str:
    """A text that fits: itself, or its parts' summaries one after another, again and again if they must be.

    Parts end where sentences do. Raises `RequestError` when the summaries are no shorter than the text.
    """
    prefix = options.get("prefix", loaded.prefix) or ""

    def size(part: str) -> int:
        return len(loaded.tokenizer.encode(prefix + part, add_special=True))

    plain = {name: value for name, value in options.items() if name not in ("long", "num_return_sequences")}
    text, before = _text(text), size(_text(text))
    limit = loaded.limit
    if loaded.separator and limit:  # a decoder's separator and answer stand in the same row
        config, _ = _prepare(loaded, [], plain)
        limit = limit - len(loaded.tokenizer.encode(loaded.separator, add_special=False)) - config.max_new_tokens
    while limit and before > limit:
        parts = list(split_text(text, lambda part: size(part) <= limit))
        text = " ".join((answers[0].text or "").strip() for answers in write_texts(loaded, parts, plain))
        now = size(text)
        if now >= before:
            raise RequestError(
                f"the summaries of {len(parts)} parts have {now} tokens, the text had {before}; expected fewer; "
                "set a smaller max_new_tokens"
            )
        before = now
    return text


def split_text(text: str, fits: Any) -> Iterator[str]:
    """Cut a text into parts for which `fits(part)` is true, as few as reading from the front gives.

    Parts end with a sentence where one fits, else in the middle of it; joined they are the text.
    """
    part = ""
    pieces = split_sentences(text)
    while pieces:
        piece = pieces.pop(0)
        if fits(part + piece):
            part += piece
        elif part:
            yield part
            part, pieces = "", [piece, *pieces]
        elif len(piece) > 1:
            half = (piece.rfind(" ", 1, len(piece) // 2) + 1) or len(piece) // 2
            pieces = [piece[:half], piece[half:], *pieces]
        else:
            raise RequestError("not even one character fits into what this model reads; expected room; use another")
    if part:
        yield part


def _key(task: str) -> str:
    if task.startswith("translation"):
        return "translation_text"
    return "summary_text" if task == "summarization" else "generated_text"


def _entry(found: Generation, name: str, text: Any) -> Answer:
    entry: Answer = {name: text}
    return entry if found.logprobs is None else entry | {"logprobs": found.logprobs}


def _is_chat(item: Any) -> bool:
    return isinstance(item, list) and bool(item) and all(isinstance(each, dict) for each in item)


def _text(item: Any) -> str:
    if isinstance(item, str):
        return item
    raise RequestError(f"an input of type {type(item).__name__}; expected text; pass a string or a list of strings")


def _after(item: Any, written: str, chat: bool) -> Any:
    """The prompt with what was written: a text or a begun answer goes on, another chat gets one more message."""
    if not chat:
        return item + written
    if _is_begun(item):
        return [*item[:-1], {**item[-1], "content": item[-1]["content"] + written}]
    return [*item, {"role": "assistant", "content": written}]


def _is_begun(chat: list[Any]) -> bool:
    """Whether a chat ends within an answer, which is to be continued."""
    return bool(chat[-1].get("role") == "assistant")


def _chat_ids(loaded: Loaded, chat: list[Any]) -> list[int]:
    if not _is_begun(chat):
        return encode_chat_prompt(loaded.tokenizer, chat)  # as it was trained, whether the template has a prompt or not
    return list(loaded.tokenizer.apply_chat_template(chat, return_dict=False, continue_final_message=True))
