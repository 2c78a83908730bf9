"""Folders travel to and from transformers 4 too, whose configs and files are laid out otherwise.

It cannot be installed beside version 5, so it lies in a folder of its own:

    pip install --target tf4 --no-deps "transformers==4.57.6" "huggingface_hub<1" "tokenizers<0.23"
    TRIVIUM_TRANSFORMERS_4=tf4 pytest tests/hub/test_version4.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.reference import PAIRS, build_pair, our_logits, sides
from trivium.hub.auto import load_model, save_model
from trivium.model.config import Head

CASES: list[tuple[str, Head]] = [(name, "language") for name in PAIRS]
CASES += [(name, head) for name in ("bert", "roberta", "distilbert", "gpt2", "qwen3") for head in ("sequence", "token")]
CASES += [(name, "span") for name in ("bert", "gpt2", "llama", "qwen2")]

# Opens each folder, writes its logits for the ids beside it, and saves it as version 4 does.
CHILD = """
import json, pathlib, sys, torch, transformers
from safetensors.torch import load_file, save_file
assert transformers.__version__.startswith("4."), transformers.__version__
for name in sys.argv[1:]:
    folder = pathlib.Path(name)
    opener = getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0])
    model, info = opener.from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
    assert not any(info.values()), (name, info)
    rows = load_file(folder / "rows.safetensors")
    with torch.no_grad():
        found = model.eval()(**rows)
    logits = found.logits if "logits" in found else torch.stack([found.start_logits, found.end_logits], -1)
    save_file({"logits": logits.contiguous()}, folder / "logits.safetensors")
    model.save_pretrained(folder / "old", safe_serialization=True)
"""


@pytest.mark.checkpoints
@torch.no_grad()
def test_version_4_opens_ours_and_we_open_its(tmp_path: Path) -> None:
    place = os.environ.get("TRIVIUM_TRANSFORMERS_4")
    if not place:
        pytest.skip("TRIVIUM_TRANSFORMERS_4 names no folder with transformers 4 (the docstring says how to get one)")
    folders, expected = [], []
    for name, head in CASES:
        pair = build_pair(name, head=head)
        inputs, context = sides(pair.ours)
        mask = (inputs.segments > 0).long()
        rows = {"input_ids": inputs.ids, "attention_mask": mask}
        if context is not None:
            rows = {"decoder_input_ids": inputs.ids, "decoder_attention_mask": mask}
            rows |= {"input_ids": context.ids, "attention_mask": (context.segments > 0).long()}
        folder = save_model(pair.ours, tmp_path / f"{name}-{head}")
        save_file({key: value.contiguous() for key, value in rows.items()}, folder / "rows.safetensors")
        folders.append(folder)
        expected.append(our_logits(pair.ours, inputs, context) if head == "language" else pair.ours.classify(inputs))
    paths = [str(Path(place).resolve()), str(Path.cwd() / "src")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-W", "ignore", "-c", CHILD, *map(str, folders)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for (name, head), folder, ours in zip(CASES, folders, expected, strict=True):
        theirs, seen = load_file(folder / "logits.safetensors")["logits"], load_file(folder / "rows.safetensors")
        mask = seen.get("decoder_attention_mask", seen["attention_mask"]) > 0
        difference = (theirs - ours).abs()
        assert float(difference.max() if ours.dim() == 2 else difference[mask].max()) <= 1e-4, folder.name
        again = load_model(folder / "old")
        inputs, context = sides(again)
        back = our_logits(again, inputs, context) if head == "language" else again.classify(inputs)
        difference = (back - ours).abs()
        assert float(difference.max() if ours.dim() == 2 else difference[mask].max()) <= 1e-5, folder.name
        written = json.loads((folder / "old" / "config.json").read_text())
        assert written["transformers_version"].startswith("4."), name
