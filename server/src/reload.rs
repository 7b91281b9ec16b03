//! Reload: what the files say now is put in force while the server runs, whole or not at all.
//!
//! SIGHUP reads everything again. Tokens and certificates are also looked at every ten seconds, since who renews them often
//! cannot send signals.

use crate::config::{Config, ConfigError, Server};
use crate::service::{Shared, tls};
use crate::source::{Declaration, SourceError};
use crate::{Guards, Running, Sources, StartError, auth, edge, job, metrics, stream_limits, tls_files};
use mixfeed_proto::JobSpec;
use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinHandle},
    time::{Interval, MissedTickBehavior},
};

/// How often tokens and certificates are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Why a reload was refused; nothing of it is in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A value does not fit together with the flags.
    #[error("`server.{key}` {why}")]
    Misfit {
        /// Key.
        key: &'static str,
        /// What is there and what is wanted.
        why: String,
    },
    /// Tokens, certificate, or plaintext that others could reach.
    #[error(transparent)]
    Guards(Box<StartError>),
    /// What cannot change while the server runs, each with its reason.
    #[error("{}", .0.join("; "))]
    Fixed(Vec<String>),
    /// A new source that cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A new job that cannot be opened.
    #[error("job `{name}`: {error}")]
    Job {
        /// Its name.
        name: String,
        /// Why.
        error: job::JobError,
    },
    /// The thread that opened sources is gone.
    #[error("cannot open sources: {0}")]
    Lost(#[from] JoinError),
}

impl From<StartError> for ReloadError {
    fn from(error: StartError) -> ReloadError {
        ReloadError::Guards(Box::new(error))
    }
}

/// Opens declared sources; paths are relative to the config file.
pub type Open = fn(&BTreeMap<String, Declaration>, &Path) -> Result<Sources, SourceError>;
/// Puts flags over what the file says.
pub type Over = Box<dyn Fn(&mut Server) + Send + Sync>;

/// What reloading needs.
pub struct Reload {
    file: PathBuf,
    current: Config,
    over: Over,
    open: Open,
    shared: Arc<Shared>,
    look: Interval,
    /// Of the files as they were put in force.
    in_force: Stamps,
    /// Of the files as they were last looked at.
    seen: Stamps,
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Reload").field("file", &self.file).finish_non_exhaustive()
    }
}

/// What tells one version of a file from another: when its content and when its owner or mode changed, size, number.
type Stamp = Option<(SystemTime, (i64, i64), u64, u64)>;

/// Versions of the files of tokens and certificates.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stamps {
    tokens: Stamp,
    tls: Vec<Stamp>,
}

impl Stamps {
    /// Of the files as they are. Taken before they are read: what changes meanwhile is read again.
    pub(crate) fn look(server: &Server) -> Stamps {
        let stamp = |path: &PathBuf| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, (meta.ctime(), meta.ctime_nsec()), meta.len(), meta.ino()))
        };
        let tls = server.tls.iter().flat_map(|tls| [&tls.cert, &tls.key].into_iter().chain(&tls.client_ca));
        Stamps { tokens: server.tokens.as_ref().and_then(stamp), tls: tls.map(stamp).collect() }
    }
}

impl Reload {
    /// Of the server `running`, which was started with `current`, read from `file`, with `over` put over it. Inside of a
    /// tokio runtime.
    pub fn new(file: PathBuf, current: Config, over: Over, open: Open, running: &Running) -> Reload {
        let mut look = tokio::time::interval_at(tokio::time::Instant::now() + LOOK_EVERY, LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (shared, stamps) = (running.shared.clone(), running.stamps.clone());
        Reload { file, current, over, open, shared, look, in_force: stamps.clone(), seen: stamps }
    }

    /// Reloads at each hangup and whenever tokens or certificates change, until `stop` turns true.
    pub async fn run(mut self, mut hangups: mpsc::Receiver<()>, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = async { drop(stop.wait_for(|stop| *stop).await) } => return,
                Some(()) = hangups.recv() => drop(self.all().await),
                _ = self.look.tick() => self.files(),
            }
        }
    }

    /// Waits for `task`. Tokens are looked at meanwhile: to revoke one must not wait for an index.
    async fn meanwhile<T>(&mut self, mut task: JoinHandle<T>) -> Result<T, JoinError> {
        loop {
            tokio::select! {
                done = &mut task => return done,
                _ = self.look.tick() => self.files(),
            }
        }
    }

    /// Reads everything again; returns what changed.
    ///
    /// # Errors
    /// [`ReloadError`]; nothing changed then.
    pub async fn all(&mut self) -> Result<Vec<String>, ReloadError> {
        let done = self.try_all().await;
        metrics::reload(done.is_ok());
        match &done {
            Ok(changes) if changes.is_empty() => tracing::info!("reloaded: nothing changed"),
            Ok(changes) => tracing::info!("reloaded: {}", changes.join("; ")),
            Err(error) => tracing::error!("reload refused, nothing changed: {error}"),
        }
        done
    }

    async fn try_all(&mut self) -> Result<Vec<String>, ReloadError> {
        let mut next = Config::load(&self.file)?;
        (self.over)(&mut next.server);
        if let Some((key, why)) = next.server.misfit() {
            return Err(ReloadError::Misfit { key, why });
        }
        let fixed = self.fixed(&next);
        if !fixed.is_empty() {
            return Err(ReloadError::Fixed(fixed));
        }
        Guards::read(&next.server)?; // before the sources: indexing can take minutes
        let jobs = added(&self.current.jobs, &next.jobs);
        self.fits(&next.server, &jobs)?;
        let more = added(&self.current.sources, &next.sources);
        let (open, file, specs) = (self.open, self.file.clone(), jobs.clone());
        let shared = self.shared.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let opened = open(&more, &file)?;
            let mut all = opened.clone();
            all.extend(shared.jobs.sources().iter().map(|(name, source)| (name.clone(), source.clone())));
            for (name, spec) in specs {
                shared.jobs.draft(&name, spec, &all).map_err(|error| ReloadError::Job { name, error })?;
            }
            Ok::<_, ReloadError>(opened)
        });
        let opened = self.meanwhile(opening).await??;
        let guards = Guards::read(&next.server)?; // what was read before is old by now
        next.jobs.retain(|name, _| self.current.jobs.contains_key(name));
        let mut changes = self.apply(next, guards, opened);
        for (name, spec) in jobs {
            changes.push(self.open_job(name, spec).await);
        }
        Ok(changes)
    }

    /// Whether there is room for new jobs.
    fn fits(&self, next: &Server, jobs: &BTreeMap<String, JobSpec>) -> Result<(), ReloadError> {
        let new = jobs.keys().filter(|name| !self.shared.jobs.is_open(name)).count();
        let open = self.shared.jobs.list("", usize::MAX).len();
        if new == 0 || open + new <= next.max_jobs {
            return Ok(());
        }
        let why = format!("is {}, want at least {}: {open} open jobs, {new} new", next.max_jobs, open + new);
        Err(ReloadError::Misfit { key: "max_jobs", why })
    }

    /// Puts what was checked in force, all but new jobs; returns what changed.
    fn apply(&mut self, next: Config, guards: Guards, sources: Sources) -> Vec<String> {
        let (old, new) = (&self.current.server, &next.server);
        let mut changes = Vec::new();
        if old.max_jobs != new.max_jobs {
            changes.push(format!("server.max_jobs = {}", new.max_jobs));
        }
        for (key, before, after) in [
            ("prefetch", old.prefetch().0, new.prefetch().0),
            ("max_prefetch", old.max_prefetch().0, new.max_prefetch().0),
            ("drain_timeout", old.drain_timeout as usize, new.drain_timeout as usize),
        ] {
            if before != after {
                changes.push(format!("server.{key} = {after}"));
            }
        }
        self.shared.jobs.set_limit(new.max_jobs);
        self.shared.set_limits(stream_limits(new));
        if old.limits != new.limits {
            changes.push("server.limits".into());
            self.shared.house.set_limits(edge(&new.limits));
        }
        let moved = old.tokens != new.tokens || guards.stamps.tokens != self.in_force.tokens;
        if let Some(tokens) = guards.tokens.filter(|_| moved) {
            changes.push(format!("tokens {}", tokens.names().join(", ")));
            self.shared.access.replace(Some(tokens));
        }
        let moved = old.tls != new.tls || guards.stamps.tls != self.in_force.tls;
        if let (Some(tls), Some(loaded)) = (&self.shared.tls, guards.tls.filter(|_| moved)) {
            changes.push("certificate".into());
            tls.replace(loaded);
        }
        changes.extend(sources.keys().map(|name| format!("source {name} opened")));
        self.shared.jobs.add_sources(sources);
        self.current = next;
        (self.in_force, self.seen) = (guards.stamps.clone(), guards.stamps);
        changes
    }

    /// Opens a new job; returns what became of it. One that cannot be opened all the same (its state, mostly) is told, tried
    /// again at the next reload, and the rest stays in force.
    async fn open_job(&mut self, name: String, spec: JobSpec) -> String {
        let (shared, job, wanted) = (self.shared.clone(), name.clone(), spec.clone());
        let opening = tokio::task::spawn_blocking(move || shared.jobs.open(&job, Some(wanted), &[]));
        let why = match self.meanwhile(opening).await {
            Ok(Ok(_)) => {
                let told = format!("job {name} opened");
                self.current.jobs.insert(name, spec);
                return told;
            }
            Ok(Err(error)) => error.to_string(),
            Err(lost) => lost.to_string(),
        };
        tracing::error!(job = name, error = why, "a new job of the config was not opened");
        format!("job {name} NOT opened")
    }

    /// What changed and cannot change while the server runs, each with its reason.
    fn fixed(&self, next: &Config) -> Vec<String> {
        let mut fixed = fixed_settings(&self.current.server, &next.server);
        for (name, declared) in &self.current.sources {
            match next.sources.get(name) {
                Some(now) if now == declared => {}
                Some(_) => {
                    fixed.push(format!("`sources.{name}` changed: jobs are pinned to it, declare another"))
                }
                None => {
                    fixed.push(format!("`sources.{name}` was removed: jobs may read it, restart to drop it"))
                }
            }
        }
        for (name, spec) in &self.current.jobs {
            match next.jobs.get(name) {
                Some(now) if now == spec => {}
                Some(_) => fixed.push(format!("`jobs.{name}` changed: its trainers would get other batches")),
                None if !self.shared.jobs.is_open(name) => {}
                None => fixed.push(format!("`jobs.{name}` was removed, but is open: close it first")),
            }
        }
        fixed
    }

    /// Reads tokens or certificate again if their files are not those in force. What cannot be used is told once, tried again
    /// at the next look (what is wrong may be elsewhere: no more open files, a certificate whose time comes), and the old stays.
    pub fn files(&mut self) {
        let server = &self.current.server;
        let stamps = Stamps::look(server);
        if let Some(file) = server.tokens.as_ref().filter(|_| stamps.tokens != self.in_force.tokens) {
            let tell = stamps.tokens != self.seen.tokens;
            if let Some(tokens) = told("tokens", auth::Tokens::load(file), tell) {
                self.shared.access.replace(Some(tokens));
                self.in_force.tokens = stamps.tokens;
            }
        }
        let files = server.tls.as_ref().filter(|_| stamps.tls != self.in_force.tls);
        if let (Some(tls), Some(files)) = (&self.shared.tls, files) {
            let tell = stamps.tls != self.seen.tls;
            if let Some(loaded) = told("certificate", tls::Loaded::read(&tls_files(files)), tell) {
                tls.replace(loaded);
                self.in_force.tls.clone_from(&stamps.tls);
            }
        }
        self.seen = stamps;
    }
}

/// What was read. Failures are told when `tell` says so.
fn told<T, E: std::fmt::Display>(what: &str, read: Result<T, E>, tell: bool) -> Option<T> {
    match read {
        Ok(new) => {
            metrics::reload(true);
            tracing::info!("reloaded: {what}");
            Some(new)
        }
        Err(error) => {
            if tell {
                metrics::reload(false);
                tracing::error!("{what} not reloaded, the old stays in force: {error}");
            }
            None
        }
    }
}

/// Entries of `new` that `old` lacks.
fn added<T: Clone>(old: &BTreeMap<String, T>, new: &BTreeMap<String, T>) -> BTreeMap<String, T> {
    let more = new.iter().filter(|(name, _)| !old.contains_key(*name));
    more.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Settings that differ and are fixed. Each field is named, so that a new one has to choose.
fn fixed_settings(old: &Server, new: &Server) -> Vec<String> {
    let Server {
        listen,
        http,
        threads,
        device,
        readers,
        memory,
        prefetch: _,
        max_prefetch: _,
        max_jobs: _,
        drain_timeout: _,
        reflection,
        state,
        tokens,
        tls,
        allow_plaintext,
        mixers,
        limits: _,
        page_pictures,
    } = old;
    let tls_switched = tls.is_some() != new.tls.is_some();
    let open = tokens.is_some() && new.tokens.is_none();
    [
        ("listen", *listen != new.listen, "addresses are bound at the start"),
        ("http", *http != new.http, "addresses are bound at the start"),
        ("threads", *threads != new.threads, "threads are made at the start"),
        ("device", *device != new.device, "it is opened at the start"),
        ("mixers", *mixers != new.mixers, "they are loaded at the start, and jobs are pinned to them"),
        ("readers", *readers != new.readers, "threads are made at the start"),
        ("memory", *memory != new.memory, "streams were promised parts of it"),
        ("reflection", *reflection != new.reflection, "services are set at the start"),
        ("page_pictures", *page_pictures != new.page_pictures, "the page is set up at the start"),
        ("state", *state != new.state, "jobs keep their mixtures there"),
        ("tls", tls_switched, "clients would be cut off: files may change, on and off may not"),
        ("tokens", open, "that would open the server to everybody"),
        ("allow_plaintext", *allow_plaintext != new.allow_plaintext, "addresses are bound at the start"),
    ]
    .into_iter()
    .filter(|(_, changed, _)| *changed)
    .map(|(key, _, why)| format!("`server.{key}` cannot change while the server runs ({why}), restart it"))
    .collect()
}
