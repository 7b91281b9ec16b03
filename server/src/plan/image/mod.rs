//! The registry of image policies: one `mod` and one line each.

mod cutmix;
mod fmix;
mod gridmix;
mod learned;
mod maskmix;
mod mixup;
mod resizemix;
mod smoothmix;

use super::{Policy, shared};

/// Every image policy that needs nothing but the plan, by name.
pub const POLICIES: &[&dyn Policy] = &[
    &cutmix::CutMix,
    &fmix::FMix,
    &gridmix::GridMix,
    &maskmix::MaskMix,
    &mixup::Mixup,
    &resizemix::ResizeMix,
    &smoothmix::SmoothMix,
];

/// Every image policy: [`POLICIES`], and the one that needs a mixer.
pub fn all() -> impl Iterator<Item = &'static dyn Policy> {
    POLICIES.iter().copied().chain([&learned::Learned as &dyn Policy])
}

/// The policy called `name`.
pub fn by_name(name: &str) -> Option<&'static dyn Policy> {
    all().find(|p| p.name() == name)
}

/// The Markdown table of all policies: parameters as `name` = default (min..=max), options with the default first.
pub fn table() -> String {
    shared::table(POLICIES)
}

#[cfg(test)]
pub(super) mod tests;
