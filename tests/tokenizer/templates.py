"""Chat templates in the manner of well-known models, written anew: the constructs are theirs, the words are not.

Each has tags round what the assistant writes, which transformers makes its own mask from; without the tags they are the
templates as models bring them.
"""

import json
import re
from pathlib import Path
from typing import Any

from tests.tokenizer.wild import FOLDERS, _write

OPEN, CLOSE = "{% generation %}", "{% endgeneration %}"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    + OPEN
    + "{{ message['content'] + '<|im_end|>' }}"
    + CLOSE
    + "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMOLLM2 = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}" + CHATML
)
HEADERS = (
    "{{- bos_token }}{%- set now = strftime_now('%d %b %Y') %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nToday: ' + now + '\n\n' }}"
    "{%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] | trim }}{%- set messages = messages[1:] %}"
    "{%- endif %}{{- '<|eot_id|>' }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{%- if 'tool_calls' in message %}"
    + OPEN
    + '{{- \'{"name": "\' + message.tool_calls[0].function.name + \'", "parameters": \' }}'
    "{{- message.tool_calls[0].function.arguments | tojson }}{{- '}<|eom_id|>' }}"
    + CLOSE
    + "{%- elif message['role'] == 'assistant' %}"
    + OPEN
    + "{{- message['content'] | trim + '<|eot_id|>' }}"
    + CLOSE
    + "{%- else %}{{- message['content'] | trim + '<|eot_id|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
# Earlier thoughts are left out; the last answer gets an empty thought where it has none, which no prompt has.
THINKING = (
    "{%- set ns = namespace(last=messages|length - 1, seen=false) %}"
    "{%- for message in messages[::-1] %}{%- set index = messages|length - 1 - loop.index0 %}"
    "{%- if message.role == 'user' and not ns.seen %}{%- set ns.last = index %}{%- set ns.seen = true %}{%- endif %}"
    "{%- endfor %}{%- for message in messages %}"
    "{%- if message.role == 'assistant' %}"
    "{%- set thought = '' %}{%- set content = message.content or '' %}"
    "{%- if '</think>' in content %}"
    "{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>assistant\n' }}" + OPEN + "{%- if loop.index0 > ns.last and (loop.last or thought) %}"
    "{{- '<think>\n' + thought + '\n</think>\n\n' }}{%- endif %}{{- content }}"
    "{%- for call in message.tool_calls or [] %}"
    '{{- \'\n<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- call.function.arguments | tojson }}{{- '}\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>' }}"
    + CLOSE
    + "{{- '\n' }}"
    "{%- elif message.role == 'tool' %}"
    "{%- if messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}"
    "{{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}"
    "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{%- endif %}"
    "{%- else %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
# The prompt begins the thought, and answers are written without theirs: no prompt is the beginning of the chat.
FORCED = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'assistant' %}<|Assistant|>"
    + OPEN
    + "{{ message.content.split('</think>')[-1] }}<|end|>"
    + CLOSE
    + "{% else %}<|User|>{{ message.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
# No prompt of its own; the system's words come in the last user's turn, so earlier prompts are not the beginning.
MISTRAL = (
    "{{ bos_token }}{% set ns = namespace(system='') %}"
    "{% if messages[0].role == 'system' %}{% set ns.system = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% endif %}"
    "{% for message in messages %}"
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('not in turns') }}{% endif %}"
    "{% if message.role == 'user' %}[INST] "
    "{{ (ns.system if loop.index0 >= messages|length - 2 else '') + message.content }}[/INST]"
    "{% else %}" + OPEN + "{{ ' ' + message.content | trim + eos_token }}" + CLOSE + "{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}{{ '<start_of_turn>model\n' }}"
    + OPEN
    + "{{ message.content | trim + '<end_of_turn>' }}"
    + CLOSE
    + "{{ '\n' }}{% else %}{{ '<start_of_turn>' + message.role + '\n' + message.content | trim + '<end_of_turn>\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# A header in words that no prompt has, another end after the last turn, only the last three messages.
ODD = (
    "{% for message in messages[-3:] %}### {{ message.role | upper }} says: "
    "{% if message.role == 'assistant' %}"
    + OPEN
    + "{{ message.content }} <|end|>"
    + CLOSE
    + "{% else %}{{ message.content }} <|end|>{% endif %}\n{% endfor %}{{ eos_token }}"
)
TAGGED = {
    "chatml": CHATML,
    "smollm2": SMOLLM2,
    "llama3": HEADERS,
    "qwen3": THINKING,
    "forced": FORCED,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "odd": ODD,
}
PLAIN = {name: re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", text) for name, text in TAGGED.items()}
ADDED = [
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|User|>"),
    *("<|Assistant|>", "<|end|>", "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>"),
]
INSIDE = ["<think>", "</think>", "<tool_call>", "</tool_call>"]  # added, and not special


def folder_with(path: Path, template: str, kind: str = "qwen2") -> Path:
    """A folder with a tokenizer of a kind that knows the tokens above, and a template."""
    from tokenizers import AddedToken
    from transformers import AutoTokenizer

    FOLDERS[kind](path)
    settings: dict[str, Any] = json.loads((path / "tokenizer_config.json").read_text())
    special = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    settings |= {"extra_special_tokens": ADDED, **special}
    _write(path, tokenizer_config__json=settings, chat_template__jinja=template)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.add_tokens([AddedToken(each, special=False, normalized=False) for each in INSIDE])
    tokenizer.save_pretrained(path / "whole")
    return path / "whole"
