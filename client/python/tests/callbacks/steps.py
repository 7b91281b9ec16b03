"""A loader and batches of nothing but positions and groups, for runs of real trainers without a server."""

from __future__ import annotations

import torch

GROUPS, ROWS = 3, 4


class Batch:
    """Four rows; row i is of group (step + i) % 3, and `x` is the step."""

    def __init__(self, step, device="cpu"):
        self.step, self.segment, self.mixture_id = step, 1, 5
        self.due_before, self.due_after = (), ("train",) if step % 4 == 3 else ()
        self.cursor = {"job": "job", "next_step": step + 1}
        self.arrays = {
            "sample.group": (step + torch.arange(ROWS)) % GROUPS,
            "x": torch.full((ROWS, 2), float(step), device=device),
        }

    def __getitem__(self, name):
        return self.arrays[name]

    def __contains__(self, name):
        return name in self.arrays

    def __len__(self):
        return len(self.arrays)

    def keys(self):
        return self.arrays.keys()

    def to(self, device, non_blocking=False):
        moved = Batch(self.step)
        moved.arrays = {name: array.to(device) for name, array in self.arrays.items()}
        return moved

    @property
    def losses(self):
        """Row i loses step + i / 8."""
        return self["x"][:, 0] + torch.arange(ROWS) / 8


class Loader(torch.utils.data.IterableDataset):
    """Steps from a position on, `per_epoch` of an iteration; writes down what it is told and which steps it
    gave.
    """

    def __init__(self, per_epoch):
        self.per_epoch, self.position = per_epoch, 0
        self.groups, self.told, self.given = [f"g{i}" for i in range(GROUPS)], [], []

    def __iter__(self):
        for _ in range(self.per_epoch):
            self.position += 1
            self.given.append(self.position - 1)
            yield Batch(self.position - 1)

    def report(self, batch, loss_sum=None, tokens=None, *, skipped=False):
        self.told.append((batch.step, loss_sum, tokens))

    def state_dict(self):
        cursor = {"job": "job", "next_step": self.position}
        return {"version": 1, "job": "job", "next_step": self.position, "cursor": cursor}

    def load_state_dict(self, state):
        assert (
            state["version"] == 1
            and state["job"] == "job"
            and state["cursor"]["next_step"] == state["next_step"]
        )
        self.position = state["next_step"]


def sums(step):
    """What is to be told of a step."""
    losses, counts = [0.0] * GROUPS, [0.0] * GROUPS
    for row in range(ROWS):
        losses[(step + row) % GROUPS] += step + row / 8
        counts[(step + row) % GROUPS] += 1
    return losses, counts


def check(told, steps):
    """Every step was told once, in order, with its own sums."""
    assert told == [(step, *sums(step)) for step in steps]
