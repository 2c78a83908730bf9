"""Whole pipelines, texts in and results out: trivium beside transformers and a hand-written loop, float32.

Three works on small models with random weights, built by transformers and opened by both from one folder:

- generation: a GPT-2 of 6 layers (768 wide, 49,000 tokens), 200 prompts of 6 to 60 tokens, greedy, 32 new tokens;
- summarization: T5-small's shape, 200 texts of 40 to 220 tokens, beam 4, 24 new tokens;
- embeddings: MiniLM's shape (6 layers, 384 wide), 200 texts of 4 to 120 tokens, cosines of the first to all others.

transformers takes the best of its settings in a trial (attention form, size of batches, sorted by length or not; on
80 or 24 texts where they take long), and so does the loop, which uses transformers' model without its generate.
trivium's `pipeline` takes its defaults.
Results are compared first. Then all write in turn, A B C A B C. Prints seconds and ratios round by round.

    python benchmarks/pipelines.py [--rounds 5] [--only NAME …] [--record]
"""

import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from table import in_rounds, make_parser, show_rows

TEXTS, WRITTEN, SUMMARY, BEAMS = 200, 32, 24, 4
TRIALS = {"generation": 80, "summarization": 24, "embeddings": TEXTS}  # texts of a trial
Run = Callable[[], Any]
Settings = dict[str, Run]
# A batch of indices after another, and how they are chosen.
Plan = tuple[str, list[list[int]]]


def make_tokenizer(folder: Path, size: int, template: str) -> list[str]:
    """A byte-level BPE on made-up words in `folder`, as transformers keeps it; returns the words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    draw = random.Random(0)
    ends = [*"aeiou", "ea", "ou", "an", "er", "in"]
    parts = [a + b for a in [*"bcdfghklmnprstvw", "st", "tr"] for b in ends]
    words = ["".join(draw.choices(parts, k=draw.randint(1, 4))) for _ in range(60_000)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>", "<s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, special_tokens=special)
    tokenizer.train_from_iterator([" ".join(words)], trainer)
    if template:
        ids = [(token, tokenizer.token_to_id(token)) for token in special]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", bos_token="<s>")
    fast.save_pretrained(folder)
    return words


def make_texts(words: Sequence[str], count: int, shortest: int, longest: int) -> list[str]:
    """Texts of different lengths, more short ones than long ones, in no order."""
    draw = random.Random(1)
    sizes = [round(shortest * (longest / shortest) ** (index / (count - 1))) for index in range(count)]
    draw.shuffle(sizes)
    return [" ".join(draw.choices(words, k=max(size // 2, 1))) for size in sizes]


def deepen(model: Any) -> None:
    """Larger weights than the initial ones: else every text is one token repeated, and equal texts prove nothing."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and (".h." in name or ".block." in name):
                parameter.mul_(3)


def plans(lengths: Sequence[int], sizes: Sequence[int]) -> list[Plan]:
    """Ways to cut texts into batches: as they come or sorted by length, so many rows at a time."""
    ways = {"as they come": list(range(len(lengths)))}
    ways["sorted"] = sorted(ways["as they come"], key=lambda index: -lengths[index])
    return [
        (f"batches of {size}, {way}", [order[start : start + size] for start in range(0, len(order), size)])
        for size in sizes
        for way, order in ways.items()
        if size < len(lengths) or way != "sorted"
    ]


def budgets(lengths: Sequence[int], limits: Sequence[int]) -> list[Plan]:
    """Sorted by length, as many rows as fit into so many tokens."""
    found = []
    for limit in limits:
        batches: list[list[int]] = [[]]
        for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
            if batches[-1] and lengths[batches[-1][0]] * (len(batches[-1]) + 1) > limit:
                batches.append([])
            batches[-1].append(index)
        found.append((f"batches of {limit} tokens, sorted", batches))
    return found


def in_batches(
    model: Any, forms: Sequence[str], ways: Sequence[Plan], work: Callable[[list[int]], list[Any]]
) -> Settings:
    """Every form of attention with every way to cut batches."""

    def make(form: str, batches: list[list[int]]) -> Run:
        def run() -> list[Any]:
            if model.config._attn_implementation != form:
                model.set_attn_implementation(form)
            results: dict[int, Any] = {}
            for batch in batches:
                results.update(zip(batch, work(batch), strict=True))
            return [results[index] for index in range(len(results))]

        return run

    return {f"{form}, {way}": make(form, batches) for form in forms for way, batches in ways}


def generation(folder: Path, count: int) -> tuple[Run, Settings, Settings]:
    """Ours, transformers' settings and the loop's: continuations of prompts."""
    import torch
    from transformers import AutoTokenizer, DynamicCache, GPT2Config, GPT2LMHeadModel

    words = make_tokenizer(folder, 49_000, "")
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = GPT2LMHeadModel(GPT2Config(n_layer=6, vocab_size=len(tokenizer), bos_token_id=2, eos_token_id=1)).eval()
    deepen(model)
    model.save_pretrained(folder)
    texts = make_texts(words, count, 6, 60)
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]

    def read(batch: list[int]) -> Any:
        return tokenizer([texts[index] for index in batch], return_tensors="pt", padding=True)

    def generate(batch: list[int]) -> list[str]:
        given = read(batch)
        ids, mask = given["input_ids"], given["attention_mask"]
        out = model.generate(
            ids, attention_mask=mask, max_new_tokens=WRITTEN, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        return list(tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True))

    @torch.inference_mode()
    def loop(batch: list[int]) -> list[str]:
        given = read(batch)
        ids, mask, cache, written = given["input_ids"], given["attention_mask"], DynamicCache(), []
        places = (mask.cumsum(1) - 1).clamp(min=0)
        for _ in range(WRITTEN):
            out = model(
                ids,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            ids = out.logits[:, -1].argmax(-1, keepdim=True)
            written.append(ids)
            mask, places = torch.cat([mask, torch.ones_like(ids)], 1), places[:, -1:] + 1
        return list(tokenizer.batch_decode(torch.cat(written, 1), skip_special_tokens=True))

    from trivium import pipeline

    write = pipeline("text-generation", folder, return_full_text=False, do_sample=False, eos_token_id=[])
    ways, forms = plans(lengths, [16, 32, 64]), ["sdpa", "eager"]
    return (
        lambda: [found[0]["generated_text"] for found in write(texts, max_new_tokens=WRITTEN, min_new_tokens=WRITTEN)],
        in_batches(model, forms, ways, generate),
        in_batches(model, forms, ways, loop),
    )


def summarization(folder: Path, count: int) -> tuple[Run, Settings, Settings]:
    """Ours, transformers' settings and the loop's: summaries by beam search."""
    import torch
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    words = make_tokenizer(folder, 32_000, "$A </s>")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = T5Config(vocab_size=len(tokenizer), num_layers=6, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    model = T5ForConditionalGeneration(config).eval()
    deepen(model)
    model.save_pretrained(folder)
    texts = make_texts(words, count, 40, 220)
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    length = {"max_new_tokens": SUMMARY, "min_new_tokens": SUMMARY}

    def read(batch: list[int]) -> Any:
        return tokenizer(
            [texts[index] for index in batch], return_tensors="pt", padding=True, return_token_type_ids=False
        )

    def generate(batch: list[int]) -> list[str]:
        out = model.generate(**read(batch), num_beams=BEAMS, do_sample=False, **length)
        return list(tokenizer.batch_decode(out, skip_special_tokens=True))

    @torch.inference_mode()
    def loop(batch: list[int]) -> list[str]:
        """Beam search where nothing ends early, which is all that this work needs."""
        from transformers import DynamicCache, EncoderDecoderCache
        from transformers.modeling_outputs import BaseModelOutput

        given, rows = read(batch), len(batch)
        memory = model.encoder(**given).last_hidden_state.repeat_interleave(BEAMS, 0)
        mask = given["attention_mask"].repeat_interleave(BEAMS, 0)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        ids = torch.zeros(rows * BEAMS, 1, dtype=torch.long)
        scores = torch.tensor([0.0] + [-1e9] * (BEAMS - 1)).repeat(rows)
        for _ in range(SUMMARY):
            out = model(
                encoder_outputs=BaseModelOutput(memory),
                attention_mask=mask,
                decoder_input_ids=ids[:, -1:],
                past_key_values=cache,
                use_cache=True,
            )
            found = out.logits[:, -1].log_softmax(-1)
            found[:, 1] = -torch.inf
            vocabulary = found.shape[1]
            best, index = (found + scores[:, None]).view(rows, -1).topk(BEAMS)
            parents = (index // vocabulary + torch.arange(rows)[:, None] * BEAMS).view(-1)
            ids = torch.cat([ids[parents], (index % vocabulary).view(-1, 1)], 1)
            scores = best.view(-1)
            cache.self_attention_cache.reorder_cache(parents)
        return list(tokenizer.batch_decode(ids[::BEAMS], skip_special_tokens=True))

    from trivium import pipeline

    write = pipeline("summarization", folder, num_beams=BEAMS, **length)
    ways, forms = plans(lengths, [4, 8, 16]), ["sdpa", "eager"]
    return (
        lambda: [found["summary_text"] for found in write(texts)],
        in_batches(model, forms, ways, generate),
        in_batches(model, forms, ways, loop),
    )


def embeddings(folder: Path, count: int) -> tuple[Run, Settings, Settings]:
    """Ours, transformers' settings and the loop's: cosines of the first text to all others, of mean vectors."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    words = make_tokenizer(folder, 30_000, "<s> $A </s>")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        pad_token_id=0,
    )
    model = BertModel(config).eval()
    model.save_pretrained(folder)
    texts = make_texts(words, count, 4, 120)
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]

    @torch.inference_mode()
    def embed(batch: list[int]) -> list[Any]:
        given = tokenizer(
            [texts[index] for index in batch], return_tensors="pt", padding=True, return_token_type_ids=False
        )
        hidden, mask = model(**given).last_hidden_state, given["attention_mask"][..., None]
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return list(torch.nn.functional.normalize(mean, dim=-1))

    def cosines(settings: Settings) -> Settings:
        def make(run: Run) -> Run:
            def compare() -> list[float]:
                first, *others = run()
                return list((torch.stack(others) @ first).tolist())

            return compare

        return {name: make(run) for name, run in settings.items()}

    from trivium import pipeline

    compare = pipeline("sentence-similarity", folder)
    forms = ["sdpa", "eager"]
    return (
        lambda: compare({"source_sentence": texts[0], "sentences": texts[1:]}),
        cosines(in_batches(model, forms, plans(lengths, [8, 16, 32]), embed)),
        cosines(in_batches(model, forms, [*budgets(lengths, [256, 512, 1024]), *plans(lengths, [1])[:1]], embed)),
    )


WORKS: dict[str, Callable[[Path, int], tuple[Run, Settings, Settings]]] = {
    "generation": generation,
    "summarization": summarization,
    "embeddings": embeddings,
}


def best_of(who: str, settings: Settings) -> str:
    """Run every setting once, the three quickest again; print them and return the name of the quickest."""
    next(iter(settings.values()))()
    seconds = {name: _timed(run) for name, run in settings.items()}
    for name in sorted(seconds, key=lambda name: seconds[name])[:3]:
        seconds[name] = min(seconds[name], _timed(settings[name]))
    for name, found in seconds.items():
        print(f"  {who}, {name}: {found:.2f} s in the trial")
    return min(seconds, key=lambda name: seconds[name])


def _timed(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def equal(ours: Sequence[Any], theirs: Sequence[Any]) -> str:
    """How many results are the same, in words; numbers within 1e-5."""
    if isinstance(ours[0], float):
        same = sum(abs(a - b) < 1e-5 for a, b in zip(ours, theirs, strict=True))
    else:
        same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return f"{same} of {len(ours)} results equal"


def compare(name: str, rounds: int, folder: Path) -> list[str]:
    """The row's cells against each peer."""
    import torch

    torch.manual_seed(0)
    _, *trials = WORKS[name](folder, TRIALS[name])
    peers = {who: best_of(who, settings) for who, settings in zip(("transformers", "a loop"), trials, strict=True)}
    torch.manual_seed(0)
    ours, theirs, loops = WORKS[name](folder, TEXTS)
    runs: dict[str, Run] = {
        "trivium": ours,
        "transformers": theirs[peers["transformers"]],
        "a loop": loops[peers["a loop"]],
    }
    results = {who: run() for who, run in runs.items()}
    for who in peers:
        print(f"  {name}, trivium and {who}: {equal(results['trivium'], results[who])}")
    seconds: dict[str, list[float]] = {who: [] for who in runs}
    for _ in range(rounds):
        for who, run in runs.items():
            seconds[who].append(_timed(run))
    lines = []
    for who, setting in peers.items():
        ratios = [theirs / ours for ours, theirs in zip(seconds["trivium"], seconds[who], strict=True)]
        lines.append(
            f"{name} | {statistics.median(seconds['trivium']):.2f} s | {who} ({setting}) "
            f"| {statistics.median(seconds[who]):.2f} s | {in_rounds(ratios)} "
            f"| {equal(results['trivium'], results[who])}"
        )
    return lines


def main() -> None:
    """Measure each work and print the table."""
    options = make_parser(__doc__, WORKS).parse_args()
    warnings.filterwarnings("ignore")
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    import torch
    import transformers

    from trivium.machine import inspect_machine

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    machine = inspect_machine()
    limits = f"{torch.get_num_threads()} threads, {machine.float32_gflops:.0f} GFLOP/s"
    print(f"{machine.machine_class}, {limits}; torch {torch.__version__}, transformers {transformers.__version__}")
    print(f"load average {os.getloadavg()[0]:.1f} (others' work disturbs: only ratios count)")
    lines = []
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            rows = compare(name, options.rounds, Path(folder))
        lines += [f"{limits} | {row}" for row in rows]
    columns = "limits | work | trivium | peer (its best setting) | its time | ratio, median (each round) | "
    show_rows(columns, lines, machine_class=machine.machine_class, record=options.record)


if __name__ == "__main__":
    main()
