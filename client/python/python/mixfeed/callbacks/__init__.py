"""What a trainer tells the server about its groups, from a plain loop, Lightning or the Hugging Face Trainer.

A plain loop:

    groups = mixfeed.callbacks.GroupLosses(loader)
    for batch in loader:
        losses = cross_entropy(model(batch.images), target, reduction="none")   # one per row, token or point
        losses.mean().backward()
        optimizer.step()
        groups.step(batch, losses)

`LightningCallback` and `TrainerCallback` are made when they are first asked for, since their base classes
belong to packages that need not be installed. All need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mixfeed.callbacks.groups import GroupLosses, group_sums

if TYPE_CHECKING:
    from mixfeed.callbacks.huggingface import TrainerCallback as TrainerCallback
    from mixfeed.callbacks.lightning import LightningCallback as LightningCallback

__all__ = ["GroupLosses", "LightningCallback", "TrainerCallback", "group_sums"]


def __getattr__(name: str) -> Any:
    homes = {"LightningCallback": "lightning", "TrainerCallback": "huggingface"}
    if name not in homes:
        raise AttributeError(f"module `mixfeed.callbacks` has no attribute `{name}`")
    found = globals()[name] = getattr(import_module(f"mixfeed.callbacks.{homes[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
