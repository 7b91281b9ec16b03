//! Aioli on the plants.

use super::*;
use crate::estimate::WindowKind;
use crate::estimate::post::Rules;
use crate::estimate::reduce::Rule;

/// A job of 5000 steps on three groups.
fn job(seed: u64) -> Setup {
    Setup { max_steps: 5000, seed, ..setup(3, 3) }
}

/// Mean loss of a run less that of the stratified one; noise and probe order by seed, the two runs paired.
fn gain<P: Plant>(plant: fn() -> P, numbers: &[(&str, f64)], words: &[(&str, &str)], how: &Drive) -> f64 {
    let job = job(how.seed);
    let run = |mut e: Box<dyn Estimator>| drive(&mut *e, &mut plant(), how).mean();
    run(start("aioli", numbers, words, &job)) - run(start("stratified", &[], &[], &job))
}

/// [`gain`] for each of eight seeds.
fn gains<P: Plant>(
    plant: fn() -> P,
    numbers: &[(&str, f64)],
    words: &[(&str, &str)],
    how: &Drive,
) -> Vec<f64> {
    (1..=8).map(|seed| gain(plant, numbers, words, &Drive { seed, steps: 5000, ..how.clone() })).collect()
}

#[test]
fn the_saturating_plant_gives_the_published_gains() {
    let strat = drive(
        &mut *start("stratified", &[], &[], &job(1)),
        &mut Saturating::cubic(),
        &Drive { steps: 5000, ..Drive::default() },
    );
    assert!((strat.mean() - 2.7541).abs() < 1e-4, "{}", strat.mean());
    let how = Drive { steps: 5000, ..Drive::default() };
    for (variant, eta, want) in [
        ("paper_eg", 0.2, -0.0135),
        ("paper_eg", 0.5, -0.0185),
        ("paper_eg", 1.0, -0.0190),
        ("paper_ema", 0.2, -0.0020),
        ("paper_ema", 1.0, -0.0077),
    ] {
        let gain = gain(Saturating::cubic, &[("eta", eta)], &[("variant", variant)], &how);
        assert!((gain - want).abs() < 3e-4, "{variant}, eta {eta}: {gain}, want {want}");
    }
    for (eta, want) in [(0.2, -0.0052), (1.0, -0.0078)] {
        let gain = gain(Saturating::saturated, &[("eta", eta)], &[], &how);
        assert!((gain - want).abs() < 3e-4, "linear rates, eta {eta}: {gain}, want {want}");
    }
}

#[test]
fn it_beats_stratified_under_reading_noise() {
    for (eta, want) in [(0.2, -0.0070), (0.5, -0.0126), (1.0, -0.0155)] {
        let how = Drive { noise: 1e-3, ..Drive::default() };
        let gains = gains(Saturating::cubic, &[("eta", eta)], &[], &how);
        assert_better(&format!("eta {eta}"), &gains);
        assert!((paired(&gains).0 - want).abs() < 0.003, "eta {eta}: {:?}, want {want}", paired(&gains));
    }
}

/// A run of 5000 steps without noise.
fn run(plant: &mut dyn Plant, numbers: &[(&str, f64)], words: &[(&str, &str)], job: &Setup) -> Outcome {
    let method = if numbers.is_empty() && words.is_empty() { "stratified" } else { "aioli" };
    drive(&mut *start(method, numbers, words, job), plant, &Drive { steps: 5000, ..Drive::default() })
}

/// Mean perplexity.
fn perplexity(losses: &[f64]) -> f64 {
    losses.iter().map(|l| libm::exp(*l)).sum::<f64>() / losses.len() as f64
}

#[test]
fn a_better_mean_loss_may_be_a_worse_perplexity_and_the_objective_decides() {
    let stratified = run(&mut Saturating::released(), &[], &[], &job(1));
    let loss = run(&mut Saturating::released(), &[("eta", 0.2)], &[], &job(1));
    let job = Setup { perplexity: true, ..job(1) };
    let ppl = run(&mut Saturating::released(), &[("eta", 0.2)], &[], &job);
    let gain =
        |o: &Outcome| (o.mean() - stratified.mean(), perplexity(&o.losses) - perplexity(&stratified.losses));
    let ((loss_down, ppl_up), (_, ppl_down)) = (gain(&loss), gain(&ppl));
    assert!(loss_down < -0.002 && ppl_up > 1.0, "{loss_down} {ppl_up}");
    assert!(ppl_down < -5.0, "{ppl_down}");
}

#[test]
fn a_group_that_wears_out_is_cut() {
    let stratified = run(&mut Saturating::repeated(600.0), &[], &[], &job(1));
    for (eta, word) in [(0.2, "relative"), (1.0, "paper"), (1.0, "relative")] {
        let numbers = [("eta", eta)];
        let found = run(&mut Saturating::repeated(600.0), &numbers, &[("normalisation", word)], &job(1));
        assert!(found.shares[2] < 0.05 && found.served()[2] < 0.22, "{word} {eta}: {:?}", found.shares);
        assert!(found.mean() < stratified.mean() - 5.0, "{word} {eta}: {}", found.mean());
    }
}

#[test]
fn a_loss_that_is_high_and_stays_so_is_no_trap() {
    let stratified = run(&mut Saturating::trap(), &[], &[], &job(1));
    for (eta, word) in [(0.2, "paper"), (0.2, "relative"), (1.0, "paper")] {
        let found = run(&mut Saturating::trap(), &[("eta", eta)], &[("normalisation", word)], &job(1));
        assert!(found.shares[2] < 0.1 && found.served()[2] < 0.25, "{word} {eta}: {:?}", found.shares);
        assert!(found.mean() < stratified.mean() - 0.004, "{word} {eta}");
    }
}

#[test]
fn two_faulty_reporters_of_seven_cost_little() {
    let how =
        |faulty, attack, rule| Drive { noise: 1e-4, reporters: 7, faulty, attack, rule, ..Drive::default() };
    let mean = |how: &Drive| paired(&gains(Saturating::cubic, &[("eta", 0.5)], &[], how)).0;
    let clean = mean(&how(0, Attack::Stale, Rule::Nearest));
    for attack in
        [Attack::Stale, Attack::Scale(5.0), Attack::Shift(-0.05), Attack::Erratic(0.3), Attack::Broken]
    {
        for rule in [Rule::Nearest, Rule::Trimmed] {
            let gain = mean(&how(2, attack, rule));
            assert!(gain < 0.95 * clean, "{attack:?} {rule:?}: {gain}, clean {clean}");
        }
    }
    let fooled = mean(&how(2, Attack::Erratic(0.3), Rule::Mean));
    assert!(fooled > 0.6 * clean, "the plain mean is no defence: {fooled}, clean {clean}");
}

#[test]
fn gaps_and_broken_numbers_cost_little() {
    for (missing, broken, part) in [(0.2, 0.0, 0.85), (0.0, 0.05, 0.6), (0.1, 0.02, 0.8)] {
        let how = Drive { missing, broken, noise: 1e-4, ..Drive::default() };
        let gains = gains(Saturating::cubic, &[("eta", 0.5)], &[], &how);
        assert_better(&format!("missing {missing}, broken {broken}"), &gains);
        assert!(
            paired(&gains).0 < part * -0.0179,
            "missing {missing}, broken {broken}: {:?}",
            paired(&gains)
        );
    }
}

#[test]
fn process_noise_is_borne() {
    let walking =
        || Walking { inner: Saturating::cubic(), noise: 1e-4, seed: 0, steps: 0, walk: vec![0.0; 3] };
    let gain = |seed: u64| {
        let how = Drive { steps: 5000, seed, ..Drive::default() };
        let true_mean = |e: &mut dyn Estimator| {
            let mut plant = Walking { seed, ..walking() };
            drive(e, &mut plant, &how);
            plant.inner.losses().iter().sum::<f64>() / 3.0
        };
        let aioli = true_mean(&mut *start("aioli", &[("eta", 0.5)], &[], &job(seed)));
        aioli - true_mean(&mut *start("stratified", &[], &[], &job(seed)))
    };
    assert_better("a walk of 1e-4 per step", &(1..=8).map(gain).collect::<Vec<_>>());
}

#[test]
fn a_bad_prior_is_left() {
    let vectors = Vectors::from([("prior".to_string(), vec![0.05, 0.05, 0.9])]);
    let args = arguments("aioli", &[("eta", 1.0), ("prior_steps", 500.0)], &[("start", "prior")]);
    let aioli = by_name("aioli").expect("known").start(&job(1), &args, &vectors).expect("starts");
    let given = Vectors::from([("shares".to_string(), vec![0.05, 0.05, 0.9])]);
    let args = arguments("given", &[], &[]);
    let kept = by_name("given").expect("known").start(&job(1), &args, &given).expect("starts");
    let how = Drive { steps: 5000, ..Drive::default() };
    let run = |mut e: Box<dyn Estimator>| drive(&mut *e, &mut Saturating::cubic(), &how);
    let (aioli, kept) = (run(aioli), run(kept));
    assert!(aioli.windows[0].window.shares[2] == 0.9 && aioli.windows[0].steps == 500);
    assert!(aioli.mean() < kept.mean() - 0.2, "{} {}", aioli.mean(), kept.mean());
}

#[test]
fn longer_probes_find_the_same_graph() {
    let effects: Vec<f64> = RELEASED.iter().map(|a| a * 1e-3).collect();
    for (steps, bound) in [(6.0, 1.0), (12.0, 0.5)] {
        let mut plant = Linear { effects: effects.clone(), now: vec![50.0; 3], groups: 3 };
        let numbers = [("probe_steps", steps), ("round_steps", 250.0)];
        let how = Drive { steps: 5000, noise: 1e-3, ..Drive::default() };
        let found = drive(&mut *start("aioli", &numbers, &[], &job(1)), &mut plant, &how).facts("graph");
        let rounds = found.len() as f64;
        let mean = |at: usize| found.iter().map(|g| g[at]).sum::<f64>() / rounds;
        let square: f64 = (0..9).map(|at| (mean(at) - effects[at]) * (mean(at) - effects[at])).sum();
        // Readings are shared by neighbours: about 3.32 sqrt(2) sigma / sqrt(k) per probe, over its steps.
        let predicted = 3.32 * 1e-3 * 2f64.sqrt() / 2.0 / 6.0 * bound / rounds.sqrt();
        assert_eq!(rounds, 20.0);
        assert!((square / 9.0).sqrt() < 2.0 * predicted, "{steps}: {} {predicted}", (square / 9.0).sqrt());
    }
}

/// Plant C whose third group comes twice.
#[derive(Debug)]
struct Twin(Saturating);

impl Plant for Twin {
    fn groups(&self) -> usize {
        4
    }
    fn tasks(&self) -> usize {
        3
    }
    fn step(&mut self, shares: &[f64], steps: u64) {
        self.0.step(&[shares[0], shares[1], shares[2] + shares[3]], steps);
    }
    fn losses(&self) -> Vec<f64> {
        self.0.losses()
    }
}

#[test]
fn a_group_in_two_halves_gets_what_it_gets_whole() {
    let third = 1.0 / 3.0;
    let shares = |groups: usize, seed: u64, prior: &[f64]| {
        let job = Setup { max_steps: 5000, seed, ..setup(groups, 3) };
        let numbers = [("eta", 0.2), ("sweeps", 4.0), ("probe_steps", 6.0), ("one_hot", 0.5)];
        let words = [("start", "prior"), ("normalisation", "paper")];
        let vectors = Vectors::from([("prior".to_string(), prior.to_vec())]);
        let args = arguments("aioli", &numbers, &words);
        let mut e = by_name("aioli").expect("known").start(&job, &args, &vectors).expect("starts");
        let how = Drive { steps: 5000, seed, noise: 1e-3, ..Drive::default() };
        let found = if groups == 3 {
            drive(&mut *e, &mut Saturating::cubic(), &how)
        } else {
            drive(&mut *e, &mut Twin(Saturating::cubic()), &how)
        };
        let mains = found.mains.len() as f64;
        found.mains.iter().map(|m| m[2..].iter().sum::<f64>()).sum::<f64>() / mains
    };
    let whole: Vec<f64> = (1..=8).map(|seed| shares(3, seed, &[third; 3])).collect();
    let halves: Vec<f64> =
        (1..=8).map(|seed| shares(4, seed, &[third, third, third / 2.0, third / 2.0])).collect();
    let ((mean, deviation, _), (other, spread, _)) = (paired(&whole), paired(&halves));
    let error = (deviation * deviation + spread * spread).sqrt();
    assert!((mean - other).abs() < 2.0 * error, "whole {mean} +- {deviation}, halves {other} +- {spread}");
}

#[test]
fn runs_are_the_same_twice_and_with_a_horizon_that_runs_ahead() {
    let outcome = |ahead: bool| {
        let how = Drive { steps: 2000, noise: 1e-3, ahead, ..Drive::default() };
        drive(&mut *start("aioli", &[], &[], &job(1)), &mut Saturating::cubic(), &how)
    };
    let first = outcome(false);
    assert_eq!(first, outcome(false));
    assert_eq!(first, outcome(true));
    assert!(first.windows.iter().any(|w| w.window.kind == WindowKind::Main));
}

#[test]
fn the_graph_of_gradients_is_found() {
    // Under gradient descent a step on group j lowers loss i by lr g_i . g_j: probes must find that.
    let mut plant = Quadratic::random(3, 6, 2);
    plant.lr = 1e-4;
    let truth: Vec<f64> = (0..3)
        .flat_map(|i| {
            (0..3).map(|j| plant.lr * dot(&plant.gradient(i), &plant.gradient(j))).collect::<Vec<_>>()
        })
        .collect();
    let how = Drive { steps: 100, ..Drive::default() };
    let found =
        drive(&mut *start("aioli", &[], &[], &setup(3, 3)), &mut plant, &how).facts("graph").remove(0);
    let size = truth.iter().map(|a| a.abs()).fold(0.0, f64::max);
    let worst = found.iter().zip(&truth).map(|(a, b)| (a - b).abs() / size).fold(0.0, f64::max);
    assert!(worst < 0.05, "{worst}: {found:?}, want {truth:?}");
}

#[test]
fn the_short_preset_under_its_bounds_and_relative_gains_beat_stratified() {
    let rules = Some(Rules { floor: Some(0.02), ..Rules::new(3) });
    let how = Drive { noise: 1e-3, rules, ..Drive::default() };
    let short = gains(Saturating::cubic, &[], &[("variant", "short_run")], &how);
    assert_better("short_run", &short);
    assert!(paired(&short).0 < -0.007, "{:?}", paired(&short));
    let relative = gains(Saturating::cubic, &[("eta", 0.2)], &[("normalisation", "relative")], &how);
    assert_better("relative", &relative);
    assert!(paired(&relative).0 < -0.007, "{:?}", paired(&relative));

    let how = Drive { steps: 5000, ..how };
    let mut e = start("aioli", &[], &[("variant", "short_run")], &job(1));
    let mains = drive(&mut *e, &mut Saturating::cubic(), &how).mains;
    assert!(mains.iter().flatten().all(|p| *p >= 0.02 - 1e-9), "{mains:?}");
    for pair in mains.windows(2) {
        let far = pair[0].iter().zip(&pair[1]).any(|(a, b)| libm::log(a / b).abs() > 1.0 + 1e-9);
        assert!(!far, "{pair:?}");
    }
}
