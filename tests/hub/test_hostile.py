"""T9 and T10 for model folders: hostile and broken ones load safely or are refused; nothing of theirs runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub.hostile import VARIANTS, make_folders
from trivium.hub.auto import load


def test_hostile_folders(gpt2_folder: Path, tmp_path: Path) -> None:
    assert len(VARIANTS) >= 200
    load(gpt2_folder)
    home = tmp_path / "folders"
    folders = make_folders(gpt2_folder, home)
    done = subprocess.run(
        [sys.executable, "-m", "tests.hub.hostile", str(gpt2_folder), str(home)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(folders), f"stopped at {list(VARIANTS)[len(results)]!r}: {done.stderr[-800:]}"
    wrong = []
    for name, result in zip(VARIANTS, results, strict=True):
        outcome = result["outcome"]
        if not outcome.startswith(("loaded", "refused: ")) or "\n" in outcome:
            wrong.append((name, "untyped", outcome[:300]))
        if result["noted"]:
            wrong.append((name, "did", result["noted"]))
        if result["grown"] > result["size"] + 200e6:
            wrong.append((name, "memory", f"{result['grown']:,}"))
        if name.startswith(("link ", "index to", "pickle", "cut", "length", "pipe", "nothing")) and outcome == "loaded":
            if "tokenizer" not in name and not name.startswith(("link generation", "link added", "link special")):
                wrong.append((name, "was not refused", ""))
    assert not wrong, "\n".join(map(str, wrong))
    assert not [*tmp_path.rglob("sprung"), *Path.cwd().glob("sprung")]
    refused = [name for name, result in zip(VARIANTS, results, strict=True) if result["outcome"] != "loaded"]
    assert len(refused) > 130 and max(result["seconds"] for result in results) < 60


@pytest.mark.parametrize("name", ["cut 0.5", "index swapped", "index shard missing", "index shard cut", "length 7"])
def test_what_is_broken_is_named(name: str, gpt2_folder: Path, tmp_path: Path) -> None:
    import shutil

    from trivium.errors import HubError

    folder = shutil.copytree(gpt2_folder, tmp_path / "x")
    VARIANTS[name](folder)
    with pytest.raises(HubError, match=r"\.safetensors"):
        load(folder)
