//! A batch as Python sees it.

use crate::tensor::Tensor;
use mixfeed_client::{Dtype, learn::ReportKind};
use pyo3::{exceptions::PyKeyError, prelude::*};
use std::sync::Arc;

/// Where a tensor is. The address was taken from a mutable borrow of the batch's memory, which nobody borrows again: from
/// then on the bytes belong to whoever holds views.
#[derive(Debug)]
pub struct Place {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub offsets: Option<String>,
    pub address: usize,
}

/// A batch that stays where it is while anything refers to it.
#[derive(Debug)]
pub struct Held {
    pub batch: mixfeed_client::Batch,
    pub places: Vec<Place>,
}

/// One rank's rows of one step.
#[pyclass(frozen, module = "mixfeed._mixfeed")]
#[derive(Debug)]
pub struct Batch(Arc<Held>);

/// Name of a kind of report, "eval".
pub fn kind_name(kind: ReportKind) -> String {
    kind.as_str_name().trim_start_matches("REPORT_KIND_").to_ascii_lowercase()
}

fn names(kinds: &[ReportKind]) -> Vec<String> {
    kinds.iter().map(|kind| kind_name(*kind)).collect()
}

impl Batch {
    pub fn new(mut batch: mixfeed_client::Batch) -> Self {
        let mut places: Vec<Place> = batch
            .tensors()
            .map(|tensor| Place {
                name: tensor.name.into(),
                dtype: tensor.dtype,
                shape: tensor.shape.to_vec(),
                offsets: tensor.offsets.map(Into::into),
                address: 0,
            })
            .collect();
        for (place, bytes) in places.iter_mut().zip(batch.tensors_mut()) {
            place.address = bytes.as_mut_ptr().expose_provenance();
        }
        Batch(Arc::new(Held { batch, places }))
    }

    pub fn inner(&self) -> &mixfeed_client::Batch {
        &self.0.batch
    }
}

#[pymethods]
impl Batch {
    #[getter]
    fn step(&self) -> u64 {
        self.0.batch.step()
    }

    #[getter]
    fn epoch(&self) -> f64 {
        self.0.batch.epoch()
    }

    #[getter]
    fn rank(&self) -> u32 {
        self.0.batch.rank()
    }

    #[getter]
    fn world_size(&self) -> u32 {
        self.0.batch.world_size()
    }

    #[getter]
    fn slots(&self) -> (u32, u32) {
        let slots = self.0.batch.slots();
        (slots.start, slots.end)
    }

    #[getter]
    fn partial(&self) -> bool {
        self.0.batch.partial()
    }

    #[getter]
    fn numerics(&self) -> &str {
        self.0.batch.numerics()
    }

    #[getter]
    fn segment(&self) -> u64 {
        self.0.batch.segment()
    }

    #[getter]
    fn mixture_id(&self) -> u64 {
        self.0.batch.mixture_id()
    }

    #[getter]
    fn smoothing(&self) -> f64 {
        self.0.batch.smoothing()
    }

    #[getter]
    fn due_before(&self) -> Vec<String> {
        names(self.0.batch.due_before())
    }

    #[getter]
    fn due_after(&self) -> Vec<String> {
        names(self.0.batch.due_after())
    }

    /// Cursor as JSON.
    #[getter]
    fn cursor(&self) -> Option<String> {
        self.0.batch.cursor().map(crate::jobs::cursor_json)
    }

    /// Receipt as JSON.
    #[getter]
    fn receipt(&self) -> Option<String> {
        self.0.batch.receipt().map(crate::jobs::receipt_json)
    }

    /// Tensors' names in the server's order.
    #[getter]
    fn names(&self) -> Vec<&str> {
        self.0.places.iter().map(|place| place.name.as_str()).collect()
    }

    fn tensor(&self, name: &str) -> PyResult<Tensor> {
        let index = self.0.places.iter().position(|place| place.name == name);
        let index = index.ok_or_else(|| PyKeyError::new_err(name.to_owned()))?;
        Ok(Tensor::new(self.0.clone(), index))
    }
}
