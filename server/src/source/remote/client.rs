//! Connections: one HTTP client a source, which every store of it uses, and what it refuses.

use super::{
    credentials::FileCredentials,
    store::{Credentials, Store},
};
use http_body_util::BodyExt;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig,
    aws::AmazonS3Builder,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
        HttpService,
    },
    http::HttpBuilder,
};
use reqwest::{Certificate, Url, redirect::Policy};
use std::{path::Path, pin::Pin, sync::Arc, time::Duration};
use tokio_rustls::rustls::crypto::ring;

/// Redirects that are followed from a plain HTTP store; S3 has none that could be signed for.
const REDIRECTS: usize = 5;
/// Bytes of an error's text that are looked at.
const MAX_ERROR: usize = 16 << 10;
const CONNECT: Duration = Duration::from_secs(10);

/// An answer that is no success. Of its text nothing is kept but S3's word for it: texts repeat what was signed.
#[derive(Debug, thiserror::Error)]
#[error("status {status}{}", code.as_ref().map(|code| format!(" {code}")).unwrap_or_default())]
pub(super) struct Refused {
    /// HTTP status.
    pub status: u16,
    /// S3's code: "SlowDown", "NoSuchKey".
    pub code: Option<String>,
    /// Where the bucket is, when the server says so.
    pub region: Option<String>,
}

/// A request that would have gone out in the clear.
#[derive(Debug, thiserror::Error)]
#[error("would be read without TLS from `{0}`, want https:// or store.allow_http = true")]
pub(super) struct InTheClear(String);

/// The machine's or container's own credentials cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("no credentials: no `AWS_*` variables give any, and neither does this machine ({0})")]
pub(super) struct NoCredentials(String);

/// The one way out: what object_store sends goes through here.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    client: reqwest::Client,
    allow_http: bool,
}

impl Wire {
    /// A client by `store`, whose relative paths are relative to `base`; `s3` is whether it signs, `url` where it goes first.
    pub fn new(store: &Store, base: &Path, s3: bool, url: &str) -> Result<Wire, String> {
        // Fails when there is one already, which is as good.
        let _ = ring::default_provider().install_default();
        let allow_http = store.allow_http;
        let policy = match s3 {
            true => Policy::none(),
            false => Policy::custom(move |attempt| {
                let secure = attempt.previous().iter().all(|url| url.scheme() == "https");
                let clear = attempt.url().scheme() != "https";
                let away = clear && (secure || !(allow_http || here(attempt.url().host_str())));
                match away || attempt.previous().len() > REDIRECTS {
                    true => attempt.stop(),
                    false => attempt.follow(),
                }
            }),
        };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("mixfeed/", env!("CARGO_PKG_VERSION")))
            .redirect(policy)
            .connect_timeout(CONNECT.min(store.timeout()))
            .read_timeout(store.timeout())
            .pool_max_idle_per_host(store.requests())
            .http1_only();
        if let Some(shown) = &store.ca_file {
            let wrong = |why: String| format!("store.ca_file `{shown}` {why}");
            let pem = std::fs::read(base.join(shown)).map_err(|e| wrong(format!("cannot be read: {e}")))?;
            let certificates =
                Certificate::from_pem_bundle(&pem).map_err(|e| wrong(format!("is no PEM: {e}")))?;
            builder = builder.tls_certs_merge(certificates);
        }
        if Url::parse(url).is_ok_and(|url| here(url.host_str())) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| format!("cannot make connections: {error}"))?;
        Ok(Wire { client, allow_http })
    }

    /// The store of a bucket.
    pub fn bucket(&self, store: &Store, base: &Path, bucket: &str) -> Result<Arc<dyn ObjectStore>, String> {
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_retry(once())
            .with_http_connector(self.clone());
        match (store.credentials(), &store.credentials_file) {
            (Credentials::None, _) => builder = builder.with_skip_signature(true),
            (Credentials::File, Some(file)) => {
                let profile = store.profile.as_deref().unwrap_or("default");
                let file = FileCredentials::new(base.join(file), file, profile);
                builder = builder.with_skip_signature(false).with_credentials(Arc::new(file));
            }
            (Credentials::File | Credentials::Environment, _) => {}
        }
        if let Some(region) = &store.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &store.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        builder = builder.with_virtual_hosted_style_request(store.virtual_hosted);
        Ok(Arc::new(builder.build().map_err(|error| super::fault::deepest(&error))?))
    }

    /// The store of a web server; what `url` has of a query goes with every request.
    pub fn web(&self, url: &Url) -> Result<Arc<dyn ObjectStore>, String> {
        let mut root = url.clone();
        root.set_path("/");
        let builder = HttpBuilder::new().with_url(root).with_retry(once()).with_http_connector(self.clone());
        Ok(Arc::new(builder.build().map_err(|error| super::fault::deepest(&error))?))
    }
}

/// What is tried again, and when, is decided in `retry`.
fn once() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: Duration::ZERO }
}

/// Hosts that are this machine.
pub(super) fn here(host: Option<&str>) -> bool {
    let host = host.unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Where machines and containers ask for their own credentials, which has no TLS anywhere.
fn metadata(host: Option<&str>) -> bool {
    host.is_some_and(|host| {
        host.starts_with("169.254.") || host.trim_matches(['[', ']']).starts_with("fd00:ec2:")
    })
}

impl HttpConnector for Wire {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Wire {
    // Written out as the macro `async_trait` would.
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let (uri, own) = (request.uri(), metadata(request.uri().host()));
            let host = uri.host();
            if uri.scheme_str() != Some("https") && !self.allow_http && !here(host) && !own {
                let host = host.unwrap_or_default().to_owned();
                return Err(HttpError::new(HttpErrorKind::Unknown, InTheClear(host)));
            }
            let none = |why: String| Err(HttpError::new(HttpErrorKind::Unknown, NoCredentials(why)));
            match self.client.call(request).await {
                Ok(answer) if answer.status().is_success() => Ok(answer),
                Ok(answer) if own => none(format!("status {}", answer.status().as_u16())),
                Ok(answer) => Err(HttpError::new(HttpErrorKind::Unknown, refused(answer).await)),
                Err(error) if own => none(super::fault::deepest(&error)),
                Err(error) => Err(error),
            }
        })
    }
}

async fn refused(answer: HttpResponse) -> Refused {
    let (parts, body) = answer.into_parts();
    let region = parts.headers.get("x-amz-bucket-region").and_then(|value| value.to_str().ok());
    let region = region.filter(|region| region.len() < 64).map(String::from);
    Refused { status: parts.status.as_u16(), code: code(body).await, region }
}

/// S3's word for an error, `<Code>SlowDown</Code>`, looked for in the first bytes of its text.
async fn code(mut body: HttpResponseBody) -> Option<String> {
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        text.extend_from_slice(frame.data_ref()?);
        if text.len() > MAX_ERROR {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text);
    let code = text.split_once("<Code>")?.1.split_once("</Code>")?.0;
    (code.len() < 64 && code.bytes().all(|b| b.is_ascii_alphanumeric())).then(|| code.into())
}
