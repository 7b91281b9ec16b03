"""A callback for Lightning (`lightning` or `pytorch_lightning`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mixfeed.callbacks.groups import GroupLosses
from mixfeed.callbacks.position import Position

if TYPE_CHECKING:
    Callback = object
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        try:
            from pytorch_lightning import Callback
        except ImportError as error:
            raise ImportError("LightningCallback needs `lightning` or `pytorch_lightning`") from error


class LightningCallback(Callback):
    """Reports the losses per group and keeps the loader's position in Lightning's checkpoints.

    `training_step` returns a mapping that holds, beside `loss`, the losses without reduction:

        def training_step(self, batch, batch_idx):
            losses = cross_entropy(self(batch.images), target, reduction="none")
            return {"loss": losses.mean(), "losses": losses.detach()}

        trainer = Trainer(callbacks=[LightningCallback(loader)])
        trainer.fit(model, loader)

    Lightning takes a batch ahead of the one that is trained, and keeps that position of a loader which has
    a `state_dict`: a run that goes on from there would miss a batch. This callback puts the trained one in
    its place. With `accumulate_grad_batches` each batch is a step of the job.
    """

    def __init__(
        self,
        loader: Any,
        *,
        key: str = "losses",
        mask_key: str = "loss_mask",
        groups: GroupLosses | None = None,
    ) -> None:
        """Args:
        loader: the loader that is trained from.
        key: where `training_step` returns the losses, as `group_sums` takes them.
        mask_key: where it returns their mask, if it does.
        groups: how they are summed. Default: `GroupLosses(loader)`.
        """
        super().__init__()
        self._loader, self._key, self._mask_key = loader, key, mask_key
        self._groups = GroupLosses(loader) if groups is None else groups
        self._position = Position(loader)

    @property
    def groups(self) -> GroupLosses:
        """The sums."""
        return self._groups

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds a step's losses.

        Raises:
            ValueError: `training_step` returned no losses.
        """
        losses = outputs.get(self._key) if isinstance(outputs, Mapping) else None
        if not isinstance(losses, Tensor):
            raise ValueError(
                f"training_step returned no `{self._key}`: losses without reduction, beside `loss`"
            )
        self._groups.step(batch, losses, outputs.get(self._mask_key))
        self._position.trained(batch)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Hands over what is left."""
        self._groups.hand_over()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """What was not handed over belongs to a run that is over."""
        self._groups.forget()

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Puts the trained position in the place of the one that Lightning has taken of the loader itself."""
        of_loop = checkpoint.get("loops", {}).get("fit_loop", {}).get("state_dict", {})
        ahead = self._loader.state_dict()
        states = of_loop.get("combined_loader", [])
        states[:] = [self._position.state_dict() if state == ahead else state for state in states]

    def state_dict(self) -> dict[str, Any]:
        """Of Lightning's checkpoint."""
        return {"loader": self._position.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of Lightning's checkpoint."""
        self._groups.forget()
        self._position.load_state_dict(state_dict["loader"])
