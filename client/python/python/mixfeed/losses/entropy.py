"""Cross entropy, binary cross entropy and accuracy with mixed labels."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mixfeed.losses.arguments import Reduction, Shapes, number, one_of, reduce, refuse
from mixfeed.losses.labels import smoothed, sparse

OverClasses = Literal["mean", "sum"]


def is_dense(labels: Tensor, weights: Tensor | None) -> bool:
    """Whether labels are a dense target, which has no weights; a type error for neither form is left to the
    checks.
    """
    if not (isinstance(labels, Tensor) and labels.is_floating_point()):
        return False
    if weights is not None:
        refuse("weights", "want none, as labels are a dense target")
    return True


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross entropy with hard, pair, k-way or dense labels: sum_j w_j CE(logits, c_j), as CE is linear in the
    target.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018 (arXiv:1710.09412). Sparse
    labels are never expanded to (n, C). Rows without any label give 0 and don't count in the mean; of a row
    that is labelled in part, the labelled part adds to its loss.

    Args:
        logits: (n, C) floats.
        labels: (n) or (n, k) integers below C, negative for none, as `label.class`; or a dense target (n, C),
            floats of at least 0, as `label.dense`.
        weights: (n, k) floats of at least 0, as `label.weight`; they need not sum to 1. None for the two
            other forms.
        smoothing: 0 to below 1: `batch.smoothing`, which is 0 with `label.dense`.
        reduction: `mean` over labelled rows, `sum`, or `none`.

    Returns:
        A scalar, or (n) for `none`; float64 for float64 logits, else float32.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    shapes = Shapes()
    z = shapes.floats("logits", logits, ("n", "C"))
    smoothing = number("smoothing", smoothing, 0.0, 1.0, ends="[)")
    log_p = F.log_softmax(z, 1)
    if is_dense(labels, weights):
        target = shapes.amounts("labels", labels, ("n", "C")).to(z.dtype)
        target = smoothed(target, smoothing)
        # A class that is masked by -inf and has no weight is left out, as from sparse labels.
        log_p = log_p.masked_fill((target == 0) & log_p.isneginf(), 0.0)
        return reduce(-(target * log_p).sum(1), reduction, (target > 0).any(1))
    found = sparse(shapes, labels, weights, z.shape[1], z.dtype, name="labels")
    each = -log_p.gather(1, found.index)
    if smoothing:
        each = (1.0 - smoothing) * each - smoothing * log_p.mean(1, keepdim=True)
    # Without a class, whatever stands at index 0 (also an infinite loss) is none of it.
    each = each.masked_fill(~found.present, 0.0)
    return reduce((found.weight * each).sum(1), reduction, found.counted)


def over_classes_of(losses: Tensor, over_classes: OverClasses) -> Tensor:
    """Losses (n, C) as one per row (n)."""
    one_of("over_classes", over_classes, OverClasses)
    return losses.mean(1) if over_classes == "mean" else losses.sum(1)


def binary_terms(logits: Tensor, target: Tensor, share: Tensor) -> Tensor:
    """(n, C): -[t log s(z) + (share - t) log(1 - s(z))], which is BCE where share, (n, 1) or (n, C), is 1."""
    return -(target * F.logsigmoid(logits) + (share - target) * F.logsigmoid(-logits))


def binary_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    smoothing: float = 0.0,
    threshold: float | None = None,
    multi_label: bool = False,
    over_classes: OverClasses = "mean",
    reduction: Reduction = "mean",
) -> Tensor:
    """Binary cross entropy with logits against the mixed target.

    Source: Wightman et al., "ResNet strikes back", 2021 (arXiv:2110.00476). Rows without any label give 0 and
    don't count in the mean; a row of which a part is labelled counts with that part only (BCE is linear in
    the target, so the rest of its weight is left out of both terms).

    Args:
        logits: (n, C) floats.
        labels: (n) or (n, k) integers below C, negative for none, or a dense target (n, C), floats 0 to 1.
        weights: (n, k) floats of at least 0; None for the two other forms.
        smoothing: 0 to below 1. Spread over the classes (eps / C); with `multi_label`, y (1 - eps) + eps / 2.
        threshold: 0 to below 1; the target becomes 1 above it and 0 elsewhere, after smoothing. None: off.
        multi_label: labels are dense and classes independent: every row counts, one without a class too.
        over_classes: `mean` or `sum` over the classes of a row.
        reduction: `mean` over counted rows, `sum`, or `none`.

    Returns:
        A scalar, or (n) for `none`; float64 for float64 logits, else float32.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    shapes = Shapes()
    z = shapes.floats("logits", logits, ("n", "C"))
    smoothing = number("smoothing", smoothing, 0.0, 1.0, ends="[)")
    if is_dense(labels, weights):
        target = shapes.amounts("labels", labels, ("n", "C"), high=1.0).to(z.dtype)
        share = target.sum(1).clamp_max(1.0)
        counted = (target > 0).any(1)
    else:
        if multi_label:
            refuse("multi_label", "want a dense target (n, C) of floats as labels")
        found = sparse(shapes, labels, weights, z.shape[1], z.dtype, name="labels")
        target, share, counted = found.spread(z.shape[1]), found.share, found.counted
    if multi_label:
        share, counted = torch.ones_like(share), torch.ones_like(counted)
        target = target * (1.0 - smoothing) + 0.5 * smoothing
    else:
        target = smoothed(target, smoothing)
    if threshold is not None:
        limit = number("threshold", threshold, 0.0, 1.0, ends="[)")
        target, share = (target > limit).to(z.dtype), counted.to(z.dtype)
    return reduce(over_classes_of(binary_terms(z, target, share[:, None]), over_classes), reduction, counted)


def mixed_accuracy(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    k: int = 1,
    reduction: Reduction = "mean",
) -> Tensor:
    """Accuracy weighted by lambda: sum_j w_j [c_j is among the k highest logits], 0 to 1.

    Source: the metric of Verma et al., "Manifold Mixup", ICML 2019 (arXiv:1806.05236), for any k. Of equal
    logits the lower class is ahead; a NaN is never a hit. No gradient.

    Args:
        logits: (n, C) floats.
        labels: (n) or (n, j) integers below C, negative for none, or a dense target (n, C), floats of at
            least 0, without smoothing (what is spread over other classes would count as hits).
        weights: (n, j) floats of at least 0; None for the two other forms.
        k: 1 to C.
        reduction: `mean` over labelled rows, `sum`, or `none`.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    shapes = Shapes()
    z = shapes.floats("logits", logits, ("n", "C")).detach()
    if not 1 <= k <= z.shape[1]:
        refuse("k", f"is {k}, want 1 to {z.shape[1]}")
    # A stable sort puts the lower of equal classes first; NaN is made the lowest and then struck out.
    order = (
        z.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        .sort(dim=1, descending=True, stable=True)
        .indices
    )
    hit = torch.zeros_like(z).scatter(1, order[:, :k], 1.0) * ~z.isnan()
    if is_dense(labels, weights):
        target = shapes.amounts("labels", labels, ("n", "C")).to(z.dtype)
        return reduce((target * hit).sum(1), reduction, (target > 0).any(1))
    found = sparse(shapes, labels, weights, z.shape[1], z.dtype, name="labels")
    return reduce((found.weight * hit.gather(1, found.index)).sum(1), reduction, found.counted)
