"""Model folders that mean harm or are broken, each made from a good one: `VARIANTS` maps a name to what spoils it.

Run as a program (`python -m tests.hub.hostile GOOD FOLDERS`) it loads each folder under an audit hook and prints, as
JSON lines, what became of it and what was done meanwhile.
"""

# ruff: noqa: E501  # a table: one attack, one line

import json
import os
import pickle
import random
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Spoil = Callable[[Path], object]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


class Trap:
    """A pickle of this runs a command when it is opened."""

    def __reduce__(self) -> Any:
        return os.system, ("touch sprung",)


def edit(name: str, **changes: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **changes}))

    return spoil


def edit_model(**changes: Any) -> Spoil:
    """Change the top level of tokenizer.json."""
    return edit("tokenizer.json", **changes)


def write(name: str, content: bytes | str) -> Spoil:
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def link(name: str, target: str = "") -> Spoil:
    """The file outside the folder, and a link to it (or to something else) in its place."""

    def spoil(folder: Path) -> None:
        outside = folder.parent / f"{folder.name}-outside-{name}"
        if (folder / name).exists():
            (folder / name).rename(outside)
        else:
            outside.write_text("{}")
        (folder / name).symlink_to(target or outside)

    return spoil


def replaced(name: str, make: Callable[[Path], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return spoil


def header(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """The header of the weights changed, its length set right."""

    def spoil(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        entries = json.loads(content[8 : 8 + size])
        changed = change(entries)
        text = changed if isinstance(changed, bytes) else json.dumps(entries).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])

    return spoil


def entry(**changes: Any) -> Spoil:
    """The first tensor's entry changed."""

    def change(entries: dict[str, Any]) -> None:
        entries[sorted(name for name in entries if name != "__metadata__")[0]].update(changes)

    return header(change)


def length(number: int) -> Spoil:
    return lambda folder: (folder / WEIGHTS).write_bytes(
        struct.pack("<Q", number % 2**64) + (folder / WEIGHTS).read_bytes()[8:]
    )


def cut(part: float) -> Spoil:
    def spoil(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(content[: int(len(content) * part)])

    return spoil


def flip(seed: int) -> Spoil:
    """One bit of the header."""

    def spoil(folder: Path) -> None:
        content = bytearray((folder / WEIGHTS).read_bytes())
        (size,) = struct.unpack("<Q", content[:8])
        draw = random.Random(seed)
        content[draw.randrange(8 + size)] ^= 1 << draw.randrange(8)
        (folder / WEIGHTS).write_bytes(content)

    return spoil


def shards(change: Callable[[Path, dict[str, str]], Any]) -> Spoil:
    """Two shards and an index, changed."""

    def spoil(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / WEIGHTS)
        names = sorted(tensors)
        index: dict[str, str] = {}
        for number, part in enumerate((names[::2], names[1::2]), 1):
            file = f"model-0000{number}-of-00002.safetensors"
            save_file({name: tensors[name] for name in part}, folder / file)
            index |= dict.fromkeys(part, file)
        (folder / WEIGHTS).unlink()
        changed = change(folder, index)
        (folder / INDEX).write_text(
            changed if isinstance(changed, str) else json.dumps({"weight_map": changed or index})
        )

    return spoil


def aimed(target: str) -> Spoil:
    return shards(lambda _, index: {**index, next(iter(index)): target})


def swapped(folder: Path, _: dict[str, str]) -> None:
    first, second = sorted(folder.glob("model-*"))
    first.rename(folder / "x")
    second.rename(first)
    (folder / "x").rename(second)


def old_tokenizer(**files: bytes | str) -> Spoil:
    """Older tokenizer files instead of tokenizer.json."""

    def spoil(folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        for name, content in files.items():
            write(name.replace("__", "."), content)(folder)

    return spoil


def model_part(**changes: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        content["model"] |= changes
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return spoil


def pickled(name: str) -> Spoil:
    """A pickle instead of the weights."""

    def spoil(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(pickle.dumps(Trap()))

    return spoil


DEEP = "[" * 200_000
OUT = "{out}"  # a good folder outside
CODE = "import pathlib; pathlib.Path('sprung').touch(); import os; os.system('touch sprung')\n"
SPLIT = {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}
VARIANTS: dict[str, Spoil] = {
    **{f"length {number}": length(number) for number in (0, 1, 7, 100_000_000, 2**31, 2**62, 2**63, -1)},
    **{f"cut {part}": cut(part) for part in (0, 0.00001, 0.001, 0.01, 0.5, 0.9999)},
    **{f"flip {seed}": flip(seed) for seed in range(20)},
    "trailing bytes": lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + bytes(64)),
    "zeroed start": lambda folder: (folder / WEIGHTS).write_bytes(bytes(512) + (folder / WEIGHTS).read_bytes()[512:]),
    "header list": header(lambda _: b"[]"),
    "header deep": header(lambda _: DEEP.encode()),
    "header deep object": header(lambda _: b'{"a":' * 50_000),
    "header spaces": header(lambda entries: json.dumps(entries).encode() + b" " * 30_000_000),
    "header many": header(lambda entries: entries.update({f"x{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(200_000)})),
    "header twice": header(lambda entries: json.dumps(entries).encode()[:-1] + b"," + json.dumps(entries).encode()[1:]),
    "metadata number": header(lambda entries: entries.update(__metadata__={"format": 3})),
    "metadata large": header(lambda entries: entries.update(__metadata__={"format": "pt", "x": "y" * 20_000_000})),
    "dtype unknown": entry(dtype="F128"),
    "dtype code": entry(dtype="__import__('os').system('touch sprung')"),
    "dtype number": entry(dtype=7),
    "shape negative": entry(shape=[-1, 4]),
    "shape huge": entry(shape=[2**40, 2**40]),
    "shape overflow": entry(shape=[2**63, 2]),
    "shape text": entry(shape=["4", 4]),
    "shape missing": entry(shape=None),
    "offsets reversed": entry(data_offsets=[64, 0]),
    "offsets beyond": entry(data_offsets=[0, 2**60]),
    "offsets negative": entry(data_offsets=[-8, 0]),
    "offsets overlapping": header(lambda entries: [each.update(data_offsets=[0, 8192]) for name, each in entries.items() if name != "__metadata__"]),
    "name outside": header(lambda entries: entries.update({"../../x": entries.pop(sorted(entries)[1])})),
    "not safetensors but pickle": write(WEIGHTS, pickle.dumps(Trap())),
    "weights are a folder": replaced(WEIGHTS, lambda path: path.mkdir()),
    "weights are a pipe": replaced(WEIGHTS, os.mkfifo),
    **{f"pickle {name}": pickled(name)
       for name in ("pytorch_model.bin", "model.pt", "model.pth", "pytorch_model.bin.index.json", "model.pkl", "model.ckpt")},
    **{f"index to {target!r}": aimed(target) for target in (
        "../good/model.safetensors", "/etc/passwd", OUT + "/model.safetensors", "..", ".", "", "http://127.0.0.1:9/x.safetensors",
        "sub/../../x.safetensors", "..\\x.safetensors", "x\x00.safetensors", "pytorch_model.bin", "config.json", INDEX, "missing.safetensors",
    )},
    "index to a number": shards(lambda _, index: {**index, next(iter(index)): 3}),
    "index list": shards(lambda _, __: "[]"),
    "index deep": shards(lambda _, __: DEEP),
    "index many": shards(lambda _, index: {**index, **{f"x{i}": "model-00001-of-00002.safetensors" for i in range(200_000)}}),
    "index swapped": shards(swapped),
    "index shard missing": shards(lambda folder, _: (folder / "model-00001-of-00002.safetensors").unlink()),
    "index shard cut": shards(lambda folder, _: (folder / "model-00001-of-00002.safetensors").write_bytes(b"x")),
    "index shard link": shards(lambda folder, _: link("model-00001-of-00002.safetensors")(folder)),
    **{f"link {name}": link(name) for name in (
        "config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
        "chat_template.jinja", "added_tokens.json",
    )},
    **{f"link {name} to {target}": link(name, target) for name in ("config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS)
       for target in ("/etc/passwd", "/dev/zero", "/proc/self/environ", "..")},
    "link loop": replaced("config.json", lambda path: path.symlink_to("config.json")),
    "pipe config.json": replaced("config.json", os.mkfifo),
    "pipe tokenizer.json": replaced("tokenizer.json", os.mkfifo),
    "pipe tokenizer_config.json": replaced("tokenizer_config.json", os.mkfifo),
    "folder config.json": replaced("config.json", lambda path: path.mkdir()),
    "folder tokenizer.json": replaced("tokenizer.json", lambda path: path.mkdir()),
    **{f"config {text[:9]!r}": write("config.json", text) for text in ("", "[]", "{", DEEP, '"x"', "\x00", "{} {}", "\ud800", "NaN", "1e999")},
    "config pickle": write("config.json", pickle.dumps(Trap())),
    "config deep value": write("config.json", '{"model_type":"gpt2","a":' + DEEP),
    "auto_map": lambda folder: (
        edit("config.json", auto_map={"AutoModel": "modeling_x.X", "AutoConfig": "configuration_x.X"}, trust_remote_code=True)(folder),
        [write(name, CODE)(folder) for name in ("modeling_x.py", "configuration_x.py", "__init__.py", "sitecustomize.py", "torch.py")],
    ),
    "auto_map tokenizer": lambda folder: (
        edit("tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_x.X", "tokenization_x.X"]}, tokenizer_class="X")(folder),
        write("tokenization_x.py", CODE)(folder),
    ),
    "auto_map elsewhere": edit("config.json", auto_map={"AutoModel": "org/other--modeling_x.X"}, _name_or_path="/etc"),
    "custom pipelines": edit("config.json", custom_pipelines={"x": {"impl": "x.X"}}, architectures=["__import__('os').system('x')"]),
    **{f"config {key}={value!r:.20}": edit("config.json", **{key: value}) for key, value in (
        ("n_layer", 10**9), ("n_layer", -1), ("n_layer", "2"), ("n_layer", 2.5), ("n_layer", None), ("n_head", 0), ("n_head", 7),
        ("n_embd", 0), ("n_embd", 2**40), ("vocab_size", 2**40), ("vocab_size", -5), ("n_positions", 2**62), ("n_inner", -3),
        ("layer_norm_epsilon", "x"), ("layer_norm_epsilon", float("nan")), ("model_type", ["gpt2"]), ("model_type", "../gpt2"), ("model_type", None),
        ("activation_function", "__import__('os').system('touch sprung')"), ("eos_token_id", "x"), ("eos_token_id", -1), ("tie_word_embeddings", "x"),
        ("dtype", "os.system"), ("torch_dtype", {"a": 1}), ("rope_parameters", {"rope_type": "x"}), ("architectures", {"x": 1}), ("tokenizer_class", ["x"]),
    )},
    **{f"tokenizer {text[:9]!r}": write("tokenizer.json", text) for text in ("", "[]", "{}", DEEP, "\x00", '{"model": null}', '{"model":' + DEEP)},
    "tokenizer pickle": write("tokenizer.json", pickle.dumps(Trap())),
    "tokenizer ids": edit_model(model={"type": "BPE", "vocab": {"a": 2_000_000_000}, "merges": []}),
    "tokenizer no vocab": edit_model(model={"type": "Unigram", "vocab": [], "unk_id": 0}),
    "tokenizer unk": edit_model(model={"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 5}),
    "tokenizer scores": write("tokenizer.json", '{"model": {"type": "Unigram", "vocab": [["a", 1e999]], "unk_id": 0}}'),
    "tokenizer charsmap": edit_model(normalizer={"type": "Precompiled", "precompiled_charsmap": "////////////"}),
    "tokenizer charsmap short": edit_model(normalizer={"type": "Precompiled", "precompiled_charsmap": "AA=="}),
    "tokenizer prepend": edit_model(normalizer={"type": "Prepend", "prepend": "x" * 1_000_000}),
    "tokenizer regex": edit_model(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}),
    "tokenizer slow regex": edit_model(pre_tokenizer=SPLIT),
    "tokenizer unknown part": edit_model(pre_tokenizer={"type": "Exec", "command": "touch sprung"}),
    "tokenizer decoder": edit_model(decoder={"type": "Strip", "content": " ", "start": 2**40, "stop": 2**40}),
    "tokenizer truncation": edit_model(truncation={"max_length": 0, "strategy": "LongestFirst", "stride": 10, "direction": "Right"}),
    "tokenizer padding": edit_model(padding={"strategy": {"Fixed": 2**40}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}),
    "tokenizer post": edit_model(post_processor={"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}], "pair": [], "special_tokens": {}}),
    "tokenizer added": edit_model(added_tokens=[{"id": 2**31, "content": "x", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}]),
    "tokenizer added many": edit_model(added_tokens=[{"id": 10_000 + i, "content": f"x{i}", "single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False} for i in range(20_000)]),
    "tokenizer merges": model_part(merges=["no such"]),
    "tokenizer merges odd": model_part(merges=["a", 3]),
    **{f"tokenizer_config {key}={value!r:.20}": edit("tokenizer_config.json", **{key: value}) for key, value in (
        ("vocab_file", "/etc/passwd"), ("tokenizer_file", "/etc/passwd"), ("added_tokens_decoder", {"x": {"content": "y"}}), ("added_tokens_decoder", {str(2**70): {"content": "y"}}),
        ("added_tokens_decoder", [1]), ("added_tokens_decoder", {"5": 5}), ("extra_special_tokens", 5), ("extra_special_tokens", [[["x"]]]), ("extra_special_tokens", {"a": {"b": 1}}),
        ("additional_special_tokens", [None, 3, "y"]), ("pad_token", ["x"]), ("pad_token", {"content": 5}), ("model_max_length", "x"), ("model_max_length", 1e400),
        ("tokenizer_class", "../../x"), ("chat_template", 5), ("chat_template", [5]), ("chat_template", {"default": {"x": 1}}), ("model_input_names", 5),
        ("clean_up_tokenization_spaces", "x"), ("extra_ids", 10**12), ("bos_token", ""),
        ("chat_template", "{{ ''.__class__.__mro__[1].__subclasses__() }}"), ("chat_template", "{{ lipsum.__globals__['os'].system('touch sprung') }}"),
        ("chat_template", "{% include '/etc/passwd' %}"), ("chat_template", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        ("chat_template", "{{ 'a' * 10**10 }}"), ("chat_template", "{% if %}"), ("chat_template", "{{ cycler.__init__.__globals__.os.popen('touch sprung') }}"),
    )},
    "special_tokens_map deep": write("special_tokens_map.json", DEEP),
    "special_tokens_map list": write("special_tokens_map.json", "[1]"),
    "generation_config deep": write("generation_config.json", DEEP),
    "jinja bytes": write("chat_template.jinja", b"\xff\xfe"),
    "jinja large": lambda folder: (folder / "chat_template.jinja").write_bytes(b"x" * 70_000_000),
    "vocab.txt bytes": old_tokenizer(vocab__txt=b"\xff\xfe\n\x00"),
    "vocab.txt empty": old_tokenizer(vocab__txt=""),
    "vocab.txt many": old_tokenizer(vocab__txt="\n" * 3_000_000),
    "vocab.json deep": old_tokenizer(vocab__json=DEEP, merges__txt="#version: 0.2\n"),
    "vocab.json ids": old_tokenizer(vocab__json='{"a": -1}', merges__txt=""),
    "vocab.json list": old_tokenizer(vocab__json="[]", merges__txt=""),
    "merges odd": old_tokenizer(vocab__json='{"a": 0}', merges__txt="a\nb c d\n"),
    "merges unknown": old_tokenizer(vocab__json='{"a": 0}', merges__txt="x y\n"),
    "spiece empty": old_tokenizer(spiece__model=b""),
    "spiece noise": old_tokenizer(spiece__model=bytes(range(256)) * 40),
    "spiece endless number": old_tokenizer(spiece__model=b"\xff" * 1000),
    "spiece long piece": old_tokenizer(spiece__model=b"\x0a\xa2\x8d\x06\x0a\x9e\x8d\x06" + b"a" * 99_998),
    "spiece cut": old_tokenizer(spiece__model=b"\x0a\xff\xff\xff\x7f"),
    "spiece charsmap": old_tokenizer(spiece__model=b"\x0a\x03\x0a\x01a\x1a\x06\x12\x04\xff\xff\xff\xff"),
    "marian odd": old_tokenizer(source__spm=b"\x0a\x03\x0a\x01a", vocab__json='{"a": 7}'),
    "vocab.txt link": lambda folder: (old_tokenizer(vocab__txt="a\n")(folder), link("vocab.txt")(folder)),
    "vocab.txt pipe": lambda folder: (old_tokenizer()(folder), os.mkfifo(folder / "vocab.txt")),
    "merges link": lambda folder: (old_tokenizer(vocab__json='{"a": 0}', merges__txt="")(folder), link("merges.txt")(folder)),
    "spiece link": lambda folder: (old_tokenizer(spiece__model=b"\x0a\x03\x0a\x01a")(folder), link("spiece.model")(folder)),
    "nothing": lambda folder: [path.unlink() for path in folder.iterdir()],
    "zip": write(WEIGHTS, b"PK\x03\x04" + bytes(1000)),
}  # fmt: skip


def make_folders(good: Path, home: Path) -> list[Path]:
    """One spoiled copy of the good folder for each variant, in their order."""
    folders = []
    for number, spoil in enumerate(VARIANTS.values()):
        folder = home / f"{number:03d}"
        shutil.copytree(good, folder)
        spoil(folder)
        if (index := folder / INDEX).exists():
            index.write_text(index.read_text().replace(OUT, str(good)))
        folders.append(folder)
    return folders


ALLOWED = (
    "/sys/",
    "/proc/self/",
    f"/proc/{os.getpid()}/",
    "/dev/null",
    "/dev/urandom",
    sys.prefix,
    sys.base_prefix,
    "<",
)


def attack(good: Path, folders: list[Path]) -> None:
    """Load every folder under an audit hook; one JSON line each."""
    import signal
    import time
    import warnings

    from trivium import AutoTokenizer, load
    from trivium.errors import TriviumError

    warnings.simplefilter("ignore")
    current: list[Path] = []
    noted: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not current:
            return
        if event == "open":
            path = (
                os.path.realpath(os.fsdecode(arguments[0])) if isinstance(arguments[0], str | bytes) else "<descriptor>"
            )
            source = Path(__file__).resolve().parents[2] / "src"
            if not path.startswith((str(current[0]) + "/", str(source), *ALLOWED)):
                noted.append(f"open {path}")
        elif event.startswith(
            ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn")
        ):
            noted.append(event)
        elif event == "exec":
            where = getattr(arguments[0], "co_filename", "")
            if where.startswith(str(current[0])):
                noted.append(f"exec {where}")
        elif event == "import" and str(arguments[1] or "").startswith(str(current[0])):
            noted.append(f"import {arguments[0]}")

    def use(folder: Path) -> None:
        _, tokenizer = load(folder)
        tokenizer.encode("The value of xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx a list")
        if tokenizer.settings.get("chat_template"):
            tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
        AutoTokenizer.from_pretrained(folder)(["x"], truncation=True)

    def peak(*, reset: bool = False) -> int:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) * 1024

    def late(*_: object) -> None:
        raise TimeoutError("twenty seconds")

    signal.signal(signal.SIGALRM, late)
    use(good)
    sys.addaudithook(watch)
    for folder in folders:
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file() and not path.is_symlink())
        before, start = peak(reset=True), time.monotonic()
        noted.clear()
        signal.alarm(20)
        current.append(folder.resolve())
        try:
            use(folder)
            outcome = "loaded"
        except TriviumError as error:
            outcome = f"refused: {error}"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
        current.clear()
        signal.alarm(0)
        grown = peak() - before
        line = {"folder": folder.name, "outcome": outcome, "noted": noted[:3], "grown": grown, "size": size}
        print(json.dumps({**line, "seconds": round(time.monotonic() - start, 2)}), flush=True)


if __name__ == "__main__":
    attack(Path(sys.argv[1]), sorted(path for path in Path(sys.argv[2]).iterdir() if path.is_dir()))
