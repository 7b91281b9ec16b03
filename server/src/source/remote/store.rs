//! What the operator says about a store: the table `[sources.NAME.store]`, checked before anything is asked.

use super::client::here;
use crate::size::Size;
use serde::Deserialize;
use std::time::Duration;

/// `[sources.NAME.store]`: how objects of an `s3://`, `http://` or `https://` path are read. No key holds a secret.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Region of the bucket; default: `AWS_REGION`, else "us-east-1".
    pub region: Option<String>,
    /// URL of an S3 server other than Amazon's, `https://minio.example:9000`; default: `AWS_ENDPOINT_URL`, else Amazon's.
    pub endpoint: Option<String>,
    /// Names the bucket in the host instead of the path.
    pub virtual_hosted: bool,
    /// Reads without TLS from hosts other than this one.
    pub allow_http: bool,
    /// Where keys come from; default: "file" with `credentials_file`, else "environment".
    pub credentials: Option<Credentials>,
    /// File in the format of `~/.aws/credentials`, read again when it changes; relative like `path`.
    pub credentials_file: Option<String>,
    /// Section of that file; default "default".
    pub profile: Option<String>,
    /// PEM file of authorities that are trusted beside the system's; relative like `path`.
    pub ca_file: Option<String>,
    /// Seconds without a byte after which a request is given up, 1..=3600; default 30. The whole of it may
    /// take ten times as long, and a second for every 16 KiB.
    pub timeout: Option<u64>,
    /// Times that a failed request is tried again, 0..=1000; default 20.
    pub retries: Option<u32>,
    /// Seconds after which a failed request is not tried again, 0..=86400; default 120.
    pub retry_timeout: Option<u64>,
    /// Requests at a time, 1..=1024; default 32.
    pub requests: Option<u32>,
    /// Most bytes of records kept on disk, "20GiB"; without it nothing is kept.
    pub cache: Option<Size>,
    /// Folder for them, relative like `path`; default "mixfeed-cache/records". Sources may share one.
    pub cache_dir: Option<String>,
}

/// Where keys come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Credentials {
    /// `AWS_*` variables: keys, a web identity, a container's address; else the machine's own (instance metadata).
    Environment,
    /// `credentials_file`.
    File,
    /// Requests are not signed: public buckets.
    None,
}

impl Store {
    /// Where keys come from.
    pub fn credentials(&self) -> Credentials {
        let file = self.credentials_file.is_some();
        self.credentials.unwrap_or(if file { Credentials::File } else { Credentials::Environment })
    }

    /// Seconds without a byte after which a request is given up.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.unwrap_or(30))
    }

    /// Requests at a time.
    pub fn requests(&self) -> usize {
        self.requests.unwrap_or(32) as usize
    }

    /// The first value that does not fit: "store.KEY ...". `s3` is whether the path is of that kind.
    pub fn misfit(&self, s3: bool) -> Option<String> {
        let ranges = [
            ("timeout", self.timeout, 1, 3600),
            ("retries", self.retries.map(u64::from), 0, 1000),
            ("retry_timeout", self.retry_timeout, 0, 86400),
            ("requests", self.requests.map(u64::from), 1, 1024),
        ];
        let outside = ranges.iter().find_map(|(key, value, least, most)| {
            let value = value.filter(|value| !(*least..=*most).contains(value))?;
            Some(format!("store.{key} is {value}, want {least}..={most}"))
        });
        outside.or_else(|| self.misfit_of_kind(s3)).or_else(|| {
            let dir = self.cache_dir.is_some() && self.cache.is_none();
            dir.then(|| "store.cache_dir is given, want a `cache` of some size with it".into())
        })
    }

    fn misfit_of_kind(&self, s3: bool) -> Option<String> {
        let signed = [
            ("region", self.region.is_some()),
            ("endpoint", self.endpoint.is_some()),
            ("virtual_hosted", self.virtual_hosted),
            ("credentials", self.credentials.is_some()),
            ("credentials_file", self.credentials_file.is_some()),
            ("profile", self.profile.is_some()),
        ];
        if let Some((key, _)) = signed.iter().find(|(_, given)| *given && !s3) {
            return Some(format!("store.{key} is given, want a path `s3://...` with it"));
        }
        let file = self.credentials() == Credentials::File;
        if file != self.credentials_file.is_some() {
            return Some("store.credentials_file is wanted with credentials = `file`, and only then".into());
        }
        if self.profile.is_some() && !file {
            return Some("store.profile is given, want a `credentials_file` with it".into());
        }
        let endpoint = self.endpoint.as_deref()?;
        match reqwest::Url::parse(endpoint) {
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                Some("store.endpoint holds a name or password, want `credentials_file`".into())
            }
            Ok(url) if url.scheme() == "http" && !self.allow_http && !here(url.host_str()) => {
                Some("store.endpoint is read without TLS, want https:// or store.allow_http = true".into())
            }
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.query().is_none() => None,
            Ok(_) | Err(_) => {
                let start = endpoint.split('?').next().unwrap_or_default();
                Some(format!("store.endpoint is `{start}`, want `https://HOST:PORT`"))
            }
        }
    }
}
