"""What the tests of losses share: seeded draws and labels as the server sends them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

Draw = Callable[..., tuple[Tensor, Tensor]]


@pytest.fixture
def rng() -> np.random.Generator:
    """Draws that are the same in every run."""
    return np.random.default_rng(20230711)


@pytest.fixture
def draw_labels(rng: np.random.Generator) -> Draw:
    """Draws `label.class` (n, k) int32 and `label.weight` (n, k) float32 that sum to 1.

    From the second row on there are a clean row, a row mixed with its own class and, when asked, some without
    labels.
    """

    def draw(n: int, count: int, *, k: int = 2, unlabelled: bool = False) -> tuple[Tensor, Tensor]:
        classes = rng.integers(0, count, (n, k))
        weights = rng.dirichlet(np.ones(k), n)
        if n > 1:
            weights[1] = np.eye(k)[0]
        if n > 2:
            classes[2] = classes[2, 0]
        if unlabelled and n > 4:
            classes[3, -1] = -1
            classes[4] = -1
        return torch.tensor(classes, dtype=torch.int32), torch.tensor(weights, dtype=torch.float32)

    return draw


@pytest.fixture
def draw_floats(rng: np.random.Generator) -> Callable[..., Tensor]:
    """Draws a float64 tensor of a shape, standard normal times `scale`."""
    return lambda *shape, scale=1.0: torch.tensor(rng.normal(size=shape) * scale, dtype=torch.float64)
