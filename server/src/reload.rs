//! Reload: what the files say now is put in force while the server runs, whole or not at all.
//!
//! SIGHUP reads everything again. Tokens and certificates are also looked at every ten seconds, since who renews them often
//! cannot send signals.

use crate::config::{Config, ConfigError, Server};
use crate::service::{Shared, tls};
use crate::source::{Declaration, SourceError};
use crate::{Guards, Sources, StartError, auth, edge, job, metrics, stream_limits, tls_files};
use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::{mpsc, watch};

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
    Guards(#[from] StartError),
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
    Lost(#[from] tokio::task::JoinError),
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
    stamps: Stamps,
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Reload").field("file", &self.file).finish_non_exhaustive()
    }
}

/// What tells one version of a file from another.
type Stamp = Option<(SystemTime, u64, u64)>;

/// Versions of the files of tokens and certificates.
#[derive(Clone, Debug, Default, PartialEq)]
struct Stamps {
    tokens: Stamp,
    tls: Vec<Stamp>,
}

impl Stamps {
    fn look(server: &Server) -> Stamps {
        let stamp = |path: &PathBuf| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len(), meta.ino()))
        };
        let tls = server.tls.iter().flat_map(|tls| [&tls.cert, &tls.key].into_iter().chain(&tls.client_ca));
        Stamps { tokens: server.tokens.as_ref().and_then(stamp), tls: tls.map(stamp).collect() }
    }
}

impl Reload {
    /// Of a server that was started with `current`, read from `file`, with `over` put over it.
    pub fn new(file: PathBuf, current: Config, over: Over, open: Open, shared: Arc<Shared>) -> Reload {
        let stamps = Stamps::look(&current.server);
        Reload { file, current, over, open, shared, stamps }
    }

    /// Reloads at each hangup and whenever tokens or certificates change, until `stop` turns true.
    pub async fn run(mut self, mut hangups: mpsc::Receiver<()>, mut stop: watch::Receiver<bool>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = async { drop(stop.wait_for(|stop| *stop).await) } => return,
                Some(()) = hangups.recv() => drop(self.all().await),
                _ = look.tick() => self.files(),
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
        let stamps = Stamps::look(&next.server);
        let guards = Guards::read(&next.server)?;
        let more: BTreeMap<_, _> = added(&self.current.sources, &next.sources);
        let (open, file) = (self.open, self.file.clone());
        let opened = tokio::task::spawn_blocking(move || open(&more, &file)).await??;
        let jobs = added(&self.current.jobs, &next.jobs);
        let mut all = opened.clone();
        all.extend(self.shared.jobs.sources().iter().map(|(name, source)| (name.clone(), source.clone())));
        for (name, spec) in &jobs {
            let checked = job::resolve(name, spec.clone(), &all);
            checked.map_err(|error| ReloadError::Job { name: name.clone(), error })?;
        }
        let changes = self.apply(&next, &stamps, guards, opened, jobs).await?;
        (self.current, self.stamps) = (next, stamps);
        Ok(changes)
    }

    /// Puts what was checked in force. A job that cannot be opened all the same (its state, mostly) is told, and the rest
    /// stays in force.
    async fn apply(
        &self,
        next: &Config,
        stamps: &Stamps,
        guards: Guards,
        sources: Sources,
        jobs: BTreeMap<String, mixfeed_proto::JobSpec>,
    ) -> Result<Vec<String>, ReloadError> {
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
        let moved = old.tokens != new.tokens || stamps.tokens != self.stamps.tokens;
        if let Some(tokens) = guards.tokens.filter(|_| moved) {
            changes.push(format!("tokens {}", tokens.names().join(", ")));
            self.shared.access.replace(Some(tokens));
        }
        let moved = old.tls != new.tls || stamps.tls != self.stamps.tls;
        if let (Some(tls), Some(loaded)) = (&self.shared.tls, guards.tls.filter(|_| moved)) {
            changes.push("certificate".into());
            tls.replace(loaded);
        }
        changes.extend(sources.keys().map(|name| format!("source {name} opened")));
        self.shared.jobs.add_sources(sources);
        for (name, spec) in jobs {
            let (shared, job) = (self.shared.clone(), name.clone());
            let opened = tokio::task::spawn_blocking(move || shared.jobs.open(&job, Some(spec), &[])).await?;
            match opened {
                Ok(_) => changes.push(format!("job {name} opened")),
                Err(error) => {
                    tracing::error!(job = name, %error, "a new job of the config was not opened");
                    changes.push(format!("job {name} NOT opened"));
                }
            }
        }
        Ok(changes)
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

    /// Reads tokens or certificate again if their files changed. What cannot be used is told once, and the old stays.
    pub fn files(&mut self) {
        let stamps = Stamps::look(&self.current.server);
        let server = &self.current.server;
        if let Some(file) = server.tokens.as_ref().filter(|_| stamps.tokens != self.stamps.tokens) {
            let tokens = auth::Tokens::load(file);
            told("tokens", tokens, |tokens| self.shared.access.replace(Some(tokens)));
        }
        let files = server.tls.as_ref().filter(|_| stamps.tls != self.stamps.tls);
        if let (Some(tls), Some(files)) = (&self.shared.tls, files) {
            told("certificate", tls::Loaded::read(&tls_files(files)), |loaded| tls.replace(loaded));
        }
        self.stamps = stamps;
    }
}

fn told<T, E: std::fmt::Display>(what: &str, read: Result<T, E>, put: impl FnOnce(T)) {
    metrics::reload(read.is_ok());
    match read {
        Ok(new) => {
            put(new);
            tracing::info!("reloaded: {what}");
        }
        Err(error) => tracing::error!("{what} not reloaded, the old stays in force: {error}"),
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
        limits: _,
        page_pictures,
    } = old;
    let tls_switched = tls.is_some() != new.tls.is_some();
    let open = tokens.is_some() && new.tokens.is_none();
    [
        ("listen", *listen != new.listen, "addresses are bound at the start"),
        ("http", *http != new.http, "addresses are bound at the start"),
        ("threads", *threads != new.threads, "threads are made at the start"),
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
