//! A client as Python holds it: options in, streams and descriptions out.

use crate::{
    batch::Batch, control::Control, error, jobs, life::Life, mixture, pinned::Pinned, stream::Stream,
};
use mixfeed_client::{ClientOptions, EvalOptions, Replay, Resume, Start, StreamOptions, spec::LastBatch};
use pyo3::{
    exceptions::{PyOSError, PyTypeError},
    prelude::*,
    types::PyDict,
};
use std::{sync::Arc, time::Duration};

/// Seconds that stand for ever.
const LONGEST: f64 = 1e9;

/// Connections to the servers of a job, and the thread that its control calls run on.
#[pyclass(frozen, module = "mixfeed._mixfeed")]
#[derive(Clone, Debug)]
pub struct Client {
    pub control: Control,
    pub client: mixfeed_client::Client,
}

/// Options by name, as `mixfeed.Loader` has checked and named them.
fn options(given: &Bound<'_, PyDict>) -> PyResult<ClientOptions> {
    let mut options = ClientOptions::default();
    for (name, value) in given {
        if value.is_none() {
            continue;
        }
        let name: String = name.extract()?;
        let time = || seconds(value.py(), &name, value.extract()?);
        options = match name.as_str() {
            "connect_timeout" => options.connect_timeout(time()?),
            "call_timeout" => options.call_timeout(time()?),
            "idle_timeout" => options.idle_timeout(time()?),
            "keep_alive" => options.keep_alive(time()?),
            "patience" => options.patience(time()?),
            "tell_waits" => options.tell_waits(time()?),
            "prefetch_bytes" => options.prefetch_bytes(value.extract()?),
            "frame_bytes" => options.frame_bytes(value.extract()?),
            "window_bytes" => options.window_bytes(value.extract()?),
            "max_batch_bytes" => options.max_batch_bytes(value.extract()?),
            "name" => options.name(value.extract::<String>()?),
            "token" => options.token(value.extract::<String>()?),
            "token_file" => options.token_file(value.extract::<std::path::PathBuf>()?),
            "plaintext_token" => options.plaintext_token(value.extract()?),
            "tls_ca" => options.ca_pem(value.extract::<Vec<u8>>()?),
            "tls_identity" => {
                let (certificate, key): (Vec<u8>, Vec<u8>) = value.extract()?;
                options.identity_pem(certificate, key)
            }
            "server_name" => options.server_name(value.extract::<String>()?),
            "pin" => options.pages(Arc::new(Pinned::of(value.extract()?))),
            other => return Err(PyTypeError::new_err(format!("no option `{other}`"))),
        };
    }
    Ok(options)
}

/// Seconds as a time, at most some thirty years.
///
/// # Errors
/// `Argument` where they are below 0 or no number.
pub fn seconds(py: Python<'_>, name: &str, given: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(if given > LONGEST { LONGEST } else { given })
        .map_err(|_| argument(py, name, &format!("is {given}, want seconds of at least 0")))
}

fn resume_of(py: Python<'_>, name: &str) -> PyResult<Resume> {
    match name {
        "ask" => Ok(Resume::Ask),
        "rewind" => Ok(Resume::Rewind),
        "replay" => Ok(Resume::Replay),
        other => Err(argument(py, "resume", &format!("is `{other}`, want `ask`, `rewind` or `replay`"))),
    }
}

/// The exception for an argument.
pub fn argument(py: Python<'_>, name: &str, reason: &str) -> PyErr {
    error::plain(py, "Argument", format!("`{name}`: {reason}"))
}

/// A cursor from a checkpoint.
pub fn cursor_of(py: Python<'_>, text: &str) -> PyResult<mixfeed_client::Cursor> {
    serde_json::from_str(text).map_err(|bad| argument(py, "cursor", &bad.to_string()))
}

#[pymethods]
impl Client {
    /// Connects to the first endpoint that answers, for as long as `patience` says. Every wait ends once `life` is closed.
    #[new]
    fn connect(
        py: Python<'_>,
        endpoints: Vec<String>,
        given: &Bound<'_, PyDict>,
        life: Py<PyAny>,
    ) -> PyResult<Self> {
        let options = options(given)?;
        let control =
            Control::start(Life::of(life)).map_err(|failed| PyOSError::new_err(failed.to_string()))?;
        let connecting = mixfeed_client::Client::connect_with(endpoints, options);
        let client = control.call(py, connecting)?;
        Ok(Client { control, client })
    }

    /// Opens a job by its spec (JSON), or attaches to it; what it is, as JSON.
    #[pyo3(signature = (job, spec = None))]
    fn open(&self, py: Python<'_>, job: String, spec: Option<&str>) -> PyResult<String> {
        let spec = spec.map(jobs::spec).transpose().map_err(|bad| argument(py, "spec", &bad))?;
        let client = self.client.clone();
        let info = self.control.call(py, async move {
            match &spec {
                Some(spec) => client.open_job(&job, spec).await,
                None => client.attach(&job).await,
            }
        })?;
        Ok(jobs::info_json(&info))
    }

    /// Closes a job on the server, for everybody.
    fn close_job(&self, py: Python<'_>, job: String) -> PyResult<()> {
        let client = self.client.clone();
        self.control.call(py, async move { client.close_job(&job).await })
    }

    /// Starts a stream at a step or a cursor (JSON).
    #[pyo3(signature = (job, *, rank, world_size, replica, step, cursor, resume, fence))]
    #[allow(clippy::too_many_arguments)] // keywords
    fn stream(
        &self,
        py: Python<'_>,
        job: String,
        rank: u32,
        world_size: u32,
        replica: u32,
        step: u64,
        cursor: Option<&str>,
        resume: &str,
        fence: u64,
    ) -> PyResult<Stream> {
        let start = match cursor {
            Some(text) => Start::Cursor(cursor_of(py, text)?),
            None => Start::Step(step),
        };
        let resume = resume_of(py, resume)?;
        let options = StreamOptions { rank, world_size, replica, start, resume, fence };
        let client = self.client.clone();
        self.control.call(py, async move { client.stream(&job, options).await }).map(Stream::new)
    }

    /// Starts a stream of a pinned set.
    #[pyo3(signature = (job, group, *, batch, rank, world_size, pad, from_step, held_out))]
    #[allow(clippy::too_many_arguments)] // keywords
    fn eval(
        &self,
        py: Python<'_>,
        job: String,
        group: String,
        batch: u32,
        rank: u32,
        world_size: u32,
        pad: bool,
        from_step: u64,
        held_out: bool,
    ) -> PyResult<Stream> {
        let last_batch = if pad { LastBatch::Pad } else { LastBatch::Partial };
        let options = EvalOptions { group, batch, rank, world_size, last_batch, from_step, held_out };
        let client = self.client.clone();
        self.control.call(py, async move { client.eval(&job, options).await }).map(Stream::new)
    }

    /// Makes a batch again: that of a receipt, whose batch is given, or that of a step.
    #[pyo3(signature = (job, *, of = None, step = 0, rank = 0, world_size = 1))]
    fn replay(
        &self,
        py: Python<'_>,
        job: String,
        of: Option<Bound<'_, Batch>>,
        step: u64,
        rank: u32,
        world_size: u32,
    ) -> PyResult<Batch> {
        let what = match of.as_ref().map(|batch| batch.get().inner().receipt().cloned()) {
            Some(Some(receipt)) => Replay::Receipt(receipt),
            Some(None) => return Err(argument(py, "of", "the batch has no receipt")),
            None => Replay::Step { step, rank, world_size },
        };
        let client = self.client.clone();
        self.control.call(py, async move { client.replay(&job, what).await }).map(Batch::new)
    }
    /// The mixture in force and the state of learning, as JSON.
    fn mixture(&self, py: Python<'_>, job: String) -> PyResult<String> {
        let client = self.client.clone();
        self.control.call(py, async move { mixture::state_json(&client.mixture(&job).await?) })
    }

    /// The log of the mixture's changes from a sequence number on, as JSON.
    fn mixture_log(&self, py: Python<'_>, job: String, from_seq: u64) -> PyResult<String> {
        let client = self.client.clone();
        self.control.call(py, async move {
            client.mixture_log(&job, from_seq).await.map(|log| mixture::log_json(&log))
        })
    }
}
