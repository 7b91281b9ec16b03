//! Weights by the step, laid down in advance.

use super::{
    Directive, Estimator, FOREVER, Method, MethodError, Reader, Seen, Setup, StateError, VectorInfo,
};
use super::{Vectors, Verdict, Window, WindowKind, Writer, vector};
use crate::args::{Args, Choice, Param};

#[cfg(test)]
mod tests;

/// The method.
#[derive(Debug)]
pub struct Schedule;

impl Method for Schedule {
    fn name(&self) -> &'static str {
        "schedule"
    }
    fn paper(&self) -> &'static str {
        "none"
    }
    fn url(&self) -> &'static str {
        ""
    }
    fn summary(&self) -> &'static str {
        "shares by the step: a list of steps with the shares that hold from there, or that are met there"
    }
    fn params(&self) -> &'static [Param] {
        &[Param {
            name: "min_window",
            default: 16.0,
            min: 1.0,
            max: 1e9,
            doc: "steps of one window of a linear schedule, whose shares are those at its first step",
        }]
    }
    fn choices(&self) -> &'static [Choice] {
        &[Choice {
            name: "interpolation",
            values: &["step", "linear"],
            doc: "step: shares hold until the next start; linear: they move to the next ones in a straight line",
        }]
    }
    fn vectors(&self) -> &'static [VectorInfo] {
        &[
            VectorInfo {
                name: "starts",
                doc: "steps, ascending; before the first one its shares hold already",
            },
            VectorInfo {
                name: "shares",
                doc: "shares at each start, (starts, groups) row-major, any positive scale",
            },
        ]
    }
    fn start(
        &self,
        setup: &Setup,
        args: &Args,
        vectors: &Vectors,
    ) -> Result<Box<dyn Estimator>, MethodError> {
        let wrong = |name: &str, why| MethodError::Vector { method: "schedule", name: name.into(), why };
        let starts = vectors.get("starts").ok_or_else(|| wrong("starts", "is missing".into()))?;
        let starts = vector(self, vectors, "starts", starts.len())?.unwrap_or_default();
        if starts.is_empty() {
            return Err(wrong("starts", "is empty, want at least one step".into()));
        }
        if let Some(pair) = starts.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(wrong("starts", format!("has {} before {}, want ascending steps", pair[0], pair[1])));
        }
        if let Some(odd) = starts.iter().find(|s| s.fract() != 0.0 || **s >= 1e15) {
            return Err(wrong("starts", format!("holds {odd}, want whole steps below 1e15")));
        }
        let shares = vector(self, vectors, "shares", starts.len() * setup.groups)?
            .ok_or_else(|| wrong("shares", "is missing".into()))?;
        let mut entries = Vec::new();
        for (start, row) in starts.iter().zip(shares.chunks(setup.groups)) {
            let sum: f64 = row.iter().sum();
            if !(sum > 0.0 && sum.is_finite()) {
                return Err(wrong("shares", format!("sum to {sum} from step {start} on, want more than 0")));
            }
            entries.push((*start as u64, row.iter().map(|w| w / sum).collect()));
        }
        let window = (args.word("interpolation") == "linear").then(|| args.number("min_window") as u64);
        Ok(Box::new(Planned { entries, window, step: 0, steered: None }))
    }
}

/// A schedule at a step.
#[derive(Debug)]
struct Planned {
    entries: Vec<(u64, Vec<f64>)>,
    /// Steps of a window between two entries; `None`: shares jump.
    window: Option<u64>,
    /// Step of the last directive.
    step: u64,
    /// An operator's shares, with the entry that they replace until the next one begins.
    steered: Option<(u64, Vec<f64>)>,
}

impl Planned {
    /// Entry in charge of `step`.
    fn entry(&self, step: u64) -> usize {
        self.entries.partition_point(|(start, _)| *start <= step).saturating_sub(1)
    }

    /// Shares from `step` on, and the step that ends them.
    fn at(&self, step: u64) -> (Vec<f64>, u64) {
        let entry = self.entry(step);
        let (start, from) = &self.entries[entry];
        let next = self.entries.get(entry + 1);
        if step < *start {
            return (from.clone(), *start);
        }
        match (&self.steered, next, self.window) {
            (Some((replaced, shares)), _, _) if *replaced == entry as u64 => {
                (shares.clone(), next.map_or(FOREVER, |(end, _)| *end))
            }
            (_, None, _) => (from.clone(), FOREVER),
            (_, Some((end, _)), None) => (from.clone(), *end),
            (_, Some((end, to)), Some(window)) => {
                // Windows lie on a grid from the entry's start, whoever asks from where.
                let begin = step - (step - start) % window;
                let part = (begin - start) as f64 / (end - start) as f64;
                let shares = from.iter().zip(to).map(|(a, b)| a + (b - a) * part).collect();
                (shares, (begin + window).min(*end))
            }
        }
    }
}

impl Estimator for Planned {
    fn directive(&mut self, step: u64) -> Directive {
        self.step = step;
        let (shares, end) = self.at(step);
        let steps = if end == FOREVER { FOREVER } else { end - step };
        let window = Window { kind: WindowKind::Main, steps, shares, wants: Vec::new() };
        Directive { windows: vec![window], barrier: false }
    }
    fn observe(&mut self, _: &[Seen]) -> Verdict {
        Verdict { used: true, facts: Vec::new() }
    }
    fn shares(&self) -> Vec<f64> {
        self.at(self.step).0
    }
    fn steer(&mut self, shares: &[f64]) {
        self.steered = Some((self.entry(self.step) as u64, shares.to_vec()));
    }
    fn save(&self, out: &mut Writer) {
        out.u64(self.step);
        out.bool(self.steered.is_some());
        if let Some((entry, shares)) = &self.steered {
            out.u64(*entry);
            out.f64s(shares);
        }
    }
    fn restore(&mut self, input: &mut Reader<'_>) -> Result<(), StateError> {
        let step = input.u64()?;
        let groups = self.entries[0].1.len();
        let steered = if input.bool()? { Some((input.u64()?, input.f64s(groups)?)) } else { None };
        (self.step, self.steered) = (step, steered);
        Ok(())
    }
}
