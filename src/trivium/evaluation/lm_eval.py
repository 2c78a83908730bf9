"""trivium's models in EleutherAI's lm-eval: `python -m trivium.evaluation.lm_eval run --model trivium …`.

Released lm-eval (0.4.13) knows only the models that its own process registers, so this command registers one and then
is lm-eval's own command line. What comes after it reads entry points (EleutherAI/lm-evaluation-harness#4013), and
pyproject.toml declares one. Scores are the sums that lm-eval's `hf` model makes, token by token.

Legend: B batch, T sequence, V vocabulary, N tokens of one continuation.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch

from trivium.data.batch import Example, collate
from trivium.errors import ConfigError, TriviumError
from trivium.generation.settings import BANS, combine_settings
from trivium.generation.write import generate
from trivium.hub.auto import load
from trivium.hub.decoding import read_generation
from trivium.hub.resolve import resolve_folder

LONGEST = 2048  # tokens read where neither model nor tokenizer says; lm-eval's own default
NEW_TOKENS = 256
Request = tuple[Any, Sequence[int], Sequence[int]]


class Scorer:
    """What lm-eval asks of a model. `pretrained` is a hub name or folder; `max_length` cuts contexts at their front."""

    cache_hook: Any  # of lm-eval's class, which `register` puts beside this one

    def __init__(
        self,
        pretrained: str,
        *,
        batch_size: int | str = 8,
        max_length: int | None = None,
        device: str | None = None,
        max_batch_size: int | None = None,
        dtype: str = "auto",
        **others: Any,
    ) -> None:
        super().__init__()
        others.pop("trust_remote_code", None)  # lm-eval's command adds it; no folder's code is ever run here
        if others or dtype not in ("auto", "float32"):
            found = ", ".join([*others, *([f"dtype={dtype}"] if dtype not in ("auto", "float32") else [])])
            wanted = "pretrained, max_length, device, batch_size, max_batch_size and dtype=float32"
            raise ConfigError(f"--model_args has {found}; expected {wanted}; drop it")
        self.name = str(pretrained)
        model, self.tokenizer = load(self.name)
        told = read_generation(resolve_folder(self.name))
        self.told = {name: told[name] for name in ("eos_token_id", *BANS) if name in told}
        self.config = model.config
        if self.config.family == "encoder" or self.config.head != "language":
            found = f"a model of family {self.config.family} with head {self.config.head}"
            raise ConfigError(f"{found} for lm-eval; expected one that writes; choose a decoder or encoder_decoder")
        # lm-eval's command asks for "cuda" where nobody said anything; its `hf` falls back in the same way.
        absent = not device or (device.startswith("cuda") and not torch.cuda.is_available())
        self._device = torch.device("cpu" if absent else str(device))
        self.model = model.eval().to(self._device)
        self.rows = int(batch_size) if str(batch_size).isdecimal() else max_batch_size or 8
        learned = self.config.max_positions if self.config.position == "learned" else 0
        stated = self.tokenizer.model_max_length
        known = self.config.max_positions or (stated if stated < 10**18 else LONGEST)
        self.max_length = min(max_length or known, learned or sys.maxsize)
        self.backend = "causal" if self.config.family == "decoder" else "seq2seq"

    @property
    def eot_token_id(self) -> int:
        """What ends a text."""
        found = self.tokenizer.eos_id if self.config.eos_id is None else self.config.eos_id
        if found is None:
            raise ConfigError(f"{self.name} has no token that ends a text; lm-eval needs one; set eos_token")
        return found

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without a context."""
        return self.eot_token_id if self.tokenizer.bos_id is None else self.tokenizer.bos_id

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval's caches tell tokenizers apart by."""
        return self.name.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The template that chats are rendered with, for lm-eval's records."""
        return str(self.tokenizer.settings.get("chat_template") or "") if chat_template else ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A chat as the text that the model reads."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids of a text; special tokens in it, which a chat template wrote, mean themselves."""
        if add_special_tokens is None:
            bos = self.tokenizer.bos_id
            add_special_tokens = bos is None or not string.startswith(self.tokenizer.decode([bos], skip_special=False))
        return self.tokenizer.encode_control(string, add_special=add_special_tokens)

    def _loglikelihood_tokens(self, requests: Sequence[Request], **_: Any) -> list[tuple[float, bool]]:
        """The log-probability of each continuation, and whether every token of it is the likeliest."""
        examples = [self._example(context, continuation) for _, context, continuation in requests]
        order = sorted(range(len(examples)), key=lambda row: -examples[row].num_tokens)
        found = [(0.0, False)] * len(examples)
        for start in range(0, len(order), self.rows):
            rows = order[start : start + self.rows]
            for row, answer in zip(rows, self._score([examples[row] for row in rows]), strict=True):
                found[row] = answer
                if requests[row][0] is not None:  # what lm-eval keeps of an interrupted run
                    self.cache_hook.add_partial("loglikelihood", requests[row][0], answer)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
        """The log-probability of each whole text, in windows of what the model reads, by lm-eval's own rule."""
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        windows: list[Request] = []
        owners = []
        for owner, (text,) in enumerate(request.args for request in requests):
            cut = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            parts = [(None, *make_disjoint_window(pair)) for pair in cut]
            windows += parts
            owners += [owner] * len(parts)
        sums = [0.0] * len(requests)
        for owner, (score, _greedy) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            sums[owner] += score
        return sums

    def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
        """What the model writes after each context, up to the first of the request's stop strings."""
        texts = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        for row, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(row)
        for members in groups.values():
            given = dict(requests[members[0]].args[1])
            until = given.pop("until", None) or []
            settings = self._ends([until] if isinstance(until, str) else until)
            length = next((given.pop(name) for name in ("max_gen_toks", "max_tokens") if name in given), None)
            if not given.get("do_sample", float(given.get("temperature") or 0) > 0):
                given = {name: value for name, value in given.items() if name not in ("temperature", "do_sample")}
            config = combine_settings({**self.told, "max_new_tokens": length or NEW_TOKENS}, {**given, **settings})
            room = self.max_length - (config.max_new_tokens if self.backend == "causal" else 0)
            if room < 1:
                raise ConfigError(
                    f"max_gen_toks is {config.max_new_tokens} for a model of {self.max_length} tokens; expected room "
                    "for a context; lower it"
                )
            members.sort(key=lambda row: -len(requests[row].args[0]))
            for start in range(0, len(members), self.rows):
                rows = members[start : start + self.rows]
                prompts = [self.tok_encode(requests[row].args[0])[-room:] or [self.prefix_token_id] for row in rows]
                for row, written in zip(
                    rows, generate(self.model, prompts, config, tokenizer=self.tokenizer, seeds=rows), strict=True
                ):
                    texts[row] = written.text or ""
                    self.cache_hook.add_partial("generate_until", requests[row].args, texts[row])
        return texts

    def _ends(self, until: Sequence[str]) -> dict[str, Any]:
        """Stop strings, and ids for those that are control tokens, which no text has."""
        ids = {text: self.tokenizer.backend.token_to_id(text) for text in until if text}
        ends = [number for number in ids.values() if number in self.tokenizer.control_ids]
        own = self.told.get("eos_token_id") or ([] if self.config.eos_id is None else [self.config.eos_id])
        own = own if isinstance(own, list | tuple) else [own]
        settings = {"stop": tuple(text for text in ids if ids[text] not in ends)}
        return settings | ({"eos_token_id": [*own, *ends]} if ends else {})

    def _example(self, context: Sequence[int], continuation: Sequence[int]) -> Example:
        """One continuation to score: after its context, or for an encoder–decoder beside it."""
        if self.backend == "seq2seq":
            start = self.config.pad_id if self.config.decoder_start_id is None else self.config.decoder_start_id
            read = np.array(context[-self.max_length :], dtype=np.int64)
            whole = [start, *continuation]
        else:
            read, whole = None, [*context, *continuation][-(self.max_length + 1) :]
        ids = np.array(whole, dtype=np.int64)
        weights = np.arange(len(ids) - 1) >= len(ids) - 1 - len(continuation)
        return Example(
            ids[:-1],
            np.ones(len(ids) - 1, dtype=np.int64),
            ids[1:],
            weights.astype(np.float32),
            read,
            None if read is None else np.ones(len(read), dtype=np.int64),
        )

    @torch.inference_mode()
    def _score(self, examples: Sequence[Example]) -> list[tuple[float, bool]]:
        batch = collate(examples, self.config.pad_id).to(str(self._device))
        hidden_BTD = self.model(batch.inputs, batch.context)
        found = []
        for row in range(len(examples)):
            chosen_T = batch.weights[row] > 0
            logs_NV = self.model.head(hidden_BTD[row][chosen_T]).float().log_softmax(-1)
            targets_N = batch.targets[row][chosen_T]
            score = float(logs_NV.gather(1, targets_N[:, None]).sum())
            found.append((score, bool((logs_NV.argmax(-1) == targets_N).all())))
        return found


def register() -> type:
    """Make `trivium` a model of lm-eval in this process and give the class; raises `ConfigError` without lm-eval."""
    made, registry = _make_class(), importlib.import_module("lm_eval.api.registry")
    if "trivium" in registry.model_registry:
        return cast(type, registry.get_model("trivium"))
    return cast(type, registry.register_model("trivium")(made))


def __getattr__(name: str) -> type:
    """`TriviumLM`, which the entry point names: made when it is asked for, as lm-eval may be missing."""
    if name == "TriviumLM":
        return _make_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _make_class() -> type:
    """lm-eval takes only subclasses of its own: theirs encodes requests, ours does all else."""
    try:
        api = importlib.import_module("lm_eval.api.model")
    except ImportError:
        raise ConfigError(
            "lm-eval was asked for and is missing; expected it beside trivium; run: pip install 'trivium[lm-eval]'"
        ) from None
    return type("TriviumLM", (Scorer, api.TemplateLM), {})


def main() -> None:
    """lm-eval's command line, with `--model trivium`."""
    try:
        register()
        importlib.import_module("lm_eval.__main__").cli_evaluate()
    except TriviumError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
