//! From HTTP status and gRPC trailers to [`Error`]. Nothing in here trusts the other side: a detail that cannot be
//! decoded is left out, never an error of its own.

use crate::{
    Error,
    error::{Digest, Violation},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use prost::Message;
use std::{collections::BTreeMap, time::Duration};
use tonic::metadata::MetadataMap;

/// Longest encoded details that are looked at.
const MAX_DETAILS: usize = 16 << 10;
/// Longest message that is kept, in bytes.
const MAX_MESSAGE: usize = 8 << 10;
/// Most violations or metadata entries that are kept.
const MAX_ENTRIES: usize = 64;

// The public google.rpc messages, as far as we read them.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<FieldViolation>,
}

#[derive(Clone, PartialEq, Message)]
struct FieldViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}

#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Default)]
struct Details {
    violations: Vec<Violation>,
    reason: String,
    metadata: BTreeMap<String, String>,
    retry_after: Option<Duration>,
}

/// Outcome that `headers` (of the response, or its trailers) carry; `None` when they carry no grpc-status.
pub(crate) fn outcome(headers: &HeaderMap) -> Option<Result<(), Error>> {
    let code = headers.get("grpc-status")?;
    let code = match std::str::from_utf8(code.as_bytes()).ok().and_then(|text| text.parse::<i32>().ok()) {
        Some(0) => return Some(Ok(())),
        Some(code) => code,
        None => return Some(Err(Error::Protocol("`grpc-status` is not a number".into()))),
    };
    let message = headers.get("grpc-message").map(|m| percent_decode(m.as_bytes())).unwrap_or_default();
    Some(Err(error(code, message, details(headers))))
}

/// Checks what a response says before its body: HTTP status, content type, and a status without a body.
pub(crate) fn check_head(status: StatusCode, headers: &HeaderMap) -> Result<(), Error> {
    if let Some(outcome) = outcome(headers) {
        // An OK without a body is left to the reader of the body, who finds it empty.
        outcome?;
    }
    if status != StatusCode::OK {
        let message = format!("http status {}", status.as_u16());
        return Err(match status.as_u16() {
            401 | 403 => Error::Denied { message },
            404 => Error::Unimplemented { message },
            429 | 502 | 503 | 504 => Error::unavailable(message),
            _ => Error::Protocol(message),
        });
    }
    let content = headers.get(http::header::CONTENT_TYPE).map(|v| v.as_bytes()).unwrap_or_default();
    if !content.starts_with(b"application/grpc") {
        let found = String::from_utf8_lossy(&content[..content.len().min(64)]).into_owned();
        return Err(Error::Protocol(format!("content type is `{found}`, expected `application/grpc`")));
    }
    Ok(())
}

fn error(code: i32, message: String, details: Details) -> Error {
    let Details { violations, reason, metadata, retry_after } = details;
    match code {
        3 | 11 => Error::Invalid { message, violations },
        4 => Error::Unavailable { message: format!("deadline exceeded: {message}"), retry_after },
        5 => Error::NotFound { message },
        6 => Error::OtherDigest {
            message,
            expected: digest(metadata.get("expected")),
            found: digest(metadata.get("found")),
        },
        7 | 16 => Error::Denied { message },
        8 => Error::Exhausted { message, retry_after },
        9 => Error::FailedPrecondition { message, reason, details: metadata },
        10 => Error::Aborted { message },
        12 => Error::Unimplemented { message },
        14 => Error::Unavailable { message, retry_after },
        15 => Error::DataLoss { message },
        code => Error::Server { code, message },
    }
}

/// Reads a digest written as hex.
fn digest(text: Option<&String>) -> Digest {
    let text = text.map(String::as_bytes).unwrap_or_default();
    let nibble = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let byte = |pair: &[u8]| Some(nibble(pair[0])? << 4 | nibble(pair[1])?);
    Digest(text.chunks_exact(2).map(byte).collect::<Option<Vec<u8>>>().unwrap_or_default())
}

fn details(headers: &HeaderMap) -> Details {
    let mut all = Details::default();
    // `MetadataMap` only for its base64; `tonic::Status` would panic on a malformed value.
    let Some(raw) = headers.get("grpc-status-details-bin").filter(|v| v.len() <= MAX_DETAILS) else {
        return all;
    };
    let mut one = HeaderMap::new();
    one.insert("grpc-status-details-bin", raw.clone());
    let one = MetadataMap::from_headers(one);
    let Some(bytes) = one.get_bin("grpc-status-details-bin").and_then(|v| v.to_bytes().ok()) else {
        return all;
    };
    let Ok(status) = RpcStatus::decode(bytes) else { return all };
    for any in status.details {
        match any.type_url.rsplit('/').next() {
            Some("google.rpc.BadRequest") => {
                let bad = BadRequest::decode(any.value).unwrap_or_default();
                all.violations.extend(
                    bad.field_violations
                        .into_iter()
                        .take(MAX_ENTRIES)
                        .map(|v| Violation { field: v.field, description: v.description }),
                );
            }
            Some("google.rpc.ErrorInfo") => {
                let info = ErrorInfo::decode(any.value).unwrap_or_default();
                all.reason = info.reason;
                all.metadata = info.metadata.into_iter().take(MAX_ENTRIES).collect();
            }
            Some("google.rpc.RetryInfo") => {
                let delay = RetryInfo::decode(any.value).unwrap_or_default().retry_delay;
                all.retry_after = delay.and_then(|d| {
                    let seconds = u64::try_from(d.seconds).ok()?;
                    let nanos = u32::try_from(d.nanos).ok().filter(|n| *n < 1_000_000_000)?;
                    Some(Duration::new(seconds, nanos))
                });
            }
            Some(_) | None => {}
        }
    }
    all
}

/// Undoes the percent-encoding of grpc-message; what is no valid escape stays as it is.
fn percent_decode(text: &[u8]) -> String {
    let text = &text[..text.len().min(MAX_MESSAGE)];
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let escape =
            text.get(at + 1..at + 3).filter(|hex| text[at] == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        let byte = escape.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(byte.unwrap_or(text[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn trailers(code: &str, message: &'static [u8]) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert("grpc-status", HeaderValue::from_str(code).expect("ascii"));
        map.insert("grpc-message", HeaderValue::from_bytes(message).expect("visible"));
        map
    }

    #[test]
    fn message_is_percent_decoded_and_broken_escapes_survive() {
        assert_eq!(percent_decode(b"gr%C3%BC%C3%9Fe 100%25"), "gr\u{fc}\u{df}e 100%");
        assert_eq!(percent_decode(b"%zz%4"), "%zz%4");
        assert_eq!(percent_decode(b"%ff"), "\u{fffd}");
    }

    #[test]
    fn malformed_details_do_not_hide_the_status() {
        let mut map = trailers("3", b"no");
        map.insert("grpc-status-details-bin", HeaderValue::from_static("***not base64***"));
        let expected = Error::Invalid { message: "no".into(), violations: vec![] };
        assert_eq!(outcome(&map), Some(Err(expected)));
        assert!(matches!(outcome(&trailers("x", b"no")), Some(Err(Error::Protocol(_)))));
        assert_eq!(outcome(&HeaderMap::new()), None);
    }

    #[test]
    fn negative_or_huge_retry_delays_are_dropped() {
        for (seconds, nanos, wanted) in
            [(2, 5, Some(Duration::new(2, 5))), (-1, 0, None), (1, 1_000_000_000, None), (0, -3, None)]
        {
            let info = RetryInfo { retry_delay: Some(Delay { seconds, nanos }) };
            let any = Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
                value: info.encode_to_vec().into(),
            };
            let bytes = RpcStatus { details: vec![any] }.encode_to_vec();
            let mut map = MetadataMap::from_headers(trailers("8", b"full"));
            map.insert_bin(
                "grpc-status-details-bin",
                tonic::metadata::BinaryMetadataValue::from_bytes(&bytes),
            );
            let found = outcome(&map.into_headers());
            assert_eq!(found, Some(Err(Error::Exhausted { message: "full".into(), retry_after: wanted })));
        }
    }

    #[test]
    fn head_without_grpc_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("text/html"));
        assert!(matches!(check_head(StatusCode::OK, &headers), Err(Error::Protocol(_))));
        assert!(check_head(StatusCode::BAD_GATEWAY, &headers).expect_err("502").is_transient());
        assert!(matches!(check_head(StatusCode::FORBIDDEN, &headers), Err(Error::Denied { .. })));
        headers.insert("content-type", HeaderValue::from_static("application/grpc+proto"));
        assert_eq!(check_head(StatusCode::OK, &headers), Ok(()));
    }
}
