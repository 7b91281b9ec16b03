//! Entries of the mixture log and what makes one illegal.

use super::{Weights, window::FAR};

/// Most items of a probe: its counts are multiplied with each other.
const MAX_PROBE: u64 = 1 << 40;

/// How an entry shares its items out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// By its weights; what groups are owed is carried over from the main entry before it.
    Main,
    /// By exact counts, spread over its steps. Owes nobody anything and pays nobody back, but its items count as served:
    /// records go on, epochs are counted.
    Probe {
        /// Items per group over the whole entry, summing to its steps times the batch. Where groups leave, theirs go to
        /// the others in proportion.
        counts: Vec<u64>,
    },
}

/// One entry of a mixture log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number in the log.
    pub seq: u64,
    /// First step that it governs.
    pub from_step: u64,
    /// First step that it no longer governs; `None`: until another one does.
    pub until_step: Option<u64>,
    /// Main or probe.
    pub kind: EntryKind,
    /// Weights of a main entry; of a probe, for people.
    pub weights: Weights,
    /// Name of these weights in headers and receipts.
    pub mixture_id: u64,
}

/// An entry that cannot follow a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// One value per group is wanted.
    #[error("{field} has {found} values, want {expected}: one per group")]
    Groups {
        /// "weights" or "counts".
        field: &'static str,
        /// Values given.
        found: usize,
        /// Groups of the job.
        expected: usize,
    },
    /// It governs no step.
    #[error("until_step is {until}, want more than from_step ({from})")]
    Empty {
        /// Its from_step.
        from: u64,
        /// Its until_step.
        until: u64,
    },
    /// A probe that doesn't end.
    #[error("a probe needs until_step")]
    Endless,
    /// Counts of a probe that don't fill its steps.
    #[error("counts sum to {found}, want {expected}: steps times batch")]
    Counts {
        /// Their sum.
        found: u128,
        /// Items of the probe.
        expected: u128,
    },
    /// Longer than a probe may be.
    #[error("a probe of {items} items, want at most {MAX_PROBE}")]
    TooLong {
        /// Items of the probe.
        items: u128,
    },
    /// Further than sequences go.
    #[error("from_step is {from}, want one within 2^62 items")]
    Far {
        /// Its from_step.
        from: u64,
    },
    /// Before the last entry.
    #[error("from_step is {from}, want at least that of the last entry ({last})")]
    Before {
        /// Its from_step.
        from: u64,
        /// Of the last entry.
        last: u64,
    },
    /// Inside of a probe.
    #[error("from_step is {from}, within the probe of steps {start}..{until}, want one after it")]
    InsideProbe {
        /// Its from_step.
        from: u64,
        /// First step of the probe.
        start: u64,
        /// First step after the probe.
        until: u64,
    },
    /// After steps that nothing governs.
    #[error("from_step is {from}, but nothing governs step {covered}, want at most that")]
    Gap {
        /// Its from_step.
        from: u64,
        /// First step that nothing governs.
        covered: u64,
    },
    /// After the end of the job.
    #[error("from_step is {from}, but the job ends after {items} items")]
    Ended {
        /// Its from_step.
        from: u64,
        /// Items of the job.
        items: u64,
    },
    /// Only groups that have left would get something.
    #[error("every group that this entry names has left by step {from}, want one that has not")]
    AllLeft {
        /// Its from_step.
        from: u64,
    },
}

impl Entry {
    /// Checks what doesn't depend on the log.
    pub(super) fn check(&self, groups: usize, batch: u64) -> Result<(), EntryError> {
        let found = self.weights.shares().len();
        if found != groups {
            return Err(EntryError::Groups { field: "weights", found, expected: groups });
        }
        let from = self.from_step;
        if let Some(until) = self.until_step.filter(|until| *until <= from) {
            return Err(EntryError::Empty { from, until });
        }
        if from.checked_mul(batch).is_none_or(|items| items > FAR) {
            return Err(EntryError::Far { from });
        }
        match &self.kind {
            EntryKind::Main => Ok(()),
            EntryKind::Probe { counts } => self.check_probe(counts, groups, batch),
        }
    }

    fn check_probe(&self, counts: &[u64], groups: usize, batch: u64) -> Result<(), EntryError> {
        if counts.len() != groups {
            return Err(EntryError::Groups { field: "counts", found: counts.len(), expected: groups });
        }
        let until = self.until_step.ok_or(EntryError::Endless)?;
        let expected = u128::from(until - self.from_step) * u128::from(batch);
        let found: u128 = counts.iter().map(|c| u128::from(*c)).sum();
        if found != expected {
            return Err(EntryError::Counts { found, expected });
        }
        if expected > u128::from(MAX_PROBE) {
            return Err(EntryError::TooLong { items: expected });
        }
        Ok(())
    }
}
