"""Runs of the real Trainer of transformers; not part of the suite, which has no room for it: see
trainers.txt.
"""

from __future__ import annotations

import inspect
import json

import pytest
import steps
import torch
import transformers

from mixfeed.callbacks import TrainerCallback


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.seen = []


def trainer(folder, loader, model, **options):
    callback = TrainerCallback(loader)

    class Trainer(transformers.Trainer):
        def get_train_dataloader(self):
            return loader

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            model.seen.append(inputs.step)
            losses = (inputs["x"] * model.weight).sum(1) * 0 + inputs.losses
            callback.add(inputs, losses)
            return losses.mean()

    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        **options,
    )
    return Trainer(model=model, args=arguments, train_dataset=loader, callbacks=[callback])


def test_a_run_tells_every_step_and_goes_on_after_the_trained_batch(tmp_path):
    loader, model = steps.Loader(per_epoch=40), Model()
    trainer(tmp_path, loader, model, max_steps=7, save_steps=5).train()
    assert model.seen == list(range(7))
    steps.check(loader.told, range(7))
    saved = json.loads((tmp_path / "checkpoint-5" / "mixfeed.json").read_text())
    assert saved["next_step"] == 5 and saved["cursor"]["next_step"] == 5

    again, model = steps.Loader(per_epoch=40), Model()
    run = trainer(tmp_path, again, model, max_steps=9, save_strategy="no", ignore_data_skip=True)
    run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert model.seen == list(range(5, 9))
    steps.check(again.told, range(5, 9))


def test_each_batch_of_an_update_is_a_step(tmp_path):
    loader, model = steps.Loader(per_epoch=40), Model()
    trainer(tmp_path, loader, model, max_steps=3, gradient_accumulation_steps=2, save_steps=2).train()
    assert model.seen == list(range(6))
    steps.check(loader.told, range(6))
    assert json.loads((tmp_path / "checkpoint-2" / "mixfeed.json").read_text())["next_step"] == 4


def test_what_would_skip_batches_twice_is_refused(tmp_path):
    trainer(tmp_path, steps.Loader(per_epoch=40), Model(), max_steps=2, save_steps=2).train()
    run = trainer(tmp_path, steps.Loader(per_epoch=40), Model(), max_steps=4, save_strategy="no")
    with pytest.raises(ValueError, match="ignore_data_skip"):
        run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_a_checkpoint_of_another_making_is_told_by_name(tmp_path):
    trainer(tmp_path, steps.Loader(per_epoch=40), Model(), max_steps=2, save_steps=2).train()
    (tmp_path / "checkpoint-2" / "mixfeed.json").unlink()
    run = trainer(
        tmp_path, steps.Loader(per_epoch=40), Model(), max_steps=4, save_strategy="no", ignore_data_skip=True
    )
    with pytest.raises(FileNotFoundError, match=r"mixfeed\.json"):
        run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_hooks_are_those_of_the_base_class():
    base = transformers.TrainerCallback
    for name in ("on_train_begin", "on_step_end", "on_save", "on_train_end"):
        wanted, found = (
            list(inspect.signature(getattr(of, name)).parameters) for of in (base, TrainerCallback)
        )
        assert wanted == found, name
