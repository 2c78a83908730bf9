"""Texts for the tests of tokenizers."""

import pydoc_data.topics
import random

TEXTS = list(pydoc_data.topics.topics.values())
MIXED = [
    "The quick brown fox's tail — 3.14159 times longer.",
    "自然语言处理是人工智能的一个方向。模型从文本中学习。",
    "def f(x):\n    return {'a': x ** 2}\t# comment",
    "emoji 👩‍👩‍👧‍👦 🇨🇳 ☕️ and\u200bzero width, \x00\x07 control",
    "  leading   and trailing  \n\n\r\n ",
    "naïve café Ωμέγα שלום नमस्ते",
    "",
]


def random_text(generator: random.Random, longest: int = 24) -> str:
    points = []
    for _ in range(generator.randrange(longest)):
        point = generator.choice(
            [generator.randrange(32, 127), generator.randrange(0x3000), generator.randrange(0x110000)]
        )
        points.append(chr(point) if not 0xD800 <= point < 0xE000 else " ")
    return "".join(points)
