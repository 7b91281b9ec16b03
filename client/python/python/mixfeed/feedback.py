"""The part of a loader that tells the server what its trainer sees, and reads what the server made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mixfeed.errors import Argument
from mixfeed.mixture import Mixture, MixtureEntry, log_of, mixture_of
from mixfeed.report import Due, Fields, Numbers, Reports, StepSums, tasks

if TYPE_CHECKING:
    from mixfeed.batch import Batch
    from mixfeed.source import Source


class Feedback:
    """Reports of a loader's job, and its mixture. Where nothing is learnt, or another rank reports, reports
    do nothing."""

    def _open(self) -> Source:
        """Connections and the job, in this process."""
        raise NotImplementedError

    def _reports(self) -> Reports | None:
        """Those of this process; None where there are none."""
        raise NotImplementedError

    @property
    def attempt(self) -> int | None:
        """Number of the attempt, for other ranks that report.

        None before the stream is open and where nothing is learnt.
        """
        reports = self._reports()
        return reports.attempt if reports else None

    def due(self, batch: Batch) -> Due:
        """Kinds of reports that a batch asks of this rank before and after its update and still lacks."""
        reports = self._reports()
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
        """Tells what a step saw. Never waits for the server: reports are sent by a thread, when they are due.
        Where nothing is learnt, or another rank reports, it does nothing.

        Per group (or task): a mapping by name or index, where those left out are 0, or a sequence in order.
        Sums and counts, never means: those of ranks and steps add up exactly.

        What an earlier report failed with is raised after this one was taken (`error.queued`). A report that
        the server refused is due again. Sums that are given again, after theirs were refused, stand for all
        the steps since the last ones.

        Args:
            batch: the step's batch; None: held-out losses before the first one (`evaluate_first`).
            loss_sum: sums of the training loss in nats per group, over the whole batch.
            tokens: tokens (or samples) behind them, per group.
            excess_sum: sums of max(loss - reference loss, 0) per group (DoReMi).
            eval_loss_sum: sums of held-out losses per task.
            eval_tokens: tokens behind them.
            gradients: fields by kind of report, as `{"gradient_stats": {"values": ..., "more": ...}}`; kinds:
                dots, gradient_stats, influence, sketch (a list of fields), candidates.
            skipped: the update was skipped (overflow of fp16).
            before: called before the update: what is due before it.

        Raises:
            Refused: the server did not count an earlier report, or this one lacks what is due.
            Fenced: another attempt has begun.
            Exhausted: too many reports wait for a server that does not answer.
            Error: whatever an earlier report failed with.
        """
        reports = self._reports()
        if reports is None:
            return
        if batch is None:
            if eval_loss_sum is None:
                raise Argument(
                    "`eval_loss_sum`: is missing, and before the first batch nothing else is wanted"
                )
            reports.first(eval_loss_sum, eval_tokens)
            return
        measured = reports.measured(eval_loss_sum, eval_tokens, gradients or {})
        if before:
            reports.before(batch, measured)
        else:
            reports.after(batch, StepSums(loss_sum, tokens, excess_sum, skipped), measured)

    def flush(self, timeout: float = 60.0) -> bool:
        """Waits until every report was answered, at most `timeout` seconds; whether they were.

        Raises as `report`.
        """
        reports = self._reports()
        if reports is None:
            return True
        done = reports.flush(timeout)
        reports.check()
        return done

    def mixture(self) -> Mixture:
        """The mixture in force: weights by group, its id, the state of learning, what shadows would serve.
        Asks the server, also of a job that does not learn.

        Reports that are still on their way are not part of it: `flush` first.
        """
        source = self._open()
        return mixture_of(source.client.mixture(source.plan.job))

    def mixture_log(self, from_seq: int = 1) -> list[MixtureEntry]:
        """The log of the mixture's changes from entry `from_seq` on, old ones first; empty beyond its end.

        Raises:
            Argument: `from_seq` is below 1.
        """
        if from_seq < 1:
            raise Argument(f"`from_seq`: is {from_seq}, want at least 1")
        source = self._open()
        groups = [group["name"] for group in source.info["groups"]]
        return log_of(source.client.mixture_log(source.plan.job, from_seq), groups, tasks(source.info))
