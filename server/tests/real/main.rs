//! Learning on real text with a real model: an even mixture is beaten where it can be, by the same numbers every time.
//!
//! ```text
//! text (groups) -> sets (what is learnt) -> feed (the service's side) <-> train (the trainer's side)
//!                                        -> served (the same sets through the service), ranks (by two trainers)
//! ```
//! The sets are those of the papers' kind at a size that takes seconds: a byte n-gram learns 1.2 MB in 600 steps, and an
//! estimator sees nothing but its held-out losses. Runs are paired: the same seed, with and without learning.
//! Thresholds are about half of what 16 other seeds gave; `make text` builds the groups.
#![allow(clippy::unwrap_used)]

mod feed;
mod ranks;
mod served;
mod sets;
#[path = "../stand/mod.rs"]
mod stand;
mod text;
mod train;

use sets::{Outcome, Paired, Set, Way, aioli, given, runs};
use text::Group;

/// Seeds; thresholds come from seeds 0 to 15.
const SEEDS: std::ops::Range<u64> = 100..108;

/// `way` against the set's own shares to the end.
fn paired(set: &Set, way: &Way) -> Paired {
    let groups: Vec<Group> = set.groups.iter().map(|name| Group::load(name)).collect();
    let groups: Vec<&Group> = groups.iter().collect();
    let (these, those): (Vec<Outcome>, Vec<Outcome>) =
        (runs(set, &groups, way, SEEDS), runs(set, &groups, &given(), SEEDS));
    let paired = Paired::of(&these, &those);
    println!("{}, {:?}: {paired}", set.name, way.numbers);
    paired
}

#[test]
fn groups_are_there() {
    println!("{}", text::manifest());
    for name in [sets::V1, sets::V2, sets::V5, sets::CONTROL].iter().flat_map(|set| set.groups) {
        let group = Group::load(name);
        println!(
            "{name}: {} rows, {} held out, {} to test",
            group.train.len(),
            group.held_out.len(),
            group.test.len()
        );
    }
}

/// Asserts that `way` is better than the set's own shares by `least` nats on average, and on all but `unlucky` seeds.
fn wins(set: &Set, way: &Way, least: f64, unlucky: usize) {
    let paired = paired(set, way);
    assert!(paired.mean <= -least, "{}: {paired}, want {least} less", set.name);
    assert!(paired.wins + unlucky >= paired.seeds, "{}: {paired}, want at most {unlucky} worse", set.name);
}

#[test]
fn what_does_not_help_the_objective_is_left_out() {
    let steps = [("probe_steps", 2.0), ("round_steps", 40.0), ("one_hot", 0.75)];
    wins(&sets::V5, &aioli(&[&steps[..], &[("eta", 1.0)]].concat()), 0.040, 0);
}

#[test]
fn a_bad_prior_is_left_behind() {
    let steps = [("prior_steps", 200.0), ("round_steps", 60.0), ("eta", 1.0)];
    wins(
        &sets::V6,
        &Way { words: vec![("variant", "paper_eg"), ("start", "prior")], ..aioli(&steps) },
        0.080,
        0,
    );
}

#[test]
fn what_is_learnt_slowly_gets_more() {
    wins(&sets::V2, &aioli(&[("round_steps", 60.0), ("eta", 0.2)]), 0.003, 1);
    wins(&sets::V2, &aioli(&[("round_steps", 60.0), ("eta", 1.0)]), 0.012, 2);
}

#[test]
fn small_gains_are_found_and_nothing_is_lost_where_there_is_none() {
    wins(&sets::V1, &aioli(&[("round_steps", 60.0), ("eta", 1.0)]), 0.003, 3);
    let control = paired(&sets::CONTROL, &aioli(&[("round_steps", 60.0), ("eta", 0.2)]));
    assert!(control.mean.abs() <= 0.010, "control: {control}");
    // Told, not asserted: published as worse than even, here better.
    paired(&sets::NEGATIVE, &aioli(&[("round_steps", 60.0), ("eta", 1.0)]));
}

#[test]
fn a_run_is_the_same_bit_for_bit() {
    let groups: Vec<Group> = sets::V5.groups.iter().map(|name| Group::load(name)).collect();
    let groups: Vec<&Group> = groups.iter().collect();
    let way = aioli(&[("probe_steps", 2.0), ("round_steps", 40.0), ("eta", 1.0)]);
    let bits = |outcome: Outcome| (outcome.log, outcome.loss.to_bits());
    let (one, other) = (sets::run(&sets::V5, &groups, &way, 3), sets::run(&sets::V5, &groups, &way, 3));
    assert_eq!(bits(one), bits(other));
    assert_ne!(sets::run(&sets::V5, &groups, &way, 4).loss, sets::run(&sets::V5, &groups, &way, 3).loss);
}
