//! Connections and raw gRPC calls on them. The channel is called as a tower service, so that batch bodies pass no
//! codec and no status is parsed by code that trusts the server.

use crate::{ClientOptions, Error, options::Pair, options::Token, status};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full};
use prost::Message;
use std::{
    error::Error as StdError,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::timeout;
use tonic::{
    body::Body,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tower::ServiceExt;

/// Time that a peer has to answer an HTTP/2 ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest block of response headers or trailers.
const MAX_HEADERS: u32 = 64 << 10;
/// Largest answer to a control call.
const MAX_ANSWER: usize = 4 << 20;

/// Checks an endpoint and prepares its settings.
pub(crate) fn endpoint(address: &str, options: &ClientOptions) -> Result<Endpoint, Error> {
    let wrong = |reason: String| Error::Argument { name: address.chars().take(256).collect(), reason };
    let secure = address.starts_with("https://");
    if !secure && !address.starts_with("http://") && !address.starts_with("unix:/") {
        return Err(wrong("expected `https://HOST:PORT`, `http://HOST:PORT` or `unix:/PATH`".into()));
    }
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|e| wrong(chain(&e)))?;
    // Of a Unix socket the endpoint knows no address but a made-up one.
    let open = address.starts_with("http://") && is_far(endpoint.uri().host().unwrap_or_default());
    if open && options.token.is_some() && !options.plaintext_token {
        let reason = "would get the token in plaintext: dial `https://`, or allow it by `plaintext_token`";
        return Err(wrong(reason.into()));
    }
    let endpoint = match secure {
        true => endpoint.tls_config(tls(options)).map_err(|e| wrong(chain(&e)))?,
        false => endpoint,
    };
    let endpoint = endpoint.user_agent(options.name.as_str()).map_err(|e| wrong(chain(&e)))?;
    Ok(endpoint
        .connect_timeout(options.connect_timeout)
        .initial_stream_window_size(options.window_bytes)
        .initial_connection_window_size(options.window_bytes * 2)
        .max_frame_size(options.frame_bytes)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keep_alive_interval(options.keep_alive)
        .keep_alive_timeout(PING_TIMEOUT)
        .tcp_nodelay(true))
}

/// Whether what is sent to a host over plaintext TCP passes a network.
fn is_far(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host != "localhost" && !host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn tls(options: &ClientOptions) -> ClientTlsConfig {
    let mut tls = ClientTlsConfig::new();
    tls = match &options.ca {
        Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
        None => tls.with_native_roots(),
    };
    if let Some(Pair { certificate, key }) = &options.identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    match &options.server_name {
        Some(name) => tls.domain_name(name),
        None => tls,
    }
}

/// The `authorization` header, marked as secret.
async fn authorization(token: &Token) -> Result<HeaderValue, Error> {
    let wrong = |reason: String| Error::Argument { name: "token".into(), reason };
    let text = match token {
        Token::Text(text) => text.clone(),
        Token::File(path) => {
            // Whoever replaces the file may be at it just now.
            let not_now = |why: String| Error::unavailable(format!("token file `{}`: {why}", path.display()));
            let text = tokio::fs::read_to_string(path).await.map_err(|e| not_now(e.to_string()))?;
            match text.trim() {
                "" => return Err(not_now("is empty".into())),
                text => text.to_owned(),
            }
        }
    };
    let mut value = HeaderValue::try_from(format!("Bearer {text}"))
        .map_err(|_| wrong("holds characters other than visible ASCII".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Makes a connection.
pub(crate) async fn dial(address: &str, options: &ClientOptions) -> Result<Channel, Error> {
    let endpoint = endpoint(address, options)?;
    match timeout(options.connect_timeout, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(Error::unavailable(format!("`{address}`: {}", chain(&error)))),
        Err(_) => {
            let what = format!("connecting to `{address}`");
            Err(Error::Timeout { what, after: options.connect_timeout })
        }
    }
}

/// An error with its causes; transport errors hide theirs.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// The connection that a stream uses, for whoever else may use it meanwhile.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line(Arc<Mutex<Option<Channel>>>);

impl Line {
    /// The connection, when there is one.
    pub(crate) fn get(&self) -> Option<Channel> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another connection, or none.
    pub(crate) fn set(&self, channel: Option<Channel>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = channel;
    }
}

/// The body of a response whose head was good.
#[derive(Debug)]
pub(crate) struct Reply {
    body: Body,
    /// The status OK was seen.
    done: bool,
}

/// Sends one message and waits for the head of the response.
pub(crate) async fn send(
    channel: Channel,
    path: &'static str,
    message: &impl Message,
    options: &ClientOptions,
) -> Result<Reply, Error> {
    let mut body = BytesMut::with_capacity(5 + message.encoded_len());
    body.put_u8(0);
    let length = u32::try_from(message.encoded_len())
        .map_err(|_| Error::Argument { name: path.into(), reason: "request is longer than 4 GiB".into() })?;
    body.put_u32(length);
    body.extend_from_slice(&message.encode_to_vec());
    let mut request =
        Request::post(path).header(header::CONTENT_TYPE, "application/grpc").header(header::TE, "trailers");
    if let Some(token) = &options.token {
        request = request.header(header::AUTHORIZATION, authorization(token).await?);
    }
    let request = request.body(Body::new(Full::new(body.freeze()))).expect("a constant path");
    let response = channel.oneshot(request).await.map_err(|e| Error::unavailable(chain(&e)))?;
    status::check_head(response.status(), response.headers())?;
    let done = status::outcome(response.headers()).is_some();
    Ok(Reply { body: response.into_body(), done })
}

impl Reply {
    /// Next frame of data; `None` when the call ended well. A body that ends without a status is a lost connection.
    pub(crate) async fn frame(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let Some(frame) = self.body.frame().await else {
                let lost = || Error::unavailable("response ended without `grpc-status`");
                return if self.done { Ok(None) } else { Err(lost()) };
            };
            let frame = frame.map_err(|error| Error::unavailable(chain(&error)))?;
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(frame) => {
                    if let Some(outcome) = frame.trailers_ref().and_then(status::outcome) {
                        outcome?;
                        self.done = true;
                    }
                }
            }
        }
    }
}

/// One call with one answer.
pub(crate) async fn unary<M: Message + Default>(
    channel: Channel,
    path: &'static str,
    message: &impl Message,
    options: &ClientOptions,
) -> Result<M, Error> {
    let call = async {
        let mut reply = send(channel, path, message, options).await?;
        let mut answer = Vec::new();
        while let Some(data) = reply.frame().await? {
            if answer.len() + data.len() > MAX_ANSWER + 5 {
                return Err(Error::Protocol(format!("answer of `{path}` has more than {MAX_ANSWER} bytes")));
            }
            answer.extend_from_slice(&data);
        }
        decode(path, &answer)
    };
    let late = |_| Error::Timeout { what: format!("`{path}`"), after: options.call_timeout };
    timeout(options.call_timeout, call).await.map_err(late)?
}

/// The one message of an answer.
fn decode<M: Message + Default>(path: &str, answer: &[u8]) -> Result<M, Error> {
    let Some((prefix, message)) = answer.split_first_chunk::<5>() else {
        return Err(Error::Protocol(format!("answer of `{path}` has no message")));
    };
    let [flag, length @ ..] = *prefix;
    if flag != 0 || u32::from_be_bytes(length) as usize != message.len() {
        return Err(Error::Protocol(format!("answer of `{path}` is no single uncompressed message")));
    }
    M::decode(message).map_err(|error| Error::Protocol(format!("answer of `{path}`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_file_that_is_being_replaced_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        let token = Token::File(file.clone());
        assert!(authorization(&token).await.expect_err("missing").is_transient());
        std::fs::write(&file, "\n").expect("written");
        assert!(authorization(&token).await.expect_err("empty").is_transient());
        std::fs::write(&file, "mf_a\n").expect("written");
        assert_eq!(authorization(&token).await.expect("good"), "Bearer mf_a");
    }

    #[test]
    fn only_tcp_and_unix_endpoints_are_taken() {
        let options = ClientOptions::default();
        for good in [
            "https://data:7443",
            "http://data:7443",
            "http://127.0.0.1:7443",
            "http://[::1]:7443",
            "unix:/run/mixfeed.sock",
        ] {
            assert!(endpoint(good, &options).is_ok(), "{good}");
        }
        for bad in
            ["", "127.0.0.1:7443", "ftp://data:7443", "http://", "https://", "unix:relative", "http://a b"]
        {
            assert!(matches!(endpoint(bad, &options), Err(Error::Argument { .. })), "{bad}");
        }
        assert!(matches!(endpoint("http://a:1", &options.name("two\nlines")), Err(Error::Argument { .. })));
    }

    #[test]
    fn tokens_stay_on_this_machine_or_travel_over_tls() {
        let options = ClientOptions::default().token("mf_secret");
        for good in
            ["https://data:7443", "http://127.0.0.2:1", "http://[::1]:1", "http://localhost:1", "unix:/s"]
        {
            assert!(endpoint(good, &options).is_ok(), "{good}");
        }
        for open in ["http://data:7443", "http://10.0.0.1:1", "http://[2001:db8::1]:1"] {
            let error = endpoint(open, &options).expect_err("plaintext").to_string();
            assert!(error.contains("plaintext") && !error.contains("mf_secret"), "{error}");
            assert!(endpoint(open, &options.clone().plaintext_token(true)).is_ok(), "{open}");
        }
        assert!(!format!("{options:?}").contains("mf_secret"));
    }

    #[tokio::test]
    async fn tokens_come_from_files_and_are_never_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        std::fs::write(&file, "mf_one\n").expect("written");
        let value = authorization(&Token::File(file.clone())).await.expect("a token");
        assert!(value == "Bearer mf_one" && !format!("{value:?}").contains("mf_one"));
        std::fs::write(&file, "mf_two\nlines").expect("written");
        let error = authorization(&Token::File(file)).await.expect_err("two lines").to_string();
        assert!(!error.contains("mf_two"), "{error}");
        assert!(authorization(&Token::File(folder.path().join("none"))).await.is_err());
    }

    #[tokio::test]
    async fn a_body_without_a_status_is_a_lost_connection() {
        let body = Body::new(Full::new(Bytes::from_static(b"half")));
        let mut reply = Reply { body, done: false };
        assert_eq!(reply.frame().await, Ok(Some(Bytes::from_static(b"half"))));
        assert!(reply.frame().await.expect_err("no trailers").is_transient());
    }

    #[test]
    fn answers_are_one_uncompressed_message() {
        let job = mixfeed_proto::CloseJobRequest { job: "vit".into(), forget: false };
        let message = job.encode_to_vec();
        let prefix = [0, 0, 0, 0, message.len() as u8];
        let good = [&prefix[..], &message].concat();
        assert_eq!(decode("p", &good), Ok(job));
        let mut compressed = good.clone();
        compressed[0] = 1;
        for bad in [vec![], good[..7].to_vec(), [good.clone(), good.clone()].concat(), compressed] {
            let answer = decode::<mixfeed_proto::CloseJobRequest>("p", &bad);
            assert!(matches!(answer, Err(Error::Protocol(_))), "{bad:?}");
        }
    }
}
