"""Token-label alignment (TL-Align): labels follow their tokens through the attention of a transformer.

A token's label is its base row's share, 0 to 1; the partner's is the rest, so that rows sum to 1 after every
layer. Source: Xiao et al., "Token-Label Alignment for Vision Transformers", ICCV 2023 (arXiv:2210.06455).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mixfeed.losses.arguments import Shapes, full_precision, refuse


def tl_align_step(share: Tensor, attention: Tensor) -> Tensor:
    """Shares after one attention layer with its residual connection: normalise(A Y + Y), the mean of heads as
    A.

    Args:
        share: (n, T) floats 0 to 1, the base row's share of each token.
        attention: (n, T, T) or (n, heads, T, T) floats of at least 0, rows are queries. Detached.

    Returns:
        (n, T) without gradient.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    shapes = Shapes()
    y = shapes.amounts("share", share, ("n", "T"), high=1.0).detach()
    heads = isinstance(attention, Tensor) and attention.dim() == 4
    a = shapes.floats("attention", attention, ("n", "heads", "T", "T") if heads else ("n", "T", "T")).detach()
    a = (a.mean(1) if heads else a).to(y.dtype)
    with full_precision(y):
        moved = torch.bmm(a, y[:, :, None])[:, :, 0]
    # The sum of both columns of A Y + Y is the sum of A's row plus 1. Rounding may pass the ends by an ulp.
    return ((moved + y) / (a.sum(2) + 1.0)).clamp(0.0, 1.0)


def tl_align_merge(share: Tensor, grid: tuple[int, int], *, factor: int = 2) -> Tensor:
    """Shares after `factor` x `factor` patches are merged into one, as between the stages of hierarchical
    transformers.

    Args:
        share: (n, L) floats 0 to 1, L = rows * columns, row by row, without a class token.
        grid: rows and columns of tokens, multiples of `factor`.
        factor: at least 1.

    Returns:
        (n, L / factor^2): the means, without gradient.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    y = Shapes().amounts("share", share, ("n", "L"), high=1.0).detach()
    rows, columns = grid
    if rows * columns != y.shape[1]:
        refuse("grid", f"is {grid}, want rows and columns of {y.shape[1]} tokens")
    if factor < 1 or rows % factor or columns % factor:
        refuse("factor", f"is {factor}, want a divisor of rows and columns of grid {grid}")
    return y.reshape(-1, rows // factor, factor, columns // factor, factor).mean((2, 4)).flatten(1)


def tl_align_weights(
    kept: Tensor, attentions: Sequence[Tensor], weights: Tensor, *, prefix: int = 1
) -> Tensor:
    """TL-Align: label weights (n, 2) of the class token, or of the mean token, after all layers.

    Patches begin with their own share `kept`, class tokens with the row's weights. For stages that merge
    tokens call `tl_align_step` and `tl_align_merge` in turn. The loss is `cross_entropy(logits, classes,
    tl_align_weights(...))`.

    Args:
        kept: (n, L) floats 0 to 1: the share of each patch that shows the base row, see `kept_outside_box`.
        attentions: one (n, T, T) or (n, heads, T, T) per layer, first layer first, T = prefix + L.
        weights: (n, 2) floats 0 to 1 that sum to 1, `label.weight`.
        prefix: class tokens before the patches. With 0 the label is the mean over patches, else that of the
            first token.

    Returns:
        (n, 2) without gradient, summing to 1.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    shapes = Shapes()
    patches = shapes.amounts("kept", kept, ("n", "L"), high=1.0).detach()
    given = shapes.amounts("weights", weights, ("n", "k"), high=1.0).detach()
    if given.shape[1] != 2:
        refuse("weights", f"has shape {tuple(given.shape)}, want (n, 2)")
    if prefix < 0:
        refuse("prefix", f"is {prefix}, want at least 0")
    share = torch.cat((given[:, :1].to(patches.dtype).expand(-1, prefix), patches), 1)
    for attention in attentions:
        share = tl_align_step(share, attention)
    base = share[:, 0] if prefix else share.mean(1)
    return torch.stack((base, 1.0 - base), 1)
