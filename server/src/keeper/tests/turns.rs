//! Turns from outside: operators, trainers that come back.

use super::*;

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
