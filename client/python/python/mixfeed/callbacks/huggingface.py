"""A callback for the Trainer of Hugging Face transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mixfeed.callbacks.groups import GroupLosses
from mixfeed.callbacks.position import Position

if TYPE_CHECKING:
    Base = object
else:
    try:
        from transformers import TrainerCallback as Base
    except ImportError as error:
        raise ImportError("TrainerCallback needs `transformers`") from error

FILE = "mixfeed.json"
"""The loader's position in a checkpoint's folder."""


class TrainerCallback(Base):
    """Reports the losses per group and keeps the loader's position beside the Trainer's checkpoints.

    The Trainer shows its callbacks neither batches nor losses: `compute_loss` calls `add`.

        class Trainer(transformers.Trainer):
            def get_train_dataloader(self):
                return loader   # as it is: nothing may shard or shuffle its batches again

            def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
                logits = model(input_ids=inputs["input_ids"]).logits
                losses = cross_entropy(logits[:, :-1].mT, inputs["input_ids"][:, 1:].long(), reduction="none")
                callback.add(inputs, losses)
                return losses.mean()

    To go on from a checkpoint, `ignore_data_skip=True` is needed: the loader goes to its position by itself.
    """

    def __init__(self, loader: Any, *, groups: GroupLosses | None = None) -> None:
        """Args:
        loader: the loader that is trained from.
        groups: how losses are summed. Default: `GroupLosses(loader)`.
        """
        self._groups = GroupLosses(loader) if groups is None else groups
        self._position = Position(loader)
        self._batch: Any = None

    @property
    def groups(self) -> GroupLosses:
        """The sums."""
        return self._groups

    def add(self, batch: Any, losses: Tensor, mask: Tensor | None = None) -> None:
        """Adds the losses of a batch that is trained, without reduction, as `group_sums` takes them."""
        if self._batch is not None and self._batch.step != batch.step:
            # Several batches an update (gradient_accumulation_steps): each is a step of the job.
            self._groups.step(self._batch)
        self._groups.add(batch, losses, mask)
        self._batch = batch

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Goes to the position of the checkpoint that training goes on from.

        Raises:
            FileNotFoundError: the checkpoint was not made with this callback.
            ValueError: `ignore_data_skip` is off.
        """
        self._groups.forget()
        self._batch = None
        if not state.global_step:
            return
        if not args.ignore_data_skip:
            raise ValueError(
                "going on from a checkpoint needs ignore_data_skip=True: the loader skips by itself"
            )
        given = args.resume_from_checkpoint
        folder = Path(given) if isinstance(given, str) and Path(given).is_dir() else self._folder(args, state)
        self.restore(folder)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends a step, after its update.

        Raises:
            ValueError: `add` was not called.
        """
        if self._batch is None:
            raise ValueError("no losses: call `add` in compute_loss")
        self._groups.step(self._batch)
        self._position.trained(self._batch)
        self._batch = None

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Writes the position into the checkpoint's folder."""
        folder = self._folder(args, state)
        if state.is_world_process_zero and folder.is_dir():
            (folder / FILE).write_text(json.dumps(self._position.state_dict()))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hands over what is left."""
        self._groups.hand_over()

    def restore(self, checkpoint: str | Path) -> None:
        """Sends the loader to the position in a checkpoint's folder.

        Raises:
            FileNotFoundError: there is none.
            mixfeed.StateMismatch: it is of another job.
        """
        self._position.load_state_dict(json.loads((Path(checkpoint) / FILE).read_text()))

    @staticmethod
    def _folder(args: Any, state: Any) -> Path:
        return Path(args.output_dir) / f"checkpoint-{state.global_step}"
