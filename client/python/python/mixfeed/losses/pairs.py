"""Pairs of anchors and (mixed) items for metric learning, and their similarities."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mixfeed.losses.arguments import Shapes, full_precision, number, one_of, refuse

Kind = Literal["positive-negative", "anchor-negative"]


class Pairs(NamedTuple):
    """T comparisons of an anchor with an item, which is lam * first + (1 - lam) * second."""

    anchor: Tensor
    """(T) int64, 0 to anchors - 1."""
    first: Tensor
    """(T) int64: the row in the item that is a positive; a clean item has the same row twice."""
    second: Tensor
    """(T) int64: the row in the item that is a negative."""
    relation: Tensor
    """(T) floats 0 to 1: how far the item is a positive of the anchor, lam."""
    anchors: int
    """How many anchors there are."""

    @property
    def counted(self) -> Tensor:
        """(anchors) bool: has an item."""
        return torch.bincount(self.anchor, minlength=self.anchors) > 0


def _relations(classes: Tensor) -> tuple[Tensor, Tensor]:
    """(n, n) bool each: the column is another row of the row's class; it is of another class. -1 is
    neither.
    """
    found = Shapes().integers("classes", classes, ("n",))
    known = (found >= 0)[:, None] & (found >= 0)
    same = found[:, None] == found
    return known & same & ~torch.eye(len(found), dtype=torch.bool, device=found.device), known & ~same


def clean_pairs(classes: Tensor) -> Pairs:
    """Every row with every other: relation 1 for equal classes, 0 for different ones.

    Args:
        classes: (n) integers; a row of class -1 is in no pair.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    positive, negative = _relations(classes)
    anchor, item = (positive | negative).nonzero(as_tuple=True)
    return Pairs(anchor, item, item, positive[anchor, item].float(), len(classes))


def metrix_pairs(
    classes: Tensor,
    lam: float,
    *,
    kind: Kind = "positive-negative",
    hardest: int | None = None,
    similarity: Tensor | None = None,
) -> Pairs:
    """Mixes for every anchor that has a positive: of each of its positives, or of itself, with each of its
    negatives.

    The paper draws `kind` with equal chance at every step, and lam from Beta(2, 2). The number of pairs is
    the sum over anchors of positives times negatives, or of negatives. Embeddings mixed by the caller (input
    or feature level) have similarities `(F.normalize(z)[p.anchor] * F.normalize(mixed)).sum(1)`.

    Source: Venkataramanan et al., ICLR 2022 (arXiv:2106.04990).

    Args:
        classes: (n) integers; a row of class -1 is in no pair.
        lam: 0 to 1, weight of the positive.
        kind: `positive-negative` or `anchor-negative`.
        hardest: take only so many negatives of each anchor, those of highest similarity; at least 1. None:
            all.
        similarity: (n, n) floats, wanted with `hardest`.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    one_of("kind", kind, Kind)
    lam = number("lam", lam, 0.0, 1.0)
    positive, negative = _relations(classes)
    rows = len(classes)
    if hardest is not None:
        if hardest < 1:
            refuse("hardest", f"is {hardest}, want at least 1")
        if similarity is None:
            refuse("similarity", "want the similarities of rows, (n, n), with hardest")
        known = Shapes().floats("similarity", similarity, ("n", "n")).detach()
        if len(known) != rows:
            refuse("similarity", f"has shape {tuple(known.shape)}, want ({rows}, {rows})")
        ranked = known.masked_fill(~negative, -torch.inf).topk(min(hardest, rows), 1).indices
        negative = negative & torch.zeros_like(negative).scatter(
            1, ranked, torch.ones_like(ranked, dtype=torch.bool)
        )
    negative = negative & positive.any(1, keepdim=True)
    anchor, second = negative.nonzero(as_tuple=True)
    if kind == "anchor-negative":
        first = anchor
    else:
        # Each (anchor, negative) once per positive of the anchor: the joins' positions are counted, not
        # looped over.
        of, positives = positive.nonzero(as_tuple=True)
        counts = torch.bincount(of, minlength=rows)
        begins = counts.cumsum(0) - counts
        repeats = counts[anchor]
        ends = repeats.cumsum(0)
        entry = torch.repeat_interleave(torch.arange(len(anchor), device=anchor.device), repeats)
        within = torch.arange(len(entry), device=anchor.device) - (ends - repeats)[entry]
        anchor, second = anchor[entry], second[entry]
        first = positives[begins[anchor] + within]
    relation = torch.full_like(anchor, lam, dtype=torch.float64)
    return Pairs(anchor, first, second, relation, rows)


def metrix_similarity(
    embeddings: Tensor, pairs: Pairs, lam: float = 1.0, *, renormalize: bool = True
) -> Tensor:
    """Cosine similarity (T) of each anchor with its item mixed at the level of embeddings, without forming
    the items.

    An item is lam u_first + (1 - lam) u_second of unit vectors u, so that its products with others are those
    of the n rows.

    Source: Venkataramanan et al., ICLR 2022 (arXiv:2106.04990).

    Args:
        embeddings: (n, d) floats; normalised here.
        pairs: of `clean_pairs` (for any lam) or of `metrix_pairs`.
        lam: 0 to 1, that of `metrix_pairs`.
        renormalize: whether items are brought to unit length.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    lam = number("lam", lam, 0.0, 1.0)
    u = F.normalize(Shapes().floats("embeddings", embeddings, ("n", "d")), dim=1)
    if len(u) != pairs.anchors:
        refuse("embeddings", f"has {len(u)} rows, want the {pairs.anchors} of pairs")
    with full_precision(u):
        gram = u @ u.T
    rest = 1.0 - lam
    dot = lam * gram[pairs.anchor, pairs.first] + rest * gram[pairs.anchor, pairs.second]
    if not renormalize:
        return dot
    square = (
        lam**2 * gram[pairs.first, pairs.first]
        + rest**2 * gram[pairs.second, pairs.second]
        + 2.0 * lam * rest * gram[pairs.first, pairs.second]
    )
    # Opposite rows cancel at lam = 1/2: such an item has no direction, and its similarity is 0.
    return dot / square.clamp_min(1e-12).sqrt()
