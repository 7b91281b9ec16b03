"""A batch put together from a stream's parts by nothing but the .proto files, and checked on the way."""

from dataclasses import dataclass
from hashlib import sha256
from itertools import islice

import numpy as np
from checksum import crc32c
from mixfeed.v1 import batch_pb2, feed_service_pb2, feed_service_pb2_grpc, job_pb2

HEIGHT, WIDTH, BATCH, BLOCK = 208, 224, 32, 8
WORLD_SIZES = [1, 2, 4]
LARGEST_PAYLOAD = 1 << 20
LARGEST_MESSAGE = LARGEST_PAYLOAD + (64 << 10)
NUMPY = {
    job_pb2.DTYPE_U8: "<u1",
    job_pb2.DTYPE_F16: "<f2",
    job_pb2.DTYPE_F32: "<f4",
    job_pb2.DTYPE_F64: "<f8",
    job_pb2.DTYPE_I32: "<i4",
    job_pb2.DTYPE_I64: "<i8",
    job_pb2.DTYPE_U32: "<u4",
    job_pb2.DTYPE_U64: "<u8",
}


@dataclass
class Batch:
    header: batch_pb2.BatchHeader
    arrays: dict
    end: batch_pb2.BatchEnd

    def digest(self):
        hasher = sha256()
        for name, array in self.arrays.items():
            hasher.update(repr((name, array.dtype.str, array.shape)).encode())
            hasher.update(array.tobytes())
        return hasher.hexdigest()


def spec(seed=3):
    """A job whose batch (4.5 MB) is larger than a stock client's largest message."""
    return job_pb2.JobSpec(
        groups=[job_pb2.GroupSpec(group="photos")],
        seed=seed,
        global_batch=BATCH,
        mix_block=BLOCK,
        image=job_pb2.ImageSpec(
            height=HEIGHT, width=WIDTH, random_resized_crop=job_pb2.RandomResizedCrop(), horizontal_flip=0.5
        ),
        mix=job_pb2.MixSpec(policies=[job_pb2.PolicySpec(name="mixup"), job_pb2.PolicySpec(name="cutmix")]),
        output=job_pb2.OutputSpec(dtype=job_pb2.DTYPE_U8, layout=job_pb2.IMAGE_LAYOUT_NCHW),
    )


def open_job(server, job, seed=3):
    """Stub and answer of OpenJob."""
    stub = feed_service_pb2_grpc.FeedServiceStub(server.channel)
    return stub, stub.OpenJob(feed_service_pb2.OpenJobRequest(job=job, spec=spec(seed)), timeout=60)


def pull(stub, job, count, rank=0, world_size=1, **start):
    """The first `count` batches of a stream, which is then cancelled."""
    request = feed_service_pb2.StreamBatchesRequest(job=job, rank=rank, world_size=world_size, **start)
    stream = stub.StreamBatches(request, timeout=120)
    found = list(islice(batches(stream), count))
    stream.cancel()
    assert len(found) == count, f"{len(found)} batches, want {count}"
    return found


def batches(parts):
    """Batches of a stream; every byte comes once, at its place, and fits its checksum."""
    header = None
    for part in parts:
        assert part.ByteSize() <= LARGEST_MESSAGE
        kind = part.WhichOneof("part")
        if kind == "header":
            assert header is None, "a header inside a batch"
            assert part.ByteSize() <= LARGEST_MESSAGE - LARGEST_PAYLOAD
            header = part.header
            memory = [bytearray(tensor.bytes) for tensor in header.tensors]
            filled = [0] * len(memory)
        elif kind == "chunk":
            data = part.chunk.data
            place, offset = part.chunk.tensor, part.chunk.offset
            assert 0 < len(data) <= LARGEST_PAYLOAD
            assert offset == filled[place], "chunks of a tensor come in order, without gap or overlap"
            assert offset + len(data) <= len(memory[place])
            memory[place][offset : offset + len(data)] = data
            filled[place] += len(data)
        else:
            assert kind == "end", f"{kind} where a batch is served"
            assert filled == [len(m) for m in memory], "a tensor is not complete"
            assert [crc32c(m) for m in memory] == list(part.end.crc32c)
            yield Batch(header, _arrays(header, memory), part.end)
            header = None


def _arrays(header, memory):
    arrays = {}
    for tensor, data in zip(header.tensors, memory, strict=True):
        arrays[tensor.name] = np.frombuffer(data, NUMPY[tensor.dtype]).reshape(tuple(tensor.shape))
    return arrays
