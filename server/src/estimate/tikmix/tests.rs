use super::super::Reduced;
use super::super::fold::evidence::{report, seen};
use super::super::plants::{Drive, Plant, Quadratic as Plane, RELEASED, dot, drive, setup, start};
use super::*;

const UNIFORM: [f64; 3] = [1.0 / 3.0; 3];

fn matrix(step: u64, s: &[f64]) -> Reduced {
    report(Want::Influence, step, s, &[1e6])
}

fn sketch(held_out: bool, owner: usize, values: &[f64]) -> Reduced {
    Reduced { held_out, owner, ..report(Want::Sketch, 1, values, &[]) }
}

fn fact(verdict: &Verdict, name: &str) -> Vec<f64> {
    verdict.facts.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone()).unwrap_or_default()
}

fn close(got: &[f64], want: &[f64], within: f64) {
    let far = got.iter().zip(want).any(|(g, w)| (g - w).abs() > within);
    assert!(got.len() == want.len() && !far, "{got:?}, want {want:?}");
}

#[test]
fn without_spread_and_constraint_the_shares_are_a_softmax_of_the_summed_benefit() {
    let s = [1.0, 0.5, 0.0, 0.2, 0.8, 0.1];
    let words = [("pareto", "off"), ("evidence", "influence")];
    let mut e = start("tikmix_d", &[("alpha", 0.0), ("beta", 2.0), ("gamma", 0.5)], &words, &setup(3, 2));
    let verdict = e.observe(&seen(&UNIFORM, vec![matrix(1, &s)]));
    assert!(verdict.used && fact(&verdict, "solved") == [1.0]);
    let pull = |j: usize| libm::exp(4.0 * (s[j] / 1.0 + s[3 + j] / 0.8));
    let sum: f64 = (0..3).map(pull).sum();
    close(&e.shares(), &[pull(0) / sum, pull(1) / sum, pull(2) / sum], 1e-6);
}

#[test]
fn released_matrices_stay_where_they_are_under_the_papers_rule_and_move_with_slack() {
    let words = |pareto| [("pareto", pareto), ("evidence", "influence")];
    let mut hard = start("tikmix_d", &[], &words("hard"), &setup(3, 3));
    let verdict = hard.observe(&seen(&UNIFORM, vec![matrix(1, &RELEASED)]));
    assert_eq!(fact(&verdict, "feasible_set_singleton"), [1.0]);
    close(&hard.shares(), &UNIFORM, 1e-6);
    let mut slack = start("tikmix_d", &[], &words("slack"), &setup(3, 3));
    let verdict = slack.observe(&seen(&UNIFORM, vec![matrix(1, &RELEASED)]));
    assert_eq!(fact(&verdict, "feasible_set_singleton"), [0.0]);
    let w = slack.shares();
    assert!(fact(&verdict, "moved")[0] > 0.01, "{w:?}");
    for row in RELEASED.chunks(3) {
        assert!(dot(row, &w) >= 0.9 * dot(row, &UNIFORM) - 1e-6);
    }
}

#[test]
fn a_task_that_nobody_helps_is_dropped() {
    let words = [("evidence", "influence"), ("pareto", "off")];
    let s = [1.0, 0.2, 0.1, -1.0, -2.0, -3.0];
    let mut e = start("tikmix_d", &[("alpha", 0.0)], &words, &setup(3, 2));
    let verdict = e.observe(&seen(&UNIFORM, vec![matrix(1, &s)]));
    assert_eq!(fact(&verdict, "dropped_tasks"), [0.0, 1.0]);
    let pull = |j: usize| libm::exp(s[j]);
    let sum: f64 = (0..3).map(pull).sum();
    close(&e.shares(), &[pull(0) / sum, pull(1) / sum, pull(2) / sum], 1e-6);
    let none = e.observe(&seen(&UNIFORM, vec![matrix(2, &[-1.0; 6])]));
    assert!(none.used);
}

#[test]
fn sketches_are_multiplied_and_averaged_and_stages_smoothed() {
    let mut e = start("tikmix_d", &[], &[], &setup(2, 2));
    let stage = |second: f64| {
        vec![
            sketch(true, 0, &[1.0, 0.0]),
            sketch(true, 1, &[0.0, 1.0]),
            sketch(false, 0, &[2.0, 1.0]),
            sketch(false, 0, &[4.0, 1.0]),
            sketch(false, 1, &[1.0, second]),
        ]
    };
    let verdict = e.observe(&seen(&[0.5; 2], stage(3.0)));
    close(&fact(&verdict, "influence"), &[3.0, 1.0, 1.0, 3.0], 1e-12);
    let verdict = e.observe(&seen(&[0.5; 2], stage(5.0)));
    close(&fact(&verdict, "influence"), &[3.0, 1.0, 1.0, 4.0], 1e-12);
}

#[test]
fn a_missing_sketch_keeps_the_old_column_and_a_bad_number_discards_the_stage() {
    let mut e = start("tikmix_d", &[("keep", 0.0)], &[], &setup(2, 2));
    let both = [sketch(true, 0, &[1.0, 0.0]), sketch(true, 1, &[0.0, 1.0])];
    let stage = |more: &[Reduced]| seen(&[0.5; 2], both.iter().chain(more).cloned().collect());
    // Nothing is known of group 1 yet: it counts as the mean of the others.
    let verdict = e.observe(&stage(&[sketch(false, 0, &[2.0, 1.0])]));
    close(&fact(&verdict, "influence"), &[2.0, 2.0, 1.0, 1.0], 1e-12);
    let verdict = e.observe(&stage(&[sketch(false, 1, &[5.0, 6.0])]));
    close(&fact(&verdict, "influence"), &[2.0, 5.0, 1.0, 6.0], 1e-12);
    let p = e.shares();
    for bad in [f64::NAN, f64::INFINITY, 1e308] {
        let overflowing = [sketch(false, 0, &[bad, bad]), sketch(true, 0, &[bad, bad])];
        assert!(!e.observe(&stage(&overflowing)).used, "{bad}");
    }
    assert!(!e.observe(&[]).used);
    assert!(!e.observe(&seen(&[0.5; 2], vec![sketch(true, 0, &[1.0])])).used, "no group at all");
    assert_eq!(e.shares(), p);
    let verdict = e.observe(&stage(&[sketch(false, 0, &[7.0, 8.0, 9.0])]));
    assert!(!verdict.used, "another length: nothing of a group");
}

#[test]
fn a_shadow_takes_what_is_reported() {
    let mut e = start("tikmix_d", &[], &[("evidence", "sketch")], &setup(3, 3));
    assert!(e.observe(&seen(&UNIFORM, vec![matrix(1, &RELEASED)])).used);
}

#[test]
fn stages_divide_the_job() {
    let steps = |numbers: &[(&str, f64)], max_steps| {
        let job = Setup { max_steps, ..setup(2, 2) };
        start("tikmix_d", numbers, &[], &job).directive(0).windows[0].steps
    };
    assert_eq!(steps(&[], 5000), 1000);
    assert_eq!(steps(&[("stages", 3.0)], 10), 4);
    assert_eq!(steps(&[("stage_steps", 7.0)], 5000), 7);
    assert_eq!(steps(&[], 0), 1000);
    let directive = start("tikmix_m", &[], &[], &setup(2, 2)).directive(0);
    assert!(directive.barrier);
    assert_eq!(directive.windows[0].wants, [(When::After, Want::Sketch), (When::After, Want::Candidates)]);
}

#[test]
fn candidates_are_a_hypercube_around_the_anchor() {
    for m in [1, 3, 64] {
        let e = start("tikmix_m", &[], &[], &setup(m, 2));
        let candidates = e.candidates();
        assert_eq!(candidates.len(), 256);
        let anchor = 1.0 / m as f64;
        for w in &candidates {
            assert!((w.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            assert!(w.iter().all(|w| *w >= 0.5 * anchor - 1e-9 && *w <= 2.0 * anchor + 1e-9), "{m}: {w:?}");
        }
        assert_eq!(e.candidates(), candidates, "asked again");
        let other = start("tikmix_m", &[], &[], &Setup { seed: 2, ..setup(m, 2) });
        assert!(m == 1 || other.candidates() != candidates);
    }
}

#[test]
fn m_climbs_to_the_top_of_what_was_measured() {
    let mut e = start("tikmix_m", &[], &[("evidence", "influence")], &setup(3, 3));
    // A hill within the intervals.
    let hill = [0.45, 0.35, 0.2];
    let value = |w: &Vec<f64>| -w.iter().zip(&hill).map(|(w, h)| (w - h) * (w - h)).sum::<f64>();
    let values: Vec<f64> = e.candidates().iter().map(value).collect();
    let measured = report(Want::Candidates, 1, &values, &[]);
    let verdict = e.observe(&seen(&UNIFORM, vec![matrix(1, &RELEASED), measured]));
    assert_eq!(fact(&verdict, "fell_back_to_d"), [0.0]);
    assert!(fact(&verdict, "r2")[0] > 0.999, "{verdict:?}");
    close(&e.shares(), &hill, 0.01);
}

#[test]
fn m_refuses_without_candidates_and_runs_d() {
    let words = [("evidence", "influence")];
    let (mut m, mut d) =
        (start("tikmix_m", &[], &words, &setup(3, 3)), start("tikmix_d", &[], &words, &setup(3, 3)));
    let short = report(Want::Candidates, 1, &[1.0, 2.0], &[]);
    let bad = report(Want::Candidates, 1, &[f64::NAN; 256], &[]);
    for (stage, more) in [vec![], vec![short], vec![bad]].into_iter().enumerate() {
        let reports = [vec![matrix(stage as u64 + 1, &RELEASED)], more].concat();
        let verdict = m.observe(&seen(&UNIFORM, reports.clone()));
        d.observe(&seen(&UNIFORM, reports));
        assert_eq!(fact(&verdict, "fell_back_to_d"), [1.0]);
        assert_eq!(m.shares(), d.shares());
    }
}

#[test]
fn on_quadratics_d_knows_the_exact_influence_and_lowers_the_loss() {
    let plant = Plane::random(4, 6, 3);
    let words = [("evidence", "influence")];
    let mut e = start("tikmix_d", &[("stage_steps", 50.0)], &words, &setup(4, 4));
    let outcome = drive(&mut *e, &mut plant.clone(), &Drive { steps: 50, ..Drive::default() });
    let mut after = plant.clone();
    after.step(&[0.25; 4], 50);
    close(&outcome.facts("influence")[0], &after.report(Want::Influence, &[0.25; 4])[0].values, 1e-6);
    // The summed benefit of the mixture is not below that of the prior.
    let s = after.influence(&[0.25; 4]);
    let gain = |w: &[f64]| {
        s.chunks(4).map(|row| dot(row, w) / row.iter().copied().fold(f64::MIN, f64::max)).sum::<f64>()
    };
    assert!(gain(&outcome.shares) >= gain(&[0.25; 4]) - 1e-6, "{:?}", outcome.shares);
}
