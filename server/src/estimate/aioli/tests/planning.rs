//! Directives: what is served and what is asked for.

use super::*;
use crate::args::Args;
use crate::estimate::plants::arguments;
use crate::estimate::{FOREVER, MethodError, Vectors, by_name};

/// Groups of a directive's probes, in order.
fn order(directive: &Directive) -> Vec<(u32, usize)> {
    let probe = |w: &Window| match w.kind {
        WindowKind::Probe { group, sweep } => (sweep, group),
        WindowKind::Main => panic!("a main window among probes"),
    };
    directive.windows.iter().map(probe).collect()
}

fn refused(numbers: &[(&str, f64)], words: &[(&str, &str)], job: &Setup, vectors: &Vectors) -> MethodError {
    let args: Args = arguments("aioli", numbers, words);
    by_name("aioli").expect("known").start(job, &args, vectors).expect_err("refused")
}

#[test]
fn smoothing_of_the_specification() {
    for (m, one_hot, front, rest) in
        [(2, 0.0, 0.625, 0.375), (3, 0.0, 0.5, 0.25), (7, 0.75, 0.75, 0.2916666666666667 / 7.0)]
    {
        let job = setup(m, m);
        let probes = start("aioli", &[("one_hot", one_hot)], &[], &job).directive(0);
        let WindowKind::Probe { group, .. } = probes.windows[0].kind else { panic!("a probe") };
        for (j, share) in probes.windows[0].shares.iter().enumerate() {
            assert!((share - if j == group { front } else { rest }).abs() < 1e-12, "{m} groups, {share}");
        }
    }
}

#[test]
fn a_round_is_a_probe_block_behind_a_barrier_and_the_rest() {
    let job = Setup { max_steps: 5000, ..setup(3, 3) };
    let mut e = start("aioli", &[], &[], &job);
    let probes = e.directive(0);
    assert!(probes.barrier && probes.windows.len() == 12, "{probes:?}");
    assert!(probes.windows.iter().all(|w| w.steps == 6));
    let (before, after) = ((When::Before, Want::Eval), (When::After, Want::Eval));
    assert_eq!(probes.windows[0].wants, [before, after], "nothing was read before the first probe");
    assert!(probes.windows[1..].iter().all(|w| w.wants == [after]));
    for sweep in 0..4 {
        let mut groups: Vec<usize> =
            order(&probes).iter().filter(|(s, _)| *s == sweep).map(|(_, g)| *g).collect();
        groups.sort_unstable();
        assert_eq!(groups, [0, 1, 2], "every sweep probes every group");
    }
    let main = e.directive(72);
    assert_eq!((main.barrier, main.windows.len()), (false, 1));
    let window = &main.windows[0];
    assert_eq!((window.kind, window.steps, &window.wants[..]), (WindowKind::Main, 178, &[after][..]));
    let next = e.directive(250);
    assert!(next.barrier && next.windows[0].wants == [after], "the main window's end is its baseline");
    assert_ne!(order(&next), order(&probes), "each round draws its own order");
    assert_eq!(e.directive(322).windows[0].steps, 178);
    let cut = e.directive(400);
    assert_eq!(cut.windows[0].wants, [before, after], "a block elsewhere than announced reads its start");
}

#[test]
fn the_last_round_lasts_to_the_end_and_no_probe_comes_too_late() {
    let job = Setup { max_steps: 1003, ..setup(3, 3) };
    let mut e = start("aioli", &[("rounds", 10.0), ("probe_steps", 2.0)], &[], &job);
    let mut step = 0;
    for round in 0..10 {
        assert_eq!(e.directive(step).windows.len(), 12, "round {round}");
        let main = e.directive(step + 24).windows[0].clone();
        assert_eq!(main.steps, if round == 9 { FOREVER } else { 76 }, "round {round}");
        step += 100;
    }
    let mut late = start("aioli", &[("rounds", 10.0), ("probe_steps", 2.0)], &[], &job);
    assert_eq!(late.directive(990).windows[0].steps, FOREVER);
}

#[test]
fn counterbalanced_sweeps_mirror_each_other() {
    let job = setup(5, 5);
    let words = [("order", "counterbalanced")];
    let groups = |e: &mut dyn Estimator| order(&e.directive(0)).iter().map(|(_, g)| *g).collect::<Vec<_>>();
    let found = groups(&mut *start("aioli", &[("sweeps", 4.0)], &words, &job));
    for pair in found.chunks(10) {
        let mirrored: Vec<usize> = pair[5..].iter().rev().copied().collect();
        assert_eq!(pair[..5], mirrored[..]);
    }
    let other = Setup { seed: 2, ..job.clone() };
    assert_ne!(found, groups(&mut *start("aioli", &[("sweeps", 4.0)], &words, &other)), "the seed draws");
    assert_eq!(found, groups(&mut *start("aioli", &[("sweeps", 4.0)], &words, &job)));
}

#[test]
fn presets_follow_the_scripts_and_single_numbers_override_them() {
    let probes = |m: usize, numbers: &[(&str, f64)], words: &[(&str, &str)]| {
        let probes = start("aioli", numbers, words, &setup(m, m)).directive(0);
        (probes.windows.len() / m, probes.windows[0].steps)
    };
    assert_eq!(probes(2, &[], &[]), (4, 4));
    assert_eq!(probes(3, &[], &[]), (4, 6));
    assert_eq!(probes(7, &[], &[]), (2, 10));
    assert_eq!(probes(3, &[], &[("variant", "short_run")]), (2, 4));
    assert_eq!(probes(3, &[("sweeps", 3.0), ("probe_steps", 5.0)], &[("variant", "short_run")]), (3, 5));
    let mut e = start("aioli", &[("round_steps", 100.0)], &[], &setup(3, 3));
    e.directive(0);
    assert_eq!(e.directive(72).windows[0].steps, 28);
}

#[test]
fn misfits_are_named() {
    let (job, none) = (Setup { max_steps: 600, ..setup(3, 3) }, Vectors::new());
    let said = refused(&[], &[], &job, &none).to_string();
    assert!(
        said.starts_with("estimator `aioli` has rounds of 30 steps, want more than the probes' 72"),
        "{said}"
    );
    let said = refused(&[("one_hot", 0.3)], &[], &setup(3, 3), &none).to_string();
    assert!(said.contains("one_hot 0.3, want more than 1 / groups = 0.333"), "{said}");
    let said = refused(&[], &[("graph", "diagonal")], &setup(3, 1), &none).to_string();
    assert!(said.contains("group 1 has none"), "{said}");
    let zero = Vectors::from([("prior".to_string(), vec![0.0; 3])]);
    assert!(matches!(refused(&[], &[], &setup(3, 3), &zero), MethodError::Vector { .. }));
}

#[test]
fn one_group_is_served_and_never_probed() {
    let mut e = start("aioli", &[], &[], &setup(1, 1));
    let only = e.directive(0);
    assert_eq!((only.windows[0].steps, only.windows[0].shares.clone()), (FOREVER, vec![1.0]));
    assert!(e.observe(&[]).used);
    assert_eq!(e.shares(), [1.0]);
}

#[test]
fn a_prior_is_served_first_and_seeds_the_weights_when_asked() {
    for (word, first) in [("uniform", [0.5, 0.5]), ("prior", [0.9, 0.1])] {
        let args = arguments("aioli", &[("prior_steps", 40.0)], &[("start", word)]);
        let vectors = Vectors::from([("prior".to_string(), vec![9.0, 1.0])]);
        let mut e = by_name("aioli").expect("known").start(&setup(2, 2), &args, &vectors).expect("starts");
        close(&e.shares(), &[0.9, 0.1], 1e-12);
        let prior = e.directive(0);
        assert_eq!((prior.windows[0].steps, prior.barrier), (40, false));
        assert_eq!(prior.windows[0].wants, [(When::After, Want::Eval)]);
        close(&e.shares(), &[0.9, 0.1], 1e-12);
        let probes = e.directive(40);
        assert_eq!(probes.windows[0].wants, [(When::After, Want::Eval)], "read at the end of the prior");
        close(&e.directive(72).windows[0].shares, &first, 1e-12);
    }
}
