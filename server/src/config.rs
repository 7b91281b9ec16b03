//! What the operator wrote: a TOML file, checked whole before a port is bound. Errors name key and line.

mod limits;

use crate::exec::device::Device;
pub use crate::size::Size;
pub use limits::Limits;

use crate::source::Declaration;
use mixfeed_proto::JobSpec;
use serde::{Deserialize, Deserializer, de::Error as _};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Everything in the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[sources.NAME]`.
    pub sources: BTreeMap<String, Declaration>,
    /// `[jobs.NAME]`: opened when the server starts.
    pub jobs: BTreeMap<String, JobSpec>,
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// gRPC addresses, "HOST:PORT" or "unix:PATH"; at least one.
    pub listen: Vec<String>,
    /// Address of /metrics and /healthz; empty turns it off.
    pub http: String,
    /// CPU threads, 0..=4096; 0 means one per core.
    pub threads: usize,
    /// What mixes pictures and scenes: "cpu", "torch", "cuda:N" or "auto".
    #[serde(deserialize_with = "device")]
    pub device: Device,
    /// Threads that read records, 0..=4096; 0 means 8.
    pub readers: usize,
    /// Bytes that may be promised to streams.
    pub memory: Size,
    /// Bytes made ahead for a stream that does not say; default 128 MiB, or all memory if that is less.
    pub prefetch: Option<Size>,
    /// Most bytes made ahead for one stream; default 1 GiB, or all memory if that is less.
    pub max_prefetch: Option<Size>,
    /// Most open jobs, 1..=1000.
    pub max_jobs: usize,
    /// Seconds that streams get to end when the server stops.
    pub drain_timeout: u64,
    /// Serve gRPC reflection.
    pub reflection: bool,
    /// Show rows of the last batch on the status page.
    pub page_pictures: bool,
    /// Folder for what must outlive the process (mixture logs, reports), relative to the file; made when it is missing.
    /// `mixfeed serve` defaults to "mixfeed-state"; empty keeps it in memory only.
    pub state: Option<String>,
    /// `[server.limits]`.
    pub limits: Limits,
    /// `[server.mixers.NAME]`: networks for the policy `learned`; with `--features libtorch` only.
    pub mixers: BTreeMap<String, Mixer>,
    /// File of tokens, relative to the file; without one everybody may do everything.
    pub tokens: Option<PathBuf>,
    /// `[server.tls]`: TCP addresses speak TLS.
    pub tls: Option<Tls>,
    /// Lets TCP addresses other than loopback speak plaintext.
    pub allow_plaintext: bool,
}

/// `[server.mixers.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mixer {
    /// JSON file that names the modules beside it, relative to the file.
    pub manifest: PathBuf,
}

/// `[server.tls]`: files in PEM, relative to the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificate, then those between it and its authority.
    pub cert: PathBuf,
    /// Private key of the certificate.
    pub key: PathBuf,
    /// Authorities of client certificates; with it, clients without one are refused.
    pub client_ca: Option<PathBuf>,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            listen: vec!["127.0.0.1:7443".into()],
            http: "127.0.0.1:7444".into(),
            threads: 0,
            device: Device::Cpu,
            readers: 0,
            memory: Size(2 << 30),
            prefetch: None,
            max_prefetch: None,
            max_jobs: 20,
            drain_timeout: 30,
            reflection: false,
            page_pictures: true,
            state: None,
            limits: Limits::default(),
            mixers: BTreeMap::new(),
            tokens: None,
            tls: None,
            allow_plaintext: false,
        }
    }
}

impl Server {
    /// Bytes made ahead for a stream that does not say.
    pub fn prefetch(&self) -> Size {
        self.prefetch.unwrap_or(Size(self.memory.0.min(128 << 20)))
    }

    /// Most bytes made ahead for one stream.
    pub fn max_prefetch(&self) -> Size {
        self.max_prefetch.unwrap_or(Size(self.memory.0.min(1 << 30)))
    }

    /// The first TCP address that others can reach and that would speak plaintext without leave.
    pub fn exposed(&self) -> Option<&str> {
        let guarded = self.tls.is_some() || self.allow_plaintext;
        self.listen.iter().map(String::as_str).find(|address| !guarded && !is_local(address))
    }

    /// Whether every address is out of reach for other machines.
    pub fn is_local(&self) -> bool {
        self.listen.iter().all(|address| is_local(address))
    }

    /// Names of mixers with their manifests.
    pub fn mixers(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.mixers.iter().map(|(name, mixer)| (name.as_str(), mixer.manifest.as_path()))
    }

    /// Makes paths relative to `base`, the folder of the file, relative to here.
    pub fn rebase(&mut self, base: &Path) {
        let Server { tokens, tls, mixers, .. } = self;
        mixers.values_mut().for_each(|mixer| mixer.manifest = base.join(&mixer.manifest));
        let tls = tls
            .iter_mut()
            .flat_map(|tls| [&mut tls.cert, &mut tls.key].into_iter().chain(&mut tls.client_ca));
        for path in tokens.iter_mut().chain(tls) {
            *path = base.join(&*path);
        }
    }

    /// The first value that does not fit, with its key: (key, what is there and what is wanted).
    pub fn misfit(&self) -> Option<(&'static str, String)> {
        let Server { listen, threads, readers, memory, prefetch, max_prefetch, max_jobs, mixers, .. } = self;
        if listen.is_empty() {
            return Some(("listen", "is empty, want at least one address".into()));
        }
        if listen.iter().any(|l| l == "unix:") {
            return Some(("listen", "has `unix:` without a path".into()));
        }
        for (key, value) in [("threads", threads), ("readers", readers)] {
            if *value > 4096 {
                return Some((key, format!("is {value}, want 0..=4096")));
            }
        }
        if !(1..=1000).contains(max_jobs) {
            return Some(("max_jobs", format!("is {max_jobs}, want 1..=1000")));
        }
        if mixers.keys().any(String::is_empty) {
            return Some(("mixers", "has a mixer without a name".into()));
        }
        if let Some(misfit) = self.limits.misfit() {
            return Some(misfit);
        }
        let large = [("prefetch", prefetch), ("max_prefetch", max_prefetch)].into_iter();
        let large =
            large.filter_map(|(key, size)| Some((key, (*size)?.0))).find(|(_, size)| *size > memory.0);
        large.map(|(key, size)| (key, format!("is {size}, want at most server.memory ({})", memory.0)))
    }
}

fn device<'a, D: Deserializer<'a>>(input: D) -> Result<Device, D::Error> {
    String::deserialize(input)?.parse().map_err(D::Error::custom)
}

/// Whether only this machine can dial the address.
fn is_local(address: &str) -> bool {
    if address.starts_with("unix:") {
        return true;
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read config `{}`: {error}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// It is no TOML, or has unknown keys or values of another type; the message shows line and column.
    #[error("config `{}` is wrong: {error}", path.display())]
    Parse {
        /// File.
        path: PathBuf,
        /// What the parser says.
        error: Box<toml::de::Error>,
    },
    /// A value that does not fit.
    #[error("config `{}`, line {line}: `{key}` {why}", path.display())]
    Value {
        /// File.
        path: PathBuf,
        /// Line of the key, from 1.
        line: usize,
        /// Key with its tables, "server.threads".
        key: String,
        /// What is there and what is wanted.
        why: String,
    },
}

impl Config {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that does not fit.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        Config::parse(&text, path)
    }

    /// As [`Config::load`] from text; `path` names it in errors.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let config: Config = toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), error: Box::new(error) })?;
        match config.misfit() {
            None => Ok(config),
            Some((key, why)) => {
                let line = line_of(text, &key);
                Err(ConfigError::Value { path: path.to_owned(), line, key, why })
            }
        }
    }

    /// The first value that does not fit, with its key.
    fn misfit(&self) -> Option<(String, String)> {
        if let Some((key, why)) = self.server.misfit() {
            return Some((format!("server.{key}"), why));
        }
        let name = |name: &String| name.is_empty() || name.contains('/');
        let named = self.sources.keys().find(|n| name(n)).map(|n| ("sources", n));
        named.map(|(table, n)| (format!("{table}.{n}"), "is no name, want one without `/`".into()))
    }
}

/// Line of the last part of `key` in its table, from 1; the table's own line when the key is not written out.
fn line_of(text: &str, key: &str) -> usize {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    let (mut current, mut best) = (String::new(), 1);
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            current = header.trim().replace('"', "");
            if current == table || current == key {
                best = i + 1;
            }
        } else if current == table
            && line.split('=').next().is_some_and(|k| k.trim().trim_matches('"') == name)
        {
            return i + 1;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHOLE: &str = "[server]\nlisten = [\"127.0.0.1:0\"]\nmemory = \"1GiB\"\nthreads = 2\n\
        [server.limits]\nidle_timeout = 3\n[sources.a]\nkind = \"tar\"\npath = \"x\"\n\
        [jobs.\"b c\"]\nglobal_batch = 8\nseed = 3\ngroups = [{ group = \"a\", weight = 0.5 }]\n\
        image = { height = 3, width = 4, random_resized_crop = {} }\n";

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn bent_text_is_read_or_refused_with_a_line(
            edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..6, "[ -~\u{e9}\n]{0,6}"), 1..4),
        ) {
            let mut text = WHOLE.to_owned();
            for (at, cut, more) in edits {
                let at = at.index(text.len() + 1);
                let at = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                let rest: String = text[at..].chars().skip(cut).collect();
                text.truncate(at);
                text.push_str(&more);
                text.push_str(&rest);
            }
            if let Err(error) = Config::parse(&text, Path::new("mixfeed.toml")) {
                prop_assert!(error.to_string().contains("mixfeed.toml"));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
            let _ = Config::parse(&text, Path::new("mixfeed.toml"));
            let _ = text.parse::<Size>();
        }
    }

    #[test]
    fn the_text_that_is_bent_is_right() {
        Config::parse(WHOLE, Path::new("mixfeed.toml")).unwrap();
    }

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("mixfeed.toml")).expect_err("wrong").to_string()
    }

    #[test]
    fn defaults_fit_and_sizes_have_units() {
        let config = Config::parse("[server]\nmemory = \"3GiB\"\nprefetch = 1024\n", Path::new("x")).unwrap();
        assert_eq!(config.server.memory, Size(3 << 30));
        assert_eq!((config.server.prefetch(), config.server.max_prefetch()), (Size(1024), Size(1 << 30)));
        let small = Config::parse("[server]\nmemory = \"100MiB\"\n", Path::new("x")).unwrap();
        assert_eq!(small.server.prefetch(), Size(100 << 20));
        assert_eq!(Config::parse("", Path::new("x")).unwrap().server, Server::default());
    }

    #[test]
    fn plaintext_that_others_can_reach_needs_leave() {
        let exposed = |listen: &[&str], more: fn(&mut Server)| {
            let mut server =
                Server { listen: listen.iter().map(|l| (*l).to_owned()).collect(), ..Server::default() };
            more(&mut server);
            server.exposed().map(str::to_owned)
        };
        for local in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/run/mixfeed.sock"] {
            assert_eq!(exposed(&[local], |_| {}), None, "{local}");
        }
        for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "feed.example:1", "localhost.example:1", ":1"] {
            assert_eq!(exposed(&["127.0.0.1:1", open], |_| {}).as_deref(), Some(open));
            assert_eq!(exposed(&[open], |server| server.allow_plaintext = true), None);
            let tls = |server: &mut Server| {
                server.tls = Some(Tls { cert: "c".into(), key: "k".into(), client_ca: None });
            };
            assert_eq!(exposed(&[open], tls), None);
        }
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let text = "[server]\ntokens = \"t\"\nmixers = { m = { manifest = \"m/manifest.json\" } }\n[server.tls]\ncert = \"/c\"\nkey = \"k\"\nclient_ca = \"a\"\n";
        let mut server = Config::parse(text, Path::new("x")).unwrap().server;
        server.rebase(Path::new("etc"));
        assert_eq!(server.tokens, Some("etc/t".into()));
        assert_eq!(server.mixers().collect::<Vec<_>>(), [("m", Path::new("etc/m/manifest.json"))]);
        let tls = Tls { cert: "/c".into(), key: "etc/k".into(), client_ca: Some("etc/a".into()) };
        assert_eq!(server.tls, Some(tls));
        let e = error("[server.tls]\ncert = \"c\"\n");
        assert!(e.contains("key"), "{e}");
    }

    #[test]
    fn errors_name_key_and_line() {
        let e = error("[server]\nthreads = 2\nthreds = 3\n");
        assert!(e.contains("line 3") && e.contains("threds"), "{e}");
        let e = error("[server]\n\nthreads = 5000\n");
        assert!(e.contains("line 3: `server.threads` is 5000, want 0..=4096"), "{e}");
        let e = error("[server]\nmemory = \"12 potatoes\"\n");
        assert!(e.contains("line 2") && e.contains("potatoes"), "{e}");
        let e = error("[server]\nlisten = []\n");
        assert!(e.contains("line 2: `server.listen` is empty"), "{e}");
        let e = error("[server]\nmemory = \"1MiB\"\nmax_prefetch = \"2MiB\"\nprefetch = 1\n");
        assert!(e.contains("line 3: `server.max_prefetch`"), "{e}");
        let e = error("[server]\n[server.limits]\n\nidle_timeout = 0\n");
        assert!(e.contains("line 4: `server.limits.idle_timeout` is 0, want 1..=31536000"), "{e}");
        let e = error("[server.mixers.m]\nmanifest = \"m\"\npath = \"x\"\n");
        assert!(e.contains("line 3") && e.contains("path"), "{e}");
        let e = error("[jobs.a]\nglobal_batch = \"many\"\n");
        assert!(e.contains("line 2"), "{e}");
        let e = error("[jobs.a.output]\nlayout = \"nchv\"\n");
        assert!(e.contains("line 2") && e.contains("nchw, nhwc"), "{e}");
        let e = error("[server\n");
        assert!(e.contains("line 1"), "{e}");
    }
}
