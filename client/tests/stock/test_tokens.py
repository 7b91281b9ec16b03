"""Rows of tokens as a stock client receives them: the paragraphs of the licence, a byte an id."""

import re
from pathlib import Path

import numpy as np
import pytest
from batches import batches, pull
from mixfeed.v1 import feed_service_pb2, feed_service_pb2_grpc, job_pb2

ROOT = Path(__file__).resolve().parents[3]
BATCH, SEQ_LEN, PAD = 16, 256, 7
PARAGRAPHS = {p.encode() for p in re.split(r"\n\s*\n", (ROOT / "LICENSE").read_text().strip("\n"))}


@pytest.fixture(scope="module")
def stub(server):
    return feed_service_pb2_grpc.FeedServiceStub(server.channel)


def opened(stub, packing):
    name = f"tokens-{packing}"
    tokens = job_pb2.TokenSpec(seq_len=SEQ_LEN, packing=packing, segment_ids=True, cu_seqlens=True, pad_id=PAD)
    spec = job_pb2.JobSpec(
        groups=[job_pb2.GroupSpec(group="prose")],
        seed=3,
        global_batch=BATCH,
        mix_block=8,
        tokens=tokens,
        held_out=job_pb2.HeldOutSpec(fraction=0.1),
    )
    return name, stub.OpenJob(feed_service_pb2.OpenJobRequest(job=name, spec=spec), timeout=60).job


def test_rows_of_equal_length_have_a_mask_and_segments(stub):
    name, job = opened(stub, job_pb2.PACKING_BEST_FIT)
    text = b"\n\n".join(PARAGRAPHS)
    for batch in pull(stub, name, 4):
        arrays = batch.arrays
        ids, mask, segments = arrays["input_ids"], arrays["loss_mask"], arrays["segment_ids"]
        assert ids.shape == mask.shape == segments.shape == (BATCH, SEQ_LEN)
        assert (ids.dtype, mask.dtype, segments.dtype) == (np.int32, np.uint8, np.int32)
        assert np.array_equal(mask == 0, segments == 0) and (ids[mask == 0] == PAD).all()
        assert arrays["sample.index"].max() < job.groups[0].records
        cuts, offsets = arrays["cu_seqlens"], arrays["cu_seqlens.offsets"]
        assert len(offsets) == BATCH + 1 and offsets[-1] == len(cuts)
        for row, begin, end in zip(ids, offsets[:-1], offsets[1:], strict=True):
            for a, b in zip(cuts[begin : end - 1], cuts[begin + 1 : end], strict=True):
                assert bytes(row[a:b].astype(np.uint8)) in text, "a piece that is in no paragraph"


def test_documents_are_ragged_and_held_out_ones_stay_out(stub):
    name, job = opened(stub, job_pb2.PACKING_DOCUMENT)
    request = feed_service_pb2.StreamEvalSetRequest(job=name, group="prose", batch=5, world_size=1, held_out=True)
    held = {row for batch in batches(stub_parts(stub, request)) for row in rows(batch)}
    assert sum(s.rows for s in job.eval_sets) >= len(held) > 0 and len(job.eval_digest) == 32
    seen = {row for batch in pull(stub, name, 4 * job.groups[0].records // BATCH) for row in rows(batch)}
    short = {p for p in PARAGRAPHS if len(p) <= SEQ_LEN}
    assert seen.isdisjoint(held)
    assert {row for row in seen | held if row in PARAGRAPHS} == short, "every short paragraph is one row"


def stub_parts(stub, request):
    for part in stub.StreamEvalSet(request, timeout=120):
        if part.WhichOneof("part") == "end_of_job":
            return
        yield part


def rows(batch):
    """Texts of a batch's rows."""
    ids, offsets = batch.arrays["input_ids"], batch.arrays["input_ids.offsets"]
    assert offsets[0] == 0 and offsets[-1] == len(ids)
    return [bytes(ids[a:b].astype(np.uint8)) for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
