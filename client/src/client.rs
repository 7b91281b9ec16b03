//! Control calls.

use crate::{
    BatchStream, ClientOptions, Error, EvalOptions, Replay, StreamOptions,
    batch::Batch,
    connection,
    error::Digest,
    reader::{Reader, What},
    retry::Retry,
    spec::{JobInfo, JobSpec, PolicyInfo, SourceInfo},
};
use bytes::Bytes;
use mixfeed_proto as v1;
use prost::Message;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tonic::transport::Channel;

/// Most pages of a list that are followed.
const MAX_PAGES: usize = 1000;
const PAGE: u32 = 1000;

macro_rules! feed {
    ($call:literal) => {
        concat!("/mixfeed.v1.FeedService/", $call)
    };
}
pub(crate) use feed;

/// A mixfeed server, or several that serve the same jobs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

/// What a server says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Ready.
    Serving,
    /// Starting or draining.
    NotServing,
}

/// A job as it was opened, to open it again on a server that does not know it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) spec: Option<JobSpec>,
    pub(crate) digest: Bytes,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) endpoints: Vec<String>,
    pub(crate) options: ClientOptions,
    control: Mutex<Control>,
    jobs: Mutex<BTreeMap<String, Known>>,
}

/// The connection of control calls and the endpoint it leads to.
#[derive(Debug, Default)]
struct Control {
    index: usize,
    channel: Option<Channel>,
}

// grpc.health.v1, as far as we need it.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

impl Client {
    /// Connects to the first endpoint that answers; the others are for when it does not. Endpoints are
    /// `https://HOST:PORT`, `http://HOST:PORT` or `unix:/PATH`.
    pub async fn connect<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Result<Self, Error> {
        Self::connect_with(endpoints, ClientOptions::default()).await
    }

    /// As [`connect`](Self::connect), with options.
    pub async fn connect_with<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        options: ClientOptions,
    ) -> Result<Self, Error> {
        let endpoints: Vec<String> = endpoints.into_iter().map(Into::into).collect();
        if endpoints.is_empty() {
            return Err(Error::Argument { name: "endpoints".into(), reason: "expected at least one".into() });
        }
        for address in &endpoints {
            connection::endpoint(address, &options)?;
        }
        let inner = Inner { endpoints, options, control: Mutex::default(), jobs: Mutex::default() };
        let client = Client { inner: Arc::new(inner) };
        let mut retry = Retry::new(&client.inner.options);
        while let Err(error) = client.inner.control().await {
            retry.wait(error).await?;
        }
        Ok(client)
    }

    /// Opens a job, or attaches to it when the same spec is open under this name already.
    pub async fn open_job(&self, name: &str, spec: &JobSpec) -> Result<JobInfo, Error> {
        self.open(name, Some(spec.clone())).await
    }

    /// Attaches to a job that someone else opened.
    pub async fn attach(&self, name: &str) -> Result<JobInfo, Error> {
        self.open(name, None).await
    }

    async fn open(&self, name: &str, spec: Option<JobSpec>) -> Result<JobInfo, Error> {
        let request =
            v1::OpenJobRequest { job: name.into(), spec: spec.clone(), expected_digest: Bytes::new() };
        let response: v1::OpenJobResponse = self.inner.call(feed!("OpenJob"), &request).await?;
        self.inner.remember(name, spec, response.job)
    }

    /// Describes an open job.
    pub async fn describe_job(&self, name: &str) -> Result<JobInfo, Error> {
        let request = v1::DescribeJobRequest { job: name.into() };
        let response: v1::DescribeJobResponse = self.inner.call(feed!("DescribeJob"), &request).await?;
        response.job.ok_or_else(|| Error::Protocol("answer of `DescribeJob` has no job".into()))
    }

    /// All open jobs by name.
    pub async fn list_jobs(&self) -> Result<Vec<JobInfo>, Error> {
        let mut pages = Pages::default();
        let mut jobs = Vec::new();
        while let Some(page_token) = pages.next() {
            let request = v1::ListJobsRequest { page_size: PAGE, page_token };
            let page: v1::ListJobsResponse = self.inner.call(feed!("ListJobs"), &request).await?;
            jobs.extend(page.jobs);
            pages.turn(page.next_page_token)?;
        }
        Ok(jobs)
    }

    /// Closes a job; its streams end with [`Error::Aborted`]. Its mixture is kept: opened again it goes on.
    pub async fn close_job(&self, name: &str) -> Result<(), Error> {
        self.close(name, false).await
    }

    /// Closes a job that is open and deletes all that the server keeps of its mixture, of whatever spec: opened again it
    /// begins at step 0.
    pub async fn forget_job(&self, name: &str) -> Result<(), Error> {
        self.close(name, true).await
    }

    async fn close(&self, name: &str, forget: bool) -> Result<(), Error> {
        let request = v1::CloseJobRequest { job: name.into(), forget };
        let _: v1::CloseJobResponse = self.inner.call(feed!("CloseJob"), &request).await?;
        self.inner.jobs().remove(name);
        Ok(())
    }

    /// Mixing policies and their parameters, by name.
    pub async fn list_policies(&self) -> Result<Vec<PolicyInfo>, Error> {
        let request = v1::ListPoliciesRequest {};
        let response: v1::ListPoliciesResponse = self.inner.call(feed!("ListPolicies"), &request).await?;
        Ok(response.policies)
    }

    /// The operator's sources and their groups, by name.
    pub async fn list_sources(&self) -> Result<Vec<SourceInfo>, Error> {
        let mut pages = Pages::default();
        let mut sources = Vec::new();
        while let Some(page_token) = pages.next() {
            let request = v1::ListSourcesRequest { page_size: PAGE, page_token };
            let page: v1::ListSourcesResponse = self.inner.call(feed!("ListSources"), &request).await?;
            sources.extend(page.sources);
            pages.turn(page.next_page_token)?;
        }
        Ok(sources)
    }

    /// Asks the server that control calls go to, without retries.
    pub async fn health(&self) -> Result<Health, Error> {
        let request = HealthCheckRequest {};
        let response: HealthCheckResponse =
            self.inner.call_once("/grpc.health.v1.Health/Check", &request).await?;
        Ok(if response.status == 1 { Health::Serving } else { Health::NotServing })
    }

    /// Streams a rank's batches on a connection of its own. Attaches first when this client has not opened the job.
    pub async fn stream(&self, job: &str, options: StreamOptions) -> Result<BatchStream, Error> {
        check_slice(options.rank, options.world_size)?;
        self.make_known(job).await?;
        BatchStream::start(self.reader(job, What::Train(options)))
    }

    /// Streams a pinned set of records in order, once, unmixed.
    pub async fn eval(&self, job: &str, options: EvalOptions) -> Result<BatchStream, Error> {
        check_slice(options.rank, options.world_size)?;
        self.make_known(job).await?;
        BatchStream::start(self.reader(job, What::Eval(options)))
    }

    /// Makes one batch again.
    pub async fn replay(&self, job: &str, what: Replay) -> Result<Batch, Error> {
        self.make_known(job).await?;
        let mut stream = BatchStream::start(self.reader(job, What::Replay(what)))?;
        let missing = || Error::Protocol("answer of `ReplayBatch` has no batch".into());
        stream.next_batch().await?.ok_or_else(missing)
    }

    fn reader(&self, job: &str, what: What) -> Reader {
        Reader::new(Arc::clone(&self.inner), job.into(), what)
    }

    async fn make_known(&self, job: &str) -> Result<(), Error> {
        if self.inner.known(job).is_none() {
            self.attach(job).await?;
        }
        Ok(())
    }
}

fn check_slice(rank: u32, world_size: u32) -> Result<(), Error> {
    if rank < world_size {
        return Ok(());
    }
    let reason = format!("{rank} is not below world_size {world_size}");
    Err(Error::Argument { name: "rank".into(), reason })
}

impl Inner {
    fn jobs(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn known(&self, job: &str) -> Option<Known> {
        self.jobs().get(job).cloned()
    }

    /// Keeps what is needed to open the job again. A digest that changed under this client is an error: its streams
    /// would change their sequence.
    fn remember(&self, name: &str, spec: Option<JobSpec>, info: Option<JobInfo>) -> Result<JobInfo, Error> {
        let info = info.ok_or_else(|| Error::Protocol("answer of `OpenJob` has no job".into()))?;
        let mut jobs = self.jobs();
        let before = jobs.get(name);
        if let Some(before) = before.filter(|before| before.digest != info.digest) {
            return Err(other_digest(name, &before.digest, &info.digest));
        }
        let spec = spec.or_else(|| before.and_then(|b| b.spec.clone())).or_else(|| info.spec.clone());
        jobs.insert(name.into(), Known { spec, digest: info.digest.clone() });
        Ok(info)
    }

    /// The connection of control calls, made when there is none.
    async fn control(&self) -> Result<Channel, Error> {
        let index = {
            let control = self.lock_control();
            if let Some(channel) = &control.channel {
                return Ok(channel.clone());
            }
            control.index % self.endpoints.len()
        };
        let dialled = connection::dial(&self.endpoints[index], &self.options).await;
        let mut control = self.lock_control();
        match dialled {
            Ok(channel) => {
                control.channel = Some(channel.clone());
                Ok(channel)
            }
            Err(error) => {
                control.index = index + 1;
                Err(error)
            }
        }
    }

    fn lock_control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn call_once<M: Message + Default>(
        &self,
        path: &'static str,
        request: &impl Message,
    ) -> Result<M, Error> {
        let channel = self.control().await?;
        let answer = connection::unary(channel, path, request, &self.options).await;
        if answer.as_ref().is_err_and(Error::is_transient) {
            let mut control = self.lock_control();
            control.channel = None;
            control.index = control.index.wrapping_add(1);
        }
        answer
    }

    /// A control call, repeated on other endpoints while its failure may pass. All of them may be repeated: opening
    /// attaches, closing a closed job is NOT_FOUND.
    pub(crate) async fn call<M: Message + Default>(
        &self,
        path: &'static str,
        request: &impl Message,
    ) -> Result<M, Error> {
        let mut retry = Retry::new(&self.options);
        loop {
            match self.call_once(path, request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => retry.wait(error).await?,
            }
        }
    }
}

pub(crate) fn other_digest(job: &str, expected: &[u8], found: &[u8]) -> Error {
    let message = format!("job `{job}` is not the one that was opened");
    Error::OtherDigest { message, expected: Digest(expected.to_vec()), found: Digest(found.to_vec()) }
}

/// Follows page tokens.
#[derive(Default)]
struct Pages {
    token: Option<String>,
    turned: usize,
    over: bool,
}

impl Pages {
    fn next(&mut self) -> Option<String> {
        (!self.over).then(|| self.token.clone().unwrap_or_default())
    }

    fn turn(&mut self, token: String) -> Result<(), Error> {
        self.turned += 1;
        self.over = token.is_empty();
        let stuck = self.turned >= MAX_PAGES || self.token.as_ref() == Some(&token);
        if stuck && !self.over {
            return Err(Error::Protocol("list does not end".into()));
        }
        self.token = Some(token);
        Ok(())
    }
}
