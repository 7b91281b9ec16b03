"""Sums per group against plain loops, and what is told to the loader when."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mixfeed
from mixfeed.callbacks import GroupLosses, group_sums

GROUPS = 4


def counted(terms):
    """(2, groups) sums of (group, loss, weight)."""
    sums = np.zeros((2, GROUPS))
    for group, loss, weight in terms:
        sums[:, int(group)] += (float(loss) * float(weight), float(weight))
    return sums


def agree(got, terms):
    assert got.dtype == torch.float64 and got.shape == (2, GROUPS)
    np.testing.assert_allclose(got.numpy(), counted(terms), rtol=1e-12, atol=1e-12)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def pictures(rng):
    weight = rng.dirichlet([1, 1], 9).astype("f4")
    weight[0] = 1, 0
    return {"sample.group": rng.integers(0, GROUPS, (9, 2)).astype("i4"), "label.weight": weight}


def test_rows_count_for_the_group_of_their_own_record(pictures, rng):
    losses = torch.from_numpy(rng.random(9))
    agree(
        group_sums(pictures, losses, GROUPS),
        zip(pictures["sample.group"][:, 0], losses, np.ones(9), strict=True),
    )


def test_mixed_rows_are_shared_by_their_labels_when_asked(pictures, rng):
    losses = torch.from_numpy(rng.random(9))
    want = zip(
        pictures["sample.group"].ravel(),
        losses.repeat_interleave(2),
        pictures["label.weight"].ravel(),
        strict=True,
    )
    agree(group_sums(pictures, losses, GROUPS, split="label"), want)


def test_losses_of_both_labels_are_weighted_and_one_without_weight_does_not_matter(pictures, rng):
    losses = torch.from_numpy(rng.random((9, 2)))
    losses[0, 1] = math.inf
    want = zip(
        pictures["sample.group"].ravel(), losses.ravel(), pictures["label.weight"].ravel(), strict=True
    )
    agree(group_sums(pictures, losses, GROUPS), [term for term in want if term[2] > 0])


@pytest.mark.parametrize("shift", [0, 1])
def test_tokens_count_where_the_mask_is(rng, shift):
    mask = rng.integers(0, 2, (5, 6)).astype("u1")
    batch = {
        "sample.group": rng.integers(0, GROUPS, 5),
        "input_ids": np.zeros((5, 6), "i4"),
        "loss_mask": mask,
    }
    losses = torch.from_numpy(rng.random((5, 6 - shift)))
    losses[torch.from_numpy(mask[:, shift:]) == 0] = math.nan
    rows = [
        (batch["sample.group"][i], losses[i, t], 1)
        for i in range(5)
        for t in range(6 - shift)
        if mask[i, t + shift]
    ]
    agree(group_sums(batch, losses, GROUPS), rows)
    own = torch.zeros(losses.shape, dtype=torch.bool)
    own[2] = ~losses[2].isnan()
    agree(
        group_sums(batch, losses, GROUPS, mask=own),
        [row for row, keep in zip(rows, kept(own, mask, shift), strict=True) if keep],
    )


def kept(own, mask, shift):
    return [bool(own[i, t]) for i in range(5) for t in range(6 - shift) if mask[i, t + shift]]


def test_tokens_of_ragged_rows_count_for_their_row(rng):
    offsets, group = np.array([0, 3, 3, 7]), np.array([2, 0, 1])
    batch = {"sample.group": group, "input_ids": np.zeros(7, "i4"), "input_ids.offsets": offsets}
    losses = torch.from_numpy(rng.random(7))
    agree(group_sums(batch, losses, GROUPS), zip([2] * 3 + [1] * 4, losses, np.ones(7), strict=True))


def test_points_count_for_the_group_of_the_scene_that_they_are_from(rng):
    batch = {
        "sample.group": np.array([[1, 3], [0, 2]]),
        "offset": np.array([0, 4, 6]),
        "coord": np.zeros((6, 3)),
        "scene_id": np.array([0, 1, 1, 0, 1, 0], "u1"),
    }
    losses = torch.from_numpy(rng.random(6))
    agree(group_sums(batch, losses, GROUPS), zip([1, 3, 3, 1, 2, 0], losses, np.ones(6), strict=True))


def test_losses_are_taken_without_their_graph(pictures):
    losses = torch.rand(9, requires_grad=True)
    assert not group_sums(pictures, losses * 2, GROUPS).requires_grad


@pytest.mark.parametrize("shape", [(), (8,), (9, 3), (9, 2, 2)])
def test_losses_of_another_shape_are_refused(pictures, shape):
    with pytest.raises(ValueError, match="losses have shape"):
        group_sums(pictures, torch.zeros(shape), GROUPS)
    with pytest.raises(ValueError, match="mask has shape"):
        group_sums(pictures, torch.zeros(9), GROUPS, mask=torch.ones(8))


class Told:
    """A loader that writes down what it is told."""

    def __init__(self):
        self.groups, self.calls = [f"g{i}" for i in range(GROUPS)], []

    def report(self, batch, loss_sum=None, tokens=None, *, skipped=False):
        self.calls.append(
            (batch.step, loss_sum, tokens, skipped, batch.segment, batch.mixture_id, batch.due_after)
        )


class Made(dict):
    """A batch of one row of group 1."""

    def __init__(self, step, segment=1, due=(), group=1):
        super().__init__({"sample.group": np.array([group])})
        self.step, self.segment, self.mixture_id = step, segment, segment * 10
        self.due_before, self.due_after = (), due


def test_steps_are_told_one_by_one_and_in_order_once_a_report_is_due():
    told = Told()
    groups = GroupLosses(told)
    for step in range(3):
        groups.step(Made(step), torch.tensor([float(step)]), skipped=step == 1)
    assert told.calls == []
    groups.step(Made(3, due=("train",)), torch.tensor([3.0]))
    assert [call[0] for call in told.calls] == [0, 1, 2, 3]
    assert told.calls[2][1:3] == ([0, 2.0, 0, 0], [0, 1.0, 0, 0])
    assert [call[3] for call in told.calls] == [False, True, False, False]
    assert told.calls[3][4:] == (1, 10, ("train",))
    assert groups.totals == {"g0": (0, 0), "g1": (6.0, 4.0), "g2": (0, 0), "g3": (0, 0)}


def test_steps_are_told_at_the_latest_when_there_are_many():
    told = Told()
    groups = GroupLosses(told, every=5)
    for step in range(12):
        groups.step(Made(step), torch.tensor([1.0]))
    assert len(told.calls) == 10
    groups.hand_over()
    assert len(told.calls) == 12


def test_sums_that_their_segment_never_asked_for_are_not_told_in_the_next_one():
    told = Told()
    groups = GroupLosses(told)
    groups.step(Made(0), torch.tensor([1.0]))
    groups.step(Made(1, segment=2), torch.tensor([1.0]))
    groups.hand_over()
    assert [call[0] for call in told.calls] == [1]


def test_micro_batches_are_one_step():
    told = Told()
    groups = GroupLosses(told)
    for loss, group in ((1.0, 0), (2.0, 1), (4.0, 1)):
        groups.add(Made(0, group=group), torch.tensor([loss]))
    groups.step(Made(0, due=("train",)))
    assert told.calls[0][1:3] == ([1.0, 6.0, 0, 0], [1.0, 2.0, 0, 0])
    with pytest.raises(ValueError, match="step 1 has no losses"):
        groups.step(Made(1))


def test_a_group_whose_loss_is_not_finite_is_absent_from_its_step():
    told = Told()
    groups = GroupLosses(told)
    groups.add(Made(0, group=0), torch.tensor([math.nan]))
    groups.step(Made(0, due=("train",)), torch.tensor([2.0]))
    assert told.calls[0][1:3] == ([0.0, 2.0, 0, 0], [0.0, 1.0, 0, 0])
    assert groups.not_finite == 1


class Failing(Told):
    """A loader that raises what is next in its list, which it took the report with or not."""

    def __init__(self, *failures):
        super().__init__()
        self.failures = list(failures)

    def report(self, batch, *arguments, **named):
        failure = self.failures.pop(0) if self.failures else None
        if failure is None or failure.queued:
            super().report(batch, *arguments, **named)
        if failure is not None:
            raise failure


@pytest.mark.parametrize("queued", [False, True])
def test_no_step_is_lost_or_told_twice_where_a_report_fails(queued):
    failure = mixfeed.Exhausted("full")
    failure.queued = queued
    told = Failing(None, failure)
    groups = GroupLosses(told)
    for step in range(3):
        groups.step(Made(step), torch.tensor([1.0]))
    with pytest.raises(mixfeed.Exhausted):
        groups.hand_over()
    assert groups.totals["g1"] == ((3.0, 3.0) if queued else (1.0, 1.0))
    groups.hand_over()
    assert [call[0] for call in told.calls] == [0, 1, 2] and groups.totals["g1"] == (3.0, 3.0)


def test_what_was_dropped_is_not_told():
    told = Told()
    groups = GroupLosses(told)
    groups.step(Made(0), torch.tensor([1.0]))
    groups.add(Made(1), torch.tensor([1.0]))
    groups.forget()
    groups.step(Made(0, due=("train",)), torch.tensor([5.0]))
    assert [call[:2] for call in told.calls] == [(0, [0, 5.0, 0, 0])]


def test_nothing_is_copied_to_the_host_before_a_report_is_due(monkeypatch):
    """Any way to a Python number is closed until the report."""
    told = Told()
    groups = GroupLosses(told)
    assert len(groups.names) == GROUPS
    with monkeypatch.context() as closed:
        for name in ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__"):
            closed.setattr(torch.Tensor, name, lambda *_: pytest.fail("a copy to the host"))
        for step in range(4):
            groups.step(Made(step), torch.tensor([1.0]))
    groups.hand_over()
    assert len(told.calls) == 4


def test_what_is_no_choice_is_refused():
    with pytest.raises(ValueError, match="split is `both`"):
        GroupLosses(SimpleNamespace(), split="both")
    with pytest.raises(ValueError, match="every is 0"):
        GroupLosses(SimpleNamespace(), every=0)
