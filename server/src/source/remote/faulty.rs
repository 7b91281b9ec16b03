//! A store for tests: folders of this machine over S3 and HTTP, as faulty as asked for. Imports nothing of ours, so that
//! tests of the whole server use it too.
#![allow(missing_docs, dead_code)]

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{body::Frame, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    fs, io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{net::TcpListener, runtime::Runtime};

/// What happens to a request for a range, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// An error with S3's code for it.
    Status(u16, &'static str),
    /// Half of the bytes, and the connection ends.
    Truncated,
    /// Fewer bytes than asked for, told as if that was right.
    Short,
    /// Bytes without end.
    Endless,
    /// Another range than asked for.
    OtherRange,
    /// All of it, as if there was no range.
    Whole,
    /// Another ETag, whatever was asked for.
    OtherTag,
    /// Elsewhere.
    Redirect(String),
    /// No answer.
    Silent,
    /// A tenth of the bytes every half second.
    Slow,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
}

#[derive(Debug, Default)]
struct State {
    roots: BTreeMap<String, PathBuf>,
    faults: VecDeque<Fault>,
    /// Repeats the last fault for ever.
    sticky: bool,
    asked: Vec<Asked>,
    /// Sends no ETag.
    untagged: bool,
}

/// A running store; it ends with this.
#[derive(Debug)]
pub struct Faulty {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
    _runtime: Runtime,
}

type Body = BoxBody<Bytes, io::Error>;

impl Faulty {
    /// A store whose bucket `bucket` is the folder `root`.
    pub fn start(bucket: &str, root: &Path) -> Faulty {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread");
        let state: Arc<Mutex<State>> = Arc::default();
        state.lock().expect("new").roots.insert(bucket.into(), root.into());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("can be");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let shared = state.clone();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                let serve = service_fn(move |request| {
                    let shared = shared.clone();
                    async move { answer(&shared, request).await }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
            }
        });
        Faulty { endpoint, state, _runtime: runtime }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a bucket.
    pub fn bucket(&self, bucket: &str, root: &Path) {
        self.state().roots.insert(bucket.into(), root.into());
    }

    /// The next requests for ranges meet `faults`.
    pub fn meet(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut state = self.state();
        state.sticky = false;
        state.faults = faults.into_iter().collect();
    }

    /// All requests for ranges meet `fault` from now on.
    pub fn always(&self, fault: Fault) {
        self.meet([fault]);
        self.state().sticky = true;
    }

    /// Sends no ETags from now on.
    pub fn untagged(&self) {
        self.state().untagged = true;
    }

    /// What was asked for since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state().asked)
    }
}

fn full(status: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    let body = http_body_util::Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn error(status: u16, code: &str) -> Response<Body> {
    let status = StatusCode::from_u16(status).expect("a status");
    // Real ones repeat what was signed, with the key.
    full(status, format!("<Error><Code>{code}</Code><Message>SECRET AKIDSECRET</Message></Error>"))
}

async fn answer<B>(state: &Mutex<State>, request: Request<B>) -> Result<Response<Body>, io::Error> {
    let (uri, headers) = (request.uri().clone(), request.headers().clone());
    let query = uri.query().unwrap_or_default().to_owned();
    let path = percent(uri.path().trim_start_matches('/'));
    let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
    let (root, fault, untagged) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let asked =
            Asked { method: request.method().clone(), path: path.clone(), query: query.clone(), headers };
        state.asked.push(asked);
        let ranged = request.headers().contains_key(header::RANGE);
        let fault = match (ranged, state.sticky) {
            (false, _) => None,
            (true, true) => state.faults.front().cloned(),
            (true, false) => state.faults.pop_front(),
        };
        (state.roots.get(bucket).cloned(), fault, state.untagged)
    };
    let Some(root) = root else { return Ok(error(404, "NoSuchBucket")) };
    if query.contains("list-type=2") {
        return Ok(list(&root, &query, untagged));
    }
    match fault {
        Some(Fault::Status(status, code)) => return Ok(error(status, code)),
        Some(Fault::Redirect(to)) => {
            let mut response = error(301, "PermanentRedirect");
            response.headers_mut().insert(header::LOCATION, to.parse().expect("a URL"));
            response.headers_mut().insert("x-amz-bucket-region", "eu-moon-1".parse().expect("a value"));
            return Ok(response);
        }
        Some(Fault::Silent) => std::future::pending().await,
        _ => {}
    }
    Ok(object(&root.join(key), &request, fault, untagged))
}

/// A file, or the range of it that is asked for, under the conditions that are told.
fn object<B>(path: &Path, request: &Request<B>, fault: Option<Fault>, untagged: bool) -> Response<Body> {
    let Ok(file) = fs::File::open(path).and_then(|file| match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::ErrorKind::NotFound.into()),
    }) else {
        return error(404, "NoSuchKey");
    };
    let metadata = file.metadata().expect("open");
    let (size, seconds) = (metadata.len(), metadata.mtime());
    let mut tag = format!("\"{size}-{}-{seconds}-{}\"", metadata.ino(), metadata.mtime_nsec());
    let get = |name: header::HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    if get(header::IF_MATCH).is_some_and(|wanted| wanted != tag && fault != Some(Fault::OtherTag)) {
        return error(412, "PreconditionFailed");
    }
    if fault == Some(Fault::OtherTag) {
        tag = "\"another\"".into();
    }
    let range = get(header::RANGE).and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let range = range.and_then(|(from, to)| Some((from.parse::<u64>().ok()?, to.parse::<u64>().ok()? + 1)));
    let (mut from, mut to) = range.unwrap_or((0, size));
    if range.is_some() && from >= size {
        return error(416, "InvalidRange");
    }
    to = to.min(size);
    if fault == Some(Fault::OtherRange) {
        (from, to) = (from + 1, (to + 1).min(size));
    }
    let whole = range.is_none() || fault == Some(Fault::Whole);
    if whole {
        (from, to) = (0, size);
    }
    let mut bytes = vec![0; (to - from) as usize];
    file.read_exact_at(&mut bytes, from).expect("it is as long");
    let length = to - from;
    let mut response = match (&fault, request.method() == Method::HEAD) {
        (_, true) => full(StatusCode::OK, Bytes::new()),
        (Some(Fault::Truncated), _) => cut(&bytes, length / 2),
        (Some(Fault::Short), _) => full(StatusCode::OK, bytes[..length as usize / 2].to_vec()),
        (Some(Fault::Endless), _) => endless(),
        (Some(Fault::Slow), _) => slow(&bytes),
        (_, false) => full(StatusCode::OK, bytes),
    };
    if !whole {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let value = format!("bytes {from}-{}/{size}", to.max(1) - 1);
        response.headers_mut().insert(header::CONTENT_RANGE, value.parse().expect("a value"));
    }
    let headers = response.headers_mut();
    if fault == Some(Fault::Endless) {
        headers.insert(header::CONTENT_LENGTH, (1u64 << 40).into());
    } else if fault != Some(Fault::Short) {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if untagged {
        headers.insert(header::LAST_MODIFIED, date(seconds).parse().expect("a value"));
    } else {
        headers.insert(header::ETAG, tag.parse().expect("a value"));
        headers.insert(header::LAST_MODIFIED, date(0).parse().expect("a value"));
    }
    response
}

/// The first `length` of `bytes`, and then the connection breaks.
fn cut(bytes: &[u8], length: u64) -> Response<Body> {
    let first = Bytes::copy_from_slice(&bytes[..length as usize]);
    let parts = [Ok(Frame::data(first)), Err(io::Error::other("cut"))];
    Response::new(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(parts))))
}

fn slow(bytes: &[u8]) -> Response<Body> {
    let parts: Vec<Bytes> =
        bytes.chunks(bytes.len().div_ceil(10).max(1)).map(Bytes::copy_from_slice).collect();
    let parts = futures_util::StreamExt::then(futures_util::stream::iter(parts), |part| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(Frame::data(part))
    });
    Response::new(BodyExt::boxed(StreamBody::new(parts)))
}

fn endless() -> Response<Body> {
    let parts = std::iter::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[7; 1000]))));
    Response::new(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(parts))))
}

/// Two keys a page, so that listings have several.
fn list(root: &Path, query: &str, untagged: bool) -> Response<Body> {
    let get = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        percent(&pair.unwrap_or_default().replace('+', " "))
    };
    let (prefix, after, token) = (get("prefix"), get("start-after"), get("continuation-token"));
    let mut keys = Vec::new();
    walk(root, "", &mut keys);
    keys.sort_by(|a, b| a.0.cmp(&b.0));
    keys.retain(|(key, _)| key.starts_with(&prefix) && *key > after && *key > token);
    let more = keys.len() > 2;
    keys.truncate(2);
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult>");
    for (key, metadata) in &keys {
        let tag =
            format!("{}-{}-{}-{}", metadata.len(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
        let tag = if untagged { String::new() } else { format!("<ETag>&quot;{tag}&quot;</ETag>") };
        xml += &format!(
            "<Contents><Key>{}</Key><LastModified>2024-01-02T03:04:05.678Z</LastModified>{tag}<Size>{}</Size></Contents>",
            key.replace('&', "&amp;").replace('<', "&lt;"),
            metadata.len()
        );
    }
    xml += &format!("<IsTruncated>{more}</IsTruncated>");
    if let Some((last, _)) = keys.last().filter(|_| more) {
        xml += &format!("<NextContinuationToken>{last}</NextContinuationToken>");
    }
    full(StatusCode::OK, xml + "</ListBucketResult>")
}

fn walk(folder: &Path, prefix: &str, out: &mut Vec<(String, fs::Metadata)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = fs::metadata(entry.path()).expect("there");
        if metadata.is_dir() {
            walk(&entry.path(), &format!("{name}/"), out);
        } else {
            out.push((name, metadata));
        }
    }
}

fn percent(text: &str) -> String {
    let (bytes, mut out, mut i) = (text.as_bytes(), Vec::new(), 0);
    while i < bytes.len() {
        let digits = text.get(i + 1..i + 3).filter(|_| bytes[i] == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// RFC 2822's date of a time, in seconds since 1970.
fn date(seconds: i64) -> String {
    let days = seconds.div_euclid(86400);
    let (year, month, day) = civil(days);
    let week = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][days.rem_euclid(7) as usize];
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let rest = seconds.rem_euclid(86400);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{week}, {day:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT", months[month as usize - 1])
}

/// Year, month and day of a day since 1970.
fn civil(days: i64) -> (i64, i64, i64) {
    let leap = |y: i64| (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    let (mut year, mut left) = (1970, days);
    while left >= 365 + i64::from(leap(year)) {
        left -= 365 + i64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    (year, month as i64 + 1, left + 1)
}

/// Waits until `done` holds; fails after a minute.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(std::time::Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}
