"""Losses for mixed batches, as pure functions on torch tensors; needs torch and nothing else of this package.

Labels are taken as the server sends them: `label.class` (n, 2) with `label.weight` (n, 2), or `label.dense`
(n, C). Half-precision inputs are computed in float32. Class -1 means no label. `reduction` is `mean`, `sum`
or `none`.

| name | what | source |
| --- | --- | --- |
| `cross_entropy` | hard, pair, k-way and dense labels; label smoothing | mixup, ICLR 2018 |
| `binary_cross_entropy` | the same labels; threshold, several labels | ResNet strikes back, 2021 |
| `mixed_accuracy` | top-k accuracy weighted by lambda | Manifold Mixup, ICML 2019 |
| `dense_labels` | sparse labels as a dense target | |
| `decoupled_cross_entropy` | DM(CE) | Decoupled Mixup, NeurIPS 2023 |
| `decoupled_binary_cross_entropy` | DM(BCE); two-hot | Decoupled Mixup, NeurIPS 2023 |
| `decoupled_weights` | its rho(lambda) | Decoupled Mixup, NeurIPS 2023 |
| `rankmixup_margin`, `rankmixup_ndcg` | MRL, M-NDCG beside clean cross entropy | RankMixup, ICCV 2023 |
| `transmix_weights` | label weights by attention | TransMix, CVPR 2022 |
| `pal_weights` | label weights from area to attention | MixPro, ICLR 2023 |
| `tl_align_weights`, `_step`, `_merge` | labels that follow their tokens | TL-Align, ICCV 2023 |
| `class_attention` | what those three ask for: the class token's attention, | |
| `kept_outside_box`, `kept_of_mask` | and the part of each token that is the base row's | |
| `metrix_contrastive`, `metrix_multi_similarity` | metric learning, clean and mixed | Metrix, ICLR 2022 |
| `metrix_proxy_anchor`, `ProxyAnchor` | the same with proxies | Metrix, ICLR 2022 |
| `clean_pairs`, `metrix_pairs`, `Pairs` | what those compare, | Metrix, ICLR 2022 |
| `metrix_similarity` | and how similar it is | Metrix, ICLR 2022 |
| `adaptive_mix`, `OrthogonalClassifier` | shrinking of the feature space | AdaptiveMix, CVPR 2023 |
| `homologous_recognition` | patches of one source find each other | MixedAE, CVPR 2023 |

`transmix_weights`, `pal_weights` and `tl_align_weights` give label weights for any loss that takes them.
"""

from mixfeed.losses.adaptivemix import OrthogonalClassifier, adaptive_mix
from mixfeed.losses.alignment import tl_align_merge, tl_align_step, tl_align_weights
from mixfeed.losses.attention import (
    class_attention,
    kept_of_mask,
    kept_outside_box,
    pal_weights,
    transmix_weights,
)
from mixfeed.losses.decoupled import (
    decoupled_binary_cross_entropy,
    decoupled_cross_entropy,
    decoupled_weights,
)
from mixfeed.losses.entropy import binary_cross_entropy, cross_entropy, mixed_accuracy
from mixfeed.losses.labels import dense_labels
from mixfeed.losses.metrix import (
    ProxyAnchor,
    metrix_contrastive,
    metrix_multi_similarity,
    metrix_proxy_anchor,
)
from mixfeed.losses.mixedae import homologous_recognition
from mixfeed.losses.pairs import Pairs, clean_pairs, metrix_pairs, metrix_similarity
from mixfeed.losses.rankmixup import rankmixup_margin, rankmixup_ndcg

__all__ = [
    "OrthogonalClassifier",
    "Pairs",
    "ProxyAnchor",
    "adaptive_mix",
    "binary_cross_entropy",
    "class_attention",
    "clean_pairs",
    "cross_entropy",
    "decoupled_binary_cross_entropy",
    "decoupled_cross_entropy",
    "decoupled_weights",
    "dense_labels",
    "homologous_recognition",
    "kept_of_mask",
    "kept_outside_box",
    "metrix_contrastive",
    "metrix_multi_similarity",
    "metrix_pairs",
    "metrix_proxy_anchor",
    "metrix_similarity",
    "mixed_accuracy",
    "pal_weights",
    "rankmixup_margin",
    "rankmixup_ndcg",
    "tl_align_merge",
    "tl_align_step",
    "tl_align_weights",
    "transmix_weights",
]
