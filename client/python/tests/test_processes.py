"""Forks, spawned processes, torch's DataLoader, and how interpreters end."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
import warnings
import zlib
from itertools import islice

import pytest
import specs
import torch
from torch.utils.data import IterableDataset

import mixfeed


def run(code, *arguments, seconds=120, check=True):
    """Runs a program of its own; its output."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    if check:
        assert done.returncode == 0 and not done.stderr, (done.returncode, done.stdout, done.stderr)
    return done


def test_it_is_a_dataset_of_torch(load):
    assert issubclass(mixfeed.DataLoader, IterableDataset) and isinstance(load(), IterableDataset)
    assert not issubclass(mixfeed.Loader, IterableDataset)
    run("import mixfeed, sys; assert 'torch' not in sys.modules and 'numpy' not in sys.modules")


def test_torchs_loader_takes_batches_as_they_are(load):
    loader = load(specs.photos(max_steps=3))
    around = torch.utils.data.DataLoader(loader, batch_size=None)
    batches = list(around)
    assert [batch.step for batch in batches] == [0, 1, 2] and len(around) == 3
    assert isinstance(batches[0], mixfeed.Batch) and batches[0].images.dtype == torch.uint8


def steps_of(loader, count):
    """Steps and checksums; not with torch, whose threads do not survive a fork."""
    return [(batch.step, zlib.crc32(memoryview(batch.tensor("image")))) for batch in islice(loader, count)]


def read_steps(loader, queue):
    queue.put(steps_of(loader, 3))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_goes_on_where_this_one_is(load, method):
    loader = load()
    own = steps_of(loader, 5)
    again = load(job=loader.describe()["job"], exclusive=False)
    steps_of(again, 2)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=read_steps, args=(again, queue))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    try:
        assert queue.get(timeout=120) == own[2:5]
        process.join(60)
        assert process.exitcode == 0
    finally:
        process.kill()
    assert next(again).step == 2, "the parent's own stream is untouched"


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_are_refused(load, workers):
    loader = load(specs.photos(max_steps=3), exclusive=False)
    around = torch.utils.data.DataLoader(loader, batch_size=None, num_workers=workers)
    with pytest.raises(mixfeed.Argument, match=r"num_workers.*want 0"):
        list(around)


def test_a_forked_child_leaves_its_parents_connections_alone(load):
    loader = load(arrays="raw")
    assert next(loader).step == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        source = loader._source
        before = sys.getrefcount(source.client)
        loader.__del__()
        os._exit(0 if sys.getrefcount(source.client) == before + 1 and source.stream is not None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert next(loader).step == 1


FORGOTTEN = """
import gc, mixfeed, pathlib, sys, time
def threads():
    names = []
    for task in pathlib.Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text())
        except OSError:
            pass
    return sum(name.startswith("mixfeed") for name in names)
loader = mixfeed.Loader(*sys.argv[1:], arrays='numpy')
for batch in loader:
    break
assert threads() == 2, threads()
del loader
gc.collect()
deadline = time.monotonic() + 60
while threads():
    assert time.monotonic() < deadline, "threads stay"
    time.sleep(0.01)
assert batch.images.sum() > 0, "the batch stays"
"""


def test_a_loader_that_is_forgotten_in_the_middle_ends_its_threads(load, server):
    loader = load(specs.large(), exclusive=False)
    run(FORGOTTEN, server.endpoint, loader.describe()["job"])


ENDS = {
    "an open stream": "loader = mixfeed.DataLoader(endpoint, job); batch = next(loader)",
    "an iterator in the middle": "it = iter(mixfeed.Loader(endpoint, job, arrays='numpy')); batch = next(it)",
    "views alone": "images = next(mixfeed.Loader(endpoint, job, arrays='numpy')).images",
    "a thread that reads": (
        "loader = mixfeed.Loader(endpoint, job, arrays='raw')\n"
        "threading.Thread(target=lambda: [None for _ in loader], daemon=True).start(); time.sleep(0.3)"
    ),
    "a thread that waits for a server": (
        "loader = mixfeed.Loader('http://127.0.0.1:1', job, patience=600)\n"
        "threading.Thread(target=loader.describe, daemon=True).start(); time.sleep(0.3)"
    ),
    "sys.exit in a loop": "for batch in mixfeed.Loader(endpoint, job, arrays='raw'):\n    sys.exit(0)",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_an_interpreter_ends_without_a_word(load, server, end):
    loader = load(specs.large())
    loader.describe()
    code = "import mixfeed, sys, threading, time\nendpoint, job = sys.argv[1:]\n" + end
    run(code, server.endpoint, loader.describe()["job"])


def test_an_exception_is_the_only_thing_that_is_told(load, server):
    loader = load()
    loader.describe()
    code = """
        import mixfeed, sys
        for _ in mixfeed.Loader(*sys.argv[1:], arrays="raw"):
            raise ValueError("mine")
    """
    done = run(code, server.endpoint, loader.describe()["job"], check=False)
    assert done.returncode == 1 and done.stderr.count("Traceback") == 1 and "ValueError: mine" in done.stderr


BARE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import mixfeed
loader = mixfeed.DataLoader(*sys.argv[1:])
batch = next(loader)
"""


def test_without_torch_arrays_are_numpys(load, server):
    loader = load()
    total = int(next(loader).images.sum())
    code = BARE.replace("BLOCKED", "['torch']") + (
        "import numpy\nassert isinstance(batch.images, numpy.ndarray), batch\nprint(batch.images.sum())"
    )
    assert int(run(code, server.endpoint, loader.describe()["job"]).stdout) == total


def test_without_torch_and_numpy_tensors_are_our_own(load, server):
    loader = load()
    total = int(next(loader).images.sum())
    code = BARE.replace("BLOCKED", "['torch', 'numpy']") + (
        "assert isinstance(batch.images, mixfeed.Tensor) and batch.images.shape == (24, 3, 40, 56)\n"
        "assert memoryview(batch['label.weight']).format == 'f' and batch.split(3)[1].rows == 8\n"
        "print(sum(bytes(memoryview(batch.images))))\n"
        "assert 'numpy' not in sys.modules and 'torch' not in sys.modules"
    )
    assert int(run(code, server.endpoint, loader.describe()["job"]).stdout) == total


def test_the_rust_client_has_the_same_bytes(load, server):
    loader = load(arrays="raw")
    batches = [b"".join(bytes(memoryview(batch[name])) for name in batch) for batch in islice(loader, 4)]
    command = [os.environ["MIXFEED_DUMP"], server.endpoint, loader.describe()["job"], "4"]
    assert subprocess.run(command, check=True, capture_output=True).stdout == b"".join(batches)
