//! `mixfeed serve`.

use crate::config::{Config, Size};
use crate::exec::device::Device;
use crate::{Guards, Sources, config, metrics, reload::Reload, shutdown, source};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Folder for state when nobody says.
const STATE: &str = "mixfeed-state";
/// Files that a server opens beside those of its connections: shards, state, libraries.
const FILES_BESIDE: u64 = 256;

/// Flags; each one beats the file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Config file.
    #[arg(long, env = "MIXFEED_CONFIG", default_value = "mixfeed.toml")]
    config: PathBuf,
    /// gRPC address, "HOST:PORT" or "unix:PATH"; may be given several times.
    #[arg(long, env = "MIXFEED_LISTEN", value_delimiter = ',')]
    listen: Vec<String>,
    /// Address of /metrics and /healthz; empty turns it off.
    #[arg(long, env = "MIXFEED_HTTP")]
    http: Option<String>,
    /// CPU threads; 0 means one per core.
    #[arg(long, env = "MIXFEED_THREADS")]
    threads: Option<usize>,
    /// What mixes pictures and scenes: cpu, torch (libtorch on the processor), cuda:N, or auto: the faster of cpu and
    /// cuda:0, by job.
    #[arg(long, env = "MIXFEED_DEVICE")]
    device: Option<Device>,
    /// Memory that may be promised to streams, such as "2GiB".
    #[arg(long, env = "MIXFEED_MEMORY")]
    memory: Option<Size>,
    /// Folder for what must outlive the process; empty keeps it in memory only.
    #[arg(long, env = "MIXFEED_STATE")]
    state: Option<String>,
    /// Let TCP addresses other than loopback speak plaintext.
    #[arg(long, env = "MIXFEED_ALLOW_PLAINTEXT")]
    allow_plaintext: bool,
    /// Write the addresses to this file as JSON once the server serves.
    #[arg(long)]
    ready_file: Option<PathBuf>,
}

impl Args {
    /// Puts the flags over what the file says.
    fn over(&self, server: &mut config::Server) {
        if !self.listen.is_empty() {
            server.listen.clone_from(&self.listen);
        }
        if let Some(http) = &self.http {
            server.http.clone_from(http);
        }
        server.threads = self.threads.unwrap_or(server.threads);
        server.device = self.device.unwrap_or(server.device);
        server.memory = self.memory.unwrap_or(server.memory);
        server.state = Some(state(self.state.clone(), server.state.take(), &self.config));
        server.allow_plaintext |= self.allow_plaintext;
        server.rebase(base(&self.config));
    }
}

/// The folder of the config file.
fn base(config: &Path) -> &Path {
    config.parent().unwrap_or(Path::new("."))
}

/// Serves until a signal comes.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut config = Config::load(&args.config)?;
    args.over(&mut config.server);
    if let Some((key, why)) = config.server.misfit() {
        anyhow::bail!("`{key}` {why}");
    }
    Guards::read(&config.server)?; // before the sources: indexing can take minutes
    raise_open_files(config.server.limits.connections);
    let mut stop = shutdown::watch_signals()?;
    let reloads = shutdown::watch_hangups()?;
    let handle = metrics::install(crate::job::NUMERICS).context("cannot install metrics")?;
    let (declared, file) = (config.sources.clone(), args.config.clone());
    let opening = tokio::task::spawn_blocking(move || open(&declared, &file));
    let sources = tokio::select! {
        sources = opening => sources??,
        // Indexing can take minutes; a signal need not wait for it.
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    };
    let running =
        crate::start(&config.server, sources, config.jobs.clone(), Some(handle), stop.clone()).await?;
    for endpoint in &running.endpoints {
        tracing::info!("listening on {endpoint}");
    }
    if let Some(http) = &running.http {
        tracing::info!("metrics on {http}/metrics");
    }
    if let Some(file) = &args.ready_file {
        ready(file, &running).with_context(|| format!("cannot write `{}`", file.display()))?;
    }
    let file = args.config.clone();
    let over = Box::new(move |server: &mut config::Server| args.over(server));
    let reload = Reload::new(file, config, over, open, &running);
    let reloading = tokio::spawn(reload.run(reloads, stop));
    running.wait().await;
    reloading.abort();
    tracing::info!("stopped");
    Ok(())
}

/// Each connection is an open file: lets the process have as many as the system allows.
fn raise_open_files(connections: usize) {
    let wanted = connections as u64 + FILES_BESIDE;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) if files >= wanted => {}
        Ok(files) => tracing::warn!(
            "{files} files may be open, server.limits.connections = {connections} takes {wanted}: raise the hard limit \
             (`ulimit -Hn`, LimitNOFILE) or lower the connections"
        ),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
}

/// The folder of the flag (relative to here), or of the file (relative to it), or the default beside the file.
fn state(flag: Option<String>, file: Option<String>, config: &Path) -> String {
    let base = base(config);
    match (flag, file) {
        (Some(flag), _) => flag,
        (None, Some(file)) if file.is_empty() => file,
        (None, file) => base.join(file.as_deref().unwrap_or(STATE)).display().to_string(),
    }
}

/// Written whole and moved into place: a reader never sees half a file.
fn ready(file: &Path, running: &crate::Running) -> std::io::Result<()> {
    let text = serde_json::json!({ "grpc": running.endpoints, "http": running.http }).to_string();
    let draft = file.with_extension("draft");
    std::fs::write(&draft, text)?;
    std::fs::rename(&draft, file)
}

/// Opens every declared source; paths are relative to the config file. Shows progress on a terminal.
pub fn open(
    declared: &BTreeMap<String, source::Declaration>,
    config: &Path,
) -> Result<Sources, source::SourceError> {
    let base = base(config);
    let mut sources = Sources::new();
    for (name, declaration) in declared {
        let bar = bar(name);
        let source = source::open(name, declaration, base, &|records, what| {
            bar.set_position(records);
            bar.set_message(what.to_owned());
        })?;
        bar.finish_and_clear();
        let index = source.index();
        let (records, groups) = (index.len(), index.groups.len());
        tracing::info!(source = name, kind = source.kind(), records, groups, "source opened");
        for note in source.notes() {
            tracing::warn!(source = name, "{note}");
        }
        sources.insert(name.clone(), Arc::clone(&source));
    }
    Ok(sources)
}

/// Hidden when the output is no terminal.
fn bar(source: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {spinner} {pos} records {wide_msg}");
    let bar = ProgressBar::new_spinner().with_prefix(format!("indexing {source}"));
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

/// Settings of a private server: any free port of this machine.
pub fn private() -> config::Server {
    config::Server { listen: vec!["127.0.0.1:0".into()], http: String::new(), ..Default::default() }
}
