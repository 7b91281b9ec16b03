//! One call: charged for what it holds, given up when it takes too long.

use super::bodies::{self, Answer, Timed};
use super::guest::Open;
use super::streams::{self, Call};
use super::{Shared, gate, status};
use crate::metrics;
use http_body_util::Full;
use std::sync::Arc;
use tonic::service::Routes;
use tower::ServiceExt;

/// What a call takes beside its bytes, until it is answered.
const CALL_BYTES: usize = 4 << 10;

/// Answers one call within the limits of its connection.
pub async fn answer(
    shared: &Arc<Shared>,
    routes: Routes,
    call: Open,
    mut request: http::Request<hyper::body::Incoming>,
) -> http::Response<Answer> {
    let limits = call.guest().limits();
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    let bytes = CALL_BYTES + request.uri().path().len() + headers.sum::<usize>();
    let Some(mut charge) = call.guest().charge(bytes) else {
        return refuse(bodies::crowded(), call);
    };
    // Before a byte of its message is taken.
    let caller = match gate::pass(shared, &mut request) {
        Ok(caller) => caller,
        Err(status) => return status.into_http().map(|body| Answer::new(body, call, None)),
    };
    let (head, body) = request.into_parts();
    if is_reflection(head.uri.path()) {
        let request = http::Request::from_parts(head, Timed::new(body, limits.request_timeout));
        let response = match routes.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        return response.map(|body| Answer::new(body, call, Some(charge)));
    }
    let message = match bodies::gather(body, &mut charge, limits.request_timeout).await {
        Ok(message) => message,
        Err(status) => return refuse(status, call),
    };
    let request = http::Request::from_parts(head, Full::new(message.clone()));
    if let Some(kind) = Call::of(request.uri().path()) {
        return streams::answer(shared, caller, kind, request)
            .await
            .map(|body| Answer::new(body, call, None));
    }
    if let Err(status) = bodies::one_message(&message) {
        return refuse(status, call);
    }
    match tokio::time::timeout(limits.call_timeout, routes.oneshot(request)).await {
        Ok(Ok(response)) if is_undecodable(response.headers()) => refuse(bodies::undecodable(), call),
        Ok(Ok(response)) => response.map(|body| Answer::new(body, call, Some(charge))),
        Ok(Err(never)) => match never {},
        Err(_) => refuse(status::overdue(limits.call_timeout), call),
    }
}

/// An answer before anybody looked at the request.
fn refuse(status: tonic::Status, call: Open) -> http::Response<Answer> {
    metrics::request("any", super::code_name(status.code()));
    status.into_http().map(|body| Answer::new(body, call, None))
}

/// Whether the generated server could not read the message: it calls that INTERNAL, but it is the client's fault.
fn is_undecodable(headers: &http::HeaderMap) -> bool {
    let is = |name: &str, what: &str| {
        headers.get(name).and_then(|v| v.to_str().ok()).is_some_and(|v| v.starts_with(what))
    };
    is("grpc-status", "13") && is("grpc-message", "failed%20to%20decode%20Protobuf")
}

/// Whether messages go both ways: such a request is answered before it ends.
fn is_reflection(path: &str) -> bool {
    path.starts_with("/grpc.reflection.")
}
