"""The chunked cross-entropy: F.cross_entropy's value and gradients, with never all logits at once."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trivium.training.loss import chunked_cross_entropy

N, D, V = 13, 6, 11


def make_inputs(dtype: torch.dtype = torch.float64, *, bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, generator=generator, dtype=dtype).requires_grad_()
    vocabulary = torch.randn(V, D, generator=generator, dtype=dtype).requires_grad_()
    return hidden, vocabulary, torch.randn(V, generator=generator, dtype=dtype).requires_grad_() if bias else None


TARGETS = torch.randint(V, (N,), generator=torch.Generator().manual_seed(1))
WEIGHTS = torch.tensor([1.0, 0.0, 2.0, 0.5] * 3 + [0.0])


def reference(hidden: Tensor, vocabulary: Tensor, bias: Tensor | None, *, smoothing: float, z_loss: float) -> Tensor:
    logits = F.linear(hidden, vocabulary, bias)
    losses = F.cross_entropy(logits, TARGETS, reduction="none", label_smoothing=smoothing)
    return ((losses + z_loss * logits.logsumexp(-1).square()) * WEIGHTS).sum()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("smoothing", "z_loss"), [(0.0, 0.0), (0.1, 0.0), (0.0, 1e-2), (0.1, 1e-2)])
@pytest.mark.parametrize("chunk_rows", [1, 4, 0])
def test_equal_to_the_plain_loss(bias: bool, smoothing: float, z_loss: float, chunk_rows: int) -> None:
    inputs = make_inputs(bias=bias)
    found = chunked_cross_entropy(
        *inputs, TARGETS, WEIGHTS, label_smoothing=smoothing, z_loss=z_loss, chunk_rows=chunk_rows
    )
    expected = reference(*inputs, smoothing=smoothing, z_loss=z_loss)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    learned = [each for each in inputs if each is not None]
    ours = torch.autograd.grad(found / 7, learned)
    theirs = torch.autograd.grad(expected / 7, learned)
    for mine, true in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-12, atol=1e-12)


def test_gradcheck() -> None:
    def loss(*inputs: Tensor) -> Tensor:
        return chunked_cross_entropy(*inputs, TARGETS, WEIGHTS, label_smoothing=0.1, z_loss=1e-3, chunk_rows=5)

    assert torch.autograd.gradcheck(loss, make_inputs())


def test_a_graph_may_be_walked_twice() -> None:
    hidden, vocabulary, bias = make_inputs()
    loss = 3 * chunked_cross_entropy(hidden, vocabulary, bias, TARGETS, WEIGHTS)
    first = torch.autograd.grad(loss, hidden, retain_graph=True)[0].clone()
    assert torch.equal(torch.autograd.grad(loss, hidden)[0], first)


def test_only_what_is_asked_has_a_gradient() -> None:
    hidden, vocabulary, _ = make_inputs()
    loss = chunked_cross_entropy(hidden, vocabulary.detach(), None, TARGETS, WEIGHTS)
    loss.backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    assert vocabulary.grad is None


def test_rows_of_weight_0_are_never_read() -> None:
    hidden, vocabulary, bias = make_inputs()
    with torch.no_grad():
        hidden[WEIGHTS == 0] = torch.nan
    loss = chunked_cross_entropy(hidden, vocabulary, bias, TARGETS, WEIGHTS)
    loss.backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    assert loss.isfinite()
    assert torch.equal(hidden.grad[WEIGHTS == 0], torch.zeros_like(hidden.grad[WEIGHTS == 0]))


def test_no_target_at_all_is_zero() -> None:
    hidden, vocabulary, bias = make_inputs()
    loss = chunked_cross_entropy(hidden, vocabulary, bias, TARGETS, torch.zeros(N))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0


def count_products(work: Callable[[], object]) -> tuple[int, int]:
    """(matrix products, floats of the largest tensor that one of them made)."""
    from torch.utils._python_dispatch import TorchDispatchMode

    sizes: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            made = op(*args, **(kwargs or {}))
            if op.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
                sizes.append(made.numel())
            return made

    with Watch():
        work()
    return len(sizes), max(sizes)


def test_three_products_a_chunk_and_never_all_logits() -> None:
    inputs = make_inputs()
    ones = torch.ones(N)

    def step() -> None:
        chunked_cross_entropy(*inputs, TARGETS, ones, chunk_rows=5).backward()  # type: ignore[no-untyped-call]

    products, largest = count_products(step)
    assert products == 3 * 3  # 13 rows are three chunks
    assert largest <= max(5 * V, V * D, N * D)


def test_two_products_a_chunk_where_the_matrix_is_frozen() -> None:
    hidden, vocabulary, bias = make_inputs()
    expected = torch.autograd.grad(chunked_cross_entropy(hidden, vocabulary, bias, TARGETS, WEIGHTS), hidden)[0]
    frozen = [None if each is None else each.detach() for each in (vocabulary, bias)]

    def step() -> None:
        loss = chunked_cross_entropy(hidden, frozen[0], frozen[1], TARGETS, torch.ones(N), chunk_rows=5)  # type: ignore[arg-type]
        loss.backward()  # type: ignore[no-untyped-call]

    assert count_products(step)[0] == 2 * 3
    found = chunked_cross_entropy(hidden, frozen[0], frozen[1], TARGETS, WEIGHTS)  # type: ignore[arg-type]
    assert torch.equal(torch.autograd.grad(found, hidden)[0], expected)


def test_no_gradients_where_none_are_wanted() -> None:
    inputs = make_inputs()

    def score() -> None:
        with torch.no_grad():
            chunked_cross_entropy(*inputs, TARGETS, torch.ones(N), chunk_rows=5)

    assert count_products(score)[0] == 3


def test_autocast_keeps_the_types_of_the_inputs() -> None:
    inputs = make_inputs(torch.float32)
    plain = chunked_cross_entropy(*inputs, TARGETS, WEIGHTS)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = chunked_cross_entropy(*inputs, TARGETS, WEIGHTS)
    assert mixed.dtype == torch.float32
    assert float(mixed.detach()) == pytest.approx(float(plain.detach()), rel=2e-2)
    learned = [each for each in inputs if each is not None]
    for mine, true in zip(torch.autograd.grad(mixed, learned), torch.autograd.grad(plain, learned), strict=True):
        assert mine.dtype == torch.float32
        assert (mine - true).norm() <= 0.05 * true.norm()
