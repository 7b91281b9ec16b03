//! A feed service whose batches are known in advance and whose failures are scripted.

use crate::keeper::{At, Keeper};
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

pub fn digest(spec: &JobSpec) -> bytes::Bytes {
    vec![spec.seed as u8; 32].into()
}

/// Pixels of a batch: 3 x 33 x 47 per row, another pattern for every step and rank.
pub fn pixels(step: u64, rank: u32, rows: usize) -> Vec<u8> {
    let salt = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(rank) << 17;
    (0..(rows * 3 * 33 * 47) as u64).map(|i| (i.wrapping_mul(salt | 1) >> 11) as u8).collect()
}

fn classes(step: u64, rows: usize) -> Vec<u8> {
    (0..2 * rows as i32).flat_map(|i| (i + step as i32).to_le_bytes()).collect()
}

fn weights(rows: usize) -> Vec<u8> {
    (0..rows).flat_map(|_| [0.75f32, 0.25]).flat_map(f32::to_le_bytes).collect()
}

pub fn part(part: Part) -> BatchPart {
    BatchPart { part: Some(part) }
}

pub fn chunk(tensor: u32, offset: u64, data: &[u8]) -> BatchPart {
    part(Part::Chunk(v1::TensorChunk { tensor, offset, data: data.to_vec().into() }))
}

/// Groups of a batch's rows, base and partner: 0 and 1 by turns.
pub fn row_groups(step: u64, rows: usize) -> Vec<u32> {
    (0..rows as u32).flat_map(|row| [(row + step as u32) % 2, row % 2]).collect()
}

fn header(
    at: At,
    step: u64,
    (rank, world_size): (u32, u32),
    rows: usize,
    cursor: Option<v1::Cursor>,
) -> v1::BatchHeader {
    let n = rows as u64;
    let tensor = |name: &str, dtype: v1::Dtype, shape: Vec<u64>, size: u64| v1::TensorDescriptor {
        name: name.into(),
        dtype: dtype.into(),
        bytes: shape.iter().product::<u64>() * size,
        shape,
        offsets: String::new(),
    };
    v1::BatchHeader {
        step,
        epoch: step as f64 / 8.0,
        rank,
        world_size,
        slot_begin: rank * rows as u32,
        slot_end: (rank + 1) * rows as u32,
        tensors: vec![
            tensor("image", v1::Dtype::U8, vec![n, 3, 33, 47], 1),
            tensor("label.class", v1::Dtype::I32, vec![n, 2], 4),
            tensor("label.weight", v1::Dtype::F32, vec![n, 2], 4),
            tensor("sample.group", v1::Dtype::U32, vec![n, 2], 4),
        ],
        numerics: "cpu-1".into(),
        mixture_seq: at.seq,
        mixture_id: at.mixture_id,
        cursor,
        smoothing: 0.1,
        due_before: at.before,
        due_after: at.after,
        ..Default::default()
    }
}

/// A whole batch in pieces of an odd size.
pub fn batch(
    job: &v1::JobInfo,
    at: At,
    step: u64,
    (rank, world_size): (u32, u32),
    rows: usize,
) -> Vec<BatchPart> {
    let cursor = v1::Cursor {
        job: job.job.clone(),
        digest: job.digest.clone(),
        branch: 0,
        next_step: step + 1,
        mixture_seq: at.seq,
        crc: 0,
    };
    let mixture_seq = at.seq;
    let groups = row_groups(step, rows).into_iter().flat_map(u32::to_le_bytes).collect();
    let tensors = [pixels(step, rank, rows), classes(step, rows), weights(rows), groups];
    let mut parts = vec![part(Part::Header(header(at, step, (rank, world_size), rows, Some(cursor))))];
    for (index, tensor) in tensors.iter().enumerate() {
        for (piece, data) in tensor.chunks(99_991).enumerate() {
            parts.push(chunk(index as u32, piece as u64 * 99_991, data));
        }
    }
    let receipt = v1::Receipt {
        digest: job.digest.clone(),
        step,
        rank,
        world_size,
        mixture_seq,
        numerics: "cpu-1".into(),
        ..Default::default()
    };
    let crc32c = tensors.iter().map(|tensor| crc32c::crc32c(tensor)).collect();
    parts.push(part(Part::End(v1::BatchEnd { crc32c, receipt: Some(receipt) })));
    parts
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
