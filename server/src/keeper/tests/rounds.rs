//! Rounds of a course: probes, reports, barriers, ends.

use super::*;

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

/// Reports a block from `step` on as `rank`, with `losses` at each of its three boundaries.
fn told(course: &mut Course, rank: u32, step: u64, losses: [[f64; 2]; 3]) {
    // Only the first block asks for losses before it.
    for (i, losses) in losses.into_iter().enumerate().skip(usize::from(step > 0)) {
        let report = v1::ReportRequest { rank, ..eval(course, 0, step + 2 * i as u64, losses) };
        assert_eq!(course.report(report).unwrap(), Answer::accepted());
    }
}

/// Reports at the end of the main window that ends at `step`.
fn after_main(course: &mut Course, rank: u32, step: u64, losses: [f64; 2]) {
    let report = v1::ReportRequest { rank, ..eval(course, 0, step, losses) };
    assert_eq!(course.report(report).unwrap(), Answer::accepted());
}

#[test]
fn losses_that_are_no_numbers_freeze_the_weights_until_they_are() {
    // A third task, so that one of them is less than half.
    let tasks = |r: &mut Rules| r.tasks.push("s/c".into());
    let mut course = course(tasks);
    let nan = f64::NAN;
    let mut round = |step: u64, losses: [[f64; 3]; 3]| {
        for (i, losses) in losses.into_iter().enumerate().skip(usize::from(step > 0)) {
            let mut report = eval(&course, 0, step + 2 * i as u64, [1.0; 2]);
            report.values = losses.map(|l| if l.is_nan() { 0.0 } else { l * 10.0 }).to_vec();
            report.counts = losses.map(|l| if l.is_nan() { 0.0 } else { 10.0 }).to_vec();
            assert_eq!(course.report(report).unwrap(), Answer::accepted());
        }
        let entry = course.entries().last().unwrap().clone();
        let frozen = (course.degraded(), entry.receipt.contains("\"frozen\":["));
        let main = eval(&course, 0, step + 8, [1.0; 2]);
        let (values, counts) = (losses[2].map(|l| if l.is_nan() { 0.0 } else { l * 10.0 }), losses[2]);
        let counts = counts.map(|l| if l.is_nan() { 0.0 } else { 10.0 });
        let main = v1::ReportRequest { values: values.to_vec(), counts: counts.to_vec(), ..main };
        assert_eq!(course.report(main).unwrap(), Answer::accepted());
        course.plan(step + 8).unwrap();
        assert_eq!(frozen.0, frozen.1, "{}", entry.receipt);
        (frozen.0, entry.weights)
    };
    let fine = [[3.0, 3.0, 3.0], [2.7, 3.0, 3.0], [2.7, 2.9, 3.0]];
    let (frozen, learnt) = round(0, fine);
    assert!(!frozen && learnt[0] > learnt[1]);
    // One of three for one round: the estimator masks it. Again: nothing moves.
    let one = [[2.7, 2.9, nan], [2.69, 2.9, nan], [2.69, 2.8, nan]];
    let (frozen, moved) = round(8, one);
    assert!(!frozen && moved[0] < moved[1], "{moved:?}");
    let (frozen, held) = round(16, [[2.69, 2.8, nan], [2.0, 2.8, nan], [2.0, 2.8, nan]]);
    assert!(frozen);
    assert_eq!(held, moved);
    // Back to numbers, back to learning; two of three freeze at once.
    let (frozen, learnt) = round(24, [[2.0, 2.8, nan], [1.9, 2.8, 3.0], [1.9, 2.79, 3.0]]);
    assert!(frozen, "its first losses are those of the round before");
    assert_eq!(learnt, moved);
    let (frozen, learnt) = round(32, [[1.9, 2.79, 3.0], [1.7, 2.79, 3.0], [1.7, 2.69, 3.0]]);
    assert!(!frozen && learnt[0] > learnt[1], "{learnt:?}");
    let (frozen, held) = round(40, [[1.7, 2.69, 3.0], [nan, 2.69, nan], [nan, 2.6, nan]]);
    assert!(frozen);
    assert_eq!(held, learnt);
}

#[test]
fn a_replica_that_is_always_far_off_is_quarantined_until_the_next_life() {
    let five = |r: &mut Rules| {
        (r.reporters, r.reduce) = (5, reduce::Rule::Nearest);
        r.barrier = Barrier::Strict;
    };
    let mut course = course(five);
    let losses = [[3.0, 3.0], [2.7, 3.0], [2.7, 2.9]];
    // Four agree to a thousandth; the fifth is far off in the first blocks and lies just beside them after that.
    let rank = |course: &mut Course, step: u64, off: f64| {
        for rank in 0..5 {
            let more = if rank == 4 { off } else { f64::from(rank) * 1e-3 };
            told(course, rank, step, losses.map(|l| l.map(|l| l + more)));
        }
        let receipt = course.entries().last().unwrap().receipt.clone();
        for rank in 0..5 {
            let more = if rank == 4 { off } else { f64::from(rank) * 1e-3 };
            after_main(course, rank, step + 8, [3.0 + more; 2]);
        }
        course.plan(step + 8).unwrap();
        receipt
    };
    let receipt = rank(&mut course, 0, 1.0);
    assert!(!receipt.contains("quarantined") && receipt.contains("\"drift\":[4,"), "{receipt}");
    let receipt = rank(&mut course, 8, 1.0);
    assert!(receipt.contains("\"quarantined\":[4]"), "{receipt}");
    // The budget of one is spent: nobody else is left out, and a liar that comes near is still not believed.
    let receipt = rank(&mut course, 16, -5e-4);
    assert!(receipt.contains("\"quarantined\":[4]"), "{receipt}");
    let agreed = course.losses().to_vec();
    assert!((agreed[0] - 2.7015).abs() < 1e-9, "{agreed:?}");
    course.open_attempt(24, 0, v1::ResumeAttempt::Replay, 99).unwrap();
    assert!(course.replicas.trusts(4));
}

#[test]
fn replicas_that_agree_are_never_quarantined() {
    let mut course = course(|r| (r.reporters, r.reduce) = (5, reduce::Rule::Nearest));
    for step in [0, 8, 16] {
        let losses = [[3.0, 3.0], [2.7, 3.0], [2.7, 2.9]];
        (0..5).for_each(|rank| told(&mut course, rank, step, losses));
        let receipt = &course.entries().last().unwrap().receipt;
        assert!(receipt.contains("\"used\":true") && !receipt.contains("quarantined"), "{receipt}");
        (0..5).for_each(|rank| after_main(&mut course, rank, step + 8, [3.0; 2]));
        course.plan(step + 8).unwrap();
    }
}
