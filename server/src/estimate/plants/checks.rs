//! Plants are what they say; so are the methods that learn nothing.

use super::*;

#[test]
fn the_mixing_law_has_the_optimum_that_it_should() {
    let law = MixingLaw {
        effects: vec![2.0, 0.5, 0.5, 2.0],
        floors: vec![1.0, 1.0],
        heights: vec![2.0, 2.0],
        served: vec![0.0; 2],
    };
    let mean = |p: f64| law.at(&[p, 1.0 - p]).iter().sum::<f64>() / 2.0;
    let best = (0..=100).map(|at| f64::from(at) / 100.0).min_by(|a, b| mean(*a).total_cmp(&mean(*b)));
    assert_eq!(best, Some(0.5), "it is symmetric");
    let mut plant = law.clone();
    plant.step(&[1.0, 0.0], 30);
    plant.step(&[0.0, 1.0], 10);
    assert_eq!(plant.losses(), law.at(&[0.75, 0.25]), "the mean share of the run counts");
}

#[test]
fn gradients_and_influences_of_the_quadratic_are_exact() {
    let plant = Quadratic::random(3, 5, 1);
    let shares = [0.5, 0.3, 0.2];
    for j in 0..3 {
        let gradient = plant.gradient(j);
        for (at, exact) in gradient.iter().enumerate() {
            let mut moved = plant.clone();
            moved.theta[at] += 1e-6;
            let slope = (moved.losses()[j] - plant.losses()[j]) / 1e-6;
            assert!((slope - exact).abs() < 1e-4, "{slope} {exact}");
        }
    }
    // Taylor: L_i(theta) - L_i(theta - s H^-1 G_j) is s S_ij for small s.
    let influence = plant.report(Want::Influence, &shares)[0].values.clone();
    let d = plant.theta.len();
    let mixture: Vec<f64> =
        (0..d * d).map(|at| shares.iter().zip(&plant.hessians).map(|(x, k)| x * k[at]).sum()).collect();
    let lu = crate::estimate::solve::Lu::new(&mixture, d).expect("regular");
    for j in 0..3 {
        let step = lu.solve(&plant.gradient(j));
        let mut moved = plant.clone();
        moved.theta.iter_mut().zip(&step).for_each(|(t, s)| *t -= 1e-6 * s);
        for i in 0..3 {
            let drop = (plant.losses()[i] - moved.losses()[i]) / 1e-6;
            assert!((drop - influence[i * 3 + j]).abs() < 1e-3, "{drop} {}", influence[i * 3 + j]);
        }
    }
    let (dots, stats) = (plant.report(Want::Dots, &shares), plant.report(Want::GradientStats, &shares));
    assert_eq!((dots[0].values.len(), dots[0].more.len(), dots[0].lr), (3, 1, 0.01));
    assert!((stats[0].values[1] - dot(&plant.gradient(1), &plant.gradient(1))).abs() < 1e-12);
}

#[test]
fn the_quadratic_goes_down_under_its_trainer() {
    let mut plant = Quadratic::random(3, 5, 1);
    let before: f64 = plant.losses().iter().sum();
    plant.step(&[1.0 / 3.0; 3], 500);
    assert!(plant.losses().iter().sum::<f64>() < before);
    assert!(plant.losses().iter().all(|l| *l >= plant.base));
}

#[test]
fn static_mixtures_are_served_as_they_are() {
    let job = Setup { sizes: vec![1e3, 1e4, 1e6], initial: vec![0.2, 0.3, 0.5], ..setup(3, 3) };
    let sum = 1e3 + 1e4 + 1e6;
    for (method, want) in [
        ("given", [0.2, 0.3, 0.5]),
        ("stratified", [1.0 / 3.0; 3]),
        ("proportional", [1e3 / sum, 1e4 / sum, 1e6 / sum]),
    ] {
        let mut e = start(method, &[], &[], &job);
        let mut plant = Saturating::cubic();
        let outcome = drive(&mut *e, &mut plant, &Drive { steps: 100, noise: 0.1, ..Drive::default() });
        let near = outcome.served().iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near, "{method}: {:?}", outcome.served());
        e.steer(&[0.1, 0.2, 0.7]);
        assert_eq!(e.shares(), [0.1, 0.2, 0.7]);
        assert_eq!(e.directive(100).windows[0].shares, [0.1, 0.2, 0.7]);
    }
}

#[test]
fn the_driver_reports_what_is_asked_for_and_injects_what_it_says() {
    use crate::estimate::When;
    let also = vec![(When::EachStep, Want::Train), (When::After, Want::Influence), (When::After, Want::Eval)];
    let how = Drive { steps: 50, also, batch: 10, ..Drive::default() };
    let mut e = start("stratified", &[], &[], &setup(3, 3));
    let outcome = drive(&mut *e, &mut Quadratic::random(3, 5, 1), &how);
    let seen = &outcome.windows[0];
    let train: Vec<_> = seen.reports.iter().filter(|r| r.want == Want::Train).collect();
    assert_eq!((train.len(), train[0].to_step, train[49].to_step), (50, 1, 50));
    assert_eq!(seen.reports.iter().filter(|r| r.want == Want::Influence).count(), 1);
    assert!(seen.before.is_none() && seen.after.is_some());
    assert_eq!(seen.rows, [167, 167, 166]);
    let gone = Drive { missing: 1.0, ..how.clone() };
    let outcome = drive(&mut *e, &mut Quadratic::random(3, 5, 1), &gone);
    assert!(outcome.windows[0].after.is_none());
    let broken = Drive { broken: 1.0, ..how };
    let outcome = drive(&mut *e, &mut Quadratic::random(3, 5, 1), &broken);
    assert!(outcome.windows[0].after.as_ref().expect("told").iter().all(|l| l.is_nan()));
}
