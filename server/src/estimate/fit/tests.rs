use super::super::plants::MixingLaw;
use super::super::simplex::dirichlet;
use super::*;
use crate::rng::{Draw, Stream};

/// Plant B.
fn plant() -> MixingLaw {
    MixingLaw {
        effects: vec![2.0, 0.4, 0.1, 0.2, 1.5, 0.3, 0.1, 0.3, 2.5],
        floors: vec![1.8, 1.2, 2.2],
        heights: vec![2.5, 2.0, 1.5],
        served: vec![0.0; 3],
    }
}

fn runs(law: &MixingLaw, count: u64, noise: f64, seed: u64) -> Runs {
    let stream = Stream::new(seed, "test/runs");
    let row = |i: u64| {
        let mut rng = stream.at(Draw::PrivateA, i, 0);
        let w = dirichlet(&mut rng, &[1.0; 3]);
        let losses = law.at(&w).iter().map(|l| l + noise * rng.normal()).collect();
        (w, losses)
    };
    let (mixtures, losses) = (0..count).map(row).unzip();
    Runs { mixtures, losses }
}

fn aim() -> Aim {
    Aim { objective: vec![1.0 / 3.0; 3], caps: vec![1.0; 3] }
}

fn mean(losses: &[f64]) -> f64 {
    losses.iter().sum::<f64>() / losses.len() as f64
}

/// The best of a fine grid.
fn truth(law: &MixingLaw, legal: impl Fn(&[f64]) -> bool) -> f64 {
    let grid = (0..=200).flat_map(|a| (0..=200 - a).map(move |b| (a, b)));
    let points =
        grid.map(|(a, b)| [f64::from(a) / 200.0, f64::from(b) / 200.0, f64::from(200 - a - b) / 200.0]);
    points.filter(|p| legal(p)).map(|p| mean(&law.at(&p))).fold(f64::INFINITY, f64::min)
}

#[test]
fn ten_noisy_runs_find_the_optimum_of_a_mixing_law() {
    let law = plant();
    let best = truth(&law, |_| true);
    for seed in 0..5 {
        let (answer, laws) = dml::fit(&runs(&law, 10, 1e-3, seed), &aim()).expect("a fit");
        let gap = mean(&law.at(&answer.shares)) - best;
        assert!(gap < 1e-3, "seed {seed}: {gap} {answer:?} {laws:?}");
        assert!((answer.predicted - best).abs() < 1e-2);
        assert!(laws.iter().flatten().all(|l| l.r2 > 0.99), "{laws:?}");
    }
}

#[test]
fn exact_runs_give_exact_contrasts() {
    let law = plant();
    let (_, laws) = dml::fit(&runs(&law, 20, 0.0, 1), &aim()).expect("a fit");
    for (i, found) in laws.iter().flatten().enumerate() {
        let row = &law.effects[i * 3..i * 3 + 3];
        assert!(found.slopes.iter().sum::<f64>().abs() < 1e-9, "only contrasts are told");
        for (t, a) in found.slopes.iter().zip(row) {
            assert!((t + (a - mean(row))).abs() < 1e-2, "{found:?} {row:?}");
        }
        assert!((found.floor - law.floors[i]).abs() < 1e-2, "{found:?}");
    }
}

#[test]
fn caps_bind_and_the_rest_is_best_under_them() {
    let law = plant();
    let caps = vec![0.2, 1.0, 1.0];
    let (answer, _) = dml::fit(&runs(&law, 20, 0.0, 1), &Aim { caps, ..aim() }).expect("a fit");
    assert!(answer.shares[0] <= 0.2 + 1e-9);
    let best = truth(&law, |p| p[0] <= 0.2);
    assert!((mean(&law.at(&answer.shares)) - best).abs() < 1e-3, "{answer:?} {best}");
}

#[test]
fn a_regression_comes_close_and_says_how_well_it_predicts() {
    let law = plant();
    let best = truth(&law, |_| true);
    let (answer, r2) = regmix::fit(&runs(&law, 64, 1e-3, 3), &aim(), 1).expect("a fit");
    assert!(r2 > 0.95, "{r2}");
    let uniform = mean(&law.at(&[1.0 / 3.0; 3]));
    let got = mean(&law.at(&answer.shares));
    assert!(got - best < 0.02 && got < uniform, "{got} {best} {uniform} {answer:?}");
    let again = regmix::fit(&runs(&law, 64, 1e-3, 3), &aim(), 1).expect("a fit");
    assert_eq!(again.0, answer);
    let capped =
        regmix::fit(&runs(&law, 64, 1e-3, 3), &Aim { caps: vec![0.2, 1.0, 1.0], ..aim() }, 1).expect("a fit");
    assert!(capped.0.shares[0] <= 0.2 + 1e-9, "{capped:?}");
}

#[test]
fn runs_that_say_too_little_are_refused() {
    let law = plant();
    let all = runs(&law, 10, 0.0, 1);
    let few = Runs { mixtures: all.mixtures[..3].to_vec(), losses: all.losses[..3].to_vec() };
    assert_eq!(dml::fit(&few, &aim()).expect_err("too few"), FitError::Few { task: 0, found: 3, want: 4 });
    assert!(matches!(regmix::fit(&few, &aim(), 1), Err(FitError::Few { found: 3, want: 8, .. })));
    // Groups 1 and 2 always share alike.
    let tied = |w: &Vec<f64>| vec![w[0], (1.0 - w[0]) / 2.0, (1.0 - w[0]) / 2.0];
    let tied = Runs { mixtures: all.mixtures.iter().map(tied).collect(), losses: all.losses.clone() };
    assert_eq!(dml::fit(&tied, &aim()).expect_err("tied"), FitError::Directions { found: 1, want: 2 });
    let caps = Aim { caps: vec![0.2; 3], ..aim() };
    assert!(matches!(dml::fit(&all, &caps), Err(FitError::Caps { .. })));
    let alike = Runs { mixtures: vec![vec![0.5, 0.3, 0.2]; 9], losses: vec![vec![1.0; 3]; 9] };
    assert!(regmix::fit(&alike, &aim(), 1).is_err());
    let mut bad = all.clone();
    bad.losses[2][1] = -1.0;
    assert!(matches!(dml::fit(&bad, &aim()), Err(FitError::Table(_))));
}

#[test]
fn a_loss_that_is_missing_costs_its_run_for_its_task_only() {
    let law = plant();
    let mut some = runs(&law, 12, 0.0, 1);
    some.losses[0][2] = f64::NAN;
    some.losses.iter_mut().skip(2).for_each(|l| l[1] = f64::NAN);
    let only = Aim { objective: vec![0.5, 0.0, 0.5], ..aim() };
    let (_, laws) = dml::fit(&some, &only).expect("a fit");
    assert!(laws[0].is_some() && laws[1].is_none() && laws[2].is_some());
    assert_eq!(dml::fit(&some, &aim()).expect_err("too few"), FitError::Few { task: 1, found: 2, want: 4 });
}
