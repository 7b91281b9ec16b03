//! The open jobs of a server.

use super::{Draft, Executors, Job, JobError, chosen, hex, known_names, numerics, resolve_with};
use crate::exec::mixer::Mixers;
use crate::keeper::KeeperError;
use crate::metrics;
use crate::source::Source;
use crate::store;
use mixfeed_proto as v1;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// Open jobs by name.
#[derive(Debug)]
pub struct Jobs {
    sources: RwLock<Arc<BTreeMap<String, Arc<dyn Source>>>>,
    open: Mutex<BTreeMap<String, Arc<Job>>>,
    opening: Mutex<()>,
    choosing: Mutex<()>,
    limit: AtomicUsize,
    store: store::Shared,
    executors: Executors,
    mixers: Mixers,
}

impl Jobs {
    /// No job yet; at most `limit` at a time, over `sources`; their mixtures are kept in `store`.
    pub fn new(sources: BTreeMap<String, Arc<dyn Source>>, limit: usize, store: store::Shared) -> Jobs {
        let (sources, limit) = (RwLock::new(Arc::new(sources)), AtomicUsize::new(limit));
        Jobs {
            sources,
            open: Mutex::default(),
            opening: Mutex::default(),
            choosing: Mutex::default(),
            limit,
            store,
            executors: Executors::Cpu,
            mixers: Mixers::new(),
        }
    }

    /// The same, on a server with these executors.
    pub fn with_executors(mut self, executors: Executors) -> Jobs {
        self.executors = executors;
        self
    }

    /// The same, with mixers.
    pub fn with_mixers(mut self, mixers: Mixers) -> Jobs {
        self.mixers = mixers;
        self
    }

    /// Sources by name.
    pub fn sources(&self) -> Arc<BTreeMap<String, Arc<dyn Source>>> {
        self.sources.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds sources; one that is known already stays as it is.
    pub fn add_sources(&self, more: BTreeMap<String, Arc<dyn Source>>) {
        let mut sources = self.sources.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = more;
        all.extend(sources.iter().map(|(name, source)| (name.clone(), source.clone())));
        *sources = Arc::new(all);
    }

    /// Changes how many may be open at a time; those that are open stay.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    /// What would be opened as `name`, over `sources`, with the numerics that this server can make; where they are still
    /// to be measured, with those of a server with a device.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn draft(
        &self,
        name: &str,
        mut spec: v1::JobSpec,
        sources: &BTreeMap<String, Arc<dyn Source>>,
    ) -> Result<Draft, JobError> {
        numerics::settle(&mut spec, self.executors.device())?;
        resolve_with(name, spec, sources, &self.mixers)
    }

    /// Opens `name` with `spec`, or attaches when the same spec is open; returns whether it was created. Without a spec
    /// it only attaches.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn open(
        &self,
        name: &str,
        spec: Option<v1::JobSpec>,
        expected: &[u8],
    ) -> Result<(Arc<Job>, bool), JobError> {
        let Some(spec) = spec else {
            let job = self.get(name)?;
            return expect(name, &job.digest, expected).map(|()| (job, false));
        };
        // Resolving hashes indexes: not under the lock.
        let draft = self.settled(name, spec, expected)?;
        expect(name, &draft.digest, expected)?;
        // One at a time: two keepers of one job would fight over its log. Beside the lock of the open ones: going on from a
        // long log takes a while, and everybody else looks jobs up.
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let open = self.lock();
        if let Some(known) = open.get(name) {
            if known.digest == draft.digest {
                return Ok((known.clone(), false));
            }
            return Err(JobError::OtherDigest {
                name: name.into(),
                open: hex(&known.digest),
                given: hex(&draft.digest),
            });
        }
        let limit = self.limit.load(Relaxed);
        if open.len() >= limit {
            return Err(JobError::TooMany { open: open.len(), limit });
        }
        drop(open);
        metrics::job_opened(name);
        let job = draft.open(&self.store).inspect_err(|_| metrics::job_closed(name))?;
        let job = Arc::new(job);
        let mut open = self.lock();
        open.insert(name.into(), job.clone());
        metrics::jobs(open.len());
        metrics::weights(name, job.feed.groups.iter().map(|g| (g.name.as_str(), g.weight)));
        tracing::info!(job = name, digest = hex(&job.digest), "job opened");
        Ok((job, true))
    }

    /// The draft of `spec` with numerics that are this server's from now on.
    fn settled(&self, name: &str, spec: v1::JobSpec, expected: &[u8]) -> Result<Draft, JobError> {
        let sources = self.sources();
        match &self.executors {
            Executors::Faster(measure) if numerics::is_open(&spec) => {
                // Two that open the same job at once measure it once.
                let _choosing = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
                let open = self.lock().get(name).map(|job| job.digest);
                chosen::chosen(name, &spec, &sources, (open, expected), &self.store, measure)
            }
            Executors::Cpu | Executors::Device | Executors::Faster(_) => self.draft(name, spec, &sources),
        }
    }

    /// The open job called `name`.
    ///
    /// # Errors
    /// [`JobError::Unknown`].
    pub fn get(&self, name: &str) -> Result<Arc<Job>, JobError> {
        let open = self.lock();
        open.get(name).cloned().ok_or_else(|| unknown(name, &open))
    }

    /// Whether a job of this name is open.
    pub fn is_open(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    /// The error of a name that is not known, which lists no other jobs than those that `sees` lets through.
    pub fn unknown(&self, name: &str, sees: impl Fn(&str) -> bool) -> JobError {
        let open = self.lock();
        let known = known_names(open.keys().map(String::as_str).filter(|name| sees(name)));
        JobError::Unknown { what: "job", name: name.into(), known }
    }

    /// Jobs by name, from the first one after `after`, at most `most`.
    pub fn list(&self, after: &str, most: usize) -> Vec<Arc<Job>> {
        self.list_if(after, most, |_| true)
    }

    /// As [`Jobs::list`], of those whose names `sees` lets through.
    pub fn list_if(&self, after: &str, most: usize, sees: impl Fn(&str) -> bool) -> Vec<Arc<Job>> {
        let open = self.lock();
        let wanted = open.iter().filter(|(name, _)| name.as_str() > after && sees(name));
        wanted.take(most).map(|(_, job)| job.clone()).collect()
    }

    /// Closes `name`: its streams end with ABORTED. Waits for an event that is being made durable.
    ///
    /// # Errors
    /// [`JobError::Unknown`].
    pub fn close(&self, name: &str) -> Result<(), JobError> {
        let job = self.get(name)?;
        job.keeper.close();
        let mut open = self.lock();
        open.remove(name).ok_or_else(|| unknown(name, &open))?;
        metrics::jobs(open.len());
        metrics::job_closed(name);
        job.closed.send_replace(true);
        tracing::info!(job = name, "job closed");
        Ok(())
    }

    /// Closes `name` if it is open and deletes all that is kept of its mixture, of whatever spec.
    ///
    /// # Errors
    /// [`JobError::Unknown`] when nothing is open or kept under the name, [`JobError::Keeper`] when the store fails: some
    /// may be gone then, and asking again deletes the rest.
    pub fn forget(&self, name: &str) -> Result<(), JobError> {
        // Nobody opens it meanwhile, from records that are about to go.
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = self.close(name);
        let store = |error| JobError::Keeper(KeeperError::Store(error));
        // Names have no slash: what begins so is of no other job.
        let of = format!("{name}/");
        let keys: Vec<String> =
            self.store.keys().map_err(store)?.into_iter().filter(|key| key.starts_with(&of)).collect();
        if keys.is_empty() {
            return closed;
        }
        keys.iter().try_for_each(|key| self.store.forget(key)).map_err(store)?;
        tracing::info!(job = name, "mixture forgotten");
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Job>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.lock().keys().for_each(|name| metrics::job_closed(name));
    }
}

fn unknown(name: &str, open: &BTreeMap<String, Arc<Job>>) -> JobError {
    JobError::Unknown { what: "job", name: name.into(), known: known_names(open.keys().map(String::as_str)) }
}

fn expect(name: &str, digest: &[u8; 32], expected: &[u8]) -> Result<(), JobError> {
    if expected.is_empty() || expected == digest {
        return Ok(());
    }
    Err(JobError::Expected {
        name: name.into(),
        what: "expected_digest",
        expected: hex(digest),
        found: hex(expected),
    })
}
