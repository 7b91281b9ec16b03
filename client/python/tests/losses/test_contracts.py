"""What every loss keeps: gradients, types, reductions, inputs left alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mixfeed import losses
from mixfeed.losses import Pairs

N, C = 5, 4
GENERATOR = torch.Generator().manual_seed(11)
CLASSES = torch.tensor([[0, 1], [2, 2], [3, 0], [1, -1], [2, 3]], dtype=torch.int32)
WEIGHTS = torch.tensor([[0.7, 0.3], [0.4, 0.6], [1.0, 0.0], [0.6, 0.4], [0.5, 0.5]])
PAIRS = Pairs(
    torch.tensor([0, 0, 1, 3, 3, 3]),
    torch.arange(6),
    torch.arange(6),
    torch.tensor([1.0, 0.3, 0.0, 0.5, 1.0, 0.0]),
    4,
)


def floats(*shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, dtype=torch.float64, generator=GENERATOR)


# Name: the loss of float tensors and a reduction, and those tensors.
LOSSES: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
    "cross_entropy": (
        lambda z, **k: losses.cross_entropy(z, CLASSES, WEIGHTS, smoothing=0.1, **k),
        [floats(N, C)],
    ),
    "cross_entropy of weights": (
        lambda z, w, **k: losses.cross_entropy(z, CLASSES, w.abs(), **k),
        [floats(N, C), floats(N, 2)],
    ),
    "dense cross_entropy": (
        lambda z, t, **k: losses.cross_entropy(z, t.abs(), smoothing=0.1, **k),
        [floats(N, C), floats(N, C)],
    ),
    "binary_cross_entropy": (
        lambda z, **k: losses.binary_cross_entropy(z, CLASSES, WEIGHTS, smoothing=0.1, **k),
        [floats(N, C)],
    ),
    "decoupled_cross_entropy": (
        lambda z, **k: losses.decoupled_cross_entropy(z, CLASSES, WEIGHTS, eta=0.5, xi=0.8, **k),
        [floats(N, C)],
    ),
    "decoupled_binary_cross_entropy": (
        lambda z, **k: losses.decoupled_binary_cross_entropy(z, CLASSES, WEIGHTS, power=0.5, **k),
        [floats(N, C)],
    ),
    "rankmixup_margin": (
        lambda raw, mixed, **k: losses.rankmixup_margin(raw, mixed, CLASSES, WEIGHTS, margin=4.0, **k),
        [floats(N, C), floats(N, C)],
    ),
    "rankmixup_ndcg": (
        lambda raw, mixed, **k: losses.rankmixup_ndcg(
            raw, mixed, CLASSES[:, None].expand(N, 3, 2), WEIGHTS[:, None].expand(N, 3, 2), **k
        ),
        [floats(N, C), floats(N, 3, C)],
    ),
    "metrix_contrastive": (
        lambda s, **k: losses.metrix_contrastive(s, PAIRS, margin=-0.9, **k),
        [floats(6).tanh()],
    ),
    "metrix_contrastive of distances": (
        lambda s, **k: losses.metrix_contrastive(s, PAIRS, margin=1.5, measure="distance", **k),
        [floats(6).tanh()],
    ),
    "metrix_multi_similarity": (
        lambda s, **k: losses.metrix_multi_similarity(s, PAIRS, **k),
        [floats(6).tanh()],
    ),
    "metrix_proxy_anchor": (
        lambda s, **k: losses.metrix_proxy_anchor(s, PAIRS, **k),
        [floats(6).tanh()],
    ),
    "metrix on embeddings": (
        lambda x, **k: losses.metrix_multi_similarity(
            losses.metrix_similarity(x, losses.metrix_pairs(CLASSES[:, 0], 0.4), 0.4),
            losses.metrix_pairs(CLASSES[:, 0], 0.4),
            **k,
        ),
        [floats(N, 3)],
    ),
    "ProxyAnchor": (
        lambda x, p, **k: torch.func.functional_call(
            losses.ProxyAnchor(C, 3), {"proxies": p}, (x, CLASSES, WEIGHTS), k
        ),
        [floats(N, 3), floats(C, 3)],
    ),
    "adaptive_mix": (
        lambda m, a, b, **k: losses.adaptive_mix(m, a, b, WEIGHTS[:, 0], noise=0.0, detach=False, **k),
        [floats(N, 3), floats(N, 3), floats(N, 3)],
    ),
    "adaptive_mix by cosine": (
        lambda m, a, b, **k: losses.adaptive_mix(
            m, a, b, WEIGHTS[:, 0], distance="cosine", noise=0.0, detach=False, **k
        ),
        [floats(N, 3), floats(N, 3), floats(N, 3)],
    ),
    "homologous_recognition": (
        lambda x, **k: losses.homologous_recognition(x, torch.arange(14).reshape(2, 7) % 3, **k),
        [floats(2, 7, 3)],
    ),
    "OrthogonalClassifier": (
        lambda x, **k: losses.cross_entropy(
            losses.OrthogonalClassifier(6, C, generator=torch.Generator().manual_seed(5))(x),
            CLASSES,
            WEIGHTS,
            **k,
        ),
        [floats(N, 6)],
    ),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradients_are_those_of_differences(name, reduction):
    loss, inputs = LOSSES[name]
    given = [x.clone().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: loss(*x, reduction=reduction), given)
    loss(*given, reduction="sum").backward()
    assert all(x.grad.abs().sum() > 0 for x in given), "a gradient flows into every input"


@every_loss
def test_the_sum_is_that_of_the_parts_and_the_mean_is_the_default(name):
    loss, inputs = LOSSES[name]
    parts = loss(*inputs, reduction="none")
    assert parts.dim() == 1
    assert loss(*inputs, reduction="sum").item() == pytest.approx(parts.sum().item(), rel=1e-12)
    assert loss(*inputs).item() == loss(*inputs, reduction="mean").item()
    with pytest.raises(ValueError, match=r"^reduction: is 'median', want one of mean, sum, none"):
        loss(*inputs, reduction="median")


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name, dtype):
    loss, inputs = LOSSES[name]
    halves = [x.to(dtype).requires_grad_() for x in inputs]
    got = loss(*halves)
    want = loss(*(x.detach().double() for x in halves))
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(want.item(), rel=1e-5)
    got.backward()
    assert all(x.grad.dtype == dtype and torch.isfinite(x.grad).all() for x in halves)


@every_loss
def test_autocast_changes_nothing(name):
    loss, inputs = LOSSES[name]
    given = [x.float() for x in inputs]
    want = loss(*given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = loss(*given)
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(want.item(), rel=1e-6)


@every_loss
def test_inputs_are_left_as_they_are(name):
    loss, inputs = LOSSES[name]
    before = [x.clone() for x in (*inputs, CLASSES, WEIGHTS, *PAIRS[:4])]
    loss(*inputs)
    assert all(
        torch.equal(x, y) for x, y in zip(before, (*inputs, CLASSES, WEIGHTS, *PAIRS[:4]), strict=True)
    )


def test_everything_public_is_listed_and_told_in_the_table():
    assert sorted(losses.__all__) == losses.__all__
    for name in losses.__all__:
        assert getattr(losses, name).__doc__
        stem = name.removeprefix("tl_align")
        assert f"`{name}`" in losses.__doc__ or f"`{stem}`" in losses.__doc__, name
