"""The article's two samples, in exactly its lines but for the import, in a fresh process that reaches our hub alone."""

import json
from pathlib import Path

import torch
import transformers

from tests.hub.server import Hub

FIRST = """
from trivium import pipeline
generator = pipeline('text-generation', model='gpt2')
text = generator("The world is a beautiful place.")[0]['generated_text']
print(text)
"""

SECOND = """
from trivium import AutoModelForSeq2SeqLM, AutoTokenizer
model_name = "t5-small"
tokenizer = AutoTokenizer.from_pretrained(model_name)
model = AutoModelForSeq2SeqLM.from_pretrained(model_name)
"""

# What the article's reader does next.
THEN = """
inputs = tokenizer("summarize: Return the value of the named attribute.", return_tensors="pt")
ids = model.generate(**inputs, max_new_tokens=12, num_beams=2)
print(tokenizer.decode(ids[0], skip_special_tokens=True))
print(ids.tolist())
loss = model(**inputs, labels=tokenizer("Get an attribute.", return_tensors="pt")["input_ids"]).loss
print(loss.item())
"""

# The article's second sample, completed.
COMPLETED = """
import trivium

rows = [{"source": f"{word} the value of the named attribute of the object.", "target": f"{word} an attribute."}
        for word in ("Return", "Set", "Delete", "Show", "Find", "Copy") for _ in range(4)]
result = trivium.finetune(model, tokenizer, task="summarization", data={"train": rows, "valid": rows[::4]}, epochs=60,
                          optimizer={"rate": 5e-3}, run="runs/summaries")
text = "Delete the value of the named attribute of the object."
print(trivium.pipeline("summarization", model=result.folder)(text)[0]["summary_text"])
print(trivium.pipeline("summarization", model=model, tokenizer=tokenizer)(text)[0]["summary_text"])
ids = model.generate(**tokenizer("summarize: " + text, return_tensors="pt"), max_new_tokens=12)
print(tokenizer.decode(ids[0], skip_special_tokens=True))
print(result.before["rougeL"] < result.scores["rougeL"])
"""


def test_the_first_sample_runs_as_it_is_written(hub: Hub) -> None:
    printed = hub.run(FIRST).stdout
    assert printed.startswith("The world is a beautiful place.") and len(printed) > 40
    assert hub.run(FIRST).stdout == printed, "a folder's do_sample draws from a fixed seed"


def test_the_second_sample_runs_as_it_is_written(hub: Hub, t5_folder: Path) -> None:
    assert hub.run(SECOND).stdout == ""
    text, ids, loss = hub.run(SECOND + THEN).stdout.splitlines()
    reader = transformers.AutoTokenizer.from_pretrained(t5_folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(t5_folder).eval()
    inputs = reader("summarize: Return the value of the named attribute.", return_tensors="pt")
    expected = model.generate(**inputs, max_new_tokens=12, num_beams=2)
    assert json.loads(ids) == expected.tolist()
    assert text == reader.decode(expected[0], skip_special_tokens=True)
    labels = reader("Get an attribute.", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert abs(float(loss) - float(model(**inputs, labels=labels).loss)) < 1e-4


def test_the_second_sample_completed_learns_to_summarize(hub: Hub) -> None:
    folder, opened, generated, better = hub.run(SECOND + COMPLETED).stdout.splitlines()[-4:]
    assert folder == opened == generated == "Delete an attribute." and better == "True"
    assert json.loads((hub.home / "runs/summaries/final/config.json").read_text())["task_specific_params"] == {
        "summarization": {"prefix": "summarize: "}
    }


def test_a_summary_in_one_line(hub: Hub) -> None:
    code = """
from trivium import pipeline
print(pipeline("summarization", model="t5-small")("Return the value of the named attribute of the object."))
"""
    assert hub.run(code).stdout.startswith("[{'summary_text': '")
