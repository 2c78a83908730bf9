"""DESIGN's “token-identical”: equal up to the first near-tie of the reference, and near-ties are rare."""

from collections.abc import Callable, Sequence

import torch


def assert_identical(
    ours: Sequence[Sequence[int]],
    theirs: Sequence[Sequence[int]],
    gap_at: Callable[[int, int], float],
    *,
    tolerance: float = 1e-4,
) -> int:
    """Compare rows of tokens; `gap_at(row, step)` is the reference's margin between its two best choices there.

    Returns how many rows differ at a near-tie, which may be 1 % of them.
    """
    ties = 0
    for row, (mine, reference) in enumerate(zip(ours, theirs, strict=True)):
        if list(mine) == list(reference):
            continue
        pairs = enumerate(zip(mine, reference, strict=False))
        step = next((step for step, (a, b) in pairs if a != b), min(len(mine), len(reference)))
        gap = gap_at(row, step)
        assert gap < tolerance, f"row {row} differs at {step} (gap {gap}): {list(mine)} for {list(reference)}"
        ties += 1
    print(f"{ties} near-ties in {len(ours)} rows")
    assert ties <= max(1, len(ours) // 100)
    return ties


def trim(sequences: torch.Tensor, start: int, eos_id: int | None) -> list[list[int]]:
    """The new tokens of transformers' padded result, up to and with the end token."""
    rows = []
    for row in sequences[:, start:].tolist():
        end = row.index(eos_id) + 1 if eos_id in row else len(row)
        rows.append(row[:end])
    return rows
