"""Length, repetition, copying, novelty and memory of summaries, counted by hand and by a plain search."""

import random

import pytest

from trivium.evaluation.summaries import TrainingText, copy_rate, count_words, describe_output, novelty, repetition

SOURCE = "The quick brown fox jumps over the lazy dog, and then it sleeps."


def test_counts_by_hand() -> None:
    assert count_words("使用 Python 编程") == 5
    assert repetition("a b c a b c a b c") == pytest.approx(4 / 7)
    assert repetition("a b c d") == repetition("") == repetition("a b") == 0.0
    assert copy_rate("Quick brown fox sleeps", SOURCE) == pytest.approx(3 / 4)
    assert copy_rate("brown fox jumps over a cat", SOURCE) == pytest.approx(4 / 6)
    assert copy_rate("lazy dog", SOURCE) == 1.0 and copy_rate("dog lazy", SOURCE) == 0.0 == copy_rate("", SOURCE)
    assert copy_rate("快乐的一天", "今天是快乐的日子") == pytest.approx(3 / 5)
    assert novelty("the quick red fox", SOURCE) == pytest.approx(2 / 3)
    assert novelty("fox", SOURCE) == 0.0 == novelty(SOURCE, SOURCE)


def covered_by_search(words: list[str], texts: list[list[str]], run: int) -> float:
    marked = [False] * len(words)
    for start in range(len(words) - run + 1):
        part = words[start : start + run]
        if any(text[i : i + run] == part for text in texts for i in range(len(text) - run + 1)):
            marked[start : start + run] = [True] * run
    return sum(marked) / len(words) if words else 0.0


@pytest.mark.parametrize("run", [1, 2, 4])
def test_runs_equal_a_plain_search(run: int) -> None:
    draw = random.Random(run)
    texts = [[draw.choice("abcdef") for _ in range(draw.randint(0, 20))] for _ in range(12)]
    training = TrainingText([" ".join(text) for text in texts], run=run)
    for _ in range(300):
        words = [draw.choice("abcdefgh") for _ in range(draw.randint(0, 15))]
        expected = 1.0 if words and words in texts else covered_by_search(words, texts, run)
        assert training.verbatim(" ".join(words)) == pytest.approx(expected)
        if len(words) >= run:
            found = copy_rate(" ".join(words), " ".join(texts[-1]), run=run)
            assert found == pytest.approx(covered_by_search(words, texts[-1:], run))


def test_what_was_remembered_from_training() -> None:
    training = TrainingText([SOURCE, "short text"])
    assert training.verbatim("Short text!") == 1.0 == training.verbatim(SOURCE)
    assert training.verbatim("short texts") == 0.0 == training.verbatim("")
    assert training.verbatim("x " + SOURCE[:39]) == pytest.approx(8 / 9)
    assert TrainingText([]).verbatim("a b c d e f g h i") == 0.0


def test_an_output_is_described_as_far_as_is_known() -> None:
    assert list(describe_output("a b")) == ["length", "repetition"]
    found = describe_output("quick brown fox", SOURCE, TrainingText([SOURCE]))
    assert found == {"length": 3.0, "repetition": 0.0, "copy_rate": 1.0, "novelty": 0.0, "verbatim": 0.0}
