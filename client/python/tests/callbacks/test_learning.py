"""A job that learns from what `GroupLosses` tells: the same mixtures as from sums made by hand."""

from __future__ import annotations

from collections import Counter

import pytest
import specs
import torch

from mixfeed.callbacks import GroupLosses

STEPS, LENGTH = 40, 64


def spec():
    mixture = {"estimator": {"name": "odm"}}
    return specs.texts(mixture=mixture, max_steps=STEPS, mix_block=4)


def losses(batch):
    """Per token, by group and step; exact in floats, so that the order of sums does not matter."""
    groups = batch.groups.long()
    return (1 + groups.unsqueeze(1) * 0.5 + batch.step * 0.125).expand(-1, LENGTH)


def by_hand(loader, batch):
    sums, counts = Counter(), Counter()
    for row, group in enumerate(batch.groups.tolist()):
        kept = batch["loss_mask"][row].bool()
        sums[loader.groups[group]] += float(losses(batch)[row][kept].sum())
        counts[loader.groups[group]] += int(kept.sum())
    loader.report(batch, sums, counts)


@pytest.fixture
def course(load):
    """Groups and mixtures of every step of a job whose steps are told by a function."""

    def run(job, tell):
        loader = load(spec(), job=job)
        told = tell(loader)
        seen = []
        for batch in loader:
            seen.append((batch.mixture_id, batch.groups.tolist()))
            told(batch)
        assert loader.flush()
        reports = loader.stats()["reports"]
        assert reports["counted"] > 1 and reports["refused"] == reports["stale"] == 0
        return seen, reports["counted"]

    return run


def test_the_mixture_learns_what_it_learns_from_sums_made_by_hand(course):
    def tell(loader):
        groups = GroupLosses(loader)
        return lambda batch: groups.step(batch, losses(batch))

    def in_parts(loader):
        groups = GroupLosses(loader, every=3)

        def told(batch):
            for part in batch.split(3):
                groups.add(part, losses(part))
            groups.step(batch)

        return told

    wanted = course("by-hand", lambda loader: lambda batch: by_hand(loader, batch))
    assert len({mixture for mixture, _ in wanted[0]}) > 1, "nothing was learnt"
    assert course("by-groups", tell) == wanted
    assert course("in-parts", in_parts) == wanted


def test_totals_are_those_of_all_tokens(load):
    loader = load(spec())
    groups, tokens = GroupLosses(loader), 0
    for batch in loader:
        groups.step(batch, torch.ones(len(batch.groups), LENGTH))
        tokens += int(batch["loss_mask"].sum())
    groups.hand_over()
    assert sum(count for _, count in groups.totals.values()) == tokens
    assert all(loss == count for loss, count in groups.totals.values())
