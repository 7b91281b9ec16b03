"""Rows of scenes as a stock client puts them together: the demo's survey tiles, cut into blocks."""

import numpy as np
import pytest
from batches import pull
from mixfeed.v1 import feed_service_pb2, feed_service_pb2_grpc, job_pb2

BATCH, BLOCK, MOST = 8, 4, 40_000


@pytest.fixture(scope="module")
def stub(server):
    stub = feed_service_pb2_grpc.FeedServiceStub(server.channel)
    points = job_pb2.PointSpec(
        max_points=MOST,
        features=["color", "intensity"],
        fill={"color": 127},
        shift=True,
        flip_x=0.5,
        scale=[0.9, 1.1],
        voxel=job_pb2.VoxelSpec(size=0.5, inverse=True, count=True),
    )
    mix = job_pb2.MixSpec(policies=[job_pb2.PolicySpec(name="mix3d")], pairing=job_pb2.PAIRING_DERANGE)
    groups = [job_pb2.GroupSpec(group="tiles")]
    spec = job_pb2.JobSpec(groups=groups, seed=3, global_batch=BATCH, mix_block=BLOCK, points=points, mix=mix)
    stub.OpenJob(feed_service_pb2.OpenJobRequest(job="points", spec=spec), timeout=60)
    return stub


def test_every_point_is_in_a_voxel_and_the_budget_holds(stub):
    for batch in pull(stub, "points", 3):
        arrays = batch.arrays
        offset, before = arrays["offset"], arrays["point.offset"]
        assert (len(offset), offset[0], offset[-1]) == (BATCH + 1, 0, len(arrays["coord"]))
        assert before[-1] == len(arrays["inverse"]) == arrays["sample.points"].sum() <= MOST
        assert np.isfinite(arrays["coord"]).all() and arrays["feat"].shape == (offset[-1], 4)
        for row in range(BATCH):
            own = slice(offset[row], offset[row + 1])
            inverse = arrays["inverse"][before[row] : before[row + 1]]
            counts = np.bincount(inverse, minlength=offset[row + 1] - offset[row])
            assert np.array_equal(counts, arrays["voxel.count"][own])
            assert (arrays["grid_coord"][own].min(axis=0) == 0).all()
            assert set(arrays["scene_id"][own]) == {0, 1}


def test_a_row_says_which_slots_it_is_made_of(stub):
    (batch,) = pull(stub, "points", 1)
    scenes, slots = batch.arrays["num_logical_samples"], batch.arrays["mixed_from"]
    assert (scenes == 2).all() and np.array_equal(slots[:, 0], np.arange(BATCH))
    assert np.array_equal(slots[:, 1] // BLOCK, slots[:, 0] // BLOCK), "a partner of another block"


def test_two_ranks_get_the_rows_of_one(stub):
    (whole,) = pull(stub, "points", 1)
    halves = [pull(stub, "points", 1, rank=rank, world_size=2)[0] for rank in range(2)]
    for name in ("coord", "feat", "segment", "grid_coord", "inverse", "mixed_from"):
        joined = np.concatenate([half.arrays[name] for half in halves])
        assert np.array_equal(joined, whole.arrays[name]), name
