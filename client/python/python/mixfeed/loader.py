"""The loader: a job's batches in order, resumable, with reports back to the server."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import logging
import os
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from mixfeed import _mixfeed, arrays, settings
from mixfeed.batch import Batch
from mixfeed.errors import Argument, Closed, Error, StateMismatch
from mixfeed.report import Due, Fields, Numbers, Reports, StepSums, tasks

STATE_VERSION = 1
logger = logging.getLogger("mixfeed")
_live: weakref.WeakSet[Loader] = weakref.WeakSet()


class Loader:
    """Reads a job's batches for one rank, every step exactly once and in order, over lost connections and restarts of
    servers. A thread receives ahead of the trainer; the interpreter is never held while anything is waited for or copied.

    Iterating goes on where the loader is: after a `break`, after an error that passed, after `load_state_dict`. What a
    loop has been handed counts as received. A job without an end is iterated without end, unless `steps_per_epoch` is
    given. Not for several threads at once, except `close`.

    Pickled (and sent to a spawned process) it takes its configuration and position along, not its connections; used in a
    forked child it connects anew and goes on where it was.
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
            rank: this trainer's rank. Default, with `world_size`: of torch.distributed when it is initialised, else of
                the environment's RANK and WORLD_SIZE, else 0 of 1.
            world_size: ranks that share each step; one of `describe()["world_sizes"]`.
            replica: number of this reader among those that read the same rank, as in a model-parallel group.
            spec: the job's spec, which opens it: a mapping in the shape of `[jobs.NAME]` of the server's configuration, or
                a TOML or JSON file with it. Default: attach to an open job.
            start: a step, or a cursor (`batch.cursor`).
            resume: `ask`, `rewind` or `replay`: what becomes of what was learnt after the step that training returns to.
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
            tls_ca: authorities (PEM, or a file) that may have signed the server's certificate. Default: the system's.
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
        self._endpoints, self._job = settings.endpoint_list(endpoints), job
        self._spec = settings.read_spec(spec, job)
        self._given_slice = rank, world_size
        self._slice = settings.slice_of(rank, world_size)
        self._replica, self._resume, self._exclusive = replica, resume, exclusive
        self._feedback, self._attempt = feedback, attempt
        self._steps_per_epoch = steps_per_epoch
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise Argument(f"`steps_per_epoch`: is {steps_per_epoch}, want at least 1")
        if (tls_cert is None) != (tls_key is None):
            raise Argument("`tls_cert`, `tls_key`: expected both or none of them")
        self._kind = _kind(arrays, device)
        self._pin, self._device = pin_memory, device
        if token is None and token_file is None:
            token = os.environ.get("MIXFEED_TOKEN") or None
        certificate, key = settings.pem(tls_cert, "tls_cert"), settings.pem(tls_key, "tls_key")
        self._options: dict[str, Any] = {
            "token": token if token_file is None else None,
            "token_file": None if token_file is None else os.fspath(token_file),
            "plaintext_token": plaintext_token,
            "tls_ca": settings.pem(tls_ca, "tls_ca"),
            "tls_identity": None if certificate is None else (certificate, key),
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
        self._epoch = 0
        self._resumed = False
        self._detach()
        if isinstance(start, Mapping):
            self._seek(int(start["next_step"]), dict(start))
        else:
            self._seek(int(start), None)

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
        """Batches of one iteration: `steps_per_epoch`, else the job's steps from the first one of this loader.

        Raises:
            TypeError: the job has no end.
        """
        if self._steps_per_epoch is not None:
            return self._steps_per_epoch
        steps = self.describe()["steps"]
        if steps == 0:
            raise TypeError(f"job `{self._job}` has no end, so its loader has no len()")
        return max(0, int(steps) - self._first_step)

    def start_prefetch(self) -> None:
        """Opens the stream now, so that the first batch is received while the trainer still gets ready."""
        self._open_stream()

    def eval_set(
        self, group: str, *, batch: int | None = None, held_out: bool = False, pad: bool = False, from_step: int = 0
    ) -> EvalSet:
        """A pinned set of records, in order, once, unmixed; each iteration reads it anew.

        Args:
            group: `SOURCE` or `SOURCE/GROUP`.
            batch: rows of one step over all ranks. Default: the job's global batch.
            held_out: the group's held-out records instead of those that are trained on.
            pad: repeat rows so that all ranks get the same number of them; else the last batch is short.
            from_step: first step.
        """
        return EvalSet(self, group, batch, held_out, pad, from_step)

    def replay(self, what: Batch | int) -> Batch:
        """Makes a batch again: of a step, or one that was received (checked against its receipt)."""
        client, (rank, world_size) = self._open(), self._slice
        if isinstance(what, Batch):
            if what._core is None:
                raise Argument("`what`: the batch was moved or split, want one as it was received")
            core = client.replay(self._job, of=what._core)
        else:
            core = client.replay(self._job, step=what, rank=rank, world_size=world_size)
        return self._batch(core)

    # Position

    def state_dict(self) -> dict[str, Any]:
        """Position after the last batch that was handed out: JSON-able, below 4 KB, for the trainer's checkpoint."""
        cursor = self._cursor
        return {"version": STATE_VERSION, "job": self._job, "next_step": self._next_step, "cursor": cursor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a position. `set_epoch` does nothing afterwards.

        Raises:
            StateMismatch: it is of another job, of another version, or no state at all. One of another spec under the same
                name is found when the job is opened.
        """
        try:
            version, job, next_step, cursor = (state[key] for key in ("version", "job", "next_step", "cursor"))
        except (KeyError, TypeError) as error:
            raise StateMismatch(f"this is no state of a loader: {error!r}") from error
        if version != STATE_VERSION:
            raise StateMismatch(f"state has version {version}, want {STATE_VERSION}")
        if job != self._job:
            raise StateMismatch(f"state is of job `{job}`, and this loader reads job `{self._job}`")
        if cursor is not None and not isinstance(cursor, Mapping):
            raise StateMismatch(f"`cursor` is {type(cursor).__name__}, want a mapping")
        self._drop_stream()
        self._reports = None
        self._seek(int(next_step), None if cursor is None else dict(cursor))
        self._resumed = True

    get_state = state_dict
    set_state = load_state_dict

    def set_epoch(self, epoch: int) -> None:
        """Tells the epoch that begins. The order changes from epoch to epoch by itself, so this only matters to a fresh
        loader with `steps_per_epoch`: it begins at that epoch's first step. It does nothing after a state was loaded or a
        batch was received."""
        self._epoch = epoch
        if self._steps_per_epoch is not None and not self._resumed and self._begun is False:
            self._drop_stream()
            self._seek(epoch * self._steps_per_epoch, None)

    # About the job

    def describe(self) -> dict[str, Any]:
        """The job: digest, spec with all defaults, groups, classes, world_sizes, steps (0: without end), eval_sets."""
        self._open()
        return dict(self._info)

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
        """What the current stream has brought, seconds that it was waited for, reconnects, and reports by outcome."""
        found = None if self._stream is None or self._pid != os.getpid() else self._stream.stats()
        batches, size, waited, reconnects = found or (0, 0, 0.0, 0)
        stats: dict[str, Any] = {"batches": batches, "bytes": size, "waited": waited, "reconnects": reconnects}
        return {**stats, "reports": self._reports.stats if self._reports else {}}

    @property
    def end(self) -> dict[str, int] | None:
        """How the job ended, once it has: steps, dropped_rows, padded_rows."""
        return self._end

    # Feedback

    @property
    def attempt(self) -> int | None:
        """Number of the attempt, for other ranks that report; None before the stream is open and where nothing is learnt."""
        return self._reports.attempt if self._reports else None

    @property
    def evaluate_first(self) -> bool:
        """Whether held-out losses are wanted before the first batch (`report(None, ...)`); opens the stream."""
        self._open_stream()
        return self._reports is not None and self._reports.evaluate_first

    def due(self, batch: Batch) -> Due:
        """Kinds of reports that a batch asks of this rank, before and after its update, and that were not made yet."""
        reports = self._own_reports()
        return reports.due(batch) if reports else Due((), ())

    def report(
        self,
        batch: Batch | None,
        loss_sum: Numbers | None = None,
        tokens: Numbers | None = None,
        *,
        excess_sum: Numbers | None = None,
        eval_loss_sum: Numbers | None = None,
        eval_tokens: Numbers | None = None,
        gradients: Mapping[str, Fields] | None = None,
        skipped: bool = False,
        before: bool = False,
    ) -> None:
        """Tells what a step saw. Never waits for the server: reports are sent by a thread, when they are due. Where
        nothing is learnt, or another rank reports, it does nothing.

        Per group (or task): a mapping by name or index, where those left out are 0, or a sequence in order. Sums and
        counts, never means: those of ranks and steps add up exactly.

        Args:
            batch: the step's batch; None: held-out losses before the first one (`evaluate_first`).
            loss_sum: sums of the training loss in nats per group, over the whole batch.
            tokens: tokens (or samples) behind them, per group.
            excess_sum: sums of max(loss - reference loss, 0) per group (DoReMi).
            eval_loss_sum: sums of held-out losses per task.
            eval_tokens: tokens behind them.
            gradients: fields by kind of report, as `{"gradient_stats": {"values": ..., "more": ...}}`; kinds: dots,
                gradient_stats, influence, sketch (a list of fields), candidates.
            skipped: the update was skipped (overflow of fp16).
            before: called before the update: what is due before it.

        Raises:
            Refused: the server did not count an earlier report, or this one lacks what is due.
            Fenced: another attempt has begun.
            Exhausted: too many reports wait for a server that does not answer.
            Error: whatever an earlier report failed with.
        """
        reports = self._own_reports()
        if reports is None:
            return
        if batch is None:
            if eval_loss_sum is None:
                raise Argument("`eval_loss_sum`: is missing, and before the first batch nothing else is wanted")
            reports.first(eval_loss_sum, eval_tokens)
            return
        measured = reports.measured(eval_loss_sum, eval_tokens, gradients or {})
        if before:
            reports.before(batch, measured)
        else:
            reports.after(batch, StepSums(loss_sum, tokens, excess_sum, skipped), measured)

    def flush(self, timeout: float = 60.0) -> bool:
        """Waits until every report was answered, at most `timeout` seconds; whether they were. Raises as `report`."""
        reports = self._own_reports()
        if reports is None:
            return True
        done = reports.flush(timeout)
        reports.check()
        return done

    # End of life

    def close(self, timeout: float = 10.0) -> None:
        """Ends the stream and the connections, after at most `timeout` seconds for reports that are on their way. Batches
        and views of them stay valid. May be called twice, and by another thread while a batch is waited for.

        Raises:
            Error: what a report failed with that nobody was told of.
        """
        reports, self._closed = self._own_reports(), True
        try:
            if reports is not None:
                if not reports.flush(timeout):
                    logger.warning("job `%s`: reports were not answered before the loader was closed", self._job)
                reports.check()
        finally:
            self._drop_stream()
            if self._mover is not None:
                self._mover.finish()
            self._client = self._reports = None

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
        stream = getattr(self, "_stream", None)
        if stream is not None and self._pid == os.getpid():
            stream.close()

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name not in _OF_THE_PROCESS}
        return {**kept, "_slice": self._current_slice()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._detach()
        begun = state["_begun"]
        self.__dict__.update(state)
        self._given_slice, self._begun = self._slice, begun

    def __repr__(self) -> str:
        rank, world_size = self._slice
        return f"<mixfeed.{type(self).__name__} job `{self._job}`, step {self._next_step}, rank {rank} of {world_size}>"

    # How it is done

    def _detach(self) -> None:
        """Without connections."""
        self._pid = os.getpid()
        self._client: _mixfeed.Client | None = None
        self._stream: _mixfeed.Stream | None = None
        self._reports: Reports | None = None
        self._mover: Any = None
        self._info: dict[str, Any] = {}
        self._closed = self._begun = False
        self._end: dict[str, int] | None = None

    def _seek(self, step: int, cursor: dict[str, Any] | None) -> None:
        if step < 0:
            raise Argument(f"`start`: is {step}, want at least 0")
        self._first_step = self._next_step = step
        self._cursor, self._end = cursor, None

    def _current_slice(self) -> tuple[int, int]:
        """torch.distributed may have been initialised since this loader was made."""
        return settings.slice_of(*self._given_slice)

    def _open(self) -> _mixfeed.Client:
        """The client of this process, with the job opened."""
        if self._closed:
            raise Closed(f"the loader of job `{self._job}` was closed")
        if self._pid != os.getpid():
            self._leave_behind()
        if self._client is None:
            self._slice = self._current_slice()
            given = {name: value for name, value in self._options.items() if value is not None}
            if self._pin:
                from mixfeed.cuda import pin_functions

                given["pin"] = pin_functions()
            client = _mixfeed.Client(self._endpoints, given)
            self._info = json.loads(client.open(self._job, self._spec))
            self._client = client
            _live.add(self)
        self._check_cursor()
        return self._client

    def _check_cursor(self) -> None:
        digest = (self._cursor or {}).get("digest", self._info["digest"])
        if digest != self._info["digest"]:
            raise StateMismatch(
                f"the position is of a job `{self._job}` with digest {digest}, and the server's has {self._info['digest']}: "
                "its spec or its data are others"
            )

    def _own_reports(self) -> Reports | None:
        """Those of this process, not of the one that it was forked from."""
        return self._reports if self._pid == os.getpid() else None

    def _leave_behind(self) -> None:
        """In a forked child: what the parent opened belongs to threads that are not here, so it is never touched again."""
        for inherited in (self._client, self._stream, self._reports):
            if inherited is not None:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
        begun = self._begun
        self._detach()
        self._begun = begun

    def _open_stream(self) -> _mixfeed.Stream:
        client = self._open()
        if self._stream is not None:
            return self._stream
        cursor = None if self._cursor is None else json.dumps(self._cursor)
        learns = self._learns()
        if learns and self._reports is None:
            # Before the stream: data that were asked for earlier would be those of a branch that is struck.
            reporter = _mixfeed.Reporter(
                client,
                self._job,
                rank=self._slice[0],
                groups=len(self._info["groups"]),
                cursor=cursor,
                step=self._next_step,
                resume=self._resume,
                attempt=self._attempt,
            )
            self._reports = Reports(reporter, self._info, self._next_step)
        self._stream = client.stream(
            self._job,
            rank=self._slice[0],
            world_size=self._slice[1],
            replica=self._replica,
            step=self._next_step,
            # The attempt has said where the trainer is, and on which branch it goes on.
            cursor=None if learns else cursor,
            resume=self._resume,
            fence=time.time_ns() if self._exclusive else 0,
        )
        return self._stream

    def _learns(self) -> bool:
        """Whether this rank reports."""
        mixture = (self._info["spec"] or {}).get("mixture")
        if not self._feedback or not mixture or self._replica != 0:
            return False
        return self._slice[0] < max(1, int(mixture.get("reporters") or 0))

    def _drop_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None and self._pid == os.getpid():
            stream.close()

    def _iterate(self) -> Iterator[Batch]:
        left = self._steps_per_epoch
        while left is None or left > 0:
            batch = self._take()
            if batch is None:
                return
            left = None if left is None else left - 1
            yield batch

    def _take(self) -> Batch | None:
        if self._end is not None:
            return None
        stream = self._open_stream()
        try:
            core = stream.next()
        except Error:
            # It has ended with this; the next one goes on from the same position.
            self._drop_stream()
            raise
        self._begun = True
        if core is None:
            steps, dropped, padded = stream.end() or (self._next_step, 0, 0)
            self._end = {"steps": steps, "dropped_rows": dropped, "padded_rows": padded}
            self._drop_stream()
            return None
        self._next_step = core.step + 1
        self._cursor = json.loads(core.cursor or "null")
        return self._batch(core)

    def _batch(self, core: _mixfeed.Batch) -> Batch:
        block = int((self._info["spec"] or {}).get("mix_block") or 0)
        batch = Batch(core, self._kind, block)
        if self._device is None:
            return batch
        if self._mover is None:
            from mixfeed.device import Mover

            self._mover = Mover(self._device)
        moved: Batch = self._mover.move(batch)
        return moved


class EvalSet:
    """A pinned set; see `Loader.eval_set`. It can be iterated again and again."""

    def __init__(
        self, loader: Loader, group: str, batch: int | None, held_out: bool, pad: bool, from_step: int
    ) -> None:
        self._loader, self._group, self._batch = loader, group, batch
        self._held_out, self._pad, self._from_step = held_out, pad, from_step

    def __iter__(self) -> Iterator[Batch]:
        loader = self._loader
        client = loader._open()
        stream = client.eval(
            loader._job,
            self._group,
            batch=self._batch or int(loader._info["spec"]["global_batch"]),
            rank=loader.rank,
            world_size=loader.world_size,
            pad=self._pad,
            from_step=self._from_step,
            held_out=self._held_out,
        )
        try:
            while (core := stream.next()) is not None:
                yield loader._batch(core)
        finally:
            stream.close()


_OF_THE_PROCESS = {"_pid", "_client", "_stream", "_reports", "_mover", "_info", "_closed"}


def _kind(asked: str | None, device: Any) -> arrays.Kind:
    if device is not None and asked not in (None, "torch"):
        raise Argument(f"`device`: needs arrays of torch, and `arrays` is `{asked}`")
    return arrays.kind_of("torch" if device is not None else asked)


@atexit.register
def _close_all() -> None:
    """Reports that wait get a moment; nothing else holds up the interpreter."""
    for loader in list(_live):
        try:
            loader.close(timeout=2.0)
        except Exception as error:
            logger.warning("job `%s`: %s", loader._job, error)
