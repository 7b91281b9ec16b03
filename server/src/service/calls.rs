//! One call: charged for what it holds, given up when it takes too long.

use super::bodies::{self, Answer, Timed, Watched};
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

/// Calls that change what lasts: whoever is told that one failed would think that it was not carried out.
const CHANGES: [&str; 6] = [
    "/mixfeed.v1.FeedService/OpenJob",
    "/mixfeed.v1.FeedService/CloseJob",
    "/mixfeed.v1.MixtureService/OpenAttempt",
    "/mixfeed.v1.MixtureService/Report",
    "/mixfeed.v1.MixtureService/ReportStats",
    "/mixfeed.v1.MixtureService/SetWeights",
];

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
    call.guest().let_in(!is_health(head.uri.path()));
    if is_reflection(head.uri.path()) {
        let Some(talk) = call.guest().charge(0) else {
            return refuse(bodies::crowded(), call);
        };
        let request = http::Request::from_parts(head, Timed::new(body, talk, limits.request_timeout));
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
    if let Some(kind) = Call::of(head.uri.path()) {
        return streams::answer(shared, caller, kind, message)
            .await
            .map(|body| Answer::new(body, call, None));
    }
    if let Err(status) = bodies::one_message(&message) {
        return refuse(status, call);
    }
    let request = http::Request::from_parts(head, Full::new(message));
    let changes = CHANGES.contains(&request.uri().path());
    let watches = is_health(request.uri().path());
    match tokio::time::timeout(limits.call_timeout, routes.oneshot(request)).await {
        Ok(Ok(response)) if is_undecodable(response.headers()) => refuse(bodies::undecodable(), call),
        Ok(Ok(response)) => response.map(|body| match (changes, watches) {
            (true, _) => Answer::new(body, call, Some(charge)).carried_out(),
            (false, true) => Answer::new(tonic::body::Body::new(Watched::new(body)), call, Some(charge)),
            (false, false) => Answer::new(body, call, Some(charge)),
        }),
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

/// Whether it only looks whether the server serves.
fn is_health(path: &str) -> bool {
    path.starts_with("/grpc.health.")
}

/// Whether messages go both ways: such a request is answered before it ends.
fn is_reflection(path: &str) -> bool {
    path.starts_with("/grpc.reflection.")
}
