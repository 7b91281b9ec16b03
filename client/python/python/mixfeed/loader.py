"""The loader: a job's batches in order, resumable, with reports back to the server."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from mixfeed import _mixfeed, settings
from mixfeed.arrays import Kind, kind_of
from mixfeed.batch import Batch
from mixfeed.errors import Argument, Closed, Error
from mixfeed.evals import EvalSet
from mixfeed.feedback import Feedback
from mixfeed.report import Reports, tasks
from mixfeed.resume import Resumable
from mixfeed.source import Life, Plan, Position, Source, logger

if TYPE_CHECKING:
    from mixfeed.device import Mover

_live: weakref.WeakSet[Loader] = weakref.WeakSet()


class Loader(Resumable, Feedback):
    """Reads a job's batches for one rank, every step exactly once and in order, over lost connections and
    restarts of servers. A thread receives ahead of the trainer; the interpreter is never held while anything
    is waited for or copied.

    Iterating goes on where the loader is: after a `break`, after an error that passed, after
    `load_state_dict`. What a loop has been handed counts as received. A job without an end is iterated
    without end, unless `steps_per_epoch` is given. Not for several threads at once, except `close`.

    Pickled (and sent to a spawned process) it takes its configuration and position along, not its
    connections; used in a forked child it connects anew and goes on where it was.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str],
        job: str,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        replica: int = 0,
        spec: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        start: int | Mapping[str, Any] = 0,
        resume: str = "ask",
        steps_per_epoch: int | None = None,
        arrays: str | None = None,
        prefetch_bytes: int | None = None,
        pin_memory: bool = False,
        device: Any = None,
        feedback: bool = True,
        attempt: int | None = None,
        exclusive: bool = True,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        plaintext_token: bool = False,
        tls_ca: str | bytes | os.PathLike[str] | None = None,
        tls_cert: str | bytes | os.PathLike[str] | None = None,
        tls_key: str | bytes | os.PathLike[str] | None = None,
        server_name: str | None = None,
        patience: float | None = None,
        connect_timeout: float | None = None,
        call_timeout: float | None = None,
        idle_timeout: float | None = None,
        window_bytes: int | None = None,
        max_batch_bytes: int | None = None,
        name: str | None = None,
    ) -> None:
        """Connects to nothing yet; the first batch, `describe`, `len` and `start_prefetch` do.

        Args:
            endpoints: `https://HOST:PORT`, `http://HOST:PORT` or `unix:/PATH`; several serve the same jobs.
            job: name of the job.
            rank: this trainer's rank. Default, with `world_size`: of torch.distributed when it is
                initialised, else of the environment's RANK and WORLD_SIZE, else 0 of 1.
            world_size: ranks that share each step; one of `describe()["world_sizes"]`.
            replica: number of this reader among those that read the same rank, as in a model-parallel group.
            spec: the job's spec, which opens it: a mapping in the shape of `[jobs.NAME]` of the server's
                configuration, or a TOML or JSON file with it. Default: attach to an open job.
            start: a step, or a cursor (`batch.cursor`).
            resume: `ask`, `rewind` or `replay`: what becomes of what was learnt after the step that training
                returns to.
            steps_per_epoch: steps after which an iteration ends; the next one goes on.
            arrays: `torch`, `numpy` or `raw` (`mixfeed.Tensor`). Default: the first that is installed.
            prefetch_bytes: what the server may prepare ahead. Default: its own setting.
            pin_memory: register the memory of batches with CUDA, so that a device copies from it directly.
            device: where torch tensors are wanted; copies go on beside what the device computes.
            feedback: open an attempt of jobs that learn, to be able to `report`.
            attempt: join this attempt (of rank 0) instead of beginning one.
            exclusive: of two loaders with the same rank and replica the older one ends with `Aborted`.
            token: bearer token. Default: MIXFEED_TOKEN in the environment.
            token_file: file that holds it, read at every call.
            plaintext_token: let the token travel unencrypted to other machines.
            tls_ca: authorities (PEM, or a file) that may have signed the server's certificate. Default: the
                system's.
            tls_cert: this client's certificate, with `tls_key`, for servers that ask for one.
            tls_key: its key.
            server_name: name that the server's certificate must be for. Default: the endpoint's host.
            patience: seconds to retry for, 0: not at all. Default 300.
            connect_timeout: seconds for one connection. Default 5.
            call_timeout: seconds for one control call. Default 300.
            idle_timeout: seconds of silence of a stream that is waited for. Default 300.
            window_bytes: bytes of a stream in flight. Default 16 MiB.
            max_batch_bytes: largest batch that is taken. Default 4 GiB.
            name: name in the server's logs.

        Raises:
            Argument: what cannot be right.
        """
        self._slice = settings.slice_of(rank, world_size)
        self._fixed = rank is not None
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise Argument(f"`steps_per_epoch`: is {steps_per_epoch}, want at least 1")
        if device is not None and arrays not in (None, "torch"):
            raise Argument(f"`device`: needs arrays of torch, and `arrays` is `{arrays}`")
        self._kind: Kind = kind_of("torch" if device is not None else arrays)
        self._steps_per_epoch, self._device = steps_per_epoch, device
        options = {
            **settings.credentials(token, token_file, tls_ca, tls_cert, tls_key),
            "plaintext_token": plaintext_token,
            "server_name": server_name,
            "patience": patience,
            "connect_timeout": connect_timeout,
            "call_timeout": call_timeout,
            "idle_timeout": idle_timeout,
            "window_bytes": window_bytes,
            "max_batch_bytes": max_batch_bytes,
            "prefetch_bytes": prefetch_bytes,
            "name": name or "mixfeed-python",
        }
        self._plan = Plan(
            endpoints=settings.endpoint_list(endpoints),
            job=job,
            spec=settings.read_spec(spec, job),
            replica=replica,
            resume=resume,
            exclusive=exclusive,
            feedback=feedback,
            attempt=attempt,
            pin=pin_memory,
            device=device,
            options={option: value for option, value in options.items() if value is not None},
        )
        self._leaving = False
        self._life = Life()
        self._source: Source | None = None
        self._mover: Mover | None = None
        cursor = dict(start) if isinstance(start, Mapping) else None
        self._seek(start if cursor is None else cursor.get("next_step"), cursor)

    # Reading

    def __iter__(self) -> Iterator[Batch]:
        """Batches from where the loader is; see the class."""
        settings.check_workers()
        return self._iterate()

    def __next__(self) -> Batch:
        batch = self._take()
        if batch is None:
            raise StopIteration
        return batch

    def __len__(self) -> int:
        """Batches of one iteration: `steps_per_epoch`, else the job's steps from the first one of this
        loader.

        Raises:
            TypeError: the job has no end.
        """
        if self._steps_per_epoch is not None:
            return self._steps_per_epoch
        steps = self.describe()["steps"]
        if steps == 0:
            raise TypeError(f"job `{self._plan.job}` has no end, so its loader has no len()")
        return max(0, int(steps) - self._first_step)

    def __bool__(self) -> bool:
        # Not its length, which asks the server and may not exist.
        return True

    def start_prefetch(self) -> None:
        """Opens the stream now, so that the first batch is received while the trainer still gets ready."""
        source = self._open()
        source.open_stream(self._position)
        self._stay_open(source)

    def eval_set(
        self,
        group: str,
        *,
        batch: int | None = None,
        held_out: bool = False,
        pad: bool = False,
        from_step: int = 0,
    ) -> EvalSet:
        """A pinned set of records, in order, once, unmixed; each iteration reads it anew.

        Args:
            group: `SOURCE` or `SOURCE/GROUP`.
            batch: rows of one step over all ranks. Default: the job's global batch.
            held_out: the group's held-out records instead of those that are trained on.
            pad: repeat rows so that all ranks get the same number of them; else the last batch is short.
            from_step: first step.
        """

        def opened() -> _mixfeed.Stream:
            source = self._open()
            return source.client.eval(
                self._plan.job,
                group,
                batch=batch or int(source.spec["global_batch"]),
                rank=source.rank,
                world_size=source.world_size,
                pad=pad,
                from_step=from_step,
                held_out=held_out,
            )

        return EvalSet(group, opened, functools.partial(self._batch, mixed=False))

    def replay(self, what: Batch | int) -> Batch:
        """Makes a batch again: of a step, or one that was received (checked against its receipt)."""
        source = self._open()
        if isinstance(what, Batch):
            if what._core is None:
                raise Argument("`what`: the batch was moved or split, want one as it was received")
            return self._batch(source.client.replay(self._plan.job, of=what._core))
        core = source.client.replay(self._plan.job, step=what, rank=source.rank, world_size=source.world_size)
        return self._batch(core)

    # About the job

    def describe(self) -> dict[str, Any]:
        """The job: digest, full spec, groups, classes, world_sizes, eval_sets, steps (0: no end)."""
        return dict(self._open().info)

    @property
    def groups(self) -> list[str]:
        """Names of the job's groups; `batch.groups` are indexes into it."""
        return [group["name"] for group in self.describe()["groups"]]

    @property
    def tasks(self) -> list[str]:
        """Groups whose held-out losses the job wants, in order."""
        return tasks(self.describe())

    @property
    def rank(self) -> int:
        """Rank that is read."""
        return self._slice[0]

    @property
    def world_size(self) -> int:
        """Ranks that share each step."""
        return self._slice[1]

    def stats(self) -> dict[str, Any]:
        """Of the current stream: batches, their bytes, seconds waited, reconnects; and reports."""
        source = self._here()
        found = source.stream.stats() if source is not None and source.stream is not None else None
        names = ("batches", "bytes", "waited", "reconnects")
        reports = self._reports()
        brought: dict[str, Any] = dict(zip(names, found or (0, 0, 0.0, 0), strict=True))
        return {**brought, "reports": reports.stats if reports else {}}

    @property
    def end(self) -> dict[str, int] | None:
        """How the job ended, once it has: steps, dropped_rows, padded_rows."""
        return self._end

    @property
    def evaluate_first(self) -> bool:
        """Whether `report(None, ...)` is wanted before the first batch: held-out losses. Opens the stream."""
        self.start_prefetch()
        reports = self._reports()
        return reports is not None and reports.evaluate_first

    # End of life

    def close(self, timeout: float = 10.0) -> None:
        """Ends the stream and the connections, after at most `timeout` seconds for reports that are on their
        way. Batches and views of them stay valid. May be called twice, and by another thread while a batch or
        a connection is waited for.

        Raises:
            Error: what a report failed with that nobody was told of.
        """
        self._life.closed = True
        source, self._source = self._here(), None
        mover, self._mover = self._mover, None
        try:
            if source is not None:
                source.close(timeout)
        finally:
            if mover is not None:
                mover.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(Error):
            self.close(timeout=1.0)

    def __del__(self) -> None:
        # Never waits: the threads end by themselves.
        source = self.__dict__.get("_source")
        if source is None:
            return
        if source.pid == os.getpid():
            source.drop_stream()
        else:
            source.leave_behind()

    def __getstate__(self) -> dict[str, Any]:
        # torch.distributed, which may have told the rank, need not be initialised in the other process.
        self._slice, fixed = self._current_slice(), True
        life = Life(self._life.closed)
        return {**self.__dict__, "_fixed": fixed, "_life": life, "_source": None, "_mover": None}

    def __repr__(self) -> str:
        name, (rank, world_size) = type(self).__name__, self._slice
        step = self._position.step
        return f"<mixfeed.{name} job `{self._plan.job}`, step {step}, rank {rank} of {world_size}>"

    def _current_slice(self) -> tuple[int, int]:
        """torch.distributed may have been initialised since this loader was made."""
        return self._slice if self._fixed else settings.slice_of(None, None)

    def _here(self) -> Source | None:
        """What is open in this process."""
        if self._source is not None and self._source.pid != os.getpid():
            self._source.leave_behind()
            self._source = self._mover = None
        return self._source

    def _open(self) -> Source:
        self._stay_open(None)
        source = self._here()
        if source is None:
            self._slice = self._current_slice()
            source = self._source = Source(self._plan, *self._slice, self._life)
            _live.add(self)
            self._stay_open(source)
        source.check(self._position)
        return source

    def _stay_open(self, made: Source | None) -> None:
        """Ends what was made while another thread closed the loader."""
        if not self._life.closed:
            return
        if made is not None:
            made.drop_stream()
            made.reports = self._source = None
        raise Closed(f"the loader of job `{self._plan.job}` was closed")

    def _reports(self) -> Reports | None:
        source = self._here()
        return None if source is None else source.reports

    def _leave(self) -> None:
        """Ends what belongs to a position: the stream and the attempt."""
        source = self._here()
        if source is not None:
            source.drop_stream()
            source.reports = None

    def _iterate(self) -> Iterator[Batch]:
        left = self._steps_per_epoch
        while left is None or left > 0:
            batch = self._take()
            if batch is None:
                return
            left = None if left is None else left - 1
            yield batch

    def _take(self) -> Batch | None:
        if self._end is not None or self._leaving:
            return None
        source = self._open()
        try:
            core = source.receive(self._position)
            self._stay_open(source)
        except Error:
            # It has ended with this; the next one goes on from the same position.
            source.drop_stream()
            if self._leaving:
                return None
            raise
        self._begun = True
        if core is None:
            end = None if source.stream is None else source.stream.end()
            steps, dropped, padded = end or (self._position.step, 0, 0)
            self._end = {"steps": steps, "dropped_rows": dropped, "padded_rows": padded}
            return None
        # The position moves last: a batch that does not get to its device is not lost.
        batch = self._batch(core)
        self._position = Position(core.step + 1, json.loads(core.cursor or "null"))
        source.taken()
        return batch

    def _batch(self, core: _mixfeed.Batch, mixed: bool = True) -> Batch:
        spec = self._open().spec
        half = mixed and (spec.get("mix") or {}).get("granularity") == "half"
        batch = Batch(core, self._kind, int(spec.get("mix_block") or 0), half=half)
        if self._device is None:
            return batch
        if self._mover is None:
            from mixfeed.device import Mover

            self._mover = Mover(self._device)
        return self._mover.move(batch)


@atexit.register
def _close_all() -> None:
    """Reports that wait get a moment; nothing else holds up the interpreter. Readers find the end."""
    for loader in list(_live):
        loader._leaving = True
        try:
            loader.close(timeout=2.0)
        except Exception as error:
            logger.warning("job `%s`: %s", loader._plan.job, error)
