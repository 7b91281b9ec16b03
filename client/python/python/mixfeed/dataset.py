"""`mixfeed.DataLoader`: the loader as torch knows datasets, where torch is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixfeed.arrays import has
from mixfeed.loader import Loader

if TYPE_CHECKING or not has("torch"):

    class DataLoader(Loader):
        """See `Loader`. Where torch is installed this is also a `torch.utils.data.IterableDataset`."""

else:
    from torch.utils.data import IterableDataset

    class DataLoader(Loader, IterableDataset[Any]):
        """See `Loader`. Its batches are ready: `torch.utils.data.DataLoader(loader, batch_size=None)`."""


DataLoader.__module__ = "mixfeed"  # where it is found again by pickle
