//! The registry of image policies: one `mod` and one line each.

mod cutmix;
mod fmix;
mod gridmix;
mod maskmix;
mod mixup;
mod resizemix;
mod smoothmix;

use super::Policy;
use std::fmt::Write as _;

/// Every image policy, by name.
pub const POLICIES: &[&dyn Policy] = &[
    &cutmix::CutMix,
    &fmix::FMix,
    &gridmix::GridMix,
    &maskmix::MaskMix,
    &mixup::Mixup,
    &resizemix::ResizeMix,
    &smoothmix::SmoothMix,
];

/// The policy called `name`.
pub fn by_name(name: &str) -> Option<&'static dyn Policy> {
    POLICIES.iter().copied().find(|p| p.name() == name)
}

/// The Markdown table of all policies: parameters as `name` = default (min..=max), options with the default first.
pub fn table() -> String {
    let mut out = String::from("| policy | what it does | parameters | options | paper |\n");
    out.push_str("| --- | --- | --- | --- | --- |\n");
    for policy in POLICIES {
        let number = |p: &super::Param| format!("`{}` = {} ({}..={})", p.name, p.default, p.min, p.max);
        let numbers: Vec<String> = policy.params().iter().map(number).collect();
        let word = |c: &super::Choice| format!("`{}` = {}", c.name, c.values.join(", "));
        let words: Vec<String> = policy.choices().iter().map(word).collect();
        let (numbers, words) = (numbers.join("<br>"), words.join("<br>"));
        let (name, summary, paper, url) = (policy.name(), policy.summary(), policy.paper(), policy.url());
        writeln!(out, "| `{name}` | {summary} | {numbers} | {words} | [{paper}]({url}) |")
            .expect("a string takes every write");
    }
    out
}

#[cfg(test)]
pub(super) mod tests;
