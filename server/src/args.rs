//! Declared parameters of policies and estimators, and values checked against them. Imports nothing of ours.

use std::collections::BTreeMap;

/// A number that a policy or an estimator takes.
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

/// A word that a policy or an estimator takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Name in the job spec.
    pub name: &'static str,
    /// Legal values; the first is the default.
    pub values: &'static [&'static str],
    /// Meaning.
    pub doc: &'static str,
}

/// A parameter that can't be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ArgError {
    /// No such number.
    #[error("{owner} has no parameter `{name}`, want one of {known}")]
    Unknown {
        /// "policy `mixup`", "estimator `aioli`".
        owner: String,
        /// Name given.
        name: String,
        /// Names it has.
        known: String,
    },
    /// Out of range or not finite.
    #[error("parameter `{name}` of {owner} is {value}, want {min}..={max}")]
    Range {
        /// "policy `mixup`", "estimator `aioli`".
        owner: String,
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
    #[error("parameters of {owner}: `{low}` is above `{high}`")]
    Order {
        /// "policy `mixup`", "estimator `aioli`".
        owner: String,
        /// Lower end.
        low: &'static str,
        /// Upper end.
        high: &'static str,
    },
    /// Not one of the legal words.
    #[error("option `{name}` of {owner} is `{value}`, want one of {legal}")]
    Word {
        /// "policy `mixup`", "estimator `aioli`".
        owner: String,
        /// Option.
        name: &'static str,
        /// Value given.
        value: String,
        /// Legal values.
        legal: String,
    },
}

/// What a policy or an estimator takes.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// "policy" or "estimator".
    pub kind: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its numbers.
    pub params: &'static [Param],
    /// Its words.
    pub choices: &'static [Choice],
}

/// Checked arguments: every declared name has a legal value.
#[derive(Clone, Debug, PartialEq)]
pub struct Args {
    numbers: Vec<(&'static str, f64)>,
    words: Vec<(&'static str, &'static str)>,
}

impl Args {
    /// Checks `numbers` and `words` against what `declared` lists and fills in defaults.
    ///
    /// # Errors
    /// [`ArgError`] for the first name or value that does not fit. Parameters named `x_min` and `x_max` must be in
    /// order.
    pub fn resolve(
        declared: &Declared,
        numbers: &BTreeMap<String, f64>,
        words: &BTreeMap<String, String>,
    ) -> Result<Args, ArgError> {
        let Declared { params, choices, .. } = *declared;
        let owner = || format!("{} `{}`", declared.kind, declared.name);
        let known = || {
            let numbers = params.iter().map(|p| p.name);
            numbers.chain(choices.iter().map(|c| c.name)).collect::<Vec<_>>().join(", ")
        };
        let number = numbers.keys().find(|k| !params.iter().any(|p| p.name == **k));
        let word = words.keys().find(|k| !choices.iter().any(|c| c.name == **k));
        if let Some(key) = number.or(word) {
            return Err(ArgError::Unknown { owner: owner(), name: key.clone(), known: known() });
        }
        let mut args = Args { numbers: Vec::new(), words: Vec::new() };
        for p in params {
            let value = numbers.get(p.name).copied().unwrap_or(p.default);
            if !(p.min..=p.max).contains(&value) {
                return Err(ArgError::Range { owner: owner(), name: p.name, value, min: p.min, max: p.max });
            }
            args.numbers.push((p.name, value));
        }
        for c in choices {
            let value = words.get(c.name).map_or(c.values[0], String::as_str);
            let Some(legal) = c.values.iter().find(|v| **v == value) else {
                let legal = c.values.join(", ");
                return Err(ArgError::Word { owner: owner(), name: c.name, value: value.into(), legal });
            };
            args.words.push((c.name, legal));
        }
        for p in params.iter().filter(|p| p.name.ends_with("_min")) {
            let stem = p.name.trim_end_matches("_min");
            let high = params.iter().find(|q| q.name.strip_suffix("_max") == Some(stem));
            if let Some(high) = high.filter(|high| args.number(p.name) > args.number(high.name)) {
                return Err(ArgError::Order { owner: owner(), low: p.name, high: high.name });
            }
        }
        Ok(args)
    }

    /// The same with a number that no spec gives: what the server knows of a thing that the spec names.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: f64) -> Args {
        self.numbers.push((name, value));
        self
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

    const DECLARED: Declared = Declared {
        kind: "policy",
        name: "resizemix",
        params: &[
            Param { name: "tau_min", default: 0.1, min: 0.0, max: 1.0, doc: "" },
            Param { name: "tau_max", default: 0.8, min: 0.0, max: 1.0, doc: "" },
        ],
        choices: &[
            Choice { name: "interp", values: &["bilinear", "nearest", "area"], doc: "" },
            Choice { name: "law", values: &["uniform", "beta", "lambda"], doc: "" },
        ],
    };

    fn resolve(numbers: &[(&str, f64)], words: &[(&str, &str)]) -> Result<Args, ArgError> {
        let numbers = numbers.iter().map(|(n, v)| (n.to_string(), *v)).collect();
        let words = words.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        Args::resolve(&DECLARED, &numbers, &words)
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
            "policy `resizemix` has no parameter `tau`, want one of tau_min, tau_max, interp, law"
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
