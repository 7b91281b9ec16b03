//! A feed service whose batches are known in advance and whose failures are scripted.

use crate::keeper::Keeper;
pub use crate::parts::{batch, chunk, digest, part, pixels, row_groups};
use futures_util::{Stream, StreamExt, stream};
use mixfeed_client::{Client, ClientOptions, Error, spec::JobSpec};
use mixfeed_proto::{
    self as v1, BatchPart, batch_part::Part, feed_service_server::FeedService,
    feed_service_server::FeedServiceServer, mixture_service_server::MixtureServiceServer,
};
use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, net::UnixListener, sync::mpsc};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Request, Response, Status,
    transport::Server,
    transport::server::{Router, TcpIncoming},
};

pub const JOB: &str = "vit";

/// One answer to a stream call: so many batches, then these parts.
pub struct Turn {
    pub batches: u64,
    pub tamper: fn(&mut Vec<BatchPart>),
    pub then: Vec<Result<BatchPart, Status>>,
    /// Say nothing more, instead of ending the call.
    pub hang: bool,
}

impl Turn {
    pub fn new(batches: u64, then: Vec<Result<BatchPart, Status>>) -> Self {
        Turn { batches, tamper: |_| {}, then, hang: false }
    }

    pub fn tampered(tamper: fn(&mut Vec<BatchPart>)) -> Self {
        Turn { batches: u64::MAX, tamper, then: vec![], hang: false }
    }
}

#[derive(Default)]
pub struct Log {
    pub jobs: BTreeMap<String, v1::JobInfo>,
    pub opens: Vec<v1::OpenJobRequest>,
    pub streams: Vec<v1::StreamBatchesRequest>,
    pub evals: Vec<v1::StreamEvalSetRequest>,
    pub turns: VecDeque<Turn>,
    /// Answers to ListJobs before the good ones.
    pub refusals: VecDeque<Status>,
}

#[derive(Clone)]
pub struct Fake {
    /// Steps of every job.
    pub steps: u64,
    /// Rows of a rank's batch.
    pub rows: usize,
    pub log: Arc<Mutex<Log>>,
    pub keeper: Arc<Keeper>,
    /// Payload bytes handed to the transport.
    pub sent: Arc<AtomicUsize>,
    /// Told when a batch stream is dropped.
    pub dropped: mpsc::UnboundedSender<()>,
}

impl Fake {
    pub fn new(steps: u64, rows: usize) -> (Fake, mpsc::UnboundedReceiver<()>) {
        let (dropped, drops) = mpsc::unbounded_channel();
        let (log, keeper, sent) = (Arc::default(), Arc::default(), Arc::default());
        (Fake { steps, rows, log, keeper, sent, dropped }, drops)
    }

    pub fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().expect("no panic while locked")
    }

    pub fn script(&self, turns: impl IntoIterator<Item = Turn>) {
        self.log().turns.extend(turns);
    }

    fn router(&self) -> Router {
        let (_, health) = tonic_health::server::health_reporter();
        Server::builder()
            .add_service(FeedServiceServer::new(self.clone()))
            .add_service(MixtureServiceServer::new(self.clone()))
            .add_service(health)
    }

    /// Serves on a free port. The listener is bound when this returns, so a client may connect at once.
    pub async fn tcp(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        // Else Nagle's algorithm waits for delayed acknowledgements, 40 ms each, when windows are small.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio::spawn(self.router().serve_with_incoming(incoming));
        address
    }

    pub fn unix(&self, path: &Path) -> String {
        let listener = UnixListener::bind(path).expect("a free path");
        tokio::spawn(self.router().serve_with_incoming(UnixListenerStream::new(listener)));
        format!("unix:{}", path.display())
    }
}

/// Options that retry fast.
pub fn quick() -> ClientOptions {
    ClientOptions::default().backoff(Duration::from_millis(1), Duration::from_millis(4))
}

pub fn spec(seed: u64) -> JobSpec {
    JobSpec { seed, ..Default::default() }
}

pub async fn open(addresses: &[String], options: ClientOptions) -> Result<Client, Error> {
    let client = Client::connect_with(addresses.iter().cloned(), options).await?;
    client.open_job(JOB, &spec(7)).await?;
    Ok(client)
}

type Parts = Pin<Box<dyn Stream<Item = Result<BatchPart, Status>> + Send>>;

struct Guard(mpsc::UnboundedSender<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send(()); // the test may not listen
    }
}

impl Fake {
    fn job(&self, name: &str) -> Result<v1::JobInfo, Status> {
        self.log().jobs.get(name).cloned().ok_or_else(|| Status::not_found(format!("job `{name}`")))
    }

    /// With `barriers` a step waits for the reports that those before it ask for.
    fn serve(&self, job: v1::JobInfo, from: u64, slice: (u32, u32), barriers: bool) -> Parts {
        let (steps, rows) = (self.steps, self.rows);
        let end = v1::EndOfJob { steps, dropped_rows: 3, padded_rows: 0 };
        let turn = self.log().turns.pop_front();
        let turn = turn.unwrap_or_else(|| Turn::new(u64::MAX, vec![Ok(part(Part::EndOfJob(end)))]));
        let until = from.saturating_add(turn.batches).min(steps);
        let keeper = Arc::clone(&self.keeper);
        let open = stream::iter(from..until).then(move |step| {
            let keeper = Arc::clone(&keeper);
            async move {
                if barriers {
                    keeper.ready(from, step).await;
                }
                (step, keeper.state().at(step))
            }
        });
        let parts = open.flat_map(move |(step, at)| {
            let mut parts = batch(&job, at, step, slice, rows);
            (turn.tamper)(&mut parts);
            stream::iter(parts).map(Ok)
        });
        let (sent, guard) = (Arc::clone(&self.sent), Guard(self.dropped.clone()));
        let tail = if turn.hang { stream::pending().boxed() } else { stream::empty().boxed() };
        Box::pin(parts.chain(stream::iter(turn.then)).chain(tail).inspect(move |part| {
            let _ = &guard;
            if let Ok(BatchPart { part: Some(Part::Chunk(chunk)) }) = part {
                sent.fetch_add(chunk.data.len(), Ordering::Relaxed);
            }
        }))
    }
}

#[tonic::async_trait]
impl FeedService for Fake {
    type StreamBatchesStream = Parts;
    type StreamEvalSetStream = Parts;
    type ReplayBatchStream = Parts;
    type MixPairsStream = Parts;

    async fn open_job(
        &self,
        request: Request<v1::OpenJobRequest>,
    ) -> Result<Response<v1::OpenJobResponse>, Status> {
        let request = request.into_inner();
        let mut log = self.log();
        log.opens.push(request.clone());
        let known = log.jobs.get(&request.job).cloned();
        let created = known.is_none();
        let job = match (known, request.spec) {
            (Some(known), Some(spec)) if known.digest != digest(&spec) => {
                return Err(Status::already_exists("another spec"));
            }
            (Some(known), _) => known,
            (None, None) => return Err(Status::not_found(format!("job `{}`", request.job))),
            (None, Some(spec)) => {
                let job = request.job;
                v1::JobInfo { job, digest: digest(&spec), spec: Some(spec), ..Default::default() }
            }
        };
        log.jobs.insert(job.job.clone(), job.clone());
        Ok(Response::new(v1::OpenJobResponse { job: Some(job), created }))
    }

    async fn stream_batches(
        &self,
        request: Request<v1::StreamBatchesRequest>,
    ) -> Result<Response<Parts>, Status> {
        let request = request.into_inner();
        self.log().streams.push(request.clone());
        let job = self.job(&request.job)?;
        use v1::stream_batches_request::Start;
        let from = match request.start {
            Some(Start::FromStep(step)) => step,
            Some(Start::Cursor(cursor)) if cursor.digest != job.digest => {
                return Err(Status::failed_precondition("cursor of another spec"));
            }
            Some(Start::Cursor(cursor)) => cursor.next_step,
            None => return Err(Status::invalid_argument("no start")),
        };
        Ok(Response::new(self.serve(job, from, (request.rank, request.world_size), true)))
    }

    async fn stream_eval_set(
        &self,
        request: Request<v1::StreamEvalSetRequest>,
    ) -> Result<Response<Parts>, Status> {
        let request = request.into_inner();
        let job = self.job(&request.job)?;
        self.log().evals.push(request.clone());
        self.script([Turn::new(u64::MAX, vec![])]);
        let parts = self.serve(job, request.from_step, (request.rank, request.world_size), false);
        Ok(Response::new(Box::pin(parts.map(|part| {
            part.map(|mut part| {
                if let Some(Part::Header(header)) = &mut part.part {
                    header.cursor = None;
                }
                part
            })
        }))))
    }

    async fn replay_batch(
        &self,
        request: Request<v1::ReplayBatchRequest>,
    ) -> Result<Response<Parts>, Status> {
        let request = request.into_inner();
        let job = self.job(&request.job)?;
        use v1::replay_batch_request::What;
        let (step, rank, world_size) = match request.what {
            Some(What::Receipt(receipt)) => (receipt.step, receipt.rank, receipt.world_size),
            Some(What::Step(step)) => (step, request.rank, request.world_size),
            None => return Err(Status::invalid_argument("nothing to replay")),
        };
        self.script([Turn::new(1, vec![])]);
        Ok(Response::new(self.serve(job, step, (rank, world_size), false)))
    }

    async fn mix_pairs(&self, _: Request<v1::MixPairsRequest>) -> Result<Response<Parts>, Status> {
        Err(Status::unimplemented("pairs"))
    }

    async fn describe_job(
        &self,
        request: Request<v1::DescribeJobRequest>,
    ) -> Result<Response<v1::DescribeJobResponse>, Status> {
        let job = self.job(&request.into_inner().job)?;
        Ok(Response::new(v1::DescribeJobResponse { job: Some(job) }))
    }

    /// One job per page.
    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let mut log = self.log();
        if let Some(status) = log.refusals.pop_front() {
            return Err(status);
        }
        let token = request.into_inner().page_token;
        let mut jobs = log.jobs.values().filter(|job| job.job > token);
        let job = jobs.next().cloned();
        let next = job.as_ref().filter(|_| jobs.next().is_some()).map(|job| job.job.clone());
        let next_page_token = next.unwrap_or_default();
        Ok(Response::new(v1::ListJobsResponse { jobs: job.into_iter().collect(), next_page_token }))
    }

    async fn close_job(
        &self,
        request: Request<v1::CloseJobRequest>,
    ) -> Result<Response<v1::CloseJobResponse>, Status> {
        let name = request.into_inner().job;
        self.log().jobs.remove(&name).ok_or_else(|| Status::not_found(format!("job `{name}`")))?;
        Ok(Response::new(v1::CloseJobResponse {}))
    }

    async fn list_policies(
        &self,
        _: Request<v1::ListPoliciesRequest>,
    ) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        let policies = vec![v1::PolicyInfo { name: "cutmix".into(), ..Default::default() }];
        Ok(Response::new(v1::ListPoliciesResponse { policies }))
    }

    /// A list without end.
    async fn list_sources(
        &self,
        _: Request<v1::ListSourcesRequest>,
    ) -> Result<Response<v1::ListSourcesResponse>, Status> {
        Ok(Response::new(v1::ListSourcesResponse { sources: vec![], next_page_token: "again".into() }))
    }
}
