//! The registry of image policies: one `mod` and one line each.

mod cutmix;
mod mixup;

use super::Policy;

/// Every image policy, by name.
pub const POLICIES: &[&dyn Policy] = &[&cutmix::CutMix, &mixup::Mixup];

/// The policy called `name`.
pub fn by_name(name: &str) -> Option<&'static dyn Policy> {
    POLICIES.iter().copied().find(|p| p.name() == name)
}
