//! The course and its keeper with an estimator simple enough to know every answer.

use super::*;
use crate::args::Args;
use crate::estimate::{
    Directive, Estimator, Method, MethodError, Reader, Seen, Setup, StateError, Vectors, Verdict, Want, When,
    Window, WindowKind, Writer, post, reduce,
};
use crate::mixture::{Costs, Exhaustion, GroupRule, LastBatch};
use v1::{ReportOutcome as Outcome, ReportReason as Reason};

/// Probes each of two groups for 2 steps, then serves 4 steps in proportion to how much the losses fell.
#[derive(Debug)]
struct Falls;

#[derive(Debug, Clone)]
struct Fall {
    shares: Vec<f64>,
    probing: bool,
    rounds: u64,
}

impl Method for Falls {
    fn name(&self) -> &'static str {
        "falls"
    }
    fn paper(&self) -> &'static str {
        "none"
    }
    fn url(&self) -> &'static str {
        ""
    }
    fn summary(&self) -> &'static str {
        "for tests"
    }
    fn wants(&self) -> &'static [(When, Want)] {
        &[(When::After, Want::Eval)]
    }
    fn start(&self, _: &Setup, _: &Args, _: &Vectors) -> Result<Box<dyn Estimator>, MethodError> {
        Ok(Box::new(Fall { shares: vec![0.5, 0.5], probing: false, rounds: 0 }))
    }
}

impl Estimator for Fall {
    fn directive(&mut self, step: u64) -> Directive {
        self.probing = !self.probing;
        let after = vec![(When::After, Want::Eval)];
        if !self.probing {
            let window =
                Window { kind: WindowKind::Main, steps: 4, shares: self.shares.clone(), wants: after };
            return Directive { windows: vec![window], barrier: false };
        }
        let probe = |group: usize| {
            let shares = if group == 0 { vec![0.75, 0.25] } else { vec![0.25, 0.75] };
            let mut wants = after.clone();
            if step == 0 && group == 0 {
                wants.push((When::Before, Want::Eval));
            }
            Window { kind: WindowKind::Probe { group, sweep: 0 }, steps: 2, shares, wants }
        };
        Directive { windows: vec![probe(0), probe(1)], barrier: true }
    }
    fn observe(&mut self, seen: &[Seen]) -> Verdict {
        self.rounds += 1;
        let fell = |g: usize| {
            let probe =
                seen.iter().find(|s| matches!(s.window.kind, WindowKind::Probe { group, .. } if group == g));
            let fell = probe.and_then(|s| Some(s.before.as_ref()?[g] - s.after.as_ref()?[g]));
            fell.filter(|fell| fell.is_finite())
        };
        let (Some(a), Some(b)) = (fell(0), fell(1)) else { return Verdict::default() };
        self.shares = vec![a / (a + b), b / (a + b)];
        Verdict { used: true, facts: vec![("fell", vec![a, b])] }
    }
    fn shares(&self) -> Vec<f64> {
        self.shares.clone()
    }
    fn steer(&mut self, shares: &[f64]) {
        self.shares = shares.to_vec();
    }
    fn save(&self, out: &mut Writer) {
        out.f64s(&self.shares);
        out.bool(self.probing);
        out.u64(self.rounds);
    }
    fn restore(&mut self, input: &mut Reader<'_>) -> Result<(), StateError> {
        *self = Fall { shares: input.f64s(2)?, probing: input.bool()?, rounds: input.u64()? };
        Ok(())
    }
}

const BATCH: u64 = 8;

fn rules(change: impl FnOnce(&mut Rules)) -> Arc<Rules> {
    let none = Default::default();
    let method: &'static dyn Method = &Falls;
    let args = Args::resolve(&method.declared(), &none, &Default::default()).unwrap();
    let mut rules = Rules {
        groups: vec!["s/a".into(), "s/b".into()],
        active: vec![0, 1],
        tasks: vec!["s/a".into(), "s/b".into()],
        initial: Weights::normalise(&[1.0, 1.0]).unwrap(),
        setup: Setup {
            groups: 2,
            tasks: 2,
            own_task: vec![Some(0), Some(1)],
            objective: vec![0.5, 0.5],
            perplexity: false,
            initial: vec![0.5, 0.5],
            sizes: vec![100.0, 100.0],
            batch: BATCH,
            max_steps: 0,
            seed: 1,
            log_vocabulary: Some(5.0),
        },
        learner: Some(Learner { name: "falls".into(), method, args, vectors: Vectors::new() }),
        shadows: Vec::new(),
        barrier: Barrier::Strict,
        late_after: Duration::from_secs(600),
        reporters: 1,
        reduce: reduce::Rule::Mean,
        faulty: None,
        post: post::Rules { paper_faithful: true, ..post::Rules::new(2) },
        max_epochs: 0.0,
        epoch_rows: vec![100.0; 2],
        eval_digest: vec![7; 32],
    };
    change(&mut rules);
    Arc::new(rules)
}

fn empty() -> Sequence {
    let group = GroupRule { records: 100, exhaustion: Exhaustion::Repeat };
    Sequence::new(1, vec![group; 2], Costs::Equal, BATCH, LastBatch::Drop, 0)
}

fn course(change: impl FnOnce(&mut Rules)) -> Course {
    Course::new(rules(change), empty()).unwrap()
}

/// A report of held-out losses after `step` steps, about the segment that ends (or begins) there.
fn eval(course: &Course, attempt: u64, step: u64, losses: [f64; 2]) -> v1::ReportRequest {
    let ends = |s: &&Segment| s.until == Some(step) || (step == 0 && s.from == 0);
    let segments = course.recent();
    let segment = segments.iter().find(ends).expect("a segment ends there");
    v1::ReportRequest {
        attempt,
        segment: segment.seq,
        kind: v1::ReportKind::Eval.into(),
        seq: u64::from(step != 0),
        mixture_id: segment.mixture_id,
        values: losses.iter().map(|l| l * 10.0).collect(),
        counts: vec![10.0; 2],
        from_step: step,
        to_step: step,
        eval_digest: vec![7; 32].into(),
        ..Default::default()
    }
}

/// Reports a whole probe block that begins at `step`: group a falls by 0.3, group b by 0.1.
fn block(course: &mut Course, attempt: u64, step: u64) {
    let losses = [[3.0, 3.0], [2.7, 3.0], [2.7, 2.9]];
    for (i, losses) in losses.into_iter().enumerate() {
        let report = eval(course, attempt, step + 2 * i as u64, losses);
        assert_eq!(course.report(report).unwrap(), Answer::accepted());
    }
}

fn kinds(course: &Course) -> Vec<(u64, u64, i32)> {
    course.entries().iter().map(|e| (e.from_step, e.until_step, e.kind)).collect()
}

const MAIN: i32 = v1::MixtureKind::Main as i32;
const PROBE: i32 = v1::MixtureKind::Probe as i32;
const HOLD: i32 = v1::MixtureKind::Hold as i32;
const STRIKE: i32 = v1::MixtureKind::Strike as i32;

#[test]
fn a_round_waits_for_its_reports_and_then_serves_what_they_say() {
    let mut course = course(|_| {});
    assert_eq!(kinds(&course), [(0, 2, PROBE), (2, 4, PROBE)]);
    assert_eq!((course.ready(3), course.ready(4), course.barrier()), (true, false, Some(4)));
    course.plan(4).unwrap();
    assert_eq!(course.entries().len(), 2, "nothing is planned past a barrier");
    block(&mut course, 0, 0);
    assert_eq!(kinds(&course)[2..], [(4, 8, MAIN)]);
    assert_eq!(course.barrier(), None);
    let entry = &course.entries()[2];
    assert_eq!(entry.author, "estimator:falls");
    assert!(entry.receipt.starts_with("{\"used\":true,\"fell\":[0.2"), "{}", entry.receipt);
    let shares: Vec<f64> = entry.weights.iter().map(|w| *w as f64 / 4294967296.0).collect();
    assert!((shares[0] - 0.75).abs() < 1e-9, "{shares:?}");
    // The next block needs no report, so it is planned as soon as a stream gets there.
    course.plan(8).unwrap();
    assert_eq!(kinds(&course)[3..], [(8, 10, PROBE), (10, 12, PROBE)]);
    assert_eq!(course.barrier(), Some(12));
}

#[test]
fn probes_serve_exact_counts() {
    let course = course(|_| {});
    let sequence = course.sequence();
    assert_eq!(sequence.rows_before(2), [12, 4]);
    assert_eq!(sequence.rows_before(4), [16, 16]);
}

#[test]
fn bad_reports_change_nothing_and_say_why() {
    let mut course = course(|_| {});
    let good = eval(&course, 0, 2, [2.0, 3.0]);
    type Break = fn(&mut v1::ReportRequest);
    let wrong: [(Break, Reason); 14] = [
        (|r| r.values[0] = f64::NAN, Reason::NotFinite),
        (|r| r.values[1] = f64::INFINITY, Reason::NotFinite),
        (|r| r.values[0] = -1.0, Reason::Range),
        (|r| r.values[0] = 0.0, Reason::Range),
        (|r| r.values[0] = 1e6, Reason::Range),
        (|r| r.counts[1] = -1.0, Reason::Range),
        (|r| r.counts = vec![0.0, 0.0], Reason::Empty),
        (|r| r.values.truncate(1), Reason::Length),
        (|r| r.eval_digest = vec![8; 32].into(), Reason::EvalDigest),
        (|r| r.mixture_id = 9, Reason::Mixture),
        (|r| r.segment = 99, Reason::Mixture),
        (|r| r.to_step = 3, Reason::Steps),
        (|r| r.kind = v1::ReportKind::Dots as i32, Reason::NotDue),
        (|r| r.rank = 1, Reason::Rank),
    ];
    for (break_it, reason) in wrong {
        let mut bad = good.clone();
        break_it(&mut bad);
        let before = format!("{course:?}");
        let answer = course.report(bad).unwrap();
        assert_eq!((answer.outcome, answer.reason), (Outcome::Rejected, reason), "{}", answer.message);
        assert!(!answer.message.is_empty());
        assert_eq!(format!("{course:?}"), before, "{reason:?} left a trace");
    }
    assert_eq!(course.report(good.clone()).unwrap().outcome, Outcome::Accepted);
    assert_eq!(course.report(good.clone()).unwrap().outcome, Outcome::Duplicate);
    let other = v1::ReportRequest { values: vec![1.0, 1.0], ..good.clone() };
    assert_eq!(course.report(other).unwrap().outcome, Outcome::Conflict);
    let again = v1::ReportRequest { seq: 5, ..good };
    assert_eq!(course.report(again).unwrap().reason, Reason::Overlap);
}

#[test]
fn reports_on_closed_segments_are_stale() {
    let mut course = course(|_| {});
    let late = v1::ReportRequest { seq: 3, ..eval(&course, 0, 2, [2.0, 3.0]) };
    block(&mut course, 0, 0);
    let entries = course.entries().len();
    assert_eq!(course.report(late).unwrap().outcome, Outcome::Stale);
    assert_eq!(course.entries().len(), entries);
}

#[test]
fn the_order_of_arrival_changes_nothing() {
    let (mut forth, mut back) = (course(|_| {}), course(|_| {}));
    block(&mut forth, 0, 0);
    for (step, losses) in [(4, [2.7, 2.9]), (0, [3.0, 3.0]), (2, [2.7, 3.0])] {
        let report = eval(&back, 0, step, losses);
        back.report(report).unwrap();
    }
    assert_eq!(forth.entries(), back.entries());
}

#[test]
fn a_silent_trainer_is_waited_for_and_then_left() {
    let mut course = course(|_| {});
    course.late(3).unwrap();
    assert_eq!(course.entries().len(), 2, "there is no barrier at step 3");
    course.late(4).unwrap();
    assert_eq!(kinds(&course)[2..], [(4, 8, HOLD)]);
    assert_eq!(course.entries()[2].author, "late");
    assert!(!course.degraded());
    for barrier in [12, 20] {
        course.plan(barrier - 4).unwrap();
        course.late(barrier).unwrap();
    }
    assert!(course.degraded(), "three rounds without evidence");
    course.plan(24).unwrap();
    block(&mut course, 0, 24);
    assert!(!course.degraded());
}

#[test]
fn a_segment_barrier_waits_between_probes() {
    let mut course = course(|r| r.barrier = Barrier::Segment);
    assert_eq!((course.barrier(), course.ready(1), course.ready(2)), (Some(2), true, false));
    for (step, losses) in [(0, [3.0, 3.0]), (2, [2.7, 3.0])] {
        let report = eval(&course, 0, step, losses);
        course.report(report).unwrap();
    }
    assert_eq!(course.barrier(), Some(4));
    course.late(4).unwrap();
    assert_eq!(course.entries().len(), 3);
}

#[test]
fn a_lagged_barrier_never_waits() {
    let mut course = course(|r| r.barrier = Barrier::Lagged(3));
    assert_eq!(course.barrier(), None);
    block(&mut course, 0, 0);
    course.plan(4).unwrap();
    assert_eq!(kinds(&course)[2..], [(4, 7, HOLD)], "early reports still lag");
    course.plan(7).unwrap();
    assert_eq!(kinds(&course)[3..], [(7, 11, MAIN)]);
    course.plan(15).unwrap();
    assert_eq!(kinds(&course)[4..], [(11, 13, PROBE), (13, 15, PROBE), (15, 18, HOLD)]);
    course.plan(18).unwrap();
    assert_eq!(kinds(&course)[7..], [(18, 22, HOLD)], "what has not come by then is not waited for");
}

#[test]
fn several_reporters_are_all_waited_for() {
    let mut course = course(|r| r.reporters = 2);
    block(&mut course, 0, 0);
    assert_eq!(course.barrier(), Some(4));
    for (step, losses) in [(0, [3.0, 3.0]), (2, [2.9, 3.0]), (4, [2.9, 2.7])] {
        let report = v1::ReportRequest { rank: 1, ..eval(&course, 0, step, losses) };
        assert_eq!(course.report(report).unwrap(), Answer::accepted());
    }
    // Sums add up: a fell by 0.2 and b by 0.2 on average.
    let weights = &course.entries()[2].weights;
    assert!(weights[0].abs_diff(weights[1]) < 100, "{weights:?}");
}

#[test]
fn an_operator_waits_for_probes_and_cuts_a_main_segment() {
    let mut course = course(|_| {});
    let given = Weights::normalise(&[1.0, 3.0]).unwrap();
    assert!(course.set_weights(given.clone(), 1, "operator:eve", "more b").unwrap(), "probes come first");
    block(&mut course, 0, 0);
    let entry = &course.entries()[2];
    assert_eq!((&*entry.author, &*entry.receipt, entry.from_step), ("operator:eve", "more b", 4));
    assert_eq!(entry.weights, given.shares());
    let other = Weights::normalise(&[3.0, 1.0]).unwrap();
    assert!(!course.set_weights(other.clone(), 6, "operator:eve", "").unwrap());
    let entry = &course.entries()[3];
    assert_eq!((entry.from_step, entry.until_step, &entry.weights[..]), (6, 8, other.shares()));
    // The report at the end of the main window is due on the new segment now.
    let report = eval(&course, 0, 8, [2.5, 2.5]);
    assert_eq!((report.segment, course.report(report).unwrap()), (4, Answer::accepted()));
}

#[test]
fn a_trainer_that_comes_back_must_say_what_it_wants() {
    let mut course = course(|_| {});
    block(&mut course, 0, 0);
    course.plan(8).unwrap();
    let error = course.open_attempt(3, 0, v1::ResumeAttempt::Unspecified, 9).unwrap_err();
    assert!(matches!(error, TurnError::Behind { completed: 3, reported: 4 }), "{error}");
    assert!(matches!(course.open_attempt(10, 0, v1::ResumeAttempt::Replay, 9), Err(TurnError::Ahead { .. })));
    let replay = course.open_attempt(3, 0, v1::ResumeAttempt::Replay, 9).unwrap();
    assert_eq!((replay.attempt, replay.branch), (1, 0));
}

#[test]
fn a_report_that_a_crash_swallowed_is_asked_for_again() {
    let mut course = course(|_| {});
    let first = eval(&course, 0, 0, [3.0, 3.0]);
    course.report(first).unwrap();
    let again = course.open_attempt(2, 0, v1::ResumeAttempt::Unspecified, 5).unwrap();
    assert_eq!(again.evaluate, Some((1, 1)), "the losses after the first probe");
    let report = eval(&course, 1, 2, [2.7, 3.0]);
    course.report(report).unwrap();
    let none = course.open_attempt(2, 0, v1::ResumeAttempt::Unspecified, 5).unwrap();
    assert_eq!((none.attempt, none.evaluate), (2, None));
}

#[test]
fn a_job_that_ends_at_a_barrier_ends() {
    let group = GroupRule { records: 100, exhaustion: Exhaustion::Repeat };
    for last in [3, 4, 6, 8, 10] {
        let empty = Sequence::new(1, vec![group; 2], Costs::Equal, BATCH, LastBatch::Drop, last);
        let mut course = Course::new(rules(|_| {}), empty).unwrap();
        if last >= 4 {
            block(&mut course, 0, 0);
        }
        course.plan(last).unwrap();
        course.plan(last + 5).unwrap();
        assert_eq!(course.sequence().end_by(last).map(|end| end.steps), Some(last));
        assert!(course.entries().iter().all(|e| e.from_step < last), "{:?}", kinds(&course));
    }
}

#[test]
fn a_job_whose_groups_all_leave_with_a_probe_ends_there() {
    let rule = |after| GroupRule { records: 16, exhaustion: Exhaustion::Leave { after } };
    // Probes serve 12 + 4 and 4 + 12 rows: the second one takes the last of both groups. The third group has no weight.
    let groups = vec![rule(16), rule(16), rule(99)];
    for barrier in [Barrier::Strict, Barrier::Segment, Barrier::Lagged(3)] {
        let empty = Sequence::new(1, groups.clone(), Costs::Equal, BATCH, LastBatch::Drop, 0);
        let three = |r: &mut Rules| {
            r.groups.push("s/c".into());
            r.initial = Weights::normalise(&[1.0, 1.0, 0.0]).unwrap();
            r.barrier = barrier;
        };
        let mut course = Course::new(rules(three), empty).unwrap();
        course.plan(4).unwrap();
        block(&mut course, 0, 0);
        course.late(4).unwrap();
        course.plan(9).unwrap();
        assert_eq!(kinds(&course), [(0, 2, PROBE), (2, 4, PROBE)], "{barrier:?}");
        assert_eq!(course.sequence().end_by(4).map(|end| end.steps), Some(4));
    }
}

#[test]
fn a_rewind_learns_anew_from_the_step_on() {
    let mut course = course(|_| {});
    block(&mut course, 0, 0);
    course.plan(8).unwrap();
    let before = course.sequence().clone();
    let back = course.open_attempt(3, 0, v1::ResumeAttempt::Rewind, 9).unwrap();
    assert_eq!((back.attempt, back.branch), (1, 1));
    assert_eq!(kinds(&course)[5..], [(3, 0, STRIKE), (3, 4, PROBE)]);
    let after = course.sequence().clone();
    for step in 0..4 {
        assert_eq!(before.step(step), after.step(step), "the block's counts stay exact");
    }
    assert_eq!(course.common(0), Some(3));
    // Losses at 0 and 2 are still there; those at 3 and 4 are wanted.
    assert_eq!(course.barrier(), Some(4));
    let segment = course.recent().into_iter().find(|s| s.from == 3).unwrap();
    let mut at = |step: u64, seq: u64, losses: [f64; 2]| {
        let report = v1::ReportRequest {
            segment: segment.seq,
            mixture_id: segment.mixture_id,
            from_step: step,
            to_step: step,
            seq,
            ..eval(&course, 1, 2, losses)
        };
        course.report(report).unwrap()
    };
    assert_eq!(at(3, 0, [2.7, 2.95]), Answer::accepted());
    assert_eq!(at(4, 1, [2.7, 2.9]), Answer::accepted());
    assert_eq!(kinds(&course)[7..], [(4, 8, MAIN)]);
    assert_eq!(course.entries()[7].branch, 1);
}

/// A keeper over a store, as a server holds it.
fn keeper(store: &store::Shared, change: impl FnOnce(&mut Rules)) -> Result<Arc<Keeper>, KeeperError> {
    let live = Arc::new(Live::new(Arc::new(empty())));
    Keeper::open("job", "ab", rules(change), empty(), live, store.clone()).map(Arc::new)
}

#[tokio::test]
async fn a_restart_goes_on_exactly_wherever_it_comes() {
    let reports = |keeper: &Keeper, attempt: u64| {
        let losses = [(0, [3.0, 3.0]), (2, [2.7, 3.0]), (4, [2.7, 2.9])];
        losses.map(|(step, l)| keeper.with(|c| eval(c, attempt, step, l)))
    };
    let whole = {
        let keeper = keeper(&store::memory(), |_| {}).unwrap();
        keeper.reach(3).await.unwrap();
        keeper.open_attempt(0, 0, v1::ResumeAttempt::Unspecified).await.unwrap();
        for report in reports(&keeper, 1) {
            keeper.report(report).await.unwrap();
        }
        keeper.reach(9).await.unwrap();
        keeper.with(|c| c.entries().to_vec())
    };
    for killed_after in 0..=3 {
        let store = store::memory();
        let mut running = keeper(&store, |_| {}).unwrap();
        running.reach(0).await.unwrap();
        running.open_attempt(0, 0, v1::ResumeAttempt::Unspecified).await.unwrap();
        for (i, report) in reports(&running, 1).into_iter().enumerate() {
            if i == killed_after {
                drop(running);
                running = keeper(&store, |_| {}).unwrap();
            }
            running.reach(3).await.unwrap();
            assert_eq!(running.report(report).await.unwrap().0, Answer::accepted());
        }
        drop(running);
        let running = keeper(&store, |_| {}).unwrap();
        assert!(running.horizon() >= 1, "what was begun stays begun");
        running.reach(9).await.unwrap();
        assert_eq!(running.with(|c| c.entries().to_vec()), whole, "killed after {killed_after} reports");
    }
}

#[tokio::test]
async fn a_task_that_nobody_told_survives_a_restart() {
    let store = store::memory();
    let running = keeper(&store, |_| {}).unwrap();
    running.reach(3).await.unwrap();
    running.open_attempt(0, 0, v1::ResumeAttempt::Unspecified).await.unwrap();
    for (step, loss) in [(0, 3.0), (2, 2.7), (4, 2.6)] {
        let mut report = running.with(|c| eval(c, 1, step, [loss, 1.0]));
        (report.values[1], report.counts[1]) = (0.0, 0.0);
        assert_eq!(running.report(report).await.unwrap().0, Answer::accepted());
    }
    let entries = running.with(|c| c.entries().to_vec());
    assert!(entries[2].losses[1].is_nan(), "{:?}", entries[2].losses);
    drop(running);
    let again = keeper(&store, |_| {}).unwrap();
    assert_eq!(format!("{:?}", again.with(|c| c.entries().to_vec())), format!("{entries:?}"));
}

#[tokio::test]
async fn what_was_not_served_cannot_be_reported_on() {
    let keeper = keeper(&store::memory(), |_| {}).unwrap();
    keeper.open_attempt(0, 0, v1::ResumeAttempt::Unspecified).await.unwrap();
    let report = keeper.with(|c| eval(c, 1, 2, [2.0, 3.0]));
    assert_eq!(keeper.report(report.clone()).await.unwrap().0.reason, Reason::Steps);
    keeper.reach(1).await.unwrap();
    assert_eq!(keeper.report(report).await.unwrap().0, Answer::accepted());
}

#[test]
fn a_rewind_keeps_what_an_operator_asked_for_and_refuses_other_histories() {
    let mut course = course(|_| {});
    let report = eval(&course, 0, 0, [3.0, 3.0]);
    course.report(report).unwrap();
    let report = eval(&course, 0, 2, [2.7, 3.0]);
    course.report(report).unwrap();
    let given = Weights::normalise(&[1.0, 3.0]).unwrap();
    assert!(course.set_weights(given.clone(), 1, "operator:eve", "").unwrap());
    course.open_attempt(1, 0, v1::ResumeAttempt::Rewind, 4).unwrap();
    let other = course.open_attempt(2, 0, v1::ResumeAttempt::Rewind, 4);
    assert!(matches!(other, Err(TurnError::Branch { completed: 2, branch: 0, common: 1 })), "{other:?}");
    for (step, losses) in [(1, [2.9, 3.0]), (2, [2.7, 3.0]), (4, [2.7, 2.9])] {
        let find = |s: &&Segment| s.until == Some(step) || s.from == step;
        let segment = course.recent().iter().rev().find(find).cloned().unwrap();
        let (seq, mixture_id) = (segment.seq, segment.mixture_id);
        let report = eval(&course, 1, 2, losses);
        let report = v1::ReportRequest {
            segment: seq,
            mixture_id,
            from_step: step,
            to_step: step,
            seq: step,
            ..report
        };
        let answer = course.report(report).unwrap();
        assert_eq!(answer, Answer::accepted(), "step {step}");
    }
    let last = course.entries().last().unwrap();
    assert_eq!((&*last.author, &last.weights[..]), ("operator:eve", given.shares()));
}

#[tokio::test]
async fn a_log_that_another_build_wrote_is_refused() {
    let store = store::memory();
    keeper(&store, |_| {}).unwrap();
    let error = keeper(&store, |r| r.initial = Weights::normalise(&[1.0, 2.0]).unwrap());
    assert!(error.is_ok(), "the weights of the spec are in the digest, not in this log");
    let record = Record { event: Some(Event::Plan(3)), entries: vec![v1::MixtureEntry::default()] };
    store.append("job/ab", 1, &[record.encode_to_vec()]).unwrap();
    assert!(matches!(keeper(&store, |_| {}), Err(KeeperError::Foreign { record: 1, .. })));
}

#[tokio::test]
async fn older_lives_of_a_trainer_are_fenced() {
    let keeper = keeper(&store::memory(), |_| {}).unwrap();
    let report = keeper.with(|c| eval(c, 1, 2, [2.0, 3.0]));
    assert!(matches!(
        keeper.report(report.clone()).await,
        Err(KeeperError::NoAttempt { given: 1, current: 0 })
    ));
    for _ in 0..2 {
        keeper.open_attempt(0, 0, v1::ResumeAttempt::Unspecified).await.unwrap();
    }
    assert!(matches!(keeper.report(report).await, Err(KeeperError::Superseded { given: 1, current: 2 })));
    assert_eq!(keeper.outcomes().iter().map(|o| o.reports).sum::<u64>(), 2);
}

#[tokio::test]
async fn weights_are_set_only_on_the_log_that_was_seen() {
    let keeper = keeper(&store::memory(), |r| r.learner = None).unwrap();
    keeper.reach(41).await.unwrap();
    let weights = Weights::normalise(&[1.0, 3.0]).unwrap();
    let set =
        |expected| keeper.set_weights(weights.clone(), 0, expected, "operator:eve".into(), String::new());
    let entry = set(1).await.unwrap().expect("no probe is in the way");
    assert_eq!((entry.from_step, entry.seq), (42, 2), "steps that were begun never change");
    assert!(matches!(set(1).await, Err(KeeperError::Version { given: 1, current: 2 })));
}

#[tokio::test]
async fn a_number_alone_leads_no_further_than_a_little_ahead() {
    let keeper = keeper(&store::memory(), |r| r.learner = None).unwrap();
    keeper.admit(AHEAD).unwrap();
    let far = keeper.admit(1 << 40);
    assert!(matches!(far, Err(KeeperError::Skips { step, horizon: 0 }) if step == 1 << 40), "{far:?}");
    // A trainer that comes back with a cursor is led there, and the others may follow.
    keeper.reach(10_000_000).await.unwrap();
    keeper.admit(10_000_001 + AHEAD).unwrap();
    assert!(keeper.admit(10_000_002 + AHEAD).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_barrier_lets_go_after_its_time() {
    let keeper = keeper(&store::memory(), |_| {}).unwrap();
    let Reached::Step(_, mark) = keeper.reach(4).await.unwrap() else { panic!("the job has no end") };
    assert_eq!(mark.seq, 3);
    assert_eq!(keeper.with(|c| c.entries()[2].author.clone()), "late");
}
