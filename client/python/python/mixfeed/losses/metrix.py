"""Metrix: mixup for metric learning. A mixed item is a positive of its anchor to the extent lambda, else a
negative.

The general loss of an anchor is tau(sigma+(sum_v y rho+(s)) + sigma-(sum_v (1 - y) rho-(s))), where the clean
loss is the case y = 1 (positives) and y = 0 (negatives). So each loss here is both the clean and the mixed
one, and the whole is `loss(clean) + 0.4 * loss(mixed)`.

Source: Venkataramanan et al., "It Takes Two to Tango: Mixup for Deep Metric Learning", ICLR 2022
(arXiv:2106.04990).
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixfeed.losses.arguments import Reduction, Shapes, full_precision, number, one_of, reduce, refuse
from mixfeed.losses.labels import sparse
from mixfeed.losses.pairs import Pairs

Measure = Literal["similarity", "distance"]


def _checked(score: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """Score (T), relation (T) in the score's type, anchor (T) int64."""
    shapes = Shapes()
    s = shapes.floats("score", score, ("T",))
    y = shapes.amounts("pairs.relation", pairs.relation, ("T",), high=1.0).to(s.dtype)
    anchor = shapes.integers("pairs.anchor", pairs.anchor, ("T",), high=pairs.anchors)
    return s, y, anchor


def _per_anchor(values: Tensor, anchor: Tensor, anchors: int) -> Tensor:
    """Sums of values (T) by anchor, (anchors)."""
    return values.new_zeros(anchors).index_add(0, anchor, values)


def _log1p_sum_exp(weight: Tensor, exponent: Tensor, anchor: Tensor, anchors: int) -> Tensor:
    """log(1 + sum_t weight_t exp(exponent_t)) by anchor, (anchors), without overflow."""
    seen = torch.where(weight > 0, exponent, torch.zeros_like(exponent)).detach()
    top = seen.new_zeros(anchors).scatter_reduce(0, anchor, seen, "amax", include_self=True)
    # An exponent of weight 0 may lie above the top; clamped it can't overflow, and its weight removes it.
    total = _per_anchor(weight * (exponent - top[anchor]).clamp_max(0.0).exp(), anchor, anchors)
    return top + ((-top).exp() + total).log()


def metrix_contrastive(
    score: Tensor,
    pairs: Pairs,
    *,
    margin: float = 0.5,
    measure: Measure = "similarity",
    reduction: Reduction = "mean",
) -> Tensor:
    """Contrastive loss, clean or mixed: sum_v -y s + (1 - y) [s - margin]+ of each anchor.

    With `measure="distance"`, sum_v y d + (1 - y) [margin - d]+ on Euclidean distances of unit vectors, as in
    the code.

    Source: Venkataramanan et al., ICLR 2022 (arXiv:2106.04990).

    Args:
        score: (T) floats, cosine similarities -1 to 1 of anchors and items, see `metrix_similarity`.
        pairs: which anchor each belongs to, and how far its item is a positive, see `metrix_pairs`.
        margin: of s, or of d; at least -1.
        measure: `similarity` or `distance`.
        reduction: `mean` over anchors that have an item, `sum`, or `none`.

    Returns:
        A scalar, or (anchors) for `none`; float64 for float64 scores, else float32.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    s, y, anchor = _checked(score, pairs)
    margin = number("margin", margin, -1.0, math.inf, ends="[)")
    one_of("measure", measure, Measure)
    if measure == "similarity":
        terms = (1.0 - y) * (s - margin).clamp_min(0.0) - y * s
    else:
        # The square root's slope is infinite at 0; below the resolution of s the distance is taken as
        # constant.
        d = (2.0 - 2.0 * s).clamp_min(torch.finfo(s.dtype).eps).sqrt()
        terms = y * d + (1.0 - y) * (margin - d).clamp_min(0.0)
    return reduce(_per_anchor(terms, anchor, pairs.anchors), reduction, pairs.counted)


def metrix_multi_similarity(
    score: Tensor,
    pairs: Pairs,
    *,
    beta: float = 18.0,
    gamma: float = 75.0,
    margin: float = 0.77,
    reduction: Reduction = "mean",
) -> Tensor:
    """Multi-similarity loss, clean or mixed, of each anchor:

    1/beta log(1 + sum_v y exp(-beta (s - margin))) + 1/gamma log(1 + sum_v (1 - y) exp(gamma (s - margin))).

    Source: Venkataramanan et al., ICLR 2022 (arXiv:2106.04990), on Wang et al., CVPR 2019 (arXiv:1904.06627).

    Args:
        score: (T) floats, cosine similarities -1 to 1 of anchors and items.
        pairs: which anchor each belongs to, and how far its item is a positive.
        beta, gamma: above 0.
        margin: finite.
        reduction: `mean` over anchors that have an item, `sum`, or `none`.

    Returns:
        A scalar, or (anchors) for `none`; float64 for float64 scores, else float32.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    s, y, anchor = _checked(score, pairs)
    beta = number("beta", beta, 0.0, math.inf, ends="()")
    gamma = number("gamma", gamma, 0.0, math.inf, ends="()")
    margin = number("margin", margin, -math.inf, math.inf, ends="()")
    near = _log1p_sum_exp(y, -beta * (s - margin), anchor, pairs.anchors) / beta
    far = _log1p_sum_exp(1.0 - y, gamma * (s - margin), anchor, pairs.anchors) / gamma
    return reduce(near + far, reduction, pairs.counted)


def metrix_proxy_anchor(
    score: Tensor, pairs: Pairs, *, alpha: float = 32.0, delta: float = 0.1, reduction: Reduction = "mean"
) -> Tensor:
    """Proxy anchor loss, clean or mixed, of each proxy:

    log(1 + sum_v y exp(-alpha (s - delta))) + log(1 + sum_v (1 - y) exp(alpha (s + delta))).

    Source: Venkataramanan et al., ICLR 2022 (arXiv:2106.04990), on Kim et al., CVPR 2020 (arXiv:2003.13911).

    Args:
        score: (T) floats, cosine similarities -1 to 1 of proxies (the anchors) and items.
        pairs: which proxy each belongs to, and how far its item is a positive.
        alpha: above 0.
        delta: at least 0.
        reduction: `mean` is Kim's: the first term's mean over proxies that have a positive (y > 0) plus the
            second's over all proxies; `sum`, or `none`.

    Returns:
        A scalar, or (anchors) for `none`; float64 for float64 scores, else float32.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    s, y, anchor = _checked(score, pairs)
    alpha = number("alpha", alpha, 0.0, math.inf, ends="()")
    delta = number("delta", delta, 0.0, math.inf, ends="[)")
    near = _log1p_sum_exp(y, -alpha * (s - delta), anchor, pairs.anchors)
    far = _log1p_sum_exp(1.0 - y, alpha * (s + delta), anchor, pairs.anchors)
    if reduction != "mean":
        return reduce(near + far, reduction)
    positives = _per_anchor((y > 0).to(s.dtype), anchor, pairs.anchors)
    return reduce(near, "mean", positives > 0) + reduce(far, "mean")


class ProxyAnchor(nn.Module):
    """Proxy anchor loss with its proxies, one per class, for clean rows and for mixed rows as the server
    sends them.

    A clean row is a positive of its class' proxy and a negative of all others. A mixed row is only compared
    with the proxies of its two classes, to the extent of their weights.

    Source: as of `metrix_proxy_anchor`.
    """

    def __init__(self, classes: int, features: int, *, alpha: float = 32.0, delta: float = 0.1) -> None:
        """Proxies (classes, features), from a normal distribution with Kaiming's scale, as Kim's.

        Raises:
            ValueError: an argument is out of range; the message names it.
        """
        super().__init__()
        for name, value in (("classes", classes), ("features", features)):
            if value < 1:
                refuse(name, f"is {value}, want at least 1")
        self.alpha = number("alpha", alpha, 0.0, math.inf, ends="()")
        self.delta = number("delta", delta, 0.0, math.inf, ends="[)")
        self.proxies = nn.Parameter(torch.empty(classes, features))
        nn.init.kaiming_normal_(self.proxies, mode="fan_out")

    def forward(
        self,
        embeddings: Tensor,
        classes: Tensor,
        weights: Tensor | None = None,
        *,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """The loss of embeddings (n, features) floats.

        Args:
            embeddings: (n, features) floats; normalised here.
            classes: (n), or (n, k) with weights; integers, -1 (none, no pair) to classes - 1.
            weights: (n, k) floats 0 to 1, for mixed rows.
            reduction: as of `metrix_proxy_anchor`; `none` gives one loss per proxy.

        Raises:
            TypeError, ValueError: an argument doesn't fit; the message names it.
        """
        shapes = Shapes()
        shapes.floats("proxies", self.proxies, ("classes", "features"))
        x = shapes.floats("embeddings", embeddings, ("n", "features"))
        count = len(self.proxies)
        found = sparse(shapes, classes, weights, count, x.dtype)
        relation = found.spread(count).clamp_max(1.0)
        if weights is None:
            compared = found.counted[:, None].expand_as(relation)
        else:
            # Adding instead of setting: an entry without a class points at class 0, which may be another
            # entry's.
            known = (classes >= 0).to(x.dtype)
            compared = torch.zeros_like(relation).scatter_add(1, found.index, known) > 0
        row, anchor = compared.nonzero(as_tuple=True)
        with full_precision(x):
            score = F.normalize(x, dim=1) @ F.normalize(self.proxies.to(x.dtype), dim=1).T
        pairs = Pairs(anchor, row, row, relation[row, anchor], count)
        return metrix_proxy_anchor(
            score[row, anchor], pairs, alpha=self.alpha, delta=self.delta, reduction=reduction
        )
