"""Decoupled mixup: both classes of a mixed row should be told with confidence, whatever lambda is."""

import math
from typing import Literal

import torch
from torch import Tensor

from mixfeed.losses.arguments import Reduction, Shapes, number, one_of, reduce, refuse
from mixfeed.losses.entropy import OverClasses, binary_terms, cross_entropy, is_dense, over_classes_of
from mixfeed.losses.labels import pair, sparse

Select = Literal["both", "less", "more"]

PRESENT = 1e-3
"""A class of at most this weight counts as absent."""


def decoupled_weights(
    weights: Tensor, *, xi: float = 0.8, power: float = 1.0, base: float | None = None
) -> Tensor:
    """Label weights raised so that a class counts fully from weight `xi` on: rho(u) of decoupled mixup, 0 to
    1.

    rho(u) = 1 for u >= xi, else (u / xi)^power; with a `base` q, (q^(2u - 2 xi) - q^(-2 xi)) / (1 - q^(-2
    xi)) below xi. rho(0) = 0 for any power; power 0 gives the two-hot target. Rows may then sum to up to 2.

    Source: Liu et al., "Harnessing Hard Mixed Samples with Decoupled Regularizer", NeurIPS 2023
    (arXiv:2203.10761).

    Args:
        weights: any shape, floats of at least 0.
        xi: above 0, at most 1.
        power: at least 0.
        base: above 0 and not 1; replaces the power law.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    axes = tuple(f"axis{i}" for i in range(weights.dim() if isinstance(weights, Tensor) else 0))
    u = Shapes().amounts("weights", weights, axes)
    xi = number("xi", xi, 0.0, 1.0, ends="(]")
    power = number("power", power, 0.0, math.inf, ends="[)")
    # The power's slope at 0 may be infinite, hence 1 there instead, which the second `where` puts right.
    inside = torch.where(u > 0, u, torch.ones_like(u)).clamp_max(xi)
    if base is None:
        risen = (inside / xi) ** power
    else:
        q = number("base", base, 0.0, math.inf, ends="()")
        if q == 1.0:
            refuse("base", "is 1, want another number above 0")
        low = q ** (-2.0 * xi)
        risen = (q ** (2.0 * (inside - xi)) - low) / (1.0 - low)
    return torch.where(u > 0, risen, torch.zeros_like(u))


def _excluding(z: Tensor, own: Tensor, other: Tensor, both: Tensor) -> Tensor:
    """(n): log phi(own | other), softmax without the other class; own, other (n) int64. Only meant where
    `both` (n) is.
    """
    other = other[:, None]
    hidden = torch.where(both[:, None], torch.full_like(z[:, :1], -torch.inf), z.gather(1, other))
    return z.gather(1, own[:, None])[:, 0] - z.scatter(1, other, hidden).logsumexp(1)


def decoupled_cross_entropy(
    logits: Tensor,
    classes: Tensor,
    weights: Tensor,
    *,
    eta: float = 0.1,
    select: Select = "both",
    xi: float | None = None,
    power: float = 1.0,
    confident: Tensor | None = None,
    smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """DM(CE): cross entropy less eta [log phi(a|b) + log phi(b|a)], phi(i|j) the softmax without the other
    class j.

    Source: Liu et al., "Harnessing Hard Mixed Samples with Decoupled Regularizer", NeurIPS 2023
    (arXiv:2203.10761). The default is the paper's form, in which lambda doesn't weigh the regulariser. With
    `xi` it is that of the authors' code, eta rho(w) for each class. Unlike that code, every row has its own
    lambda, and a row at lambda = 1/2 keeps its term.

    The regulariser is 0 for rows whose classes are equal or unknown, or of which one has a weight of at most
    0.001: at lambda = 1 the loss is plain cross entropy. It doesn't change when the two columns are swapped.

    Args:
        logits: (n, C) floats.
        classes: (n, 2) integers, -1 (none) to C - 1.
        weights: (n, 2) floats of at least 0.
        eta: at least 0.
        select: `both` classes, or the one with `less` or `more` weight; both where weights are equal.
        xi: above 0, at most 1: multiplies eta by `decoupled_weights(weights, xi=xi, power=power)`. None: no
            factor.
        power: at least 0, used with `xi`.
        confident: (n, 2) bool, classes whose term counts, such as pseudo labels above 0.95. None: all.
        smoothing: 0 to below 1, of the cross entropy only.
        reduction: `mean` over labelled rows, `sum`, or `none`.

    Returns:
        A scalar, or (n) for `none`; float64 for float64 logits, else float32.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    shapes = Shapes()
    z = shapes.floats("logits", logits, ("n", "C"))
    found = pair(shapes, classes, weights, z.shape[1], z.dtype)
    eta = number("eta", eta, 0.0, math.inf, ends="[)")
    one_of("select", select, Select)
    losses = cross_entropy(logits, classes, weights, smoothing=smoothing, reduction="none")
    a, b = found.index.unbind(1)
    both = (a != b) & (found.present & (found.weight > PRESENT)).all(1)
    factors = (
        torch.ones_like(found.weight) if xi is None else decoupled_weights(found.weight, xi=xi, power=power)
    )
    if select != "both":
        gap = found.weight - found.weight.flip(1)
        factors = factors * (gap <= 0 if select == "less" else gap >= 0)
    if confident is not None:
        factors = factors * shapes.booleans("confident", confident, ("n", "k"))
    log_phi = torch.stack((_excluding(z, a, b, both), _excluding(z, b, a, both)), 1)
    losses = losses - eta * torch.where(both, (factors * log_phi).sum(1), torch.zeros_like(losses))
    return reduce(losses, reduction, found.counted)


def decoupled_binary_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    xi: float = 0.8,
    power: float = 1.0,
    base: float | None = None,
    over_classes: OverClasses = "mean",
    reduction: Reduction = "mean",
) -> Tensor:
    """DM(BCE): binary cross entropy against rho(lambda) and rho(1 - lambda), whose sum may reach 2.

    Source: Liu et al., "Harnessing Hard Mixed Samples with Decoupled Regularizer", NeurIPS 2023
    (arXiv:2203.10761). Weights of equal classes are added before rho, so that a row mixed with its own class
    has target 1.

    Args:
        logits: (n, C) floats.
        labels: (n) or (n, k) integers, -1 (none) to C - 1, or a dense target (n, C), floats 0 to 1, without
            smoothing.
        weights: (n, k) floats of at least 0; None for the two other forms.
        xi, power, base: as of `decoupled_weights`; power 0 is the two-hot loss.
        over_classes: `mean` or `sum` over the classes of a row.
        reduction: `mean` over labelled rows, `sum`, or `none`.

    Returns:
        A scalar, or (n) for `none`; float64 for float64 logits, else float32.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    shapes = Shapes()
    z = shapes.floats("logits", logits, ("n", "C"))
    if is_dense(labels, weights):
        mixed = shapes.amounts("labels", labels, ("n", "C"), high=1.0).to(z.dtype)
        counted, share = (mixed > 0).any(1), mixed.sum(1).clamp_max(1.0)
    else:
        found = sparse(shapes, labels, weights, z.shape[1], z.dtype, name="labels")
        mixed, counted, share = found.spread(z.shape[1]), found.counted, found.share
    target = decoupled_weights(mixed, xi=xi, power=power, base=base)
    # Where a part of the row is not labelled, rho may pass the share that is: such a class has no negative
    # term.
    losses = binary_terms(z, target, torch.maximum(share[:, None], target))
    return reduce(over_classes_of(losses, over_classes), reduction, counted)
