"""Runs of the real Lightning; not part of the suite, which has no room for it: see trainers.txt."""

from __future__ import annotations

import inspect

import lightning.pytorch as lightning
import pytest
import steps
import torch

from mixfeed.callbacks import LightningCallback


class Model(lightning.LightningModule):
    """One weight; remembers the steps that it was trained on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.step)
        losses = (batch["x"] * self.weight).sum(1) * 0 + batch.losses
        return {"loss": losses.mean() + 0 * self.weight.sum(), "losses": losses.detach()}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder, *callbacks, **options):
    return lightning.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )


def test_a_run_tells_every_step(tmp_path):
    loader = steps.Loader(per_epoch=6)
    trainer(tmp_path, LightningCallback(loader), max_epochs=2, enable_checkpointing=False).fit(
        Model(), loader
    )
    steps.check(loader.told, range(12))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_run_goes_on_after_the_trained_batch_of_its_checkpoint(tmp_path, wrapped):
    def given(loader):
        return torch.utils.data.DataLoader(loader, batch_size=None) if wrapped else loader

    loader, model = steps.Loader(per_epoch=10), Model()
    saving = lightning.callbacks.ModelCheckpoint(
        dirpath=tmp_path, every_n_train_steps=5, save_top_k=-1, filename="{step}"
    )
    trainer(tmp_path, LightningCallback(loader), saving, max_steps=7).fit(model, given(loader))
    assert model.seen == list(range(7))

    again, model = steps.Loader(per_epoch=10), Model()
    run = trainer(tmp_path, LightningCallback(again), max_steps=9, enable_checkpointing=False)
    run.fit(model, given(again), ckpt_path=tmp_path / "step=5.ckpt")
    assert model.seen == list(range(5, 9))
    steps.check(again.told, range(5, 9))


def test_a_step_without_losses_is_told_by_name(tmp_path):
    class Silent(Model):
        def training_step(self, batch, batch_idx):
            return self.weight.sum()

    loader = steps.Loader(per_epoch=2)
    with pytest.raises(ValueError, match="no `losses`"):
        trainer(tmp_path, LightningCallback(loader), max_epochs=1, enable_checkpointing=False).fit(
            Silent(), loader
        )


def test_hooks_have_the_signatures_of_the_base_class():
    base = lightning.Callback
    for name in (
        "on_train_batch_end",
        "on_train_end",
        "on_exception",
        "on_save_checkpoint",
        "state_dict",
        "load_state_dict",
    ):
        wanted, found = (
            list(inspect.signature(getattr(of, name)).parameters) for of in (base, LightningCallback)
        )
        assert wanted == found, name
