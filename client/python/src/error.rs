//! From the client's errors to Python's, whose classes are in `mixfeed/errors.py` under the same names.

use mixfeed_client::Error;
use pyo3::{prelude::*, types::PyDict};

/// The exception of a client error: of the class that has its name, with its fields as attributes.
pub fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let fields = PyDict::new(py);
    named(py, error.name(), error.to_string(), || add_fields(error, &fields).map(|()| fields.clone()))
}

/// An exception of `mixfeed.errors` by name, without fields.
pub fn plain(py: Python<'_>, name: &str, message: String) -> PyErr {
    named(py, name, message, || Ok(PyDict::new(py)))
}

fn named<'py>(
    py: Python<'py>,
    name: &str,
    message: String,
    fields: impl FnOnce() -> PyResult<Bound<'py, PyDict>>,
) -> PyErr {
    let made = || py.import("mixfeed.errors")?.getattr(name)?.call((message,), Some(&fields()?));
    match made() {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

fn add_fields(error: &Error, fields: &Bound<'_, PyDict>) -> PyResult<()> {
    if let Error::Invalid { violations, .. } = error {
        let violations: Vec<_> =
            violations.iter().map(|v| (v.field.as_str(), v.description.as_str())).collect();
        fields.set_item("violations", violations)?;
    }
    if let Error::FailedPrecondition { reason, details, .. } = error {
        fields.set_item("reason", reason)?;
        fields.set_item("details", details)?;
    }
    if let Error::Exhausted { retry_after, .. } | Error::Unavailable { retry_after, .. } = error {
        fields.set_item("retry_after", retry_after.map(|time| time.as_secs_f64()))?;
    }
    if let Error::OtherDigest { expected, found, .. } = error {
        fields.set_item("expected", expected.to_string())?;
        fields.set_item("found", found.to_string())?;
    }
    if let Error::Server { code, .. } = error {
        fields.set_item("code", code)?;
    }
    Ok(())
}
