//! Control calls of `FeedService`. Batch streams are answered by [`super::streams`] before they reach the generated
//! server.

use super::{Shared, gate, status};
use crate::{metrics, wire};
use mixfeed_proto::{self as v1, feed_service_server::FeedService};
use std::{pin::Pin, sync::Arc};
use tonic::{Request, Response, Status};

/// Entries of a page when the caller does not say.
const PAGE: u32 = 100;
/// Most entries of a page.
const PAGE_MAX: u32 = 1000;
/// Most jobs of a page: each carries its spec and class names.
const JOBS_PAGE_MAX: usize = 20;

/// The control half of the service.
#[derive(Clone, Debug)]
pub struct Feed(pub Arc<Shared>);

type Parts = Pin<Box<dyn futures_util::Stream<Item = Result<v1::BatchPart, Status>> + Send>>;

/// Counts an answer.
fn answer<T>(method: &'static str, result: Result<T, Status>) -> Result<Response<T>, Status> {
    let code = result.as_ref().err().map_or(tonic::Code::Ok, Status::code);
    metrics::request(method, super::code_name(code));
    result.map(Response::new)
}

/// Batch streams have their own answer, [`super::streams`]; the generated trait wants one here too.
fn streamed() -> Result<Response<Parts>, Status> {
    Err(Status::internal("answered before it gets here"))
}

/// Cuts one entry too many off a page; returns the token of the next page, empty when this is the last.
fn next_page<T>(entries: &mut Vec<T>, most: usize, name: impl Fn(&T) -> &str) -> String {
    let more = entries.len() > most;
    entries.truncate(most);
    entries.last().filter(|_| more).map(|last| name(last).to_owned()).unwrap_or_default()
}

fn page(size: u32) -> usize {
    (if size == 0 { PAGE } else { size.min(PAGE_MAX) }) as usize
}

#[tonic::async_trait]
impl FeedService for Feed {
    async fn open_job(
        &self,
        request: Request<v1::OpenJobRequest>,
    ) -> Result<Response<v1::OpenJobResponse>, Status> {
        let caller = gate::caller(&request)?;
        let v1::OpenJobRequest { job, spec, expected_digest } = request.into_inner();
        if *self.0.draining.borrow() {
            return answer("OpenJob", Err(status::draining()));
        }
        let shared = self.0.clone();
        // Resolving a large job hashes its spec and walks its groups: not on the I/O threads.
        let opened = tokio::task::spawn_blocking(move || {
            gate::open_job(&shared, &caller, &job, |jobs| jobs.open(&job, spec, &expected_digest))
        })
        .await;
        let opened = opened.map_err(|lost| Status::internal(lost.to_string()))?;
        let response = |(job, created): (Arc<crate::job::Job>, bool)| v1::OpenJobResponse {
            job: Some(wire::job_info(&job)),
            created,
        };
        answer("OpenJob", opened.map(response))
    }

    type StreamBatchesStream = Parts;
    async fn stream_batches(
        &self,
        _: Request<v1::StreamBatchesRequest>,
    ) -> Result<Response<Self::StreamBatchesStream>, Status> {
        streamed()
    }

    type StreamEvalSetStream = Parts;
    async fn stream_eval_set(
        &self,
        _: Request<v1::StreamEvalSetRequest>,
    ) -> Result<Response<Self::StreamEvalSetStream>, Status> {
        streamed()
    }

    type ReplayBatchStream = Parts;
    async fn replay_batch(
        &self,
        _: Request<v1::ReplayBatchRequest>,
    ) -> Result<Response<Self::ReplayBatchStream>, Status> {
        streamed()
    }

    type MixPairsStream = Parts;
    async fn mix_pairs(
        &self,
        _: Request<v1::MixPairsRequest>,
    ) -> Result<Response<Self::MixPairsStream>, Status> {
        answer("MixPairs", Err(status::unimplemented("MixPairs")))
    }

    async fn describe_job(
        &self,
        request: Request<v1::DescribeJobRequest>,
    ) -> Result<Response<v1::DescribeJobResponse>, Status> {
        let caller = gate::caller(&request)?;
        let job = gate::job(&self.0, &caller, &request.into_inner().job);
        answer("DescribeJob", job.map(|job| v1::DescribeJobResponse { job: Some(wire::job_info(&job)) }))
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let caller = gate::caller(&request)?;
        let v1::ListJobsRequest { page_size, page_token } = request.into_inner();
        let most = page(page_size).min(JOBS_PAGE_MAX);
        let mut jobs = self.0.jobs.list_if(&page_token, most + 1, |name| caller.sees(name));
        let next_page_token = next_page(&mut jobs, most, |j| &j.name);
        let jobs = jobs.iter().map(|j| wire::job_info(j)).collect();
        answer("ListJobs", Ok(v1::ListJobsResponse { jobs, next_page_token }))
    }

    async fn close_job(
        &self,
        request: Request<v1::CloseJobRequest>,
    ) -> Result<Response<v1::CloseJobResponse>, Status> {
        let caller = gate::caller(&request)?;
        let (shared, v1::CloseJobRequest { job, forget }) = (self.0.clone(), request.into_inner());
        let closed = tokio::task::spawn_blocking(move || {
            caller.check(&job).map_err(|denial| status::of_denial(&denial))?;
            let closed = if forget { shared.jobs.forget(&job) } else { shared.jobs.close(&job) };
            if closed.is_ok() {
                shared.live.forget(&job);
            }
            closed.map_err(|error| gate::of_job(&shared, &caller, error))
        })
        .await;
        let closed = closed.map_err(|lost| Status::internal(lost.to_string()))?;
        answer("CloseJob", closed.map(|()| v1::CloseJobResponse {}))
    }

    async fn list_policies(
        &self,
        _: Request<v1::ListPoliciesRequest>,
    ) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        answer("ListPolicies", Ok(v1::ListPoliciesResponse { policies: wire::policies() }))
    }

    async fn list_sources(
        &self,
        request: Request<v1::ListSourcesRequest>,
    ) -> Result<Response<v1::ListSourcesResponse>, Status> {
        let v1::ListSourcesRequest { page_size, page_token } = request.into_inner();
        let most = page(page_size);
        let sources = self.0.jobs.sources();
        let mut names: Vec<&String> = sources.keys().filter(|n| **n > page_token).take(most + 1).collect();
        let next_page_token = next_page(&mut names, most, |n| n.as_str());
        let sources = names.iter().map(|n| wire::source_info(n, sources[*n].as_ref())).collect();
        answer("ListSources", Ok(v1::ListSourcesResponse { sources, next_page_token }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_the_next_one_unless_it_is_the_last() {
        let cut = |given: &[&str], most| {
            let mut page: Vec<&str> = given.to_vec();
            let token = next_page(&mut page, most, |n| n);
            (page.len(), token)
        };
        assert_eq!(cut(&["a", "b", "c"], 2), (2, "b".into()));
        assert_eq!(cut(&["a", "b"], 2), (2, String::new()));
        assert_eq!(cut(&[], 2), (0, String::new()));
    }
}
