"""The callbacks against stand-ins for Lightning and transformers, which call the hooks that the real ones
call, with their arguments (lightning 2.6.6, transformers 5.24.0). Runs of the real ones: run_lightning.py,
run_huggingface.py."""

from __future__ import annotations

import importlib
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import steps

import mixfeed.callbacks

MADE = ("mixfeed.callbacks.lightning", "mixfeed.callbacks.huggingface")


@pytest.fixture
def stand_in(monkeypatch):
    """Puts modules in the place of packages, and makes the callbacks anew on top of them."""

    def put(name, **contents):
        module = ModuleType(name)
        module.__dict__.update(contents)
        monkeypatch.setitem(sys.modules, name, module)

    for name in (*MADE, "lightning", "lightning.pytorch", "pytorch_lightning", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in MADE:
        monkeypatch.delitem(sys.modules, name)
    for name in ("LightningCallback", "TrainerCallback"):
        monkeypatch.delitem(vars(mixfeed.callbacks), name, raising=False)
    yield put
    for name in ("LightningCallback", "TrainerCallback"):
        vars(mixfeed.callbacks).pop(name, None)


class Base:
    """Stands for both base classes."""


def fit(loader, callback, count, outputs=lambda batch: {"loss": 0, "losses": batch.losses}):
    """Lightning's order of things: it holds a batch more than the one that is trained."""
    taken = iter(loader)
    ahead = next(taken)
    for index in range(count):
        batch, ahead = ahead, next(taken)
        callback.on_train_batch_end(SimpleNamespace(), SimpleNamespace(), outputs(batch), batch, index)
    checkpoint = {
        "loops": {"fit_loop": {"state_dict": {"combined_loader": [{"of": "another"}, loader.state_dict()]}}}
    }
    checkpoint["callbacks"] = callback.state_dict()
    callback.on_save_checkpoint(SimpleNamespace(), SimpleNamespace(), checkpoint)
    return json.loads(json.dumps(checkpoint))


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_lightning_saves_the_trained_position_and_goes_on_from_it(stand_in, package):
    stand_in(package.split(".")[0])
    stand_in(package, Callback=Base)
    made = mixfeed.callbacks.LightningCallback
    assert issubclass(made, Base)
    loader = steps.Loader(per_epoch=10)
    callback = made(loader)
    checkpoint = fit(loader, callback, 5)
    assert loader.state_dict()["next_step"] == 6, "a batch ahead"
    saved = checkpoint["callbacks"]["loader"]
    assert saved["next_step"] == saved["cursor"]["next_step"] == 5
    assert checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{"of": "another"}, saved]
    steps.check(loader.told, range(4))
    callback.on_train_end(SimpleNamespace(), SimpleNamespace())
    steps.check(loader.told, range(5))

    again = steps.Loader(per_epoch=10)
    resumed = made(again)
    resumed.load_state_dict(checkpoint["callbacks"])
    fit(again, resumed, 3)
    assert again.given == [5, 6, 7, 8]
    steps.check(again.told, range(5, 8))


def test_a_lightning_run_that_failed_tells_nothing_more(stand_in):
    stand_in("lightning")
    stand_in("lightning.pytorch", Callback=Base)
    loader = steps.Loader(per_epoch=10)
    callback = mixfeed.callbacks.LightningCallback(
        loader, groups=mixfeed.callbacks.GroupLosses(loader, every=3)
    )
    fit(loader, callback, 2)
    callback.on_exception(SimpleNamespace(), SimpleNamespace(), RuntimeError())
    callback.on_train_end(SimpleNamespace(), SimpleNamespace())
    assert loader.told == []
    for wrong in (None, SimpleNamespace(), {"loss": 1}, {"losses": 1.0}):
        with pytest.raises(ValueError, match="no `losses`"):
            fit(loader, callback, 1, lambda batch, wrong=wrong: wrong)


def updates(loader, callback, args, count, batches=1, begun=0):
    """The Trainer's order of things: compute_loss of every batch of an update, then on_step_end."""
    state = SimpleNamespace(global_step=begun, is_world_process_zero=True)
    control = SimpleNamespace()
    callback.on_train_begin(args, state, control, model=None)
    taken = iter(loader)
    ahead = next(taken)
    for _ in range(count):
        for _ in range(batches):
            batch, ahead = ahead, next(taken)
            callback.add(batch, batch.losses)
        state.global_step += 1
        callback.on_step_end(args, state, control, model=None)
    callback.on_save(args, state, control, model=None)
    callback.on_train_end(args, state, control, model=None)


def arguments(folder, **other):
    return SimpleNamespace(
        output_dir=str(folder), ignore_data_skip=True, resume_from_checkpoint=None, **other
    )


@pytest.mark.parametrize("batches", [1, 2])
def test_trainer_saves_the_trained_position_and_goes_on_from_it(stand_in, tmp_path, batches):
    stand_in("transformers", TrainerCallback=Base)
    made = mixfeed.callbacks.TrainerCallback
    assert issubclass(made, Base)
    loader, folder = steps.Loader(per_epoch=20), tmp_path / "checkpoint-3"
    folder.mkdir()
    updates(loader, made(loader), arguments(tmp_path), 3, batches)
    steps.check(loader.told, range(3 * batches))
    saved = json.loads((folder / "mixfeed.json").read_text())
    assert saved["next_step"] == saved["cursor"]["next_step"] == 3 * batches

    again = steps.Loader(per_epoch=20)
    updates(again, made(again), arguments(tmp_path), 2, batches, begun=3)
    steps.check(again.told, range(3 * batches, 5 * batches))

    elsewhere = steps.Loader(per_epoch=20)
    args = arguments(tmp_path / "other")
    args.resume_from_checkpoint = str(folder)
    updates(elsewhere, made(elsewhere), args, 1, batches, begun=3)
    assert elsewhere.given[0] == 3 * batches


def test_trainer_refuses_what_would_train_on_other_batches(stand_in, tmp_path):
    stand_in("transformers", TrainerCallback=Base)
    loader = steps.Loader(per_epoch=20)
    callback = mixfeed.callbacks.TrainerCallback(loader)
    args = arguments(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"mixfeed\.json"):
        updates(loader, callback, args, 1, begun=3)
    args.ignore_data_skip = False
    with pytest.raises(ValueError, match="ignore_data_skip"):
        updates(loader, callback, args, 1, begun=3)
    with pytest.raises(ValueError, match="call `add`"):
        callback.on_step_end(args, SimpleNamespace(global_step=1), SimpleNamespace())


def test_only_the_main_process_writes(stand_in, tmp_path):
    stand_in("transformers", TrainerCallback=Base)
    callback = mixfeed.callbacks.TrainerCallback(steps.Loader(per_epoch=20))
    (tmp_path / "checkpoint-1").mkdir()
    state = SimpleNamespace(global_step=1, is_world_process_zero=False)
    callback.on_save(arguments(tmp_path), state, SimpleNamespace())
    assert not list((tmp_path / "checkpoint-1").iterdir())


def test_without_the_package_the_callback_says_what_it_needs(stand_in):
    with pytest.raises(ImportError, match="needs `lightning`"):
        importlib.import_module("mixfeed.callbacks.lightning")
    with pytest.raises(ImportError, match="needs `transformers`"):
        importlib.import_module("mixfeed.callbacks.huggingface")
    with pytest.raises(AttributeError, match="no attribute `KerasCallback`"):
        _ = mixfeed.callbacks.KerasCallback
