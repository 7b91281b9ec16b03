//! What may go missing or wrong.

use super::*;
use crate::estimate::plants::RELEASED;
use crate::estimate::{Reader, Writer};

fn effects() -> Vec<f64> {
    RELEASED.iter().map(|a| a * 1e-2).collect()
}

/// A learner after `rounds` good rounds, and the step.
fn learnt(words: &[(&str, &str)], rounds: u64) -> (Box<dyn Estimator>, u64) {
    let mut e = start("aioli", &[("eta", 1.0)], words, &setup(3, 3));
    for round in 0..rounds {
        let probes = e.directive(round * 250);
        assert!(e.observe(&served(&probes, round * 250, &mut [9.0; 3], &linear(&effects()))).used);
        e.directive(round * 250 + 72);
    }
    (e, rounds * 250)
}

/// Probes of the next round after the plant's graph has become `effects`.
fn next(e: &mut dyn Estimator, step: u64, effects: &[f64]) -> Vec<Seen> {
    let probes = e.directive(step);
    served(&probes, step, &mut [9.0; 3], &linear(effects))
}

/// Takes out the evaluation between windows `at` and `at + 1`, or the last one.
fn lose(seen: &mut [Seen], at: usize) {
    seen[at].after = None;
    if let Some(next) = seen.get_mut(at + 1) {
        next.before = None;
    }
}

fn group(seen: &Seen) -> usize {
    match seen.window.kind {
        WindowKind::Probe { group, .. } => group,
        WindowKind::Main => panic!("a main window among probes"),
    }
}

#[test]
fn a_missing_evaluation_costs_its_two_probes_and_no_more() {
    let (mut e, step) = learnt(&[], 1);
    let mut seen = next(&mut *e, step, &effects());
    lose(&mut seen, 4);
    let verdict = e.observe(&seen);
    assert!(verdict.used);
    assert_eq!(fact(&verdict, "segments"), [10.0, 0.0]);
    close(&fact(&verdict, "graph"), &effects(), 1e-12);
}

#[test]
fn a_column_without_evidence_keeps_what_is_known_of_it() {
    let (mut e, step) = learnt(&[], 1);
    // Group 1 has doubled, the others tripled: without its probes it must stay, and the others be exact given that.
    let tripled: Vec<f64> = effects().iter().map(|a| 3.0 * a).collect();
    let mixed: Vec<f64> = (0..9).map(|at| if at % 3 == 1 { effects()[at] } else { tripled[at] }).collect();
    let mut seen = next(&mut *e, step, &mixed);
    seen.retain(|s| group(s) != 1);
    let verdict = e.observe(&seen);
    close(&fact(&verdict, "graph"), &mixed, 1e-12);
}

#[test]
fn a_column_that_was_never_probed_counts_as_the_mean_of_the_others() {
    let mut e = start("aioli", &[], &[], &setup(3, 3));
    let mean = |i: usize| (effects()[i * 3] + effects()[i * 3 + 2]) / 2.0;
    let flat: Vec<f64> = (0..9).map(|at| if at % 3 == 1 { mean(at / 3) } else { effects()[at] }).collect();
    let mut seen = next(&mut *e, 0, &flat);
    seen.retain(|s| group(s) != 1);
    close(&fact(&e.observe(&seen), "graph"), &flat, 1e-12);
}

#[test]
fn a_round_without_evidence_moves_nothing_and_the_third_is_told() {
    for variant in ["paper_eg", "paper_ema"] {
        let (mut e, mut step) = learnt(&[("variant", variant)], 1);
        let kept = e.shares();
        let mut verdicts = Vec::new();
        for _ in 0..3 {
            let mut seen = next(&mut *e, step, &effects());
            (0..seen.len()).for_each(|at| lose(&mut seen, at));
            verdicts.push(e.observe(&seen).used);
            let main = e.directive(step + 72);
            verdicts.push(e.observe(&served(&main, step + 72, &mut [9.0; 3], &linear(&effects()))).used);
            step += 250;
        }
        assert_eq!(verdicts, [false, true, false, false, false, false], "{variant}");
        assert_eq!(e.shares(), kept, "{variant}");
        let seen = next(&mut *e, step, &effects());
        assert!(e.observe(&seen).used, "and it recovers");
    }
}

#[test]
fn a_task_without_a_number_is_masked_for_the_round() {
    let (mut e, step) = learnt(&[], 1);
    let mut seen = next(&mut *e, step, &effects());
    for s in &mut seen {
        let end = s.after.as_mut().expect("told");
        end[1] = f64::NAN;
    }
    let verdict = e.observe(&seen);
    assert!(verdict.used);
    assert_eq!(fact(&verdict, "masked_tasks"), [1.0]);
    // Two tasks left, a half each: n q_i is 1 for both.
    let sums: Vec<f64> = (0..3).map(|j| effects()[j] + effects()[6 + j]).collect();
    close(&fact(&verdict, "colsum"), &sums, 1e-12);
    assert!(e.shares().iter().all(|p| p.is_finite()));
    e.directive(step + 72);
    let mut seen = next(&mut *e, step + 250, &effects());
    seen.iter_mut().for_each(|s| s.after = Some(vec![f64::NAN, f64::INFINITY, 2.0]));
    let kept = e.shares();
    assert!(!e.observe(&seen).used, "two of three are too many");
    assert_eq!(e.shares(), kept);
}

#[test]
fn losses_above_a_guess_are_no_losses() {
    let job = Setup { log_vocabulary: Some(5.5), ..setup(3, 3) };
    let mut e = start("aioli", &[], &[], &job);
    let probes = e.directive(0);
    let mut seen = served(&probes, 0, &mut [9.0; 3], &linear(&effects()));
    seen[3].after.as_mut().expect("told")[2] = 10.6;
    assert_eq!(fact(&e.observe(&seen), "masked_tasks"), [2.0]);
}

#[test]
fn a_spike_is_left_out_and_what_lasts_is_no_spike() {
    let (mut e, step) = learnt(&[], 2);
    let mut seen = next(&mut *e, step, &effects());
    // Losses jump up in one probe and come back in the next.
    let jumped: Vec<f64> = seen[5].after.clone().expect("told").iter().map(|l| l + 2.0).collect();
    seen[5].after = Some(jumped.clone());
    seen[6].before = Some(jumped);
    let verdict = e.observe(&seen);
    assert_eq!(fact(&verdict, "segments"), [12.0, 2.0]);
    close(&fact(&verdict, "graph"), &effects(), 1e-12);
    e.directive(step + 72);
    let larger: Vec<f64> = effects().iter().map(|a| 8.0 * a).collect();
    let mut excluded = Vec::new();
    for round in 3..9 {
        let seen = next(&mut *e, 250 * round, &larger);
        let verdict = e.observe(&seen);
        // A round of which nothing is left tells no facts.
        excluded.push(fact(&verdict, "segments").get(1).copied().unwrap_or(12.0));
        e.directive(250 * round + 72);
    }
    assert_eq!((excluded[0], excluded[5]), (12.0, 0.0), "what lasts is accepted: {excluded:?}");
}

#[test]
fn groups_that_differ_are_no_spikes() {
    let mut e = start("aioli", &[], &[], &setup(3, 3));
    for round in 0..8 {
        let seen = next(&mut *e, 250 * round, &[1e-5, 1e-5, 0.05, 1e-5, 1e-5, 0.05, 1e-5, 1e-5, 0.05]);
        assert_eq!(fact(&e.observe(&seen), "segments"), [12.0, 0.0], "round {round}");
        e.directive(250 * round + 72);
    }
}

#[test]
fn skipped_steps_short_windows_and_dry_groups_are_taken_as_they_were() {
    let (mut e, step) = learnt(&[], 1);
    let probes = e.directive(step);
    let mut losses = [9.0; 3];
    let mut seen = Vec::new();
    let mut from = step;
    for (at, window) in probes.windows.iter().enumerate() {
        let mut window = window.clone();
        // Cut short by a restart; two optimizer steps skipped; the probed group half dry.
        window.steps -= if at == 2 { 4 } else { 0 };
        let applied = window.steps - if at == 5 { 2 } else { 0 };
        let mut rows = hamilton::hamilton(window.steps * 1024, &window.shares);
        if at == 7 {
            let WindowKind::Probe { group, .. } = window.kind else { panic!("a probe") };
            rows[group] = rows[group] * 3 / 5;
        }
        let before = Some(losses.to_vec());
        let mut one =
            Seen { window, from_step: from, steps: applied, rows, before, after: None, reports: Vec::new() };
        let fallen = linear(&effects())(&one.realised(), applied as f64);
        losses.iter_mut().zip(&fallen).for_each(|(l, d)| *l -= d);
        one.after = Some(losses.to_vec());
        from += one.window.steps;
        seen.push(one);
    }
    let verdict = e.observe(&seen);
    close(&fact(&verdict, "graph"), &effects(), 1e-12);
    seen.iter_mut().for_each(|s| s.steps = 0);
    assert!(!e.observe(&seen).used, "no optimizer step was applied");
}

#[test]
fn a_group_that_ran_dry_in_its_own_probes_keeps_its_column() {
    let (mut e, step) = learnt(&[], 1);
    let probes = e.directive(step);
    let mut seen = served(&probes, step, &mut [9.0; 3], &linear(&effects()));
    let mut losses = [9.0; 3];
    let other: Vec<f64> = (0..9).map(|at| effects()[at] * if at % 3 == 0 { 2.0 } else { 1.0 }).collect();
    for s in &mut seen {
        if group(s) == 2 {
            s.rows[2] = 0;
        }
        s.before = Some(losses.to_vec());
        let fallen = linear(&other)(&s.realised(), s.steps as f64);
        losses.iter_mut().zip(&fallen).for_each(|(l, d)| *l -= d);
        s.after = Some(losses.to_vec());
    }
    close(&fact(&e.observe(&seen), "graph"), &other, 1e-12);
}

#[test]
fn ends_are_chained_when_only_one_side_is_told() {
    let mut e = start("aioli", &[], &[], &setup(3, 3));
    let probes = e.directive(0);
    let mut seen = served(&probes, 0, &mut [9.0; 3], &linear(&effects()));
    seen[1..].iter_mut().for_each(|s| s.before = None);
    let verdict = e.observe(&seen);
    assert_eq!(fact(&verdict, "segments"), [12.0, 0.0]);
    close(&fact(&verdict, "graph"), &effects(), 1e-12);
    // Over the border between two directives as well: the main window's end is the next baseline.
    let main = e.directive(72);
    let mut losses = [7.0; 3];
    e.observe(&served(&main, 72, &mut losses, &linear(&effects())));
    let probes = e.directive(250);
    let mut seen = served(&probes, 250, &mut losses, &linear(&effects()));
    seen.iter_mut().for_each(|s| s.before = None);
    assert_eq!(fact(&e.observe(&seen), "segments"), [12.0, 0.0]);
}

#[test]
fn a_shadow_learns_from_the_probes_of_another_one() {
    let mut lead = start("aioli", &[("one_hot", 0.8), ("sweeps", 2.0)], &[], &setup(3, 3));
    let mut shadow = start("aioli", &[("eta", 1.0)], &[], &setup(3, 3));
    let probes = lead.directive(0);
    let mut losses = [9.0; 3];
    let mut seen = served(&probes, 0, &mut losses, &linear(&effects()));
    let main = Window { kind: WindowKind::Main, ..probes.windows[0].clone() };
    let main = Directive { windows: vec![main], barrier: false };
    seen.extend(served(&main, 36, &mut losses, &|_, _| vec![3.0; 3]));
    let verdict = shadow.observe(&seen);
    assert_eq!(fact(&verdict, "segments"), [6.0, 0.0], "main windows are no probes");
    close(&fact(&verdict, "graph"), &effects(), 1e-12);
    assert!(shadow.shares()[2] > 0.34);
}

#[test]
fn an_operator_is_gone_on_from() {
    for variant in ["paper_eg", "paper_ema"] {
        let (mut e, step) = learnt(&[("variant", variant)], 1);
        e.steer(&[0.7, 0.2, 0.1]);
        close(&e.shares(), &[0.7, 0.2, 0.1], 1e-12);
        let seen = next(&mut *e, step, &effects());
        e.observe(&seen);
        let p = e.shares();
        assert!(p[0] > 0.65 && p[2] > 0.1, "{variant} goes on from the operator's: {p:?}");
        let before = e.shares();
        for bad in [&[f64::NAN, 1.0, 1.0][..], &[1.0], &[0.0; 3], &[-1.0, 1.0, 1.0]] {
            e.steer(bad);
        }
        assert_eq!(e.shares(), before);
    }
}

#[test]
fn state_comes_back_at_any_point_and_damaged_state_is_refused() {
    let words = [("variant", "paper_ema")];
    let (e, _) = learnt(&words, 2);
    let mut out = Writer::default();
    e.save(&mut out);
    let bytes = out.finish();
    let mut fresh = start("aioli", &[("eta", 1.0)], &words, &setup(3, 3));
    let before = format!("{fresh:?}");
    for end in (0..bytes.len()).step_by(8) {
        assert!(fresh.restore(&mut Reader::new(&bytes[..end])).is_err(), "{end} bytes");
        assert_eq!(format!("{fresh:?}"), before, "as before after {end} bytes");
    }
    fresh.restore(&mut Reader::new(&bytes)).expect("whole");
    assert_eq!(format!("{fresh:?}"), format!("{e:?}"));
    let mut other = start("aioli", &[], &[], &setup(4, 4));
    assert!(other.restore(&mut Reader::new(&bytes)).is_err(), "another job's");
}
