//! Declared parameters of policies, and values checked against them.

use super::Policy;
use std::collections::BTreeMap;

/// A number that a policy takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Param {
    /// Name in the job spec.
    pub name: &'static str,
    /// Value when not given.
    pub default: f64,
    /// Smallest legal value.
    pub min: f64,
    /// Largest legal value.
    pub max: f64,
    /// Meaning and unit.
    pub doc: &'static str,
}

/// A word that a policy takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Name in the job spec.
    pub name: &'static str,
    /// Legal values; the first is the default.
    pub values: &'static [&'static str],
    /// Meaning.
    pub doc: &'static str,
}

/// `alpha` of Beta(alpha, alpha), shared by most policies.
pub const fn alpha(default: f64) -> Param {
    Param { name: "alpha", default, min: 1e-3, max: 100.0, doc: "lambda ~ Beta(alpha, alpha)" }
}

/// Where the label weight comes from, shared by the policies with a mask.
pub const LAM_FROM: Choice = Choice {
    name: "lam_from",
    values: &["area", "sampled"],
    doc: "label weight: share of the base in the mask actually used, or lambda as drawn",
};

/// A parameter that can't be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ArgError {
    /// No such number.
    #[error("policy `{policy}` has no parameter `{name}`, want one of {known}")]
    Unknown {
        /// Policy.
        policy: &'static str,
        /// Name given.
        name: String,
        /// Names it has.
        known: String,
    },
    /// Out of range or not finite.
    #[error("parameter `{name}` of policy `{policy}` is {value}, want {min}..={max}")]
    Range {
        /// Policy.
        policy: &'static str,
        /// Parameter.
        name: &'static str,
        /// Value given.
        value: f64,
        /// Smallest legal value.
        min: f64,
        /// Largest legal value.
        max: f64,
    },
    /// Two parameters that form a range are in the wrong order.
    #[error("parameters of policy `{policy}`: `{low}` is above `{high}`")]
    Order {
        /// Policy.
        policy: &'static str,
        /// Lower end.
        low: &'static str,
        /// Upper end.
        high: &'static str,
    },
    /// Not one of the legal words.
    #[error("option `{name}` of policy `{policy}` is `{value}`, want one of {legal}")]
    Word {
        /// Policy.
        policy: &'static str,
        /// Option.
        name: &'static str,
        /// Value given.
        value: String,
        /// Legal values.
        legal: String,
    },
}

/// Checked arguments: every declared name has a legal value.
#[derive(Clone, Debug, PartialEq)]
pub struct Args {
    numbers: Vec<(&'static str, f64)>,
    words: Vec<(&'static str, &'static str)>,
}

impl Args {
    /// Checks `numbers` and `words` against what `policy` declares and fills in defaults.
    ///
    /// # Errors
    /// [`ArgError`] for the first name or value that does not fit. Parameters named `x_min` and `x_max` must be in
    /// order.
    pub fn resolve(
        policy: &dyn Policy,
        numbers: &BTreeMap<String, f64>,
        words: &BTreeMap<String, String>,
    ) -> Result<Args, ArgError> {
        let name = policy.name();
        let known = || {
            let numbers = policy.params().iter().map(|p| p.name);
            numbers.chain(policy.choices().iter().map(|c| c.name)).collect::<Vec<_>>().join(", ")
        };
        let number = numbers.keys().find(|k| !policy.params().iter().any(|p| p.name == **k));
        let word = words.keys().find(|k| !policy.choices().iter().any(|c| c.name == **k));
        if let Some(key) = number.or(word) {
            return Err(ArgError::Unknown { policy: name, name: key.clone(), known: known() });
        }
        let mut args = Args { numbers: Vec::new(), words: Vec::new() };
        for p in policy.params() {
            let value = numbers.get(p.name).copied().unwrap_or(p.default);
            if !(p.min..=p.max).contains(&value) {
                return Err(ArgError::Range { policy: name, name: p.name, value, min: p.min, max: p.max });
            }
            args.numbers.push((p.name, value));
        }
        for c in policy.choices() {
            let value = words.get(c.name).map_or(c.values[0], String::as_str);
            let Some(legal) = c.values.iter().find(|v| **v == value) else {
                let legal = c.values.join(", ");
                return Err(ArgError::Word { policy: name, name: c.name, value: value.into(), legal });
            };
            args.words.push((c.name, legal));
        }
        for p in policy.params().iter().filter(|p| p.name.ends_with("_min")) {
            let stem = p.name.trim_end_matches("_min");
            let high = policy.params().iter().find(|q| q.name.strip_suffix("_max") == Some(stem));
            if let Some(high) = high.filter(|high| args.number(p.name) > args.number(high.name)) {
                return Err(ArgError::Order { policy: name, low: p.name, high: high.name });
            }
        }
        Ok(args)
    }

    /// Value of a declared number.
    ///
    /// # Panics
    /// When the policy did not declare `name`; the registry test draws every policy, so this cannot be shipped.
    pub fn number(&self, name: &str) -> f64 {
        self.numbers.iter().find(|(n, _)| *n == name).expect("a declared parameter").1
    }

    /// Value of a declared choice.
    ///
    /// # Panics
    /// As [`Args::number`].
    pub fn word(&self, name: &str) -> &'static str {
        self.words.iter().find(|(n, _)| *n == name).expect("a declared choice").1
    }

    /// Every number with its name, in declaration order.
    pub fn numbers(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        self.numbers.iter().copied()
    }

    /// Every choice with its value, in declaration order.
    pub fn words(&self) -> impl Iterator<Item = (&'static str, &'static str)> + '_ {
        self.words.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::image::by_name;

    fn resolve(numbers: &[(&str, f64)], words: &[(&str, &str)]) -> Result<Args, ArgError> {
        let numbers = numbers.iter().map(|(n, v)| (n.to_string(), *v)).collect();
        let words = words.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        Args::resolve(by_name("resizemix").expect("registered"), &numbers, &words)
    }

    #[test]
    fn given_values_replace_defaults() {
        let args = resolve(&[("tau_min", 0.2)], &[("interp", "area")]).expect("legal");
        assert_eq!((args.number("tau_min"), args.number("tau_max")), (0.2, 0.8));
        assert_eq!((args.word("interp"), args.word("law")), ("area", "uniform"));
    }

    #[test]
    fn misfits_are_named_with_what_is_legal() {
        let said = |r: Result<Args, ArgError>| r.expect_err("a misfit").to_string();
        let unknown = said(resolve(&[("tau", 0.2)], &[]));
        assert_eq!(
            unknown,
            "policy `resizemix` has no parameter `tau`, want one of alpha, tau_min, tau_max, interp, law, lam_from"
        );
        assert!(
            said(resolve(&[], &[("alpha", "1")])).contains("no parameter `alpha`"),
            "a number is no word"
        );
        for bad in [1.5, -0.1, f64::NAN, f64::INFINITY] {
            let error = resolve(&[("tau_max", bad)], &[]).expect_err("out of range");
            assert!(matches!(error, ArgError::Range { name: "tau_max", min: 0.0, max: 1.0, .. }), "{error}");
        }
        assert_eq!(
            said(resolve(&[("tau_min", 0.9)], &[])),
            "parameters of policy `resizemix`: `tau_min` is above `tau_max`"
        );
        assert_eq!(
            said(resolve(&[], &[("interp", "cubic")])),
            "option `interp` of policy `resizemix` is `cubic`, want one of bilinear, nearest, area"
        );
    }
}
