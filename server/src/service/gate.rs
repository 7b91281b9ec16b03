//! The gate: every request passes it, whatever path it takes, and is refused unless its caller may make it.

use super::{Shared, code_name, fence::Post, status};
use crate::auth::{Caller, StreamHold, method};
use crate::job::{Job, JobError, Jobs};
use crate::metrics;
use http::header::AUTHORIZATION;
use http_body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tonic::Status;

/// Lets a request pass, or says why not. What is behind the gate finds the [`Caller`] among the extensions, and no secret.
///
/// # Errors
/// UNAUTHENTICATED or PERMISSION_DENIED; counted here.
pub fn pass<B>(shared: &Shared, request: &mut http::Request<B>) -> Result<Caller, Status> {
    let path = request.uri().path();
    let caller = enter(shared, request.headers(), path).inspect_err(|status| {
        let name = method(path).map_or("other", |method| method.name);
        metrics::request(name, code_name(status.code()));
        tracing::debug!(method = name, %status, "refused");
    })?;
    request.headers_mut().remove(AUTHORIZATION);
    request.extensions_mut().insert(caller.clone());
    Ok(caller)
}

fn enter(shared: &Shared, headers: &http::HeaderMap, path: &str) -> Result<Caller, Status> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (first, second) = (given.next(), given.next());
    // Two are one too many: which of them counts is anybody's guess.
    let header = match second {
        Some(_) => Some(&b""[..]),
        None => first.map(http::HeaderValue::as_bytes),
    };
    let caller = shared.access.enter(header, path).map_err(|denial| status::of_denial(&denial))?;
    if let (Some(token), Some(method)) = (caller.name(), caller.method()) {
        tracing::debug!(token, method = method.name, "call");
    }
    Ok(caller)
}

/// Who makes the call.
///
/// # Errors
/// UNAUTHENTICATED when the request did not pass the gate.
pub fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Status::unauthenticated("the request did not pass the gate"))
}

/// The open job called `name`, when the caller may do with it what it does.
///
/// # Errors
/// PERMISSION_DENIED before NOT_FOUND: nobody learns whether a job exists that it may not see.
pub fn job(shared: &Shared, caller: &Caller, name: &str) -> Result<Arc<Job>, Status> {
    caller.check(name).map_err(|denial| status::of_denial(&denial))?;
    shared.jobs.get(name).map_err(|error| of_job(shared, caller, error))
}

/// Opens a job within the caller's quota.
///
/// # Errors
/// What `open` says, or why the caller may not.
pub fn open_job(
    shared: &Shared,
    caller: &Caller,
    name: &str,
    open: impl FnOnce(&Jobs) -> Result<(Arc<Job>, bool), JobError>,
) -> Result<(Arc<Job>, bool), Status> {
    let denied = |denial| status::of_denial(&denial);
    caller.check(name).map_err(denied)?;
    let hold = caller.opening(name, |job| shared.jobs.is_open(job)).map_err(denied)?;
    let (job, created) = open(&shared.jobs).map_err(|error| of_job(shared, caller, error))?;
    if created {
        hold.keep();
    }
    Ok((job, created))
}

/// As [`status::of_job`], without the names of jobs that the caller may not see.
pub fn of_job(shared: &Shared, caller: &Caller, error: JobError) -> Status {
    if let JobError::Unknown { what: "job", name, .. } = &error {
        return status::of_job(&shared.jobs.unknown(name, |job| caller.sees(job)));
    }
    status::of_job(&error)
}

/// Waits until the caller may no longer do what it does with `job`.
pub fn revoked(shared: &Shared, caller: &Caller, job: &str) -> impl Future<Output = Status> + Send + 'static {
    let (access, caller, job) = (shared.access.clone(), caller.clone(), job.to_owned());
    async move {
        let denial = access.revoked(caller, job).await;
        // Whoever had a right and lost it has to come back with another token.
        Status::unauthenticated(denial.to_string())
    }
}

/// A body that counts against its caller's quota, and keeps its reader's place, until it is dropped.
#[derive(Debug)]
pub struct Held<B> {
    body: B,
    _hold: (StreamHold, Option<Post>),
}

impl<B> Held<B> {
    /// Holds `hold` and `post` as long as `body` lives.
    pub fn new(body: B, hold: StreamHold, post: Option<Post>) -> Held<B> {
        Held { body, _hold: (hold, post) }
    }
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use crate::auth::METHODS;
    use mixfeed_proto::FILE_DESCRIPTOR_SET;
    use prost::Message;
    use prost::bytes::Bytes;

    /// google.protobuf's descriptors, as far as paths need them.
    #[derive(Clone, PartialEq, Message)]
    struct Set {
        #[prost(message, repeated, tag = "1")]
        files: Vec<File>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct File {
        #[prost(string, tag = "2")]
        package: String,
        #[prost(message, repeated, tag = "6")]
        services: Vec<Service>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Service {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, repeated, tag = "2")]
        methods: Vec<Method>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Method {
        #[prost(string, tag = "1")]
        name: String,
    }

    fn paths(set: &'static [u8]) -> Vec<String> {
        let set = Set::decode(Bytes::from_static(set)).unwrap();
        let mut paths = Vec::new();
        for file in &set.files {
            for service in &file.services {
                let path = |m: &Method| format!("/{}.{}/{}", file.package, service.name, m.name);
                paths.extend(service.methods.iter().map(path));
            }
        }
        paths
    }

    #[test]
    fn every_call_that_is_served_has_a_row() {
        let sets = [
            FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let served: Vec<String> = sets.into_iter().flat_map(paths).collect();
        assert!(served.len() >= 24, "{served:?}");
        for path in &served {
            assert!(METHODS.iter().any(|row| row.path == path), "`{path}` has no row: nobody may call it");
        }
        for row in METHODS {
            assert!(served.iter().any(|path| path == row.path), "`{}` is not served", row.path);
        }
    }
}
