//! Parameters that several policies declare, and the table of a registry.

use super::Policy;
use crate::args::{Choice, Param};
use std::fmt::Write as _;

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

/// The Markdown table of `policies`: parameters as `name` = default (min..=max), options with the default first.
pub fn table(policies: &[&dyn Policy]) -> String {
    let mut out = String::from("| policy | what it does | parameters | options | paper |\n");
    out.push_str("| --- | --- | --- | --- | --- |\n");
    for policy in policies {
        let number = |p: &Param| format!("`{}` = {} ({}..={})", p.name, p.default, p.min, p.max);
        let numbers: Vec<String> = policy.params().iter().map(number).collect();
        let word = |c: &Choice| format!("`{}` = {}", c.name, c.values.join(", "));
        let words: Vec<String> = policy.choices().iter().map(word).collect();
        let (numbers, words) = (numbers.join("<br>"), words.join("<br>"));
        let (name, summary, paper, url) = (policy.name(), policy.summary(), policy.paper(), policy.url());
        writeln!(out, "| `{name}` | {summary} | {numbers} | {words} | [{paper}]({url}) |")
            .expect("a string takes every write");
    }
    out
}
