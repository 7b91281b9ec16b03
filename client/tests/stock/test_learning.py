"""A job that learns its mixture, as a stock client lives through it. The trainer is a formula: losses fall with the rows
of their group, those of the first group four times as fast as those of the second."""

from dataclasses import dataclass, field

import grpc
import pytest
from batches import batches
from mixfeed.v1 import feed_service_pb2, feed_service_pb2_grpc, job_pb2, mixture_service_pb2, mixture_service_pb2_grpc
from test_calls import refused

ONE = 1 << 32
ROUND_STEPS, BATCH = 12, 12
EVAL = mixture_service_pb2.REPORT_KIND_EVAL
ACCEPTED = mixture_service_pb2.REPORT_OUTCOME_ACCEPTED
MAIN = mixture_service_pb2.MIXTURE_KIND_MAIN


@dataclass
class Learning:
    """A job with its stubs, an attempt and the trainer's state."""

    name: str
    feed: feed_service_pb2_grpc.FeedServiceStub
    stub: mixture_service_pb2_grpc.MixtureServiceStub
    info: feed_service_pb2.JobInfo
    attempt: int = 0
    rows: list = field(default_factory=lambda: [0, 0, 0])
    sent: dict = field(default_factory=dict)

    def open_attempt(self):
        request = mixture_service_pb2.OpenAttemptRequest(job=self.name)
        self.attempt = self.stub.OpenAttempt(request, timeout=60).attempt
        return self.attempt

    def losses(self):
        rates = [4e-3, 1e-3, 2e-3]
        return [5 / (1 + rate * rows + 1e-4 * sum(self.rows)) for rate, rows in zip(rates, self.rows, strict=True)]

    def report(self, header, step, **other):
        """Held-out losses after `step` steps, over 10 tokens each; `other` fields instead of the true ones."""
        number = self.sent.get(header.mixture_seq, 0)
        true = {
            "job": self.name,
            "attempt": self.attempt,
            "segment": header.mixture_seq,
            "mixture_id": header.mixture_id,
            "kind": EVAL,
            "seq": number,
            "values": [10 * loss for loss in self.losses()],
            "counts": [10] * 3,
            "from_step": step,
            "to_step": step,
            "eval_digest": self.info.eval_digest,
        }
        answer = self.stub.Report(mixture_service_pb2.ReportRequest(**true | other), timeout=60)
        if answer.outcome == ACCEPTED:
            self.sent[header.mixture_seq] = number + 1
        return answer

    def stream(self):
        request = feed_service_pb2.StreamBatchesRequest(job=self.name, world_size=1)
        return self.feed.StreamBatches(request, timeout=120)

    def log(self):
        request = mixture_service_pb2.GetMixtureLogRequest(job=self.name)
        return list(self.stub.GetMixtureLog(request, timeout=60).entries)

    def mixture(self):
        return self.stub.GetMixture(mixture_service_pb2.GetMixtureRequest(job=self.name), timeout=60)


@pytest.fixture
def learning(server, request):
    """An open job that learns, with a name of its own."""
    name = f"learning-{request.node.name}"
    estimator = job_pb2.EstimatorSpec(
        name="aioli",
        params={"eta": 1, "round_steps": ROUND_STEPS, "sweeps": 1, "probe_steps": 2},
        options={"variant": "paper_eg"},
    )
    spec = job_pb2.JobSpec(
        groups=[job_pb2.GroupSpec(group="texts")],
        seed=3,
        global_batch=BATCH,
        tokens=job_pb2.TokenSpec(seq_len=64),
        held_out=job_pb2.HeldOutSpec(fraction=0.1, max_records=20),
        mixture=job_pb2.MixtureSpec(estimator=estimator),
        max_steps=3 * ROUND_STEPS,
    )
    feed = feed_service_pb2_grpc.FeedServiceStub(server.channel)
    info = feed.OpenJob(feed_service_pb2.OpenJobRequest(job=name, spec=spec), timeout=60).job
    assert len(info.groups) == 3 and len(info.eval_sets) == 3
    return Learning(name, feed, mixture_service_pb2_grpc.MixtureServiceStub(server.channel), info)


def steps(learning, parts, count):
    """Takes `count` steps, with the reports that are due around them; their headers."""
    headers = []
    for batch in batches(parts):
        header = batch.header
        if EVAL in header.due_before:
            assert learning.report(header, header.step).outcome == ACCEPTED
        for group in batch.arrays["sample.group"]:
            learning.rows[group] += 1
        if EVAL in header.due_after:
            assert learning.report(header, header.step + 1).outcome == ACCEPTED
        headers.append(header)
        if len(headers) == count:
            return headers
    raise AssertionError(f"the job ended after {len(headers)} steps")


def test_the_mixture_follows_what_is_reported(learning):
    assert learning.open_attempt() == 1
    begin = [group.weight for group in learning.info.groups]
    parts = learning.stream()
    headers = steps(learning, parts, 3 * ROUND_STEPS)
    end = next(parts)
    assert end.WhichOneof("part") == "end_of_job" and end.end_of_job.steps == 3 * ROUND_STEPS
    log = {entry.seq: entry for entry in learning.log()}
    for header in headers:
        entry = log[header.mixture_seq]
        assert entry.mixture_id == header.mixture_id
        assert entry.from_step <= header.step and (not entry.until_step or header.step < entry.until_step)
    learnt = [list(entry.weights) for entry in log.values() if entry.kind == MAIN]
    assert len(learnt) == 3 and all(sum(weights) == ONE for weights in learnt)
    gained = [[after[i] / before[i] for i in range(3)] for before, after in zip([begin, *learnt], learnt, strict=False)]
    assert all(max(round_) == round_[0] > 1.001 for round_ in gained), f"the first group learns fastest: {gained}"
    state = learning.mixture()
    assert [(count.outcome, count.reports) for count in state.reports] == [(ACCEPTED, sum(learning.sent.values()))]
    request = mixture_service_pb2.GetAccountingRequest(job=learning.name)
    account = learning.stub.GetAccounting(request, timeout=60)
    assert [group.rows for group in account.groups] == learning.rows


def test_a_bad_report_says_why_and_leaves_the_weights(learning):
    learning.open_attempt()
    parts = learning.stream()
    first = next(batches(parts)).header
    assert EVAL in first.due_before
    before, state = learning.log(), learning.mixture()
    reasons = mixture_service_pb2.ReportReason.Value
    nan, one = float("nan"), [30.0, 30.0]
    for other, reason, word in [
        ({"values": [nan, *one]}, "REPORT_REASON_NOT_FINITE", "values"),
        ({"counts": [10, float("inf"), 10]}, "REPORT_REASON_NOT_FINITE", "counts"),
        ({"values": [-1, *one]}, "REPORT_REASON_RANGE", "negative"),
        ({"values": one}, "REPORT_REASON_LENGTH", "values"),
        ({"counts": [0, 0, 0]}, "REPORT_REASON_EMPTY", "counts"),
        ({"eval_digest": b"other"}, "REPORT_REASON_EVAL_DIGEST", "eval_digest"),
        ({"mixture_id": first.mixture_id + 1}, "REPORT_REASON_MIXTURE", "mixture"),
    ]:
        answer = learning.report(first, first.step, **other)
        assert answer.outcome == mixture_service_pb2.REPORT_OUTCOME_REJECTED, other
        assert answer.reason == reasons(reason) and word in answer.message, answer
    after = learning.mixture()
    assert learning.log() == before and (after.entry, after.version) == (state.entry, state.version)
    assert sum(count.reports for count in after.reports) == 7, "each is counted"
    assert learning.report(first, first.step).outcome == ACCEPTED, "the good one still counts"
    parts.cancel()


def test_a_trainer_of_an_older_attempt_is_shut_out(learning):
    old = learning.open_attempt()
    parts = learning.stream()
    first = next(batches(parts)).header
    parts.cancel()
    new = learning.open_attempt()
    assert new == old + 1
    before = learning.log()
    code, text = refused(lambda: learning.report(first, first.step, attempt=old))
    assert code == grpc.StatusCode.ABORTED and f"attempt {old}" in text, text
    code, text = refused(lambda: learning.report(first, first.step, attempt=new + 1))
    assert code == grpc.StatusCode.FAILED_PRECONDITION, text
    assert learning.log() == before
    assert learning.report(first, first.step).outcome == ACCEPTED
