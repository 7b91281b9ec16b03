"""What batches hand out, and whose memory it is."""

import ctypes
import gc
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import specs
import torch
from specs import BATCH, BLOCK, HEIGHT, WIDTH

import mixfeed


def take(loader, count=1):
    return list(islice(loader, count))


def test_pictures_have_pixels_labels_and_groups(load):
    loader = load()
    first, second = take(loader, 2)
    assert (first.step, second.step, first.rank, first.world_size) == (0, 1, 0, 1)
    assert first.slots == range(BATCH) and first.rows == BATCH and not first.partial
    assert first.images.shape == (BATCH, 3, HEIGHT, WIDTH) and first.images.dtype == torch.uint8
    assert not torch.equal(first.images, second.images)
    assert first.labels.classes.dtype == torch.int32
    assert torch.allclose(first.labels.weights.sum(1), torch.ones(BATCH), atol=1e-6)
    assert first.groups.shape == (BATCH,) and int(first.groups.max()) < len(loader.groups)
    # The label of a photograph is the class of its group; groups of the job are named SOURCE/CLASS.
    classes = loader.describe()["classes"]
    names = [classes[c] for c in first.labels.classes[:, 0].tolist()]
    assert names == [loader.groups[g].split("/")[1] for g in first.groups.tolist()]
    # Unsigned types that torch cannot compute with come signed.
    assert first["sample.index"].dtype == torch.int64 and first["sample.flags"].dtype == torch.int32
    assert first.cursor["next_step"] == 1 and len(first.receipt["plan_digest"]) == 64
    assert first.numerics == loader.describe()["spec"]["numerics"]
    assert set(first) == set(first.keys()) and len(first) == len(first.items())
    assert first.get("none") is None and "image" in first
    with pytest.raises(mixfeed.Error, match="`none` is absent"):
        first["none"]


def test_dense_labels_are_one_tensor(load):
    (batch,) = take(load(specs.photos(output={"labels": "dense"})))
    assert batch.labels.shape == (BATCH, 6) and batch.smoothing == 0
    assert torch.allclose(batch.labels.sum(1), torch.ones(BATCH), atol=1e-6)


def test_arrays_lie_in_the_same_memory_and_outlive_everything(load):
    loader = load(arrays="numpy")
    (batch,) = take(loader)
    tensor = batch.tensor("image")
    array, view, made = batch["image"], memoryview(tensor), tensor.torch()
    assert isinstance(array, np.ndarray) and array.ctypes.data == tensor.data_ptr == made.data_ptr()
    assert array.ctypes.data % 64 == 0 and view.readonly and view.shape == array.shape
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0
    with pytest.raises(BufferError, match="read-only"):
        ask_for_a_writable_buffer(tensor)
    before = array.copy()
    made += 1
    assert np.array_equal(array, before + np.uint8(1)), "torch's tensor is the trainer's own"
    made -= 1
    loader.close()
    del batch, tensor, loader
    gc.collect()
    assert np.array_equal(array, before) and view.tobytes() == before.tobytes()


def ask_for_a_writable_buffer(tensor):
    get_buffer = ctypes.pythonapi.PyObject_GetBuffer
    get_buffer.argtypes = [ctypes.py_object, ctypes.c_void_p, ctypes.c_int]
    get_buffer(tensor, ctypes.create_string_buffer(256), 1)


def test_memory_is_used_again_once_nobody_looks_at_it(load):
    loader = load()
    seen, kept = set(), []
    for step, batch in enumerate(islice(loader, 30)):
        seen.add(batch.tensor("image").data_ptr)
        if step == 3:
            kept.append((batch["image"], batch["image"].clone()))
        del batch
    assert len(seen) <= 8, f"{len(seen)} pieces of memory for 30 batches"
    array, copy = kept[0]
    assert torch.equal(array, copy), "a view that lives keeps its memory"


def test_other_libraries_read_through_dlpack(load):
    (batch,) = take(load())
    tensor = batch.tensor("label.weight")
    array = np.from_dlpack(tensor)
    assert array.dtype == np.float32 and array.shape == (BATCH, 2) and not array.flags.writeable
    assert np.array_equal(array, tensor.numpy())
    assert torch.equal(torch.from_dlpack(tensor), tensor.torch())
    assert tensor.__dlpack_device__() == (1, 0)
    for wrong in ({"dl_device": (2, 0)}, {"copy": True}, {"stream": 1}):
        with pytest.raises(BufferError):
            tensor.__dlpack__(**wrong)
    unsigned = np.from_dlpack(batch.tensor("sample.group"))
    assert unsigned.dtype == np.uint32
    # Capsules that nobody takes, and those whose consumer is gone, let go of the batch.
    for _ in range(3):
        tensor.__dlpack__(), tensor.__dlpack__(max_version=(1, 0)), tensor.writable_capsule()


@pytest.mark.parametrize(
    ("dtype", "kind"), [("f16", torch.float16), ("bf16", torch.bfloat16), ("f32", torch.float32)]
)
def test_floats_of_every_width_say_the_same(load, dtype, kind):
    (exact,) = take(load(specs.photos(output={"dtype": "u8"}, mix={"policies": []}), job=f"{dtype}-u8"))
    spec = specs.photos(output={"dtype": dtype}, mix={"policies": []})
    (batch,) = take(load(spec))
    assert batch.images.dtype == kind
    assert torch.allclose(batch.images.float(), exact.images.float() / 255, atol=4e-3)
    array = batch.tensor("image").numpy()
    if dtype == "bf16":
        assert array.dtype == np.uint16 and array.dtype.metadata == {"mixfeed": "bf16"}
        widened = (array.astype(np.uint32) << 16).view(np.float32)
    else:
        widened = array.astype(np.float32)
    assert np.array_equal(widened, batch.images.float().numpy())


def test_batches_split_along_blocks(load):
    (batch,) = take(load())
    for parts in (1, 2, 3):
        split = batch.split(parts)
        assert len(split) == parts and all(part.rows % BLOCK == 0 for part in split)
        for name in batch:
            assert torch.equal(torch.cat([part[name] for part in split]), batch[name])
        assert [slot for part in split for slot in part.slots] == list(batch.slots)
        first = split[0].tensor("image")
        assert first.data_ptr == batch.tensor("image").data_ptr, "no copy"
        # Partners stay within a part.
        for part in split:
            assert set(part["plan.partner"].tolist()) <= set(part.slots)
    for wrong in (0, 4):
        with pytest.raises(mixfeed.Argument, match=r"1\.\.=3"):
            batch.split(wrong)
    assert [part.rows for part in batch.split(3)[1].split(1)] == [BLOCK]


def test_half_of_each_block_splits_too(load):
    spec = specs.photos(mix={"policies": [{"name": "mixup"}], "granularity": "half"})
    (batch,) = take(load(spec))
    assert batch.rows == BATCH // 2
    split = batch.split(3)
    assert [part.rows for part in split] == [BLOCK // 2] * 3
    assert torch.equal(torch.cat([part.images for part in split]), batch.images)
    assert [part.slots.start for part in split] == [0, BLOCK, 2 * BLOCK]


def test_rows_of_tokens(load):
    (batch,) = take(load(specs.texts(tokens={"seq_len": 64, "labels": True, "position_ids": True})))
    assert batch.tokens.input_ids.shape == (12, 64) and batch.tokens.loss_mask.dtype == torch.uint8
    assert set(batch.tokens) == {"input_ids", "loss_mask", "labels", "position_ids"}
    assert batch.groups.shape == (12,)
    with pytest.raises(AttributeError, match="segment_ids"):
        _ = batch.tokens.segment_ids
    with pytest.raises(mixfeed.Error, match="`coord` is absent"):
        _ = batch.points


def test_half_of_odd_blocks_splits_by_slots_and_rows(load):
    mix = {"policies": [{"name": "mixup"}], "granularity": "half", "pairing": "flip"}
    spec = specs.photos(mix=mix, mix_block=5, global_batch=10, output={"delivery": "both"})
    (batch,) = take(load(spec))
    first, second = batch.split(2)
    assert batch.rows == 6 and (first.rows, second.rows) == (3, 3)
    assert (first.slots, second.slots) == (range(5), range(5, 10))
    for name in ("image", "image.clean"):
        assert torch.equal(torch.cat([first[name], second[name]]), batch[name])
    assert len(first["image.clean"]) == 5


@pytest.mark.parametrize(
    ("half", "rows", "bounds"),
    [
        (True, 6, [(0, 0), (5, 3), (10, 6)]),
        (True, 4, [(0, 0), (5, 3), (10, 4)]),
        (False, 7, [(0, 0), (5, 5), (10, 7)]),
        (False, 5, [(0, 0), (10, 5)]),
        (False, 0, [(0, 0), (10, 0)]),
    ],
)
def test_partial_batches_end_within_a_block(load, half, rows, bounds):
    meta = replace(next(load())._meta, slots=(0, 10), partial=rows < 6)
    made = {"sample.flags": torch.zeros(rows), "image.clean": torch.zeros(10)}
    batch = mixfeed.Batch(None, "torch", 5, half=half, meta=meta, made=made, layout=dict.fromkeys(made))
    assert batch._bounds() == bounds


def test_documents_are_ragged(load):
    (batch,) = take(load(specs.texts(tokens={"seq_len": 64, "packing": "document"}, mix_block=4)))
    values, offsets = batch.ragged("input_ids")
    assert values.ndim == 1 and offsets.shape == (13,) and int(offsets[-1]) == len(values)
    nested = batch.nested("input_ids")
    assert nested.is_nested and nested.size(0) == 12
    for row in (0, 11):
        assert torch.equal(nested[row], batch.ragged("input_ids").row(row))
    split = batch.split(3)
    assert torch.equal(torch.cat([part["input_ids"] for part in split]), values)
    assert all(int(part.ragged("input_ids").offsets[0]) == 0 for part in split)
    assert torch.equal(split[2].ragged("input_ids").row(0), batch.ragged("input_ids").row(8))
    with pytest.raises(mixfeed.Error, match="dense"):
        batch.ragged("sample.group")


def test_scenes_are_ragged(load):
    (batch,) = take(load(specs.scenes()))
    points = batch.points
    assert points.coord.shape[1] == 3 and points.feat.shape == (len(points.coord), 1)
    assert int(points.offset[-1]) == len(points.coord) and len(points.offset) == batch.rows + 1
    assert points.num_logical_samples.shape == (batch.rows,)
    whole = batch.ragged("coord")
    split = batch.split(3)
    assert torch.equal(split[1].ragged("coord").row(0), whole.row(split[0].rows))
    assert sum(len(part.points.coord) for part in split) == len(points.coord)


@pytest.mark.parametrize("arrays", ["numpy", "raw"])
def test_other_kinds_of_arrays_split_as_well(load, arrays):
    (batch,) = take(
        load(specs.texts(tokens={"seq_len": 64, "packing": "document"}, mix_block=4), arrays=arrays)
    )
    kind = np.ndarray if arrays == "numpy" else mixfeed.Tensor
    assert isinstance(batch["input_ids"], kind) and isinstance(batch.groups, kind)
    first, second = batch.split(2)
    joined = bytes(memoryview(first["input_ids"])) + bytes(memoryview(second["input_ids"]))
    assert joined == bytes(memoryview(batch["input_ids"]))
    assert next(iter(second.ragged("input_ids").offsets)) == 0
    assert first.nbytes + second.nbytes == batch.nbytes + 8, "offsets have one number more in two parts"
    again = second.split(1)[0]
    assert list(again.ragged("input_ids").offsets) == list(second.ragged("input_ids").offsets)
    moved = second.to("cpu")
    assert bytes(moved["input_ids"].numpy()) == bytes(memoryview(second["input_ids"]))
    assert moved["input_ids.offsets"].tolist() == list(second.ragged("input_ids").offsets)
    assert moved.nbytes == second.nbytes


def test_batches_move_to_a_device(load):
    loader = load(device="cpu")
    (batch,) = take(loader)
    assert batch.images.device == torch.device("cpu") and batch.step == 0
    assert [part.rows for part in batch.split(3)] == [BLOCK] * 3
    meta = batch.to("meta")
    assert meta.images.device.type == "meta" and meta.mixture_id == batch.mixture_id
    with pytest.raises(mixfeed.Argument, match="device"):
        load(device="cpu", arrays="numpy")


def test_pinned_memory_without_a_device_warns_and_goes_on(load):
    if torch.cuda.is_available():
        (batch,) = take(load(specs.large(), pin_memory=True))
        assert batch.images.is_pinned()
        return
    with pytest.warns(UserWarning, match="pin_memory"):
        (batch,) = take(load(pin_memory=True))
    assert batch.images.shape[0] == BATCH


def test_a_batch_is_made_again(load):
    loader = load()
    first, second = take(loader, 2)
    again = loader.replay(first)
    assert torch.equal(again.images, first.images)
    assert torch.equal(loader.replay(1).images, second.images)
    with pytest.raises(mixfeed.Argument, match="received"):
        loader.replay(first.split(3)[0])


def test_an_eval_set_is_read_again_and_again(load):
    loader = load(specs.photos(held_out={"fraction": 0.25}))
    held = loader.describe()["eval_sets"][0]
    rows = loader.eval_set(held["group"], batch=2, held_out=True)
    passes = [[batch.images.clone() for batch in rows] for _ in range(2)]
    assert sum(len(images) for images in passes[0]) == held["rows"]
    assert all(torch.equal(a, b) for a, b in zip(*passes, strict=True))
    assert sum(b.rows for b in loader.eval_set("photos/cat")) == 12 - held["rows"]
