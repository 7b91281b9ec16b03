//! Records that no build of ours wrote, reports and calls with any numbers: refused with a reason, never a panic.

use super::*;
use crate::keeper::record::{AttemptEvent, WeightsEvent};
use proptest::prelude::*;
use proptest::sample::Index;
use std::sync::LazyLock;

const KEY: &str = "job/ab";

/// What a keeper writes in a life with reports, weights and a second attempt.
static RECORDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = store::memory();
        let keeper = keeper(&store, |_| {}).unwrap();
        keeper.reach(3).await.unwrap();
        keeper.open_attempt(0, 0, v1::ResumeAttempt::Unspecified).await.unwrap();
        for (step, losses) in [(0, [3.0, 3.0]), (2, [2.7, 3.0]), (4, [2.7, 2.9])] {
            let report = keeper.with(|c| super::eval(c, 1, step, losses)).unwrap();
            assert_eq!(keeper.report(report).await.unwrap().0, Answer::accepted());
        }
        keeper.reach(6).await.unwrap();
        let weights = Weights::normalise(&[1.0, 3.0]).unwrap();
        keeper.set_weights(weights, 0, 0, "operator:eve".into(), "note".into()).await.unwrap();
        keeper.reach(9).await.unwrap();
        keeper.open_attempt(7, 0, v1::ResumeAttempt::Rewind).await.unwrap();
        store.read(KEY, 0, usize::MAX).unwrap()
    })
});

/// A keeper over these records: it goes on, or says why not.
fn folded(records: &[Vec<u8>]) -> Result<(), KeeperError> {
    let store = store::memory();
    store.append(KEY, 0, records).unwrap();
    let keeper = keeper(&store, |_| {})?;
    assert!(!keeper.with(|c| c.entries().len())?.eq(&0));
    Ok(())
}

fn number() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 2, u64::MAX, u64::MAX - 1, 1 << 63, 1 << 40, 1 << 32, (1 << 32) - 1];
    prop_oneof![prop::sample::select(edges.to_vec()), 0u64..12, any::<u64>()]
}

fn real() -> impl Strategy<Value = f64> {
    let edges = [0.0, 10.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, 1e-320];
    prop_oneof![prop::sample::select(edges.to_vec()), any::<f64>()]
}

fn report() -> impl Strategy<Value = v1::ReportRequest> {
    let numbers = [number(), number(), number(), number(), number(), number()];
    let reals = || prop::collection::vec(real(), 0..5);
    (numbers, reals(), reals(), -1i32..8, prop::bool::ANY).prop_map(|(n, values, counts, kind, known)| {
        let [attempt, segment, seq, mixture_id, from_step, to_step] = n;
        let eval_digest = if known { vec![7; 32] } else { vec![1] }.into();
        let (attempt, segment) = if known { (1, segment % 4) } else { (attempt, segment) };
        v1::ReportRequest {
            attempt,
            segment,
            seq,
            mixture_id,
            from_step,
            to_step,
            values,
            counts,
            kind,
            eval_digest,
            ..Default::default()
        }
    })
}

fn event() -> impl Strategy<Value = Event> {
    let attempt =
        ([number(), number(), number()], -1i32..5).prop_map(|([completed, horizon, branch], resume)| {
            Event::Attempt(AttemptEvent { completed, resume, horizon, branch })
        });
    let shares = prop_oneof![
        Just(vec![1 << 31, 1 << 31]),
        Just(vec![1 << 32, 0]),
        Just(vec![1 << 32]),
        Just(vec![1 << 30; 4]),
        prop::collection::vec(number(), 0..4),
    ];
    let weights = (shares, number()).prop_map(|(weights, step)| {
        Event::Weights(WeightsEvent { weights, step, author: "operator:eve".into(), note: String::new() })
    });
    prop_oneof![
        number().prop_map(Event::Plan),
        number().prop_map(Event::Late),
        report().prop_map(Event::Report),
        attempt,
        weights,
    ]
}

#[test]
fn a_good_life_folds() {
    assert!(RECORDS.len() > 5);
    folded(&RECORDS).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bent_records_are_refused_or_fold(
        which in any::<Index>(),
        flips in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.3, any::<Index>()),
    ) {
        let mut records = RECORDS.clone();
        let which = which.index(records.len());
        let record = &mut records[which];
        for (at, byte) in flips {
            let at = at.index(record.len());
            record[at] = byte;
        }
        if let Some(cut) = cut {
            record.truncate(cut.index(record.len()));
        }
        match folded(&records) {
            Ok(()) => {}
            Err(error) => prop_assert!(matches!(error, KeeperError::Foreign { .. }), "{}", error),
        }
    }

    #[test]
    fn made_up_events_are_refused_or_fold(at in any::<Index>(), event in event()) {
        let mut records = RECORDS.clone();
        let at = 1 + at.index(records.len() - 1);
        records[at] = Record { event: Some(event), entries: Vec::new() }.encode_to_vec();
        if let Err(error) = folded(&records) {
            prop_assert!(matches!(error, KeeperError::Foreign { .. }), "{}", error);
        }
    }

    #[test]
    fn records_in_another_order_are_refused_or_fold(from in any::<Index>(), to in any::<Index>()) {
        let mut records = RECORDS.clone();
        let (from, to) = (from.index(records.len()), to.index(records.len()));
        records.swap(from, to);
        if let Err(error) = folded(&records) {
            prop_assert!(matches!(error, KeeperError::Foreign { .. }), "{}", error);
        }
    }

    #[test]
    fn reports_with_any_numbers_are_answered(reports in prop::collection::vec(report(), 1..6)) {
        let mut course = course(|_| {});
        course.plan(3).unwrap();
        course.open_attempt(0, 0, v1::ResumeAttempt::Unspecified, 4).unwrap();
        for report in reports {
            course.report(report).unwrap();
            course.plan(20).unwrap();
        }
    }

    #[test]
    fn attempts_with_any_numbers_are_answered(completed in number(), branch in number(), horizon in 0u64..9) {
        let mut course = course(|_| {});
        course.plan(3).unwrap();
        for resume in [v1::ResumeAttempt::Unspecified, v1::ResumeAttempt::Rewind, v1::ResumeAttempt::Replay] {
            let _ = course.open_attempt(completed, branch, resume, horizon);
        }
        course.plan(20).unwrap();
    }
}
