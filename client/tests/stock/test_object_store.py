"""Sources in a real S3 server and on a web server give what the same files on disk give, also while the store is killed."""

import io
import json
import tarfile
import threading
import time
import urllib.request
from itertools import islice

import grpc
import pytest
from batches import batches, pull
from mixfeed.v1 import feed_service_pb2, feed_service_pb2_grpc, job_pb2
from server import Server
from stores import SECRET, Seaweed, web

SHARDS, STEPS, PATIENCE = 3, 4, 120
#: Batches before the store is killed, and in all: more than are made ahead.
KILL_AT, ALL = 5, 40


def shard(photos):
    """A WebDataset shard of (name, label, bytes)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, label, data in photos:
            for extension, member in (("cls", label.encode()), ("jpg", data)):
                info = tarfile.TarInfo(f"{name}.{extension}")
                info.size = len(member)
                tar.addfile(info, io.BytesIO(member))
    return out.getvalue()


@pytest.fixture(scope="module")
def files(pytestconfig, tmp_path_factory):
    """A folder of class folders and one of shards, of the demo's photographs."""
    folder = tmp_path_factory.mktemp("files")
    photos = sorted((pytestconfig.rootpath.parents[2] / "demo-data/photos").glob("*/*.jpg"))
    named = [(photo.stem, photo.parent.name, photo.read_bytes()) for photo in photos]
    (folder / "shards").mkdir()
    for number in range(SHARDS):
        (folder / f"shards/p-{number:03}.tar").write_bytes(shard(named[number::SHARDS]))
    for name, label, data in named:
        (folder / "photos" / label).mkdir(parents=True, exist_ok=True)
        (folder / "photos" / label / f"{name}.jpg").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def seaweed(files, tmp_path_factory):
    with Seaweed(tmp_path_factory.mktemp("seaweed") / "s") as store:
        for path in sorted(files.rglob("*")):
            if path.is_file():
                store.put("data", path.relative_to(files).as_posix(), path.read_bytes())
        yield store


def local(files):
    return f"""
[server]
listen = ["127.0.0.1:0"]
http = "127.0.0.1:0"
[sources.folder]
kind = "folder"
path = {json.dumps(str(files / "photos"))}
[sources.tar]
kind = "tar"
path = {json.dumps(str(files / "shards"))}
"""


def remote(seaweed, more=""):
    server = '[server]\nlisten = ["127.0.0.1:0"]\nhttp = "127.0.0.1:0"\n'
    tar = seaweed.table("tar", "tar", "data/shards/p-{000..002}.tar")
    return server + tar + seaweed.table("folder", "folder", "data/photos") + more


def spec():
    return job_pb2.JobSpec(
        groups=[job_pb2.GroupSpec(group="folder"), job_pb2.GroupSpec(group="tar")],
        seed=5,
        global_batch=32,
        mix_block=8,
        image=job_pb2.ImageSpec(height=48, width=64, random_resized_crop=job_pb2.RandomResizedCrop()),
        mix=job_pb2.MixSpec(policies=[job_pb2.PolicySpec(name="cutmix")]),
    )


def opened(server):
    stub = feed_service_pb2_grpc.FeedServiceStub(server.channel)
    answer = stub.OpenJob(feed_service_pb2.OpenJobRequest(job="far", spec=spec()), timeout=PATIENCE)
    return stub, answer.job.digest


@pytest.fixture(scope="module")
def wanted(pytestconfig, files, tmp_path_factory):
    """Digest of the job and of its first batches, from files."""
    with Server(pytestconfig.rootpath.parents[2], tmp_path_factory.mktemp("near"), text=local(files)) as server:
        stub, digest = opened(server)
        return digest, [batch.digest() for batch in pull(stub, "far", STEPS)]


def metric(server, name):
    text = urllib.request.urlopen(f"{server.addresses['http']}/metrics", timeout=30).read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def test_a_job_over_s3_is_the_job_over_files(pytestconfig, seaweed, wanted, tmp_path):
    with Server(pytestconfig.rootpath.parents[2], tmp_path, text=remote(seaweed)) as server:
        stub, digest = opened(server)
        assert digest == wanted[0], "where data are is no part of what they are"
        assert [batch.digest() for batch in pull(stub, "far", STEPS)] == wanted[1]
        assert metric(server, "mixfeed_source_ranges_total") > 0
        assert SECRET not in server.log.read_text()


def test_a_job_over_http_is_the_job_over_files(pytestconfig, files, wanted, tmp_path):
    names = "\n".join(str(path.relative_to(files / "photos")) for path in (files / "photos").rglob("*.jpg"))
    (tmp_path / "photos.txt").write_text(names)
    with web(files) as url:
        config = f"""
[server]
listen = ["127.0.0.1:0"]
http = "127.0.0.1:0"
[sources.folder]
kind = "folder"
path = "{url}/photos"
manifest = "photos.txt"
[sources.folder.store]
cache = "64MiB"
[sources.tar]
kind = "tar"
path = "{url}/shards/p-{{000..002}}.tar"
[sources.tar.store]
cache = "64MiB"
"""
        with Server(pytestconfig.rootpath.parents[2], tmp_path, text=config) as server:
            stub, digest = opened(server)
            assert digest == wanted[0]
            assert [batch.digest() for batch in pull(stub, "far", STEPS)] == wanted[1]
            again = pull(stub, "far", STEPS, from_step=0)
            assert [batch.digest() for batch in again] == wanted[1]
            assert metric(server, 'mixfeed_source_cache_requests_total{result="hit"}') > 0
            assert 0 < metric(server, "mixfeed_source_cache_bytes") <= 64 << 20


def test_a_store_that_is_killed_and_started_again_loses_nothing(pytestconfig, seaweed, tmp_path):
    """The stream waits, or ends with UNAVAILABLE and goes on at its step; what came is what comes undisturbed."""
    with Server(pytestconfig.rootpath.parents[2], tmp_path, text=remote(seaweed)) as server:
        stub, _ = opened(server)
        undisturbed = [batch.digest() for batch in pull(stub, "far", ALL)]
        seen, restart = [], None
        retries = metric(server, "mixfeed_source_retries_total")
        try:
            while len(seen) < ALL:
                request = feed_service_pb2.StreamBatchesRequest(
                    job="far", world_size=1, from_step=len(seen), prefetch_bytes=4 << 20
                )
                stream = stub.StreamBatches(request, timeout=PATIENCE)
                try:
                    for batch in islice(batches(stream), ALL - len(seen)):
                        assert batch.header.step == len(seen)
                        seen.append(batch.digest())
                        if len(seen) == KILL_AT and restart is None:
                            seaweed.kill()
                            restart = threading.Thread(target=begin_again, args=(seaweed, server, retries))
                            restart.start()
                except grpc.RpcError as error:
                    assert error.code() == grpc.StatusCode.UNAVAILABLE, error
                finally:
                    stream.cancel()
        finally:
            if restart is not None:
                restart.join()
        assert metric(server, "mixfeed_source_retries_total") > retries, "nobody noticed that it was away"
    assert seen == undisturbed


def begin_again(seaweed, server, before):
    """Starts the store once a read met that it is away."""
    deadline = time.monotonic() + PATIENCE
    while metric(server, "mixfeed_source_retries_total") == before:
        assert time.monotonic() < deadline
    seaweed.start()


def test_an_object_that_changes_ends_the_stream_with_data_loss(pytestconfig, seaweed, files, tmp_path):
    for number in range(2):
        seaweed.put("data", f"other/s-{number}.tar", (files / f"shards/p-00{number}.tar").read_bytes())
    config = remote(seaweed, seaweed.table("other", "tar", "data/other"))
    with Server(pytestconfig.rootpath.parents[2], tmp_path, text=config) as server:
        stub, _ = opened(server)
        job = spec()
        del job.groups[:]
        job.groups.append(job_pb2.GroupSpec(group="other"))
        stub.OpenJob(feed_service_pb2.OpenJobRequest(job="changing", spec=job), timeout=PATIENCE)
        pull(stub, "changing", 1)
        changed = bytearray((files / "shards/p-000.tar").read_bytes())
        changed[-2000] ^= 1
        seaweed.put("data", "other/s-0.tar", bytes(changed))
        stream = stub.StreamBatches(feed_service_pb2.StreamBatchesRequest(job="changing", world_size=1), timeout=PATIENCE)
        with pytest.raises(grpc.RpcError) as error:
            list(islice(batches(stream), 20))
        assert error.value.code() == grpc.StatusCode.DATA_LOSS
        assert "s3://data/other/s-0.tar changed since it was indexed" in error.value.details()
