"""Swapped tokens: the same on both sides, from the pool, never a common word, and equal for equal seed and step."""

from dataclasses import replace

import numpy as np
import pytest

from trivium.data.batch import Example
from trivium.data.examples import ExampleLoader
from trivium.data.swapping import OTHER, SHARED, Swapper, source_of
from trivium.tokenizer import train_tokenizer
from trivium.training.tune_course import swap_kinds

VOCAB, COMMON, NAMES, END = 200, 5, range(20, 200), 1


def make_examples(*, decoder: bool = False, count: int = 60) -> list[Example]:
    """`a COMMON b c <end>` → `b COMMON a <end>`: three names of each example's own, one that all of them have."""
    found = []
    for number in range(count):
        a, b, c = (NAMES[(3 * number + at) % len(NAMES)] for at in range(3))
        source, target = [a, COMMON, b, c, END], [b, COMMON, a, END]
        ids = np.array([*source, *target[:-1]] if decoder else [0, *target[:-1]])
        targets = np.array([*source[1:], *target] if decoder else target)
        weights = np.ones(len(ids), dtype=np.float32)
        if decoder:
            weights[: len(source) - 1] = 0
        context = None if decoder else np.array(source)
        ones = None if context is None else np.ones_like(context)
        found.append(Example(ids, np.ones_like(ids), targets, weights, context, ones))
    return found


def make_swapper(examples: list[Example], share: float = 1.0) -> Swapper:
    kinds = np.arange(VOCAB) % 2 + 1
    kinds[[0, END]] = 0
    return Swapper([examples], kinds, share=share)


@pytest.mark.parametrize("decoder", [False, True])
def test_both_sides_change_alike(decoder: bool) -> None:
    examples = make_examples(decoder=decoder)
    swapper, rng = make_swapper(examples), np.random.default_rng(0)
    changed = 0
    for example in examples:
        found = swapper.swap(example, rng)
        table: dict[int, int] = {}
        pairs = [(example.input_ids, found.input_ids), (example.targets, found.targets)]
        if example.context_ids is not None:
            assert found.context_ids is not None
            pairs.append((example.context_ids, found.context_ids))
        for old, new in pairs:
            for before, after in zip(old.tolist(), new.tolist(), strict=True):
                assert table.setdefault(before, after) == after
        assert all(table[token] == token for token in (0, COMMON, END) if token in table)
        shared = {name for name in example.targets.tolist() if name in NAMES}
        for before, after in table.items():
            changed += before != after and before in shared
            assert before % 2 == after % 2  # a word start for a word start
        assert np.array_equal(found.weights, example.weights)
    assert SHARED / 2 < changed / (2 * len(examples)) <= 1.0


def test_the_pool_is_what_both_sides_share() -> None:
    examples = make_examples()
    swapper = make_swapper(examples)
    expected = {token for example in examples for token in example.targets.tolist() if token in NAMES}
    assert set(np.concatenate(list(swapper.pools.values())).tolist()) == expected
    drawn = [swapper.swap(examples[0], np.random.default_rng(seed)) for seed in range(200)]
    before, *after = [int(source_of(each)[3]) for each in (examples[0], *drawn)]  # c, of the source alone
    assert OTHER / 2 < np.mean([token != before for token in after]) < 2 * OTHER


def test_what_begins_all_sources_of_a_small_set_stays() -> None:
    """A prefix says which task it is: rare among all examples, but not in its own set."""
    sign, large, small = 10, make_examples(count=500), make_examples(count=10)
    small = [replace(each, context_ids=np.array([sign, *source_of(each)])) for each in small]
    kinds = np.ones(VOCAB, dtype=np.int64)
    assert (
        Swapper([[*large, *small]], kinds, share=1.0).rare[sign]
        and not Swapper([large, small], kinds, share=1.0).rare[sign]
    )


def test_kinds_are_those_of_the_tokenizer() -> None:
    """A part of a character is no text, and a control token no name; word starts are told from what goes on."""
    texts = ["春眠不觉晓", "the red cat saw the blue owl", "处处闻啼鸟"] * 20
    tokenizer = train_tokenizer(texts, vocab_size=320, num_sentinels=4, single_characters=True)
    kinds = swap_kinds(tokenizer)
    ids = tokenizer.encode("the owl 春")
    parts = [token for token in ids if "\ufffd" in tokenizer.decode([token])]
    assert len(kinds) == tokenizer.vocab_size and not kinds[[*tokenizer.control_ids, *parts]].any()
    assert kinds[tokenizer.encode(" owl")[0]] == 2 and set(kinds) == {0, 1, 2}


def test_a_share_stays_and_none_without_names() -> None:
    examples = make_examples()
    rng = np.random.default_rng(0)
    half = [make_swapper(examples, 0.5).swap(example, rng) is example for example in examples * 4]
    assert 0.35 < np.mean(half) < 0.65
    same = make_examples(count=1) * 60  # everything occurs everywhere: nothing is a name
    assert np.array_equal(make_swapper(same).swap(same[0], rng).targets, same[0].targets)


def test_batches_depend_on_seed_step_and_epoch_alone() -> None:
    examples = make_examples()

    def load(seed: int = 0, swap: float = 1.0) -> ExampleLoader:
        swapper = make_swapper(examples, swap) if swap else None
        return ExampleLoader([examples], pad_id=0, rows_per_batch=10, pack=False, swapper=swapper, seed=seed)

    one, again = load(), load()
    for step in (7, 0, 7):
        assert np.array_equal(one.batch_at(step).targets, again.batch_at(step).targets)
    plain = load(swap=0.0)
    assert not np.array_equal(one.batch_at(3).targets, plain.batch_at(3).targets)
    valid = [batch.targets.tolist() for batch in one.valid_batches()]
    assert valid == [batch.targets.tolist() for batch in plain.valid_batches()]  # what is judged is as it came
    assert len({load(seed, swap).fingerprint for seed in (0, 1) for swap in (0.0, 0.5, 1.0)}) == 6
    first = one.sample_ids(0)[0]
    later = (first[0], first[1] + 1, first[2])
    assert any(
        not np.array_equal(one._change(first).targets, one._change((first[0], epoch, first[2])).targets)
        for epoch in range(1, 9)
    )
    assert np.array_equal(one._change(later).targets, again._change(later).targets)
