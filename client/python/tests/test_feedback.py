"""A job that learns. The trainer is a formula: losses fall with the rows of their group, those of the first
group four times as fast as those of the second."""

import math
from collections import Counter
from itertools import islice

import pytest
import specs
from server import wait_until

import mixfeed

ROUND_STEPS = 12
RATES = [4e-3, 1e-3, 2e-3]


def learning(method="aioli", steps=3 * ROUND_STEPS, **other):
    params = {"eta": 1, "round_steps": ROUND_STEPS, "sweeps": 1, "probe_steps": 2}
    options = {"variant": "paper_eg"}
    estimator = {"name": method, "params": params, "options": options}
    mixture = {"estimator": estimator}
    return specs.texts(
        held_out={"fraction": 0.1, "max_records": 20}, mixture={**mixture, **other}, max_steps=steps
    )


class Formula:
    """Held-out losses by rows seen."""

    def __init__(self, loader):
        self.groups, self.rows = loader.groups, Counter()

    def see(self, batch):
        self.rows.update(batch.groups.tolist())

    def losses(self):
        total = sum(self.rows.values())
        return {
            name: 10 * 5 / (1 + rate * self.rows[index] + 1e-4 * total)
            for index, (name, rate) in enumerate(zip(self.groups, RATES, strict=True))
        }

    def tokens(self):
        return dict.fromkeys(self.groups, 10)


def test_a_loop_that_reports_teaches_the_mixture(load):
    loader = load(learning())
    trainer = Formula(loader)
    mixtures = set()
    for batch in loader:
        due = loader.due(batch)
        if "eval" in due.before:
            loader.report(batch, eval_loss_sum=trainer.losses(), eval_tokens=trainer.tokens(), before=True)
            assert "eval" not in loader.due(batch).before, "it was made"
        trainer.see(batch)
        evaluation = {}
        if "eval" in due.after:
            evaluation = {"eval_loss_sum": trainer.losses(), "eval_tokens": trainer.tokens()}
        loader.report(batch, {loader.groups[0]: 1.5}, {loader.groups[0]: 64}, **evaluation)
        assert not loader.due(batch), "nothing is open"
        mixtures.add(batch.mixture_id)
    assert loader.flush() and loader.attempt == 1
    reports = loader.stats()["reports"]
    assert reports["counted"] > 3 and reports["refused"] == reports["waiting_bytes"] == 0
    assert loader.end["steps"] == 3 * ROUND_STEPS and len(mixtures) > 3
    # The first group learns fastest, so it was given more and more.
    assert trainer.rows[0] > 0 and max(trainer.rows.values()) > min(trainer.rows.values())


def test_sums_are_added_up_until_they_are_due(load):
    spec = learning()
    spec["mixture"] = {"estimator": {"name": "odm"}}
    loader = load(spec)
    kinds = Counter()
    for batch in loader:
        due = loader.due(batch)
        kinds.update(due.after)
        counts = Counter(loader.groups[g] for g in batch.groups.tolist())
        loader.report(batch, {name: 2.5 * rows for name, rows in counts.items()}, counts)
    assert loader.flush() and set(kinds) == {"train"}
    assert loader.stats()["reports"]["counted"] == kinds["train"] > 0


def test_wrong_reports_are_typed_and_said_at_the_next_call(load):
    loader = load(learning())
    trainer = Formula(loader)
    batch = next(loader)
    assert loader.due(batch).before == ("eval",)
    with pytest.raises(mixfeed.Argument, match="none of the tasks"):
        loader.report(batch, eval_loss_sum={"no/group": 1}, eval_tokens=trainer.tokens(), before=True)
    with pytest.raises(mixfeed.Argument, match="eval_tokens"):
        loader.report(batch, eval_loss_sum=trainer.losses(), before=True)
    with pytest.raises(mixfeed.Argument, match="want one for each of 3"):
        loader.report(batch, [1.0, 2.0], [1, 1])
    with pytest.raises(mixfeed.Argument, match="`tokens`: is missing"):
        loader.report(batch, [1.0, 2.0, 3.0])
    assert loader.due(batch).before == ("eval",), "what was refused here was not sent"
    nan = {**trainer.losses(), loader.groups[1]: float("nan")}
    loader.report(batch, eval_loss_sum=nan, eval_tokens=trainer.tokens(), before=True)
    with pytest.raises(mixfeed.Refused, match="finite"):
        loader.flush()
    loader.flush()
    assert loader.stats()["reports"]["refused"] == 1


def test_a_refused_report_is_due_again_and_the_new_one_goes_out_before_the_old_failure_is_told(load):
    loader = load(learning())
    trainer = Formula(loader)
    batch = next(loader)
    nan = {**trainer.losses(), loader.groups[1]: float("nan")}
    loader.report(batch, eval_loss_sum=nan, eval_tokens=trainer.tokens(), before=True)
    wait_until(lambda: loader.stats()["reports"]["refused"])
    assert loader.due(batch).before == ("eval",)
    with pytest.raises(mixfeed.Refused, match="finite") as refused:
        loader.report(batch, eval_loss_sum=trainer.losses(), eval_tokens=trainer.tokens(), before=True)
    assert refused.value.queued and not loader.due(batch).before
    assert loader.flush() and loader.stats()["reports"]["counted"] == 1


def test_a_batch_that_waits_for_a_refused_report_says_so(load):
    loader = load(learning())
    trainer = Formula(loader)
    batch = next(loader)
    nan = {**trainer.losses(), loader.groups[1]: float("nan")}
    loader.report(batch, eval_loss_sum=nan, eval_tokens=trainer.tokens(), before=True)
    with pytest.raises(mixfeed.Refused, match="finite"):
        list(islice(loader, 3 * ROUND_STEPS))


def test_sums_that_were_refused_may_be_given_again(load):
    spec = learning()
    spec["mixture"] = {"estimator": {"name": "odm"}}
    loader = load(spec)
    for batch in loader:
        counts = Counter(loader.groups[g] for g in batch.groups.tolist())
        due = "train" in loader.due(batch).after
        loader.report(batch, {name: float("nan" if due else 1) for name in counts}, counts)
        if due:
            break
    wait_until(lambda: loader.stats()["reports"]["refused"])
    assert loader.due(batch).after == ("train",)
    with pytest.raises(mixfeed.Refused, match="finite"):
        loader.report(batch, dict.fromkeys(counts, 2.0), counts)
    assert loader.flush() and loader.stats()["reports"]["counted"] == 1 and not loader.due(batch)


def test_a_second_attempt_fences_the_first(load):
    loader = load(learning())
    trainer = Formula(loader)
    batch = next(loader)
    other = load(learning(), job=loader.describe()["job"], exclusive=False)
    next(other)
    assert other.attempt == loader.attempt + 1
    loader.report(batch, eval_loss_sum=trainer.losses(), eval_tokens=trainer.tokens(), before=True)
    with pytest.raises(mixfeed.Fenced, match="attempt"):
        loader.flush()
    with pytest.raises(mixfeed.Fenced):
        loader.report(batch, [0, 0, 0], [0, 0, 0])


def test_nothing_happens_where_nothing_is_learnt(load):
    loader = load(specs.photos(max_steps=2))
    for batch in loader:
        loader.report(batch, {"anything": 1})
        assert not loader.due(batch) and loader.flush()
    assert loader.attempt is None and not loader.evaluate_first
    silent = load(learning(), job="silent", feedback=False)
    next(silent)
    assert silent.attempt is None


def test_reports_wait_for_a_server_that_is_away_and_are_bounded(own):
    loader = mixfeed.DataLoader(own.endpoint, "job", spec=learning(), patience=120)
    trainer = Formula(loader)
    batch = next(loader)
    own.kill()
    loader.report(batch, eval_loss_sum=trainer.losses(), eval_tokens=trainer.tokens(), before=True)
    assert not loader.flush(timeout=0.1) and loader.stats()["reports"]["waiting_bytes"] > 0
    reporter = loader._source.reports._reporter
    with pytest.raises(mixfeed.Exhausted, match="bytes of reports"):
        for _ in range(10000):
            reporter.vector("influence", 0, {"values": [0.0] * 10000})
    own.start()
    with pytest.raises(mixfeed.Refused, match="not due"):
        loader.flush(timeout=120)
    assert loader.stats()["reports"]["counted"] == 1, "the first one, which was waiting"
    loader.close()


def teach(loader, without=()):
    """Trains the formula to the end; (step, segment, mixture, rows by group) of every batch. Tasks `without`
    tell no loss."""
    trainer, seen = Formula(loader), []

    def evaluation():
        losses = {name: 0 if name in without else loss for name, loss in trainer.losses().items()}
        tokens = {name: 0 if name in without else count for name, count in trainer.tokens().items()}
        return {"eval_loss_sum": losses, "eval_tokens": tokens}

    for batch in loader:
        due = loader.due(batch)
        if "eval" in due.before:
            loader.report(batch, before=True, **evaluation())
        trainer.see(batch)
        loader.report(batch, **(evaluation() if "eval" in due.after else {}))
        rows = Counter(loader.groups[group] for group in batch.groups.tolist())
        seen.append((batch.step, batch.segment, batch.mixture_id, rows))
    assert loader.flush()
    return seen


def test_the_mixture_and_its_log_are_told_by_group(load):
    slower = learning()["mixture"]["estimator"]
    slower["params"]["eta"] = 0.1
    loader = load(learning(shadows=[slower]))
    first = loader.mixture()
    assert first.attempt == 0 and first.losses == first.reports == {}, "no stream is opened for it"
    assert first.entry.kind == "probe" and sum(first.weights.values()) == 1
    assert first.shadows == {"aioli": dict.fromkeys(loader.groups, pytest.approx(1 / 3))}
    seen = teach(loader)
    log, last = loader.mixture_log(), loader.mixture()
    assert [entry.seq for entry in log] == list(range(1, last.version + 1))
    assert loader.mixture_log(from_seq=4) == log[3:] and loader.mixture_log(last.version + 1) == []
    with pytest.raises(mixfeed.Argument, match="from_seq"):
        loader.mixture_log(0)
    probes = {}
    for step, segment, mixture_id, rows in seen:
        entry = log[segment - 1]
        assert entry.mixture_id == mixture_id and entry.from_step <= step
        assert entry.until_step == 0 or step < entry.until_step
        assert sum(entry.weights.values()) == pytest.approx(1) and list(entry.weights) == loader.groups
        if entry.kind == "probe":
            probes.setdefault(segment, Counter()).update(rows)
    assert {log[segment - 1].probe_group for segment in probes} == set(loader.groups)
    for segment, rows in probes.items():
        assert {name: rows[name] for name in loader.groups} == log[segment - 1].counts
        assert ("after", "eval") in log[segment - 1].due
    led = [entry for entry in log if entry.author == "estimator:aioli" and entry.losses]
    assert led and all(list(entry.losses) == loader.tasks for entry in led)
    assert last.entry == log[last.entry.seq - 1]
    assert (last.weights, last.mixture_id) == (last.entry.weights, last.entry.mixture_id)
    assert max(last.weights, key=last.weights.get) == loader.groups[0], "it learns fastest"
    # The shadow learns more slowly.
    assert list(last.shadows) == ["aioli"] and list(last.shadows["aioli"]) == loader.groups
    assert 1 / 3 < last.shadows["aioli"][loader.groups[0]] < last.weights[loader.groups[0]]
    assert last.status == "serving" and last.attempt == loader.attempt == 1
    assert last.reports == {"accepted": loader.stats()["reports"]["counted"]}
    assert last.losses.keys() == set(loader.tasks) and all(loss > 0 for loss in last.losses.values())


def test_a_task_without_a_loss_has_none_in_the_mixture(load):
    loader = load(learning())
    without = loader.tasks[:2]
    teach(loader, without)
    mixture = loader.mixture()
    assert [task for task, loss in mixture.losses.items() if math.isnan(loss)] == without
    assert mixture.losses[loader.tasks[2]] > 0 and mixture.status == "degraded"


def test_a_mixture_that_nobody_learns_is_given_and_others_may_read_it(load):
    loader = load(specs.photos(max_steps=2))
    given = loader.mixture()
    shares = {group["name"]: group["share"] for group in loader.describe()["groups"]}
    assert given.weights == shares and sum(shares.values()) == 1
    assert (given.status, given.shadows, given.losses) == ("given", {}, {})
    (entry,) = loader.mixture_log()
    assert entry == given.entry and (entry.author, entry.kind, entry.until_step) == ("spec", "main", 0)
    loader.close()
    with pytest.raises(mixfeed.Closed):
        loader.mixture()
