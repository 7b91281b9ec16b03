"""Batches as a stock client receives them."""

import numpy as np
import pytest
from batches import BATCH, BLOCK, HEIGHT, WIDTH, WORLD_SIZES, open_job, pull
from checksum import crc32c
from mixfeed.v1 import batch_pb2, feed_service_pb2

STEPS = 2
CLASSES = ["cat", "coffee", "eye", "grey", "space", "texture"]


@pytest.fixture(scope="module")
def job(server):
    """Stub, OpenJob's answer and the first steps as one rank receives them."""
    stub, opened = open_job(server, "stream")
    return stub, opened, pull(stub, "stream", STEPS)


def test_checksum_is_crc32c():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"abc") == 0x364B3FB7
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes(range(32)) * 1000) == crc32c_by_byte(bytes(range(32)) * 1000)


def crc32c_by_byte(data):
    state = 0xFFFFFFFF
    for octet in data:
        state ^= octet
        for _ in range(8):
            state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def test_job_is_described(job):
    _, opened, received = job
    assert opened.created
    assert len(opened.job.digest) == 32
    assert list(opened.job.classes) == CLASSES
    assert list(opened.job.world_sizes) == WORLD_SIZES
    assert sum(group.records for group in opened.job.groups) == 72
    assert sum(group.weight for group in opened.job.groups) == 1 << 32
    assert opened.job.step_bytes == sum(a.nbytes for a in received[0].arrays.values())
    assert opened.job.step_bytes > 4 << 20, "a batch must be larger than a stock client's largest message"


def test_rows_have_pixels_labels_and_ids(job):
    _, opened, received = job
    assert [batch.header.step for batch in received] == list(range(STEPS))
    for batch in received:
        arrays, header = batch.arrays, batch.header
        assert (header.slot_begin, header.slot_end, header.numerics) == (0, BATCH, opened.job.spec.numerics)
        assert arrays["image"].shape == (BATCH, 3, HEIGHT, WIDTH) and arrays["image"].dtype == np.uint8
        assert all(len(np.unique(row)) > 16 for row in arrays["image"]), "a row without content"
        classes, weights = arrays["label.class"], arrays["label.weight"]
        assert classes.shape == weights.shape == (BATCH, 2)
        assert classes.dtype == np.int32 and weights.dtype == np.float32
        assert classes.min() >= 0 and classes.max() < len(CLASSES)
        assert np.allclose(weights.sum(axis=1), 1, atol=1e-6) and weights.min() >= 0
        group, index = arrays["sample.group"], arrays["sample.index"]
        assert group.shape == index.shape == (BATCH, 2)
        records = np.array([g.records for g in opened.job.groups])
        assert (index < records[group]).all()
        # Classes are folders here and so are groups: the label of a sample is the class of its group.
        of_group = np.array([CLASSES.index(g.name.split("/")[1]) for g in opened.job.groups])
        assert (classes == of_group[group]).all()
        partner = arrays["plan.partner"]
        assert (partner // BLOCK == np.arange(BATCH) // BLOCK).all(), "a partner from another block"
        assert (group[partner, 0] == group[:, 1]).all() and (index[partner, 0] == index[:, 1]).all()
    assert received[0].digest() != received[1].digest()


def test_both_policies_mix(job):
    weights = np.concatenate([batch.arrays["label.weight"][:, 0] for batch in job[2]])
    assert ((weights > 0) & (weights < 1)).sum() > len(weights) // 2
    assert {int(p) for batch in job[2] for p in batch.arrays["plan.policy"]} <= {-1, 0, 1}


@pytest.mark.parametrize("world_size", WORLD_SIZES[1:])
def test_ranks_together_receive_the_same_bytes(job, world_size):
    stub, _, whole = job
    by_rank = [pull(stub, "stream", STEPS, rank, world_size) for rank in range(world_size)]
    for step, batch in enumerate(whole):
        ranks = [batches[step] for batches in by_rank]
        share = BATCH // world_size
        assert [r.header.slot_begin for r in ranks] == [share * i for i in range(world_size)]
        for name, array in batch.arrays.items():
            joined = np.concatenate([r.arrays[name] for r in ranks])
            assert joined.tobytes() == array.tobytes(), f"{name} of step {step}"


def test_a_stream_goes_on_from_step_and_from_cursor(job):
    stub, opened, whole = job
    cursor = whole[0].header.cursor
    assert cursor.next_step == 1 and cursor.digest == opened.job.digest and cursor.ByteSize() < 4096
    kept = batch_pb2.Cursor.FromString(cursor.SerializeToString())
    (from_cursor,) = pull(stub, "stream", 1, cursor=kept)
    (from_step,) = pull(stub, "stream", 1, from_step=1)
    assert from_cursor.digest() == from_step.digest() == whole[1].digest()


def test_another_server_serves_the_same_bytes(job, fresh):
    _, opened, whole = job
    stub, again = open_job(fresh, "another-name")
    assert again.job.digest == opened.job.digest
    assert [b.digest() for b in pull(stub, "another-name", STEPS)] == [b.digest() for b in whole]


def test_another_seed_is_another_job(job, server):
    stub, opened = open_job(server, "another-seed", seed=4)
    assert opened.job.digest != job[1].job.digest
    assert pull(stub, "another-seed", 1)[0].digest() != job[2][0].digest()


def test_control_calls_are_answered_while_a_stream_is_not_read(job):
    stub, opened, _ = job
    unread = stub.StreamBatches(feed_service_pb2.StreamBatchesRequest(job="stream", world_size=1), timeout=120)
    assert next(unread).WhichOneof("part") == "header"
    described = stub.DescribeJob(feed_service_pb2.DescribeJobRequest(job="stream"), timeout=30)
    assert described.job.digest == opened.job.digest
    unread.cancel()
