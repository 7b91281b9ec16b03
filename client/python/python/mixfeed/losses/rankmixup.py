"""RankMixup: confidence follows the amount of mixing; labels of mixes are used as ranks only."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mixfeed.losses.arguments import Reduction, Shapes, number, one_of, reduce, refuse

Score = Literal["logit", "confidence"]


def _mixes(
    raw_logits: Tensor, mixed_logits: Tensor, classes: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The arguments checked and with an axis of mixes: (n, C), (n, Q, C), (n, Q, 2), (n, Q, 2)."""
    shapes = Shapes()
    raw = shapes.floats("raw_logits", raw_logits, ("n", "C"))
    lead = ("n",) if isinstance(mixed_logits, Tensor) and mixed_logits.dim() == 2 else ("n", "Q")
    mixed = shapes.floats("mixed_logits", mixed_logits, (*lead, "C"))
    found = shapes.integers("classes", classes, (*lead, "pair"), high=raw.shape[1])
    if shapes.sizes["pair"] != 2:
        refuse("classes", f"has shape {tuple(classes.shape)}, want ({', '.join(lead)}, 2)")
    weight = shapes.amounts("weights", weights, (*lead, "pair")).to(raw.dtype)
    if shapes.sizes.get("Q", 1) == 0:
        refuse("mixed_logits", "has no mix, want at least one a row")
    if len(lead) == 1:
        mixed, found, weight = mixed[:, None], found[:, None], weight[:, None]
    return raw, mixed.to(raw.dtype), found, weight


def rankmixup_margin(
    raw_logits: Tensor,
    mixed_logits: Tensor,
    classes: Tensor,
    weights: Tensor,
    *,
    margin: float = 2.0,
    score: Score = "logit",
    reduction: Reduction = "mean",
) -> Tensor:
    """RankMixup's MRL term: max(0, max_c z_mix - max_c z_raw + margin), per row; the mean of a row's mixes.

    The whole loss is `cross_entropy(raw_logits, y) + 0.1 * rankmixup_margin(...)`: mixes have no cross
    entropy of their own. A mix that isn't one (equal classes, a weight of 0, or a class unknown) gives 0, and
    counts in the means.

    Source: Noh et al., "RankMixup: Ranking-Based Mixup Training for Network Calibration", ICCV 2023
    (arXiv:2308.11990). The authors' code multiplies the mean of the rows that count by the mean of the
    hinges; here each row's own hinge counts. Margins published: 2 (CIFAR), 1 (Tiny ImageNet), on logits.

    Args:
        raw_logits: (n, C) floats, of the clean rows.
        mixed_logits: (n, C) or (n, Q, C) floats; row i is mixed from clean row i.
        classes: (n, 2) or (n, Q, 2) integers, -1 (none) to C - 1.
        weights: of the same shape, floats of at least 0.
        margin: at least 0.
        score: `logit`, or `confidence` (the highest softmax, of which the paper speaks; take a margin below
            1).
        reduction: `mean` over rows, `sum`, or `none`.

    Returns:
        A scalar, or (n) for `none`; float64 for float64 logits, else float32.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    raw, mixed, found, weight = _mixes(raw_logits, mixed_logits, classes, weights)
    margin = number("margin", margin, 0.0, float("inf"), ends="[)")
    one_of("score", score, Score)
    if score == "confidence":
        raw, mixed = raw.softmax(-1), mixed.softmax(-1)
    hinge = (mixed.amax(-1) - raw.amax(-1)[:, None] + margin).clamp_min(0.0)
    real = (found >= 0).all(-1) & (found[..., 0] != found[..., 1]) & (weight > 0).all(-1)
    return reduce((hinge * real).mean(1), reduction)


def _gains(classes: Tensor, weights: Tensor) -> Tensor:
    """(n, Q): the highest entry of each mix's target; equal classes add up, unknown ones are taken for
    different.
    """
    same = (classes[..., 0] == classes[..., 1]) & (classes[..., 0] >= 0)
    return torch.where(same, weights.sum(-1), weights.amax(-1))


def rankmixup_ndcg(
    raw_logits: Tensor,
    mixed_logits: Tensor,
    classes: Tensor,
    weights: Tensor,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """RankMixup's M-NDCG term: 1 - r, r the ratio of DCG and IDCG that is at most 1, over a clean row and its
    Q mixes.

    The clean row comes first with gain 1, the mixes by falling gain, the highest entry of their target. DCG
    is the sum of (highest softmax) / log2(rank + 1), IDCG that of gain / log2(rank + 1). Gradient flows
    through confidences, not through the order. The whole loss is `cross_entropy(raw_logits, y) + 0.1 *
    rankmixup_ndcg(...)`; the paper has Q = 3.

    Source: Noh et al., "RankMixup: Ranking-Based Mixup Training for Network Calibration", ICCV 2023
    (arXiv:2308.11990).

    Args:
        raw_logits: (n, C) floats, of the clean rows.
        mixed_logits: (n, C) or (n, Q, C) floats; row i is mixed from clean row i.
        classes: (n, 2) or (n, Q, 2) integers, -1 (none) to C - 1.
        weights: of the same shape, floats of at least 0.
        reduction: `mean` over rows, `sum`, or `none`.

    Returns:
        A scalar, or (n) for `none`, 0 to 1; float64 for float64 logits, else float32.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    raw, mixed, found, weight = _mixes(raw_logits, mixed_logits, classes, weights)
    gains, order = _gains(found, weight).sort(dim=1, descending=True, stable=True)
    confidence = F.softmax(mixed, -1).amax(-1).gather(1, order)
    first = F.softmax(raw, -1).amax(-1, keepdim=True)
    ranks = torch.arange(2, gains.shape[1] + 3, device=raw.device, dtype=raw.dtype)
    discount = 1.0 / torch.log2(ranks)
    dcg = (torch.cat((first, confidence), 1) * discount).sum(1)
    ideal = (torch.cat((torch.ones_like(first), gains), 1) * discount).sum(1)
    return reduce(1.0 - torch.minimum(dcg, ideal) / torch.maximum(dcg, ideal), reduction)
