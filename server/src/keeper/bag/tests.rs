//! The index against the rule that looks at every report.

use super::super::tests::rules;
use super::*;
use crate::estimate::{Window, WindowKind};
use proptest::prelude::*;
use std::time::Instant;

/// What clashes with `report`, by looking at each: the first one by key.
fn clash<'a>(bag: &'a Bag, want: Want, report: &v1::ReportRequest) -> Option<&'a v1::ReportRequest> {
    let mut same = bag.reports.values().filter(|r| r.kind == report.kind && r.rank == report.rank);
    same.find(|other| match want {
        Want::Train | Want::Excess => other.from_step < report.to_step && report.from_step < other.to_step,
        Want::Sketch => {
            let owner = |r: &v1::ReportRequest| (r.to_step, r.owner, r.held_out);
            owner(other) == owner(report)
        }
        Want::Eval | Want::Dots | Want::GradientStats | Want::Influence | Want::Candidates => {
            other.to_step == report.to_step
        }
    })
}

/// Whether everything that is due is there, by looking at each report for each rank.
fn complete(bag: &Bag, rules: &Rules, segment: &Segment) -> bool {
    let until = segment.until.unwrap_or(u64::MAX);
    let has = |(when, want): &(When, Want), rank: u32| {
        let kind = kind_of(*want) as i32;
        let mut of = bag.reports.values().filter(|r| r.kind == kind && r.rank == rank);
        let at = match when {
            When::Before => segment.from,
            When::After => until,
            When::EachStep => {
                let inside = of.filter(|r| r.segment == segment.seq);
                return inside.map(|r| (r.to_step - r.from_step).max(1)).sum::<u64>() >= until - segment.from;
            }
        };
        match want {
            Want::Sketch => of.filter(|r| r.to_step == at).count() >= rules.tasks.len() + rules.active.len(),
            Want::Eval
            | Want::Train
            | Want::Excess
            | Want::Dots
            | Want::GradientStats
            | Want::Influence
            | Want::Candidates => of.any(|r| r.to_step == at),
        }
    };
    segment.wants().iter().all(|due| (0..rules.reporters).all(|rank| has(due, rank)))
}

fn losses(bag: &Bag, rules: &Rules, step: u64) -> Option<Vec<f64>> {
    let of = bag.reports.values().filter(|r| r.kind == EVAL && r.to_step == step);
    let merged = reduce::merge(rules.reduce, &of.map(part).collect::<Vec<_>>(), rules.faulty)?.part;
    Some(merged.values.iter().zip(&merged.counts).map(|(sum, count)| sum / count).collect())
}

const WANTS: [Want; 4] = [Want::Eval, Want::Train, Want::Sketch, Want::Dots];

/// Of segments of four steps each.
fn segment(seq: u64, wants: Vec<(When, Want)>) -> Segment {
    let window = Window { kind: WindowKind::Main, steps: 4, shares: vec![0.5; 2], wants };
    Segment { seq, mixture_id: 1, from: seq * 4, until: Some(seq * 4 + 4), window }
}

fn drawn() -> impl Strategy<Value = v1::ReportRequest> {
    let steps = (0u64..4, 1u64..5, 0u64..3);
    (steps, 0u32..3, 0usize..4, 0u64..2, 0u64..6, 0u32..2, any::<bool>()).prop_map(
        |((at, run, segment), rank, want, attempt, seq, owner, held_out)| {
            let want = WANTS[want];
            let to = (segment * 4 + at + run).min(segment * 4 + 4);
            let from = if want == Want::Train { segment * 4 + at } else { to };
            v1::ReportRequest {
                attempt,
                segment,
                rank,
                kind: kind_of(want) as i32,
                seq,
                values: vec![1.0 + rank as f64 / 3.0 + seq as f64, 2.0],
                counts: vec![1.0, 3.0],
                from_step: from,
                to_step: to,
                owner,
                held_out,
                ..Default::default()
            }
        },
    )
}

#[derive(Clone, Debug)]
enum Act {
    Add(Box<v1::ReportRequest>),
    Rewind(u64),
    Close(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        30 => drawn().prop_map(|report| Act::Add(Box::new(report))),
        1 => (0u64..13).prop_map(Act::Rewind),
        1 => (0u64..3).prop_map(Act::Close),
    ]
}

proptest! {
    #[test]
    fn the_index_says_what_a_look_at_every_report_says(acts in prop::collection::vec(act(), 1..120)) {
        let rules = rules(|r| r.reporters = 3);
        let mut bag = Bag::default();
        for act in acts {
            match act {
                Act::Add(report) => {
                    let want = want_of(report.kind).unwrap();
                    let found = clash(&bag, want, &report);
                    let said = bag.overlap(want, &report);
                    match found {
                        None => prop_assert_eq!(said, Ok(())),
                        Some(other) if other.attempt != report.attempt => {
                            prop_assert_eq!(said.unwrap_err().outcome, Outcome::Stale);
                        }
                        Some(other) => {
                            let message = said.unwrap_err().message;
                            prop_assert!(message.ends_with(&format!("in number {}", other.seq)), "{}", message);
                        }
                    }
                    if found.is_none() && !bag.reports.contains_key(&key(&report)) {
                        bag.add(*report);
                    }
                }
                Act::Rewind(step) => bag.forget(|r| r.to_step > step),
                Act::Close(segment) => bag.forget_before(segment),
            }
            prop_assert_eq!(bag.bytes, bag.reports.values().map(size).sum::<usize>());
            prop_assert_eq!(bag.furthest(), bag.reports.values().map(|r| r.to_step).max().unwrap_or(0));
            for seq in 0..3 {
                for want in WANTS {
                    for when in [When::Before, When::After, When::EachStep] {
                        let segment = segment(seq, vec![(when, want)]);
                        prop_assert_eq!(bag.complete(&rules, &segment), complete(&bag, &rules, &segment));
                    }
                }
            }
            for step in 0..13 {
                prop_assert_eq!(bag.losses(&rules, &Replicas::default(), step, |_| true), losses(&bag, &rules, step));
            }
        }
    }
}

#[test]
fn a_thousand_ranks_that_report_every_step_are_taken_at_once() {
    let (ranks, steps) = (1_024, 16);
    let rules = rules(|r| r.reporters = ranks);
    let window = Window {
        kind: WindowKind::Main,
        steps,
        shares: vec![0.5; 2],
        wants: vec![(When::EachStep, Want::Train)],
    };
    let segment = Segment { seq: 1, mixture_id: 1, from: 0, until: Some(steps), window };
    let report = |rank, step| v1::ReportRequest {
        segment: 1,
        rank,
        kind: v1::ReportKind::Train as i32,
        seq: step,
        mixture_id: 1,
        values: vec![2.0; 2],
        counts: vec![1.0; 2],
        from_step: step,
        to_step: step + 1,
        ..Default::default()
    };
    let mut bag = Bag::default();
    let started = Instant::now();
    for step in 0..steps {
        for rank in 0..ranks {
            let report = report(rank, step);
            assert_eq!(bag.check(&rules, &segment, &report, false), Ok(()));
            bag.add(report);
            assert_eq!(bag.complete(&rules, &segment), (rank, step) == (ranks - 1, steps - 1));
        }
    }
    println!("a report of {ranks} ranks: {:?}", started.elapsed() / ranks / steps as u32);
    bag.forget(|r| r.rank == ranks - 1 && r.to_step == steps);
    let (last, started) = (report(ranks - 1, steps - 1), Instant::now());
    assert!(clash(&bag, Want::Train, &last).is_none() && !complete(&bag, &rules, &segment));
    println!("the last one, looking at each: {:?}", started.elapsed());
}
