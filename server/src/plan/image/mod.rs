//! The registry of image policies: one `mod` and one line each.

mod cutmix;
mod fmix;
mod gridmix;
mod maskmix;
mod mixup;
mod resizemix;
mod smoothmix;

use super::{Policy, shared};

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
    shared::table(POLICIES)
}

#[cfg(test)]
pub(super) mod tests;
