//! Aioli on the plants.

use super::*;
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
