//! Whether a loader was closed, as those who wait for a call ask it.

use crate::error;
use pyo3::prelude::*;
use std::sync::Arc;

/// A `mixfeed.source.Life`. It refers to nothing, so that nothing goes round in a circle.
#[derive(Clone, Debug)]
pub struct Life(Arc<Py<PyAny>>);

impl Life {
    /// Of an object with an attribute `closed`.
    pub fn of(object: Py<PyAny>) -> Self {
        Life(Arc::new(object))
    }

    /// # Errors
    /// `Closed` once the loader was closed.
    pub fn check(&self, py: Python<'_>) -> PyResult<()> {
        if self.0.bind(py).getattr("closed")?.is_truthy()? {
            return Err(error::plain(
                py,
                "Closed",
                "the loader was closed while a call was waited for".into(),
            ));
        }
        Ok(())
    }
}
