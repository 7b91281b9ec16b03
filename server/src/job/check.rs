//! Collects what does not fit in a spec.

use super::JobError;

/// Misfits that are told: a person mends a few at a time, and a status must stay small.
const MOST: usize = 32;

/// A field that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path in the spec, "image.height".
    pub field: String,
    /// What is there and what is wanted.
    pub why: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`: {}", self.field, self.why)
    }
}

/// Collects what does not fit, so that a user sees everything at once.
#[derive(Debug, Default)]
pub(super) struct Check(Vec<Violation>);

impl Check {
    /// Notes a misfit; beyond the first [`MOST`] they are not told.
    pub fn fail(&mut self, field: &str, why: impl Into<String>) {
        if self.0.len() < MOST {
            self.0.push(Violation { field: field.into(), why: why.into() });
        }
    }

    /// Misfits so far, none when everything fits.
    pub fn finish(self) -> Result<(), JobError> {
        if self.0.is_empty() { Ok(()) } else { Err(JobError::Invalid(self.0)) }
    }

    /// An enum's value; a number that this version does not know is a misfit, never a default.
    pub fn known<E: TryFrom<i32> + Default>(&mut self, field: &str, raw: i32) -> E {
        E::try_from(raw).unwrap_or_else(|_| {
            self.fail(field, format!("is {raw}, which this server does not know"));
            E::default()
        })
    }

    /// Notes a misfit unless `fits`.
    pub fn ensure(&mut self, fits: bool, field: &str, why: impl FnOnce() -> String) {
        if !fits {
            self.fail(field, why());
        }
    }

    /// `value` when it is within `low..=high`, else `low` and a violation.
    pub fn within(&mut self, field: &str, value: f64, low: f64, high: f64) -> f64 {
        if (low..=high).contains(&value) {
            return value;
        }
        self.fail(field, format!("is {value}, want {low}..={high}"));
        low
    }

    /// A range given as two numbers, or `default` when none are.
    pub fn range(&mut self, field: &str, given: &mut Vec<f64>, default: (f64, f64), most: f64) -> (f64, f64) {
        if given.is_empty() {
            *given = vec![default.0, default.1];
        }
        match given[..] {
            [low, high] if low > 0.0 && low <= high && high <= most => (low, high),
            _ => {
                self.fail(field, format!("is {given:?}, want two ascending numbers above 0 up to {most}"));
                default
            }
        }
    }
}
