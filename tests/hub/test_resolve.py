"""Names and folders; a hub that is a small server on this machine, and no other network."""

import random
import re
import shutil
from pathlib import Path

import pytest

from tests.hub.server import Hub, list_tree
from trivium.errors import HubError
from trivium.hub import resolve as resolve_module
from trivium.hub.resolve import resolve_folder, verify_snapshot

GPT2 = "config.json generation_config.json merges.txt model.safetensors tokenizer.json tokenizer_config.json vocab.json"
FULL = "openai-community/gpt2"


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert resolve_folder(tmp_path) == tmp_path
    assert resolve_folder(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["runs/demo/decoder", "./nothing", "../nothing", "a b", "", "org/name/x@main"])
def test_what_is_neither_folder_nor_name(name: str) -> None:
    with pytest.raises(HubError, match="expected a model folder or a hub name like org/name"):
        resolve_folder(name if name else "/nothing")
    with pytest.raises(HubError, match="is no folder"):
        resolve_folder(Path("org/name"))


RESOLVE = """
import sys
from trivium.errors import HubError
from trivium.hub.resolve import resolve_folder
for name in sys.argv[1:]:
    try:
        print(*sorted(path.name for path in resolve_folder(name).iterdir()))
    except HubError as error:
        print(error)
"""


def resolve(hub: Hub, *names: str, **variables: str) -> str:
    """What a fresh process prints for some names: files, or the error."""
    return hub.run(RESOLVE, *names, **variables).stdout.strip()


def test_short_names_full_names_revisions_and_the_shared_cache(hub: Hub) -> None:
    from huggingface_hub import snapshot_download

    hub.revisions[FULL] = {"v1"}
    assert resolve(hub, "gpt2", FULL, f"{FULL}@v1", f"{FULL}@{hub.sha_of(FULL)}") == "\n".join([GPT2] * 4)
    assert all("agent-harnesses" not in request.path for request in hub.asked)
    # What trivium downloaded is what every other tool finds.
    found = snapshot_download(FULL, cache_dir=hub.home / "huggingface" / "hub", local_files_only=True)
    assert (Path(found) / "model.safetensors").is_file()
    count = len(hub.asked)
    assert resolve(hub, FULL, f"{FULL}@v1", HF_HUB_OFFLINE="1") == "\n".join([GPT2] * 2)
    assert len(hub.asked) == count


def test_code_and_pickles_are_not_downloaded(hub: Hub, gpt2_folder: Path, tmp_path: Path) -> None:
    source = shutil.copytree(gpt2_folder, tmp_path / "source")
    (source / "onnx").mkdir()
    for name in (
        "pytorch_model.bin",
        "modeling_tiny.py",
        "onnx/config.json",
        "consolidated.safetensors",
        "tf_model.h5",
    ):
        (source / name).write_bytes(b"raise SystemExit")
    hub.folders["org/tiny"] = source
    assert resolve(hub, "org/tiny") == GPT2
    asked = {request.path.rsplit("/", 1)[-1] for request in hub.asked if "/resolve/" in request.path}
    assert asked == set(GPT2.split())


@pytest.mark.parametrize(
    ("name", "variables", "words"),
    [
        ("org/none", {}, r"has no such public model \(not found\); expected a name like org/name; check the spelling"),
        ("gpt-two", {}, r"has no such public model \(not found\)"),
        ("gpt2@v9", {}, r"has gpt2 but no revision 'v9'; expected a branch, tag or commit of it; leave @v9 out"),
        (
            "org/gated",
            {},
            r"\(gated\); expected such an account's token; ask at http://127.0.0.1:\d+/org/gated, then set",
        ),
        ("org/broken", {}, r"answered 500 .*; expected the model; try again later"),
        (
            "gpt2",
            {"HF_HUB_OFFLINE": "1"},
            r"not in this machine's cache \(.*\), and HF_HUB_OFFLINE is set; .*; unset HF_HU",
        ),
        (
            "gpt2",
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            r"could not be had from http://127.0.0.1:9 \(.*\); .*HF_ENDPOINT to",
        ),
        ("-x--y", {}, r"neither a folder nor a possible hub name; expected org/name"),
    ],
)
def test_a_name_that_cannot_be_had_says_why(
    hub: Hub, gpt2_folder: Path, name: str, variables: dict[str, str], words: str
) -> None:
    hub.folders |= {"org/gated": gpt2_folder, "org/broken": gpt2_folder}
    hub.gated.add("org/gated")
    hub.broken.add("org/broken")
    answer = resolve(hub, name, **variables)
    assert re.search(words, answer), answer
    assert "\n" not in answer and answer.startswith(name.split("@")[0]) and answer.count(";") == 2


def test_a_token_opens_a_gated_model(hub: Hub) -> None:
    hub.gated.add(FULL)
    assert "(gated)" in resolve(hub, FULL)
    assert resolve(hub, FULL, HF_TOKEN="secret") == GPT2


def test_a_full_disk_is_named(hub: Hub) -> None:
    (hub.home / "huggingface").write_text("no folder")
    answer = resolve(hub, FULL)
    assert "could not be stored in" in answer and "free some or set HF_HOME" in answer


def ranges(hub: Hub) -> list[str | None]:
    """Which parts of the weights were asked for."""
    weights = [request for request in hub.asked if request.path.endswith("/model.safetensors")]
    return [request.headers.get("Range") for request in weights if request.method == "GET"]


def test_a_cut_connection_resumes_where_it_was(hub: Hub, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    content = bytes(range(256)) * (100 * 1024)  # 25 MiB; the client keeps what came in pieces of 10
    (source / "model.safetensors").write_bytes(content)
    hub.folders["org/large"] = source
    hub.cuts["model.safetensors"] = 15 * 2**20
    assert resolve(hub, "org/large") == "model.safetensors"
    assert ranges(hub) == [None, f"bytes={10 * 2**20}-"]
    (found,) = (hub.home / "huggingface").rglob("model.safetensors")
    assert found.read_bytes() == content


KILLED = """
import os, sys, time
from huggingface_hub import file_download
from pathlib import Path
from trivium.hub.resolve import resolve_folder
real = file_download.http_get
def dying(url, temp_file, **options):
    if url.endswith(".safetensors"):
        while len(list(Path(os.environ["HF_HOME"]).rglob("snapshots/*/*"))) < int(sys.argv[2]):
            time.sleep(0.01)
        temp_file.write(bytes(1000))
        temp_file.flush()
        os._exit(9)
    return real(url, temp_file, **options)
file_download.http_get = dying
resolve_folder(sys.argv[1])
"""


def test_a_killed_download_goes_on_in_the_next_process(hub: Hub) -> None:
    """Whole files are kept; the client begins the one that was under way again."""
    with pytest.raises(AssertionError):
        hub.run(KILLED, FULL, str(len(GPT2.split()) - 1))
    offline = resolve(hub, FULL, HF_HUB_OFFLINE="1")
    assert "only partly in this machine's cache" in offline
    hub.asked.clear()
    assert resolve(hub, FULL) == GPT2
    fetched = {request.path.rsplit("/", 1)[-1] for request in hub.asked if "/resolve/" in request.path}
    assert fetched == {"model.safetensors"}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_transfer_is_noticed_and_not_kept(hub: Hub, name: str) -> None:
    hub.damaged.add(name)
    answer = resolve(hub, FULL)
    assert f"/{name} is damaged (hash " in answer and answer.endswith("do the same again to get it again")
    hub.damaged.clear()
    assert resolve(hub, FULL) == GPT2
    assert resolve(hub, FULL, HF_HUB_OFFLINE="1") == GPT2


def test_a_short_download_says_nothing_off_a_terminal(hub: Hub) -> None:
    assert hub.run(RESOLVE, FULL).stderr == ""


TOKENIZE = """
from trivium import AutoTokenizer
model_name = "t5-small"
tokenizer = AutoTokenizer.from_pretrained(model_name)
print(tokenizer("summarize: The value of a list.", return_tensors="pt").input_ids.tolist()[0][-1], len(tokenizer))
"""


def test_a_tokenizer_of_a_hub_name(hub: Hub) -> None:
    assert hub.run(TOKENIZE).stdout.strip() == "1 900"


def test_what_a_disk_did_to_a_snapshot_is_noticed(
    gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T9: bit flips, truncations, zeroed blocks, missing and swapped files, each named."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for entry in list_tree(gpt2_folder):
        name = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        shutil.copyfile(gpt2_folder / entry["path"], blobs / name)
        (snapshot / entry["path"]).symlink_to(Path("../../blobs") / name)
    monkeypatch.setattr(resolve_module, "_LARGE_BYTES", 1000)
    verify_snapshot(snapshot)
    draw = random.Random(0)
    for number in range(60):
        path = draw.choice(sorted(snapshot.iterdir()))
        good = path.read_bytes()
        at = draw.randrange(len(good))
        bad = [
            good[:at] + bytes([good[at] ^ 1 << draw.randrange(8)]) + good[at + 1 :],
            good[:at],
            good[:at] + bytes(b ^ b for b in good[at : at + 512]) + good[at + 512 :],
        ][number % 3]
        path.resolve().write_bytes(bad)
        if bad != good:
            blob = path.resolve()
            with pytest.raises(HubError, match=f"{path.name} is damaged .*; it was removed"):
                verify_snapshot(snapshot)
            blob.write_bytes(good)
            path.symlink_to(blob)
    for name in ("config.json", "model.safetensors"):
        blob = (snapshot / name).resolve()
        content = blob.read_bytes()
        blob.unlink()
        with pytest.raises(HubError, match=f"{name} is damaged or not readable"):
            verify_snapshot(snapshot)
        blob.write_bytes(content)
    verify_snapshot(snapshot)
    read: list[str] = []
    monkeypatch.setattr(resolve_module, "_compare", lambda path, expected: read.append(path.name))
    verify_snapshot(snapshot)  # what is large was read, and is as it was
    assert read == [path.name for path in sorted(snapshot.iterdir()) if path.stat().st_size < 1000]


def test_a_damaged_cache_is_not_used(hub: Hub) -> None:
    assert resolve(hub, FULL) == GPT2
    (weights,) = (hub.home / "huggingface").rglob("snapshots/*/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.resolve().write_bytes(content)
    assert "model.safetensors is damaged" in resolve(hub, FULL, HF_HUB_OFFLINE="1")
    assert resolve(hub, FULL) == GPT2
    assert weights.read_bytes() != bytes(content)


SLOW = """
import sys, time
from huggingface_hub import file_download
from trivium.hub import resolve
resolve._LINE_SECONDS = 0.05
real = file_download.http_get
def slow(url, temp_file, **options):
    real(url, temp_file, **options)
    temp_file.flush()
    time.sleep(0.3)
file_download.http_get = slow
resolve.resolve_folder(sys.argv[1])
"""


def test_a_long_download_tells_how_far_it_is_off_a_terminal(hub: Hub) -> None:
    lines = hub.run(SLOW, FULL).stderr.splitlines()
    assert len(lines) > 1 and all(re.fullmatch(rf"{FULL}: \d+\.\d MB downloaded", line) for line in lines), lines
    assert not lines[-1].endswith(" 0.0 MB downloaded")
    assert hub.run(SLOW, FULL, HF_HUB_DISABLE_PROGRESS_BARS="1").stderr == ""
