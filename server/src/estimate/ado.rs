//! ADO: a power law per group, fitted to its training losses, says where the next tokens lower the loss most.

use super::curve::Problem;
use super::fold::{Folded, MIN_WINDOW, Rule, means};
use super::simplex::normalised;
use super::{Estimator, Method, MethodError, Reader, Reduced, Setup, StateError, VectorInfo, Vectors, Want};
use super::{When, Writer, vector};
use crate::args::{Args, Param};
use history::History;
use profile::Bounds;

mod history;
mod profile;
#[cfg(test)]
mod tests;

/// The method.
#[derive(Debug)]
pub struct Ado;

const PARAMS: &[Param] = &[
    MIN_WINDOW,
    Param { name: "start", default: 1000.0, min: 1.0, max: 1e12, doc: "reports before the first fit" },
    Param { name: "refit", default: 1000.0, min: 1.0, max: 1e12, doc: "reports between fits" },
    Param { name: "ignore", default: 500.0, min: 0.0, max: 1e12, doc: "first reports that no fit sees" },
    Param {
        name: "smooth",
        default: 101.0,
        min: 1.0,
        max: 1001.0,
        doc: "reports of the cubic smoother, odd",
    },
    Param { name: "stride", default: 10.0, min: 1.0, max: 1e6, doc: "reports per point of a fit" },
    Param {
        name: "points",
        default: 500.0,
        min: 16.0,
        max: 2000.0,
        doc: "points kept, evenly in log(samples)",
    },
    Param {
        name: "sample_tokens",
        default: 1024.0,
        min: 1e-6,
        max: 1e9,
        doc: "tokens that count as one sample of the law",
    },
    Param {
        name: "huber",
        default: 1e-3,
        min: 1e-9,
        max: 1e9,
        doc: "residuals of log loss above this count linearly",
    },
    Param { name: "alpha_min", default: 0.001, min: 0.0, max: 10.0, doc: "smallest exponent" },
    Param { name: "alpha_max", default: 0.8, min: 0.0, max: 10.0, doc: "largest exponent" },
    Param {
        name: "log_beta_max",
        default: 6.5,
        min: -20.0,
        max: 60.0,
        doc: "largest log of the law's factor",
    },
    Param {
        name: "log_epsilon_floor",
        default: 0.5,
        min: -30.0,
        max: 5.0,
        doc: "smallest log of the law's limit; 0.5 presumes tokens of > 1.65 nats: lower it for bytes or tuning",
    },
    Param {
        name: "floor",
        default: 0.01,
        min: 0.0,
        max: 1.0,
        doc: "least preference of a group, at most 1 / 2m",
    },
];

impl Method for Ado {
    fn name(&self) -> &'static str {
        "ado"
    }
    fn paper(&self) -> &'static str {
        "Adaptive Data Optimization: Dynamic Sample Selection with Scaling Laws (2024)"
    }
    fn url(&self) -> &'static str {
        "https://arxiv.org/abs/2410.11820"
    }
    fn summary(&self) -> &'static str {
        "a scaling law per group, fitted online; shares follow its slope"
    }
    fn params(&self) -> &'static [Param] {
        PARAMS
    }
    fn vectors(&self) -> &'static [VectorInfo] {
        &[VectorInfo {
            name: "prior",
            doc: "natural share per group, any positive scale; default: sizes in tokens",
        }]
    }
    fn wants(&self) -> &'static [(When, Want)] {
        &[(When::EachStep, Want::Train)]
    }
    fn start(
        &self,
        setup: &Setup,
        args: &Args,
        vectors: &Vectors,
    ) -> Result<Box<dyn Estimator>, MethodError> {
        let given = vector(self, vectors, "prior", setup.groups)?;
        let prior = match given.map(|p| normalised(&p)) {
            Some(None) => {
                let (method, name) = (self.name(), "prior".into());
                return Err(MethodError::Vector { method, name, why: "sums to 0, want more".into() });
            }
            Some(Some(prior)) => prior,
            None => normalised(&setup.sizes)
                .filter(|p| p.len() == setup.groups)
                .unwrap_or_else(|| vec![1.0 / setup.groups.max(1) as f64; setup.groups]),
        };
        let law = Bounds {
            alpha: (args.number("alpha_min"), args.number("alpha_max")),
            log_beta: (-20.0, args.number("log_beta_max")),
            log_epsilon: (args.number("log_epsilon_floor"), 10.0),
            huber: args.number("huber"),
        };
        let rule = AdoRule {
            history: History::new(setup.groups, args),
            held: prior.clone(),
            average: prior.clone(),
            shares: prior.clone(),
            updates: 0,
            fits: vec![None; setup.groups],
            start: args.number("start") as u64,
            refit: args.number("refit") as u64,
            floor: args.number("floor").min(0.5 / setup.groups.max(1) as f64),
            prior,
            law,
        };
        Ok(Box::new(Folded::new(rule, args)))
    }
}

/// L(n) = beta n^-alpha + epsilon.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fit {
    log_beta: f64,
    log_epsilon: f64,
    alpha: f64,
}

/// Points of the search for a beginning.
const COARSE: usize = 48;
/// Points of the polish: neighbours share most reports of the smoother, more of them tell nothing new.
const FINE: usize = 128;
/// Steps of the polish.
const POLISH: usize = 6;

impl Bounds {
    /// The law through (log n, log loss), or `None` with fewer than 4 points.
    fn fit(&self, points: &[(f64, f64)]) -> Option<Fit> {
        if points.len() < 4 {
            return None;
        }
        let few: Vec<(f64, f64)> = history::spread(points.len(), COARSE).map(|i| points[i]).collect();
        let found = self.polish(points, &self.scan(&few), POLISH);
        let fit = Fit { log_beta: found.at[0], log_epsilon: found.at[1], alpha: found.at[2] };
        found.cost.is_finite().then_some(fit)
    }

    fn polish(&self, points: &[(f64, f64)], start: &[f64], iterations: usize) -> super::curve::Fitted {
        let residuals = |x: &[f64], out: &mut [f64], rows: &mut [f64]| {
            let limit = libm::exp(x[1]);
            for (((log_n, y), out), row) in points.iter().zip(out).zip(rows.chunks_exact_mut(3)) {
                let power = libm::exp(x[0] - x[2] * log_n);
                let sum = power + limit;
                (row[0], row[1], row[2]) = (power / sum, limit / sum, -log_n * power / sum);
                *out = libm::log(sum) - y;
            }
        };
        let bounds = [self.log_beta, self.log_epsilon, self.alpha];
        let ridge = [1e-9, 1e-9, 1e-9];
        let (points, huber) = (points.len(), self.huber);
        Problem { residuals: &residuals, points, bounds: &bounds, ridge: &ridge, huber }
            .minimise(start, iterations)
    }
}

/// Preference rho of each group at `n` samples: prior, sqrt of the held share and slope of its law; at least `floor`.
/// Groups without a law take the mean slope of the others. `None` when there is no law at all.
fn preferences(prior: &[f64], held: &[f64], fits: &[Option<Fit>], n: f64, floor: f64) -> Option<Vec<f64>> {
    let log_n = libm::log(n.max(1.0));
    let slope = |f: &Fit| f.alpha.max(0.05) * libm::exp(f.log_beta - f.alpha * log_n);
    let known: Vec<f64> = fits.iter().flatten().map(slope).collect();
    let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
    let raw = |j: usize| prior[j] * libm::sqrt(held[j].max(0.0)) * fits[j].as_ref().map_or(mean, slope);
    let rho = normalised(&(0..prior.len()).map(raw).collect::<Vec<_>>())?;
    normalised(&rho.iter().map(|r| r.max(floor)).collect::<Vec<_>>())
}

#[derive(Debug)]
struct AdoRule {
    law: Bounds,
    prior: Vec<f64>,
    start: u64,
    refit: u64,
    floor: f64,
    history: History,
    /// Exponential mean of the shares that were trained on.
    held: Vec<f64>,
    /// Running mean of the preferences, the prior being the first.
    average: Vec<f64>,
    shares: Vec<f64>,
    updates: u64,
    fits: Vec<Option<Fit>>,
}

impl AdoRule {
    fn refit(&mut self) {
        for (j, fit) in self.fits.iter_mut().enumerate() {
            *fit = self.law.fit(&self.history.points(j, FINE)).or(*fit);
        }
    }

    fn prefer(&mut self) {
        let found = preferences(&self.prior, &self.held, &self.fits, self.history.samples(), self.floor);
        let Some(rho) = found else { return };
        self.shares = self.average.iter().zip(&rho).map(|(a, r)| 0.9 * a + 0.1 * r).collect();
        self.updates += 1;
        let new = 1.0 / (self.updates + 1) as f64;
        self.average.iter_mut().zip(&rho).for_each(|(a, r)| *a = (1.0 - new) * *a + new * r);
    }
}

impl Rule for AdoRule {
    fn due(&self) -> (When, Want) {
        (When::EachStep, Want::Train)
    }
    fn learn(&mut self, report: &Reduced, _: &[f64]) -> bool {
        let groups = self.prior.len();
        let counts = || report.counts.iter().map(|c| if c.is_finite() && *c > 0.0 { *c } else { 0.0 });
        let (Some(means), Some(trained)) = (means(report, groups), normalised(&counts().collect::<Vec<_>>()))
        else {
            return false;
        };
        self.history.push(&means, counts().sum());
        let age = self.history.reports();
        if age >= self.start && (age - self.start).is_multiple_of(self.refit) {
            self.refit();
        }
        self.prefer();
        self.held.iter_mut().zip(&trained).for_each(|(h, t)| *h = 0.9 * *h + 0.1 * t);
        true
    }
    fn serve(&self, _: u64) -> Vec<f64> {
        self.shares.clone()
    }
    fn steer(&mut self, shares: &[f64]) {
        self.shares = shares.to_vec();
        self.average = shares.to_vec();
    }
    fn facts(&self) -> Vec<(&'static str, Vec<f64>)> {
        let of = |f: fn(&Fit) -> f64| self.fits.iter().map(|x| x.as_ref().map_or(f64::NAN, f)).collect();
        vec![
            ("log_beta", of(|f| f.log_beta)),
            ("log_epsilon", of(|f| f.log_epsilon)),
            ("alpha", of(|f| f.alpha)),
        ]
    }
    fn save(&self, out: &mut Writer) {
        self.history.save(out);
        [&self.held, &self.average, &self.shares].iter().for_each(|list| out.f64s(list));
        out.u64(self.updates);
        for fit in &self.fits {
            out.bool(fit.is_some());
            let Fit { log_beta, log_epsilon, alpha } =
                fit.unwrap_or(Fit { log_beta: 0.0, log_epsilon: 0.0, alpha: 0.0 });
            [log_beta, log_epsilon, alpha].iter().for_each(|x| out.f64(*x));
        }
    }
    fn restore(&mut self, input: &mut Reader<'_>) -> Result<(), StateError> {
        let groups = self.prior.len();
        let history = self.history.read(input)?;
        let (held, average, shares) = (input.f64s(groups)?, input.f64s(groups)?, input.f64s(groups)?);
        let updates = input.u64()?;
        let fit = |input: &mut Reader<'_>| {
            let there = input.bool()?;
            let (log_beta, log_epsilon, alpha) = (input.f64()?, input.f64()?, input.f64()?);
            Ok(there.then_some(Fit { log_beta, log_epsilon, alpha }))
        };
        let fits = (0..groups).map(|_| fit(input)).collect::<Result<Vec<_>, StateError>>()?;
        (self.history, self.held, self.average) = (history, held, average);
        (self.shares, self.updates, self.fits) = (shares, updates, fits);
        Ok(())
    }
}
