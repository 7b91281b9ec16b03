//! The sequence in force, for readers that never wait.

use crate::mixture::Sequence;
use std::sync::{Arc, PoisonError, RwLock};

/// Follows a job's sequence; steps that were begun are the same in every version.
#[derive(Debug)]
pub struct Live(RwLock<Arc<Sequence>>);

impl Live {
    /// Starts with `sequence`.
    pub fn new(sequence: Arc<Sequence>) -> Live {
        Live(RwLock::new(sequence))
    }

    /// What is in force.
    pub fn now(&self) -> Arc<Sequence> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another one in force.
    pub fn set(&self, sequence: Arc<Sequence>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = sequence;
    }
}
