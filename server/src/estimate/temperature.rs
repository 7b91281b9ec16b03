//! Sizes, flattened: p_j proportional to min(N_j, cap)^(1/tau).

use super::given::held;
use super::{Estimator, Method, MethodError, Setup, Vectors, eg};
use crate::args::{Args, Param};

/// The method.
#[derive(Debug)]
pub struct Temperature;

impl Method for Temperature {
    fn name(&self) -> &'static str {
        "temperature"
    }
    fn paper(&self) -> &'static str {
        "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer, 2019"
    }
    fn url(&self) -> &'static str {
        "https://arxiv.org/abs/1910.10683"
    }
    fn summary(&self) -> &'static str {
        "shares proportional to size^(1/tau): proportional at 1, the same for all at infinity"
    }
    fn params(&self) -> &'static [Param] {
        &[
            Param { name: "tau", default: 2.0, min: 1e-2, max: 1e9, doc: "temperature; 1 is proportional" },
            Param {
                name: "cap",
                default: 0.0,
                min: 0.0,
                max: 1e18,
                doc: "largest size that counts, in the unit of the groups' sizes; 0 means no cap",
            },
        ]
    }
    fn start(&self, setup: &Setup, args: &Args, _: &Vectors) -> Result<Box<dyn Estimator>, MethodError> {
        let (tau, cap) = (args.number("tau"), args.number("cap"));
        let capped = |n: f64| if cap > 0.0 { n.min(cap) } else { n };
        // In logarithms: sizes to the power of 100 overflow.
        let logs: Vec<f64> = setup.sizes.iter().map(|n| libm::log(capped(*n).max(1e-300)) / tau).collect();
        Ok(held(eg::softmax(&logs)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::plants::setup;
    use super::super::{Vectors, by_name};
    use crate::args::Args;
    use std::collections::BTreeMap;

    fn shares(method: &str, numbers: &[(&str, f64)]) -> Vec<f64> {
        let method = by_name(method).expect("known");
        let numbers = numbers.iter().map(|(n, v)| (n.to_string(), *v)).collect();
        let args = Args::resolve(&method.declared(), &numbers, &BTreeMap::new()).expect("legal");
        let job = super::Setup { sizes: vec![1e3, 1e5, 1e7], ..setup(3, 3) };
        method.start(&job, &args, &Vectors::new()).expect("starts").shares()
    }

    fn close(a: &[f64], b: &[f64]) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?}, want {b:?}");
    }

    #[test]
    fn temperature_goes_from_proportional_to_equal() {
        let sum = 1e3 + 1e5 + 1e7;
        close(&shares("temperature", &[("tau", 1.0)]), &[1e3 / sum, 1e5 / sum, 1e7 / sum]);
        close(&shares("proportional", &[]), &shares("temperature", &[("tau", 1.0)]));
        close(&shares("temperature", &[]), &[1.0 / 111.0, 10.0 / 111.0, 100.0 / 111.0]);
        assert!(shares("temperature", &[("tau", 1e9)]).iter().all(|p| (p - 1.0 / 3.0).abs() < 1e-8));
        close(&shares("stratified", &[]), &[1.0 / 3.0; 3]);
        assert!(shares("temperature", &[("tau", 0.01)])[2] == 1.0, "sharp, not NaN");
    }

    #[test]
    fn a_cap_bounds_the_largest_groups() {
        let sum = 1e3 + 2e4;
        close(&shares("temperature", &[("tau", 1.0), ("cap", 1e4)]), &[1e3 / sum, 1e4 / sum, 1e4 / sum]);
    }
}
