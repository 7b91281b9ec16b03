"""Streams mixed, augmented training batches from a mixfeed server.

    import mixfeed

    loader = mixfeed.DataLoader("http://127.0.0.1:7443", job="vit-b16")
    for batch in loader:
        loss = train(batch.images, batch.labels)
        checkpoint["data"] = loader.state_dict()

Neither torch nor NumPy has to be installed: batches hand out what is there (`mixfeed.arrays`). `DataLoader`
is a `torch.utils.data.IterableDataset` where torch is installed, and imports it; `Loader` is the same without
torch.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING, Any

from mixfeed._mixfeed import Tensor, __version__
from mixfeed.batch import Batch
from mixfeed.errors import (
    Aborted,
    Argument,
    Closed,
    Corrupt,
    DataLoss,
    Denied,
    Error,
    Exhausted,
    FailedPrecondition,
    Fenced,
    Invalid,
    NotFound,
    OtherDigest,
    Protocol,
    Refused,
    Server,
    StateMismatch,
    Timeout,
    Unavailable,
    Unimplemented,
)
from mixfeed.loader import Loader
from mixfeed.mixture import Mixture, MixtureEntry
from mixfeed.report import Due
from mixfeed.views import Labels, Ragged

if TYPE_CHECKING:
    from mixfeed.dataset import DataLoader as DataLoader

__all__ = [
    "Aborted",
    "Argument",
    "Batch",
    "Closed",
    "Corrupt",
    "DataLoader",
    "DataLoss",
    "Denied",
    "Due",
    "Error",
    "Exhausted",
    "FailedPrecondition",
    "Fenced",
    "Invalid",
    "Labels",
    "Loader",
    "Mixture",
    "MixtureEntry",
    "NotFound",
    "OtherDigest",
    "Protocol",
    "Ragged",
    "Refused",
    "Server",
    "StateMismatch",
    "Tensor",
    "Timeout",
    "Unavailable",
    "Unimplemented",
    "__version__",
]

# Stubs that are generated from the service's proto files are the package `mixfeed.v1`: it may lie in another
# folder of the path than this package does.
__path__ = pkgutil.extend_path(__path__, __name__)


def __getattr__(name: str) -> Any:
    """`DataLoader` is made when it is first asked for, since that imports torch."""
    if name == "DataLoader":
        from mixfeed.dataset import DataLoader

        globals()[name] = DataLoader
        return DataLoader
    raise AttributeError(f"module `mixfeed` has no attribute `{name}`")


def __dir__() -> list[str]:
    return sorted({*globals(), "DataLoader"})
