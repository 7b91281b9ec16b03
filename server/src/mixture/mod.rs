//! 3 CHOOSE: which record stands at which slot of which step, as a pure function.
//!
//! ```text
//! log of entries -> spans (span, chain) -> items per group (window, piece; probe; ledger) -> records (perm) -> shuffle
//! ```
//! [`Sequence::step`] is the whole room. A [`Sequence`] is a snapshot of a mixture log: [`Sequence::append`] makes the
//! next one and changes no step before its entry's. Any step is found without walking ([`window`]), unless items differ
//! in cost ([`ledger`]).

mod carry;
mod chain;
mod entry;
mod ledger;
mod perm;
mod piece;
mod probe;
mod sequence;
mod span;
mod weights;
mod window;

pub use entry::{Entry, EntryError, EntryKind};
pub use ledger::ItemCost;
pub use perm::Permutation;
pub use sequence::Sequence;
pub use weights::{ONE, Weights, WeightsError};

use std::sync::Arc;

/// What happens when every record of a group was served once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exhaustion {
    /// Next epoch in a new order.
    Repeat,
    /// The job ends before this group repeats.
    StopFirst,
    /// The job ends when every such group was used up.
    StopLast,
    /// The group leaves after so many items.
    Leave {
        /// Items served before it leaves, >= 1.
        after: u64,
    },
}

/// A group as the sequence sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupRule {
    /// Records, >= 1.
    pub records: u64,
    /// What happens when they were all served.
    pub exhaustion: Exhaustion,
}

impl GroupRule {
    /// Whether this group can end the job.
    fn may_end(&self) -> bool {
        self.exhaustion != Exhaustion::Repeat
    }
}

/// The `k`-th item ever taken from a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Group.
    pub group: u32,
    /// Items taken from it before this one.
    pub k: u64,
}

/// What happens to rows that don't fill a last batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LastBatch {
    Drop,
    Partial,
    Pad,
}

/// Where a sequence ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Steps in all.
    pub steps: u64,
    /// Items of the last step that are served (B unless it is partial or padded).
    pub last_rows: u64,
    /// Items that are not served.
    pub dropped: u64,
    /// Slots of the last step that repeat others.
    pub padded: u64,
}

/// What is shared out among groups.
#[derive(Clone, Debug)]
pub enum Costs {
    /// Items, each for the same: closed form.
    Equal,
    /// What records cost: integer credits, walked.
    Varying(Arc<dyn ItemCost>),
}

#[cfg(test)]
mod ledger_tests;
#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod tests;
