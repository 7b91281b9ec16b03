use super::*;
use crate::rng::{Draw, Rng, Stream};

const CASES: usize = 300;
const PAPER: (f64, f64, f64) = (1.0, 1.0, 1.0);

fn program<'a>(s: &'a [f64], tasks: &'a [f64], prior: &'a [f64], pareto: Pareto) -> Program<'a> {
    let (alpha, beta, gamma) = PAPER;
    Program { influence: s, tasks, prior, alpha, beta, gamma, pareto }
}

fn uniform(n: usize) -> Vec<f64> {
    vec![1.0 / n as f64; n]
}

/// A random task: `n` x `m`, entries around `mean` with deviation 1.
fn random(rng: &mut Rng, n: usize, m: usize, mean: f64) -> Vec<f64> {
    (0..n * m).map(|_| mean + rng.normal()).collect()
}

/// Objective with the true standard deviation, written from the paper.
fn objective(p: &Program<'_>, w: &[f64]) -> f64 {
    let m = w.len();
    let mean = p.influence.iter().map(|s| s.abs()).sum::<f64>() / p.influence.len() as f64;
    let tops: Vec<f64> = p.influence.chunks(m).map(|r| r.iter().copied().fold(f64::MIN, f64::max)).collect();
    let live: Vec<usize> = (0..tops.len()).filter(|i| tops[*i] > 0.0).collect();
    let q: f64 = live.iter().map(|i| p.tasks[*i]).sum();
    let benefit = |i: usize| dot(&p.influence[i * m..i * m + m], w) / tops[i].max(0.01 * mean);
    let centre: f64 = live.iter().map(|i| p.tasks[*i] / q * benefit(*i)).sum();
    let variance: f64 = live.iter().map(|i| p.tasks[*i] / q * (benefit(*i) - centre).powi(2)).sum();
    let entropy: f64 = w.iter().map(|x| if *x > 0.0 { x * x.ln() } else { 0.0 }).sum();
    p.alpha * variance.sqrt() - p.beta * live.len() as f64 * centre + p.gamma * entropy
}

#[test]
fn without_spread_and_constraint_it_is_a_softmax() {
    let mut rng = Stream::new(1, "softmax").at(Draw::PrivateA, 0, 0);
    for (n, m) in [(1, 1), (3, 5), (7, 2), (20, 64)] {
        let s = random(&mut rng, n, m, 1.5);
        let (q, prior) = (uniform(n), uniform(m));
        let p = Program { alpha: 0.0, beta: 0.7, gamma: 0.5, ..program(&s, &q, &prior, Pareto::Off) };
        let top = |row: &[f64]| row.iter().copied().fold(f64::MIN, f64::max);
        let live: Vec<&[f64]> = s.chunks(m).filter(|r| top(r) > 0.0).collect();
        let pull = |j: usize| live.iter().map(|r| r[j] / top(r)).sum::<f64>() * 0.7 / 0.5;
        let want = softmax(&(0..m).map(pull).collect::<Vec<_>>());
        let got = p.solve().expect("solvable");
        for (a, b) in got.shares.iter().zip(&want) {
            assert!((a - b).abs() < 1e-9, "{n} x {m}: {a} {b}");
        }
    }
}

#[test]
fn a_diagonal_gives_uniform_shares_whatever_its_scale() {
    for d in [vec![1.0, 2.0, 3.0], vec![1e-12, 5.0, 1e9], vec![7.0; 12]] {
        let m = d.len();
        let s: Vec<f64> = (0..m * m).map(|k| if k / m == k % m { d[k / m] } else { 0.0 }).collect();
        let q = uniform(m);
        let prior = uniform(m);
        // 1e-12 counts as 1 % of the mean entry: the guard, so only comparable scales are exactly uniform.
        let got = program(&s, &q, &prior, Pareto::Off).solve().expect("solvable");
        let spread = got.shares.iter().map(|w| (w - 1.0 / m as f64).abs()).fold(0.0, f64::max);
        assert!(spread < 1e-6 || d[0] < 1e-6, "{d:?}: {:?}", got.shares);
    }
}

#[test]
fn weak_cross_influence_leaves_only_the_prior() {
    let s = [1.0, 0.1, 0.05, 0.02, 2.0, 0.1, 0.1, 0.1, 0.5];
    let (q, prior) = (uniform(3), [0.5, 0.3, 0.2]);
    let hard = program(&s, &q, &prior, Pareto::Hard);
    assert_eq!(hard.singleton(), Some(true));
    let got = hard.solve().expect("solvable");
    for (w, p) in got.shares.iter().zip(prior) {
        assert!((w - p).abs() < 1e-6, "{got:?}");
    }
    let slack = program(&s, &q, &prior, Pareto::Slack(0.1));
    assert_eq!(slack.singleton(), Some(false));
    let moved = slack.solve().expect("solvable").shares;
    assert!((moved[0] - 0.5).abs() > 1e-3, "{moved:?}");
    for row in s.chunks(3) {
        assert!(dot(row, &moved) >= 0.9 * dot(row, &prior) - 1e-6);
    }
    let mixed = [1.0, 3.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 1.0];
    assert_eq!(program(&mixed, &q, &prior, Pareto::Hard).singleton(), Some(false));
    assert_eq!(program(&[1.0; 9], &q, &prior, Pareto::Hard).singleton(), None, "singular");
    assert_eq!(program(&[1.0; 6], &uniform(2), &prior, Pareto::Hard).singleton(), None, "not square");
}

#[test]
fn every_answer_proves_itself() {
    // The gap bounds gamma / 2 |w - w*|^2 (Pinsker), so 5e-13 gamma would be 1e-6 in the shares by proof alone; rounding
    // leaves more, so agreement to 1e-6 is tested where the optimum is known.
    let stream = Stream::new(2, "fuzz");
    let (mut worst, mut most, mut failed) = (0.0f64, 0, Vec::new());
    for case in 0..CASES {
        let mut rng = stream.at(Draw::PrivateA, case as u64, 0);
        let (n, m) = (rng.between(1, 24) as usize, rng.between(1, 24) as usize);
        let mean = [0.0, 1.0, 3.0][case % 3];
        let s = random(&mut rng, n, m, mean);
        let raw: Vec<f64> = (0..m).map(|_| rng.range(0.01, 1.0)).collect();
        let prior: Vec<f64> = raw.iter().map(|r| r / raw.iter().sum::<f64>()).collect();
        let q = uniform(n);
        let pareto = [Pareto::Off, Pareto::Slack(0.1), Pareto::Hard, Pareto::Slack(1e-3)][case / 3 % 4];
        let alpha = [1.0, 30.0, 0.1][case % 7 % 3];
        let gamma = [1.0, 0.2, 0.02][case % 5 % 3];
        let p = Program { alpha, gamma, ..program(&s, &q, &prior, pareto) };
        match p.solve() {
            Some(got) => {
                worst = worst.max(got.gap / gamma);
                most = most.max(got.steps);
                assert!((got.shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                if pareto != Pareto::Off {
                    let part = if let Pareto::Slack(x) = pareto { x } else { 0.0 };
                    for row in s.chunks(m) {
                        let now = dot(row, &prior);
                        let scale = row.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
                        assert!(dot(row, &got.shares) >= now - part * now.abs() - 1e-7 * scale);
                    }
                }
                // Nothing near it is better.
                if pareto == Pareto::Off {
                    let here = objective(&p, &got.shares);
                    for _ in 0..20 {
                        let other: Vec<f64> = got.shares.iter().map(|w| w * rng.range(0.9, 1.1)).collect();
                        let other: Vec<f64> = other.iter().map(|w| w / other.iter().sum::<f64>()).collect();
                        assert!(objective(&p, &other) >= here - 1e-9, "{case}");
                    }
                }
            }
            None => failed.push((case, n, m, pareto, alpha, gamma)),
        }
    }
    assert!(failed.is_empty(), "{} {failed:?} worst {worst:e} most {most}", failed.len());
    assert!(worst < 5e-6, "gap {worst:e} after {most} steps");
}
