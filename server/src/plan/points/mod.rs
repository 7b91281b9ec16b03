//! The registry of policies of point clouds: one `mod` and one line each.
//!
//! Points keep their own labels, so the label weight of the base is 1 throughout; that a row is mixed at all is the
//! gate's decision. What a policy may look at of a block is who follows whom.

mod lasermix;
mod mix3d;
mod polarmix;

use super::{Policy, shared};

/// Every policy of point clouds, by name.
pub const POLICIES: &[&dyn Policy] = &[&lasermix::LaserMix, &mix3d::Mix3d, &polarmix::PolarMix];

/// Most parts of which any policy makes a row: a base, a sector of the partner and eight copies of its objects. A budget
/// of points that leaves each of them one is large enough for every plan.
pub const MOST_PARTS: usize = 10;

/// The policy called `name`.
pub fn by_name(name: &str) -> Option<&'static dyn Policy> {
    POLICIES.iter().copied().find(|p| p.name() == name)
}

/// The Markdown table of all policies, as [`super::image::table`].
pub fn table() -> String {
    shared::table(POLICIES)
}

#[cfg(test)]
mod tests;
