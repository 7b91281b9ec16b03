//! The course in stretches of steps, against the account of all of it.

use super::*;
use crate::keeper::{Account, stretches};

/// A round of probes and a main window that an operator cut.
fn steered() -> Course {
    let mut course = course(|_| {});
    block(&mut course, 0, 0);
    let given = Weights::normalise(&[1.0, 7.0]).unwrap();
    assert!(!course.set_weights(given, 6, "operator:eve", "").unwrap());
    course
}

/// The same, taken back to the middle of the second probe.
fn taken_back() -> Course {
    let mut course = steered();
    course.open_attempt(3, 0, v1::ResumeAttempt::Rewind, 9).unwrap();
    assert!(kinds(&course).iter().any(|(_, _, kind)| *kind == STRIKE));
    course
}

#[test]
fn stretches_add_up_to_the_account() {
    for (course, least) in [(steered(), 8), (taken_back(), 4)] {
        let covered = course.sequence().covered().unwrap();
        assert!(covered >= least, "{covered}");
        (1..=covered).for_each(|until| adds_up(&course, until));
        assert!(stretches(course.entries(), course.sequence(), 0, 40).is_empty());
    }
}

fn adds_up(course: &Course, until: u64) {
    let account = Account::new(course.entries(), course.sequence(), until);
    for parts in [1, 3, 40] {
        let all = stretches(course.entries(), course.sequence(), until, parts);
        assert_eq!(all.len() as u64, parts.min(until));
        assert_eq!(all.iter().map(|stretch| stretch.steps).sum::<u64>(), until);
        for (g, group) in account.groups.iter().enumerate() {
            let rows: u64 = all.iter().map(|stretch| stretch.rows[g]).sum();
            let asked: f64 = all.iter().map(|s| s.asked[g] * s.steps as f64).sum::<f64>() / until as f64;
            assert_eq!(rows, group.rows, "group {g} until {until} in {parts}");
            assert!((asked - group.wanted).abs() < 1e-9, "group {g} until {until} in {parts}: {asked}");
        }
        let whole = all.iter().all(|stretch| (stretch.asked.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(whole, "{all:?}");
    }
}
