//! Weights that stay as they are given: the job's own, or a list.

use super::{
    Directive, Estimator, FOREVER, Method, MethodError, Reader, Seen, Setup, StateError, VectorInfo,
};
use super::{Vectors, Verdict, Window, WindowKind, Writer, vector};
use crate::args::Args;

/// The method.
#[derive(Debug)]
pub struct Given;

impl Method for Given {
    fn name(&self) -> &'static str {
        "given"
    }
    fn paper(&self) -> &'static str {
        "none"
    }
    fn url(&self) -> &'static str {
        ""
    }
    fn summary(&self) -> &'static str {
        "the weights of the job's groups, or the list `shares`"
    }
    fn vectors(&self) -> &'static [VectorInfo] {
        &[VectorInfo {
            name: "shares",
            doc: "one share per group, any positive scale; default: the groups' weights",
        }]
    }
    fn start(&self, setup: &Setup, _: &Args, vectors: &Vectors) -> Result<Box<dyn Estimator>, MethodError> {
        let raw = vector(self, vectors, "shares", setup.groups)?.unwrap_or_else(|| setup.initial.clone());
        let sum: f64 = raw.iter().sum();
        if sum <= 0.0 {
            let (method, name) = (self.name(), "shares".into());
            return Err(MethodError::Vector { method, name, why: "sums to 0, want more".into() });
        }
        Ok(held(raw.iter().map(|w| w / sum).collect()))
    }
}

/// An estimator of shares that never change by themselves.
pub(super) fn held(shares: Vec<f64>) -> Box<dyn Estimator> {
    Box::new(Held { shares })
}

/// Shares that never change by themselves.
#[derive(Debug)]
struct Held {
    shares: Vec<f64>,
}

impl Estimator for Held {
    fn directive(&mut self, _: u64) -> Directive {
        let shares = self.shares.clone();
        let window = Window { kind: WindowKind::Main, steps: FOREVER, shares, wants: Vec::new() };
        Directive { windows: vec![window], barrier: false }
    }
    fn observe(&mut self, _: &[Seen]) -> Verdict {
        Verdict { used: true, facts: Vec::new() }
    }
    fn shares(&self) -> Vec<f64> {
        self.shares.clone()
    }
    fn steer(&mut self, shares: &[f64]) {
        self.shares = shares.to_vec();
    }
    fn save(&self, out: &mut Writer) {
        out.f64s(&self.shares);
    }
    fn restore(&mut self, input: &mut Reader<'_>) -> Result<(), StateError> {
        self.shares = input.f64s(self.shares.len())?;
        Ok(())
    }
}
