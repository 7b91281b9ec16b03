"""Servers that are absent, leave, come back or say no; loaders that end in every way."""

import gc
import os
import resource
import subprocess
import threading
import time
from itertools import islice
from pathlib import Path

import pytest
import specs
import torch
from server import PROGRAM, Server, wait_until

import mixfeed

REFUSING = "http://127.0.0.1:1"


def test_an_absent_server_is_unavailable():
    loader = mixfeed.DataLoader(REFUSING, "job", patience=0)
    with pytest.raises(mixfeed.Unavailable, match=r"127\.0\.0\.1:1"):
        next(loader)
    with pytest.raises(ConnectionError):
        next(mixfeed.DataLoader([REFUSING, REFUSING], "job", patience=0.2))
    loader.close()


def test_wrong_arguments_are_refused_before_anything_is_dialled():
    with pytest.raises(mixfeed.Argument, match="endpoint"):
        mixfeed.DataLoader([], "job")
    with pytest.raises(mixfeed.Argument, match="https://HOST:PORT"):
        next(mixfeed.DataLoader("127.0.0.1:7443", "job"))
    with pytest.raises(mixfeed.Argument, match="tls_cert"):
        mixfeed.DataLoader(REFUSING, "job", tls_cert=b"x")
    with pytest.raises(mixfeed.Argument, match="arrays"):
        mixfeed.DataLoader(REFUSING, "job", arrays="jax")
    for start in (-1, {}):
        with pytest.raises(mixfeed.Argument, match="start"):
            mixfeed.DataLoader(REFUSING, "job", start=start)
    for seconds in (float("nan"), -1):
        with pytest.raises(mixfeed.Argument, match=r"patience.*seconds"):
            next(mixfeed.DataLoader(REFUSING, "job", patience=seconds))
    assert mixfeed.DataLoader(REFUSING, "job", patience=0), "its length is not asked for"


def test_an_unknown_job_is_not_found(server):
    with pytest.raises(mixfeed.NotFound, match="no-such-job"):
        next(mixfeed.DataLoader(server.endpoint, "no-such-job"))


def test_a_killed_server_that_comes_back_costs_no_step(own):
    loader = mixfeed.DataLoader(own.endpoint, "job", spec=specs.photos(), patience=120)
    whole = [batch.images.clone() for batch in islice(loader, 8)]
    again = mixfeed.DataLoader(own.endpoint, "job", spec=specs.photos(), patience=120)
    seen = [batch.images.clone() for batch in islice(again, 2)]
    own.kill()
    own.start()
    seen += [batch.images.clone() for batch in islice(again, 6)]
    assert all(torch.equal(a, b) for a, b in zip(seen, whole, strict=True))
    assert again.stats()["reconnects"] >= 1
    loader.close()
    again.close()


def test_a_server_that_stays_away_is_told_and_may_be_tried_again(own):
    loader = mixfeed.DataLoader(own.endpoint, "job", spec=specs.large(), patience=0.2)
    assert next(loader).step == 0
    own.kill()
    with pytest.raises(mixfeed.Unavailable):
        list(loader)
    step = loader.state_dict()["next_step"]
    own.start()
    loader_again = next(loader)
    assert loader_again.step == step, "it goes on after an error that passed"
    loader.close()


def test_a_draining_server_hands_over_to_another(own, tmp_path_factory):
    with Server(tmp_path_factory.mktemp("second")) as second:
        loader = mixfeed.DataLoader([own.endpoint, second.endpoint], "job", spec=specs.large(), patience=60)
        steps = [batch.step for batch in islice(loader, 2)]
        own.terminate()
        steps += [batch.step for batch in islice(loader, 8)]
        assert steps == list(range(10)) and loader.stats()["reconnects"] >= 1
        assert own.process.wait(60) == 0, own.log()
        loader.close()


def test_tokens_are_asked_for_and_never_told(tmp_path):
    make = [
        PROGRAM,
        "token",
        "vit",
        "--verbs",
        "pull",
        "--jobs",
        "vit-*",
        "--append",
        tmp_path / "tokens.toml",
    ]
    secret = subprocess.run(make, check=True, capture_output=True, text=True).stdout.splitlines()[0]
    with Server(tmp_path, 'tokens = "tokens.toml"') as guarded:

        def load(job="vit-1", **options):
            return mixfeed.DataLoader(guarded.endpoint, job, spec=specs.photos(), **options)

        for token in (None, "mf_wrong"):
            with pytest.raises(mixfeed.Denied) as error:
                next(load(token=token))
            assert isinstance(error.value, PermissionError) and "mf_wrong" not in str(error.value)
        with pytest.raises(mixfeed.Denied):
            next(load("bert", token=secret))
        with load(token=secret) as loader:
            assert next(loader).step == 0 and secret not in repr(loader)
        (tmp_path / "secret").write_text(secret)
        with load(token_file=tmp_path / "secret") as loader:
            assert next(loader).step == 0
        with pytest.raises(mixfeed.Argument, match="token_file"):
            load(token=secret, token_file="x")
        with pytest.raises(mixfeed.Argument, match="plaintext"):
            next(mixfeed.DataLoader("http://192.0.2.1:7443", "vit-1", token=secret))


def test_a_job_that_is_closed_under_it_aborts(load):
    loader = load(specs.large())
    assert next(loader).step == 0
    loader._source.client.close_job(loader.describe()["job"])
    with pytest.raises(mixfeed.Aborted, match="closed"):
        list(loader)


def test_of_two_loaders_in_one_place_the_older_is_told(load):
    old = load(specs.photos())
    assert next(old).step == 0
    name = old.describe()["job"]
    beside = load(specs.photos(), job=name, rank=1, world_size=3)
    replica = load(specs.photos(), job=name, replica=1)
    free = load(specs.photos(), job=name, exclusive=False)
    assert next(beside).step == next(replica).step == next(free).step == 0
    new = load(specs.photos(), job=name)
    assert next(new).step == 0
    with pytest.raises(mixfeed.Aborted, match="rank 0 of 1, replica 0"):
        list(old)
    with pytest.raises(mixfeed.Aborted, match="rank 0 of 1, replica 0"):
        next(old)
    for other in (new, beside, replica, free):
        assert next(other).step == 1, "nobody else is"


def test_a_closed_loader_says_so_and_its_batches_stay(load):
    loader = load()
    batch = next(loader)
    copy = batch.images.clone()
    loader.close()
    loader.close()
    assert torch.equal(batch.images, copy) and batch["label.weight"].shape[1] == 2
    assert loader.state_dict()["next_step"] == 1
    for use in (lambda: next(loader), loader.describe, loader.start_prefetch):
        with pytest.raises(mixfeed.Closed):
            use()
    assert loader.stats()["batches"] == 0 and loader.flush()


def test_a_with_block_closes(load):
    with load() as loader:
        assert next(loader).step == 0
    with pytest.raises(mixfeed.Closed):
        next(loader)
    with pytest.raises(ZeroDivisionError), load(job="with-2") as loader:
        next(loader)
        raise ZeroDivisionError


def test_another_thread_may_close_while_a_batch_is_waited_for(own):
    loader = mixfeed.DataLoader(own.endpoint, "job", spec=specs.photos(), patience=600)
    next(loader)
    own.kill()
    failed = []

    def read():
        try:
            list(loader)
        except mixfeed.Error as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(reader.is_alive)
    loader.close()
    reader.join(60)
    assert not reader.is_alive() and isinstance(failed[0], mixfeed.Closed | mixfeed.Unavailable), failed


def test_another_thread_may_close_while_a_connection_is_waited_for():
    loader = mixfeed.DataLoader(REFUSING, "job", patience=600)
    failed = []

    def read():
        try:
            next(loader)
        except mixfeed.Error as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    threads = Path("/proc/self/task")
    wait_until(lambda: any("mixfeed" in (task / "comm").read_text() for task in threads.iterdir()))
    loader.close()
    reader.join(60)
    assert not reader.is_alive() and isinstance(failed[0], mixfeed.Closed), failed


def test_a_batch_that_does_not_get_to_its_device_is_not_lost(load, monkeypatch):
    loader = load()
    assert next(loader).step == 0
    with monkeypatch.context() as broken, pytest.raises(MemoryError):
        broken.setattr(loader, "_batch", lambda *_: (_ for _ in ()).throw(MemoryError()))
        next(loader)
    assert loader.state_dict()["next_step"] == 1 and next(loader).step == 1


def test_the_stream_begins_before_the_first_batch_is_asked_for(load):
    loader = load()
    loader.start_prefetch()
    assert loader._source.stream is not None
    assert next(loader).step == 0


def test_hundreds_of_loaders_leave_nothing_behind(server):
    def cycle():
        with mixfeed.DataLoader(server.endpoint, "cycles", spec=specs.texts(), exclusive=False) as loader:
            assert next(loader).step == 0

    def usage():
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {
            "threads": len(os.listdir("/proc/self/task")),
            "files": len(os.listdir("/proc/self/fd")),
            "megabytes": pages * resource.getpagesize() >> 20,
        }

    for _ in range(30):
        cycle()
    settled = usage()
    for _ in range(200):
        cycle()

    def done():
        now = usage()
        return now["threads"] <= settled["threads"] + 2 and now["files"] <= settled["files"] + 4

    wait_until(done, what=f"usage as before, {settled}")
    assert usage()["megabytes"] <= settled["megabytes"] + 24, (settled, usage())


def test_a_signal_ends_the_wait_and_loses_nothing(own):
    import signal

    loader = mixfeed.DataLoader(own.endpoint, "job", spec=specs.photos(), patience=600)
    next(loader)
    own.process.send_signal(signal.SIGSTOP)
    # Whoever starts tests in the background may have them ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(loader)
        assert time.monotonic() - begun < 60
    finally:
        signal.signal(signal.SIGINT, before)
        own.process.send_signal(signal.SIGCONT)
    step = loader.state_dict()["next_step"]
    assert next(loader).step == step
    loader.close()
