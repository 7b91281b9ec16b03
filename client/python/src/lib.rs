//! The Python module `mixfeed._mixfeed`: `mixfeed-client` with Python's face. Reassembly, checks, reconnects and resuming
//! happen there, on threads that never touch the interpreter; what is here waits for them with the interpreter let go of,
//! in slices between which signals are looked at.
//!
//! Nothing in here is public: `mixfeed/__init__.py` says what is.

mod batch;
mod client;
mod control;
mod dlpack;
mod error;
mod jobs;
mod life;
mod mixture;
mod pinned;
mod reporter;
mod stream;
mod tensor;
mod wait;

/// See the crate.
#[pyo3::pymodule]
mod _mixfeed {
    #[pymodule_export]
    use crate::{batch::Batch, client::Client, reporter::Reporter, stream::Stream, tensor::Tensor};

    /// Version of the package.
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
