"""Where a loader is, and how it gets there."""

import json
import pickle
from itertools import islice

import pytest
import specs
import torch

import mixfeed


def images(loader, count):
    return [batch.images.clone() for batch in islice(loader, count)]


def test_a_state_goes_on_where_it_was_taken(load):
    loader = load()
    assert loader.state_dict()["next_step"] == 0
    whole = images(loader, 5)
    other = load(job=loader.describe()["job"])
    images(other, 2)
    state = json.loads(json.dumps(other.state_dict()))
    assert len(json.dumps(state)) < 4096 and state["next_step"] == 2
    fresh = load(job=loader.describe()["job"])
    fresh.load_state_dict(state)
    assert fresh.state_dict() == state, "before the first batch, too"
    assert all(torch.equal(a, b) for a, b in zip(images(fresh, 3), whole[2:], strict=True))
    # Back again, by the names that others use.
    fresh.set_state(state)
    assert torch.equal(next(fresh).images, whole[2]) and fresh.get_state()["next_step"] == 3
    # A cursor of a batch is a position as well.
    from_cursor = load(job=loader.describe()["job"], start=state["cursor"])
    assert next(from_cursor).step == 2
    assert next(load(job=loader.describe()["job"], start=4)).step == 4


def test_states_of_other_jobs_are_refused(load):
    loader = load()
    next(loader)
    state = loader.state_dict()
    other = load(job="of-another-name")
    with pytest.raises(mixfeed.StateMismatch, match=r"test-states-of-other-jobs.*of-another-name"):
        other.load_state_dict(state)
    # The same name, but another seed: found out when the job is opened.
    renamed = {**state, "job": "of-another-name", "cursor": {**state["cursor"], "job": "of-another-name"}}
    seeded = load(specs.photos(seed=4), job="of-another-name")
    seeded.load_state_dict(renamed)
    with pytest.raises(mixfeed.StateMismatch, match="digest"):
        next(seeded)
    for wrong in ({}, {**state, "version": 2}, {**state, "cursor": "x"}, {**state, "next_step": -1}, None):
        with pytest.raises(ValueError):
            loader.load_state_dict(wrong)
    assert next(loader).step == 1, "what was refused changed nothing"
    bent = {**state, "cursor": {**state["cursor"], "next_step": 7}}
    loader.load_state_dict(bent)
    with pytest.raises(mixfeed.Error):
        next(loader)


def test_a_state_without_a_step_is_none(load):
    loader = load()
    with pytest.raises(mixfeed.StateMismatch, match="next_step"):
        loader.load_state_dict({**loader.state_dict(), "next_step": None})


def test_a_finite_job_has_a_length_and_an_end(load):
    loader = load(specs.photos(max_steps=3))
    assert len(loader) == 3 and [batch.step for batch in loader] == [0, 1, 2]
    assert loader.end == {"steps": 3, "dropped_rows": 0, "padded_rows": 0}
    assert list(loader) == [] and loader.stats()["batches"] == 3
    loader.load_state_dict({**loader.state_dict(), "next_step": 1, "cursor": None})
    assert len(loader) == 2 and [batch.step for batch in loader] == [1, 2]


def test_a_job_without_end_has_no_length(load):
    loader = load()
    with pytest.raises(TypeError, match="no end"):
        len(loader)
    assert loader.describe()["steps"] == 0


def test_epochs_of_our_own_length(load):
    loader = load(steps_per_epoch=2)
    assert len(loader) == 2
    loader.set_epoch(3)
    assert [batch.step for batch in loader] == [6, 7]
    loader.set_epoch(0)
    assert [batch.step for batch in loader] == [8, 9], "it has begun"
    other = load(job=loader.describe()["job"], steps_per_epoch=2)
    other.load_state_dict(loader.state_dict())
    other.set_epoch(0)
    assert next(other).step == 10, "it was resumed"
    with pytest.raises(mixfeed.Argument, match="steps_per_epoch"):
        load(steps_per_epoch=0)


def test_breaking_out_of_a_loop_loses_nothing(load):
    loader = load()
    for batch in loader:
        if batch.step == 1:
            break
    assert [batch.step for batch in islice(loader, 2)] == [2, 3]


def test_ranks_share_a_step(load, monkeypatch):
    loader = load()
    whole = next(loader).images.clone()
    name = loader.describe()["job"]
    parts = [next(load(job=name, rank=rank, world_size=3)).images.clone() for rank in range(3)]
    assert torch.equal(torch.cat(parts), whole)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert torch.equal(next(load(job=name)).images, parts[2])
    with pytest.raises(mixfeed.Argument, match="both"):
        load(rank=0)
    with pytest.raises(mixfeed.Argument, match="rank"):
        load(rank=3, world_size=3)
    with pytest.raises(mixfeed.Invalid, match="world_size") as error:
        next(load(job=name, rank=0, world_size=7))
    assert error.value.violations[0][0] == "world_size"


def test_a_process_group_tells_the_rank(load, tmp_path):
    from torch import distributed

    loader = load()
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        next(loader)
        assert (loader.rank, loader.world_size) == (0, 1)
    finally:
        distributed.destroy_process_group()


def test_specs_come_from_files(load, server, tmp_path):
    loader = load()
    digest = loader.describe()["digest"]
    (tmp_path / "spec.json").write_text(json.dumps(specs.photos()))
    table = """
groups = [{ group = "photos" }]
seed = 3
global_batch = 24
mix_block = 8
image = { height = 40, width = 56, random_resized_crop = {}, horizontal_flip = 0.5 }
mix = { policies = [{ name = "mixup" }, { name = "cutmix" }] }
"""
    (tmp_path / "spec.toml").write_text(table)
    (tmp_path / "server.toml").write_text("[jobs.other]\nseed = 1\n[jobs.job]\n" + table)
    for file in ("spec.json", "spec.toml", "server.toml"):
        with mixfeed.Loader(server.endpoint, "job", spec=tmp_path / file) as opened:
            assert opened.describe()["digest"] == digest
    with pytest.raises(mixfeed.Argument, match="has no job `none`, but other, job"):
        mixfeed.Loader(server.endpoint, "none", spec=tmp_path / "server.toml")
    with pytest.raises(mixfeed.Argument, match=r"none\.toml"):
        mixfeed.Loader(server.endpoint, "job", spec=tmp_path / "none.toml")


def test_wrong_specs_name_their_fields(load):
    with pytest.raises(mixfeed.Argument, match="unknown field `sead`"):
        load({"sead": 3}).describe()
    with pytest.raises(mixfeed.Argument, match="nchv"):
        load(specs.photos(output={"layout": "nchv"})).describe()
    with pytest.raises(mixfeed.Invalid) as error:
        load(specs.photos(mix={"policies": [{"name": "mixup", "params": {"alpha": -1}}]})).describe()
    assert error.value.violations[0][0] == "mix.policies[0]" and "alpha" in error.value.violations[0][1]
    load(job="twice").describe()
    with pytest.raises(mixfeed.OtherDigest) as other:
        load(specs.photos(seed=9), job="twice").describe()
    assert len(other.value.expected) == len(other.value.found) == 64


def test_a_pickled_loader_takes_its_position_along(load):
    loader = load()
    whole = images(loader, 2)
    other = pickle.loads(pickle.dumps(loader))
    assert isinstance(other, mixfeed.DataLoader) and other.state_dict() == loader.state_dict()
    assert next(other).step == 2
    batch = pickle.loads(pickle.dumps(next(load(job=loader.describe()["job"]))))
    assert batch.step == 0 and torch.equal(batch.images, whole[0]) and len(batch.split(3)) == 3
    other.close()
