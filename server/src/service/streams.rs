//! Batch streams: the request is checked here, the answer is our own body. The codec never sees a payload byte.

use super::{
    Shared, bodies, code_name,
    fence::{self, Place, Post},
    gate, status,
};
use crate::auth::Caller;
use crate::job;
use crate::job::{Feed, Job, JobError};
use crate::keeper::Mark;
use crate::live::Who;
use crate::metrics::{self, StreamEnd};
use crate::stream::{self, Ask, Positions};
use bytes::Bytes;
use mixfeed_proto::{self as v1, replay_batch_request::What, stream_batches_request::Start};
use prost::Message;
use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};
use tonic::Status;
use tracing::Span;

/// Largest request of a stream.
const MAX_REQUEST: usize = 64 << 10;
/// Steps beyond this are refused: 2^40 steps outlast any trainer, and positions stay far from overflow.
pub(super) const MAX_STEP: u64 = 1 << 40;

/// The calls that are answered with batch parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Training batches.
    Batches,
    /// A pinned set.
    EvalSet,
    /// One batch again.
    Replay,
}

impl Call {
    /// The call of a path.
    pub fn of(path: &str) -> Option<Call> {
        match path {
            "/mixfeed.v1.FeedService/StreamBatches" => Some(Call::Batches),
            "/mixfeed.v1.FeedService/StreamEvalSet" => Some(Call::EvalSet),
            "/mixfeed.v1.FeedService/ReplayBatch" => Some(Call::Replay),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Call::Batches => "StreamBatches",
            Call::EvalSet => "StreamEvalSet",
            Call::Replay => "ReplayBatch",
        }
    }
}

/// Answers a call whose request is `body`.
pub async fn answer(
    shared: &Arc<Shared>,
    caller: Caller,
    call: Call,
    body: Bytes,
) -> http::Response<tonic::body::Body> {
    let asked = Instant::now();
    let body = match message(body) {
        Ok(message) => {
            // Finding a position may walk a log, or wait for one that is being made durable: not on the I/O threads.
            let (shared, span) = (shared.clone(), Span::current());
            let opened = move || span.in_scope(|| open(&shared, &caller, call, message, asked));
            let opened = tokio::task::spawn_blocking(opened).await;
            opened.unwrap_or_else(|lost| Err(Status::internal(lost.to_string())))
        }
        Err(status) => Err(status),
    };
    let code = body.as_ref().err().map_or(tonic::Code::Ok, Status::code);
    metrics::request(call.name(), code_name(code));
    match body {
        Ok(body) => http::Response::builder()
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .body(tonic::body::Body::new(body))
            .expect("a constant header"),
        Err(status) => status.into_http(),
    }
}

/// The one message of the request.
fn message(body: Bytes) -> Result<Bytes, Status> {
    if body.len() > MAX_REQUEST {
        return Err(Status::invalid_argument(format!(
            "request: {} bytes, want at most {MAX_REQUEST}",
            body.len()
        )));
    }
    bodies::one_message(&body)?;
    Ok(body.slice(bodies::PREFIX..))
}

fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Status> {
    M::decode(bytes).map_err(|e| Status::invalid_argument(format!("request: {e}")))
}

fn open(
    shared: &Shared,
    caller: &Caller,
    call: Call,
    message: Bytes,
    asked: Instant,
) -> Result<gate::Held<stream::Body>, Status> {
    if *shared.draining.borrow() {
        return Err(status::draining());
    }
    let mut place = None;
    let mut replica = String::new();
    let (ask, wanted) = match call {
        Call::Batches => {
            let request: v1::StreamBatchesRequest = decode(message)?;
            replica = request.replica.to_string();
            let v1::StreamBatchesRequest { job, rank, world_size, replica, fence, .. } = &request;
            if !fence::is_plausible(*fence, SystemTime::now()) {
                let why = "is more than an hour ahead of the server's clock, want the reader's start in ns of Unix time";
                return Err(status::invalid_field("fence", format!("{fence} {why}")));
            }
            place = (*fence != 0).then(|| ((job.clone(), *rank, *world_size, *replica), *fence));
            batches(shared, caller, request, asked)?
        }
        Call::EvalSet => eval_set(shared, caller, decode(message)?, asked)?,
        Call::Replay => replay(shared, caller, decode(message)?, asked)?,
    };
    let wanted = match wanted {
        0 => shared.limits().prefetch,
        asked => usize::try_from(asked).unwrap_or(usize::MAX).min(shared.limits().max_prefetch),
    };
    let least = ask.least_bytes();
    let hold = caller.stream(wanted as u64, least as u64);
    let mut hold = hold.map_err(|denial| status::of_denial(&denial))?;
    let wanted = usize::try_from(hold.bytes()).unwrap_or(usize::MAX);
    let budget = shared.memory.reserve(wanted, least).map_err(|e| status::of_memory(&e))?;
    hold.shrink(budget.bytes() as u64);
    let (post, superseded) = take(shared, place)?;
    let revoked = gate::revoked(shared, caller, &ask.job.name);
    let either = async move {
        tokio::select! {
            status = revoked => (StreamEnd::Revoked, status),
            status = superseded => (StreamEnd::Fenced, status),
        }
    };
    let leave = stream::Leave::when(shared.draining.clone(), either);
    let (job, call, rank, world_size) = (ask.job.name.clone(), call.name(), ask.rank, ask.world_size);
    let live = shared.live.open(Who { job, call, rank, world_size, replica }, ask.from);
    let body = stream::start(&shared.assembler, ask, live, budget, leave, status::of_assemble);
    Ok(gate::Held::new(body, hold, post))
}

/// The place of a reader that has a number, and what it is told when a newer one takes it.
fn take(
    shared: &Shared,
    place: Option<(Place, u64)>,
) -> Result<(Option<Post>, impl Future<Output = Status> + Send + 'static), Status> {
    let taken = match &place {
        Some((place, number)) => {
            Some(shared.fences.take(place.clone(), *number).ok_or_else(|| status::fenced(place))?)
        }
        None => None,
    };
    let (post, told) = taken.unzip();
    let superseded = async move {
        if let (Some(told), Some((place, _))) = (told, place)
            && told.await.is_ok()
        {
            return status::fenced(&place);
        }
        std::future::pending().await
    };
    Ok((post, superseded))
}

fn batches(
    shared: &Shared,
    caller: &Caller,
    request: v1::StreamBatchesRequest,
    asked: Instant,
) -> Result<(Ask, u64), Status> {
    let job = gate::job(shared, caller, &request.job)?;
    let from = match &request.start {
        None => 0,
        Some(Start::FromStep(step)) => *step,
        Some(Start::Cursor(cursor)) => job.seek(cursor).map_err(|e| status::of_job(&e))?,
    };
    let feed = job.feed.clone();
    check_rank(&feed, request.rank, request.world_size)?;
    check_step(&job, &feed, from)?;
    if !matches!(request.start, Some(Start::Cursor(_))) {
        job.keeper.admit(from).map_err(|e| status::of_keeper(&e))?;
    }
    let (rank, world_size) = (request.rank, request.world_size);
    tracing::debug!(job = job.name, rank, world_size, replica = request.replica, from, "stream opened");
    Ok((
        Ask {
            job,
            feed,
            rank,
            world_size,
            from,
            steps: None,
            training: true,
            expected: None,
            positions: Positions::Follow,
            asked,
            call: Span::current(),
        },
        request.prefetch_bytes,
    ))
}

fn eval_set(
    shared: &Shared,
    caller: &Caller,
    request: v1::StreamEvalSetRequest,
    asked: Instant,
) -> Result<(Ask, u64), Status> {
    let job = gate::job(shared, caller, &request.job)?;
    let pad = match v1::LastBatch::try_from(request.last_batch) {
        Ok(v1::LastBatch::Unspecified | v1::LastBatch::Partial) => false,
        Ok(v1::LastBatch::Pad) => true,
        Ok(v1::LastBatch::Drop) => {
            return Err(status::invalid_field(
                "last_batch",
                "is drop, want partial or pad: an eval set drops nothing",
            ));
        }
        Err(_) => return Err(status::invalid_field("last_batch", "is not known, want partial or pad")),
    };
    let feed = Arc::new(
        job.eval(&request.group, request.batch, pad, request.held_out).map_err(|e| status::of_job(&e))?,
    );
    check_rank(&feed, request.rank, request.world_size)?;
    check_step(&job, &feed, request.from_step)?;
    let (rank, world_size, from) = (request.rank, request.world_size, request.from_step);
    let ask = Ask {
        job,
        feed,
        rank,
        world_size,
        from,
        steps: None,
        training: false,
        expected: None,
        positions: Positions::Fixed,
        asked,
        call: Span::current(),
    };
    Ok((ask, 0))
}

fn replay(
    shared: &Shared,
    caller: &Caller,
    request: v1::ReplayBatchRequest,
    asked: Instant,
) -> Result<(Ask, u64), Status> {
    let job = gate::job(shared, caller, &request.job)?;
    let mut expected = None;
    let mut branch = None;
    let (step, rank, world_size) = match request.what {
        None => return Err(status::invalid_field("what", "is missing, want a receipt or a step")),
        Some(What::Step(step)) => (step, request.rank, request.world_size),
        Some(What::Receipt(receipt)) => {
            check_receipt(&job, &receipt).map_err(|e| status::of_job(&e))?;
            expected = Some(receipt.plan_digest.to_vec());
            branch = Some(receipt.branch);
            (receipt.step, receipt.rank, receipt.world_size)
        }
    };
    let feed = job.feed.clone();
    check_rank(&feed, rank, world_size)?;
    check_step(&job, &feed, step)?;
    if feed.order.steps().is_some_and(|steps| step >= steps) {
        return Err(status::of_job(&JobError::Position(format!("job `{}` has no step {step}", job.name))));
    }
    let positions = recorded(&job, branch, step)?;
    let ask = Ask {
        job,
        feed,
        rank,
        world_size,
        from: step,
        steps: Some(1),
        training: true,
        expected,
        positions,
        asked,
        call: Span::current(),
    };
    Ok((ask, 0))
}

/// The sequence of a branch as it was; without one, of the current branch. A step that reports must come before is not
/// there yet.
fn recorded(job: &Job, branch: Option<u64>, step: u64) -> Result<Positions, Status> {
    let no = |why: String| Err(status::of_job(&JobError::Position(why)));
    let current = job.keeper.view().branch;
    if branch.is_none_or(|branch| branch == current) {
        let Some(mark) = job.keeper.view().ready_mark(step) else {
            return no(format!("step {step} of job `{}` is not planned yet", job.name));
        };
        // A step that nobody has begun stays unbegun: this shows what would be served now, and its receipt says so.
        return Ok(Positions::Recorded(job.keeper.view().sequence.clone(), mark));
    }
    let branch = branch.unwrap_or(current);
    let found = job.keeper.with(|course| course.branch_sequence(branch).cloned());
    let Some(sequence) = found.map_err(|e| status::of_keeper(&e))? else {
        return no(format!("receipt is of branch {branch}, which job `{}` does not have", job.name));
    };
    match sequence.entry(step).map(|entry| (entry.seq, entry.mixture_id)) {
        Some((seq, mixture_id)) => {
            Ok(Positions::Recorded(sequence, Mark { branch, seq, mixture_id, ..Mark::default() }))
        }
        None => no(format!("branch {branch} of job `{}` has no step {step}", job.name)),
    }
}

fn check_receipt(job: &Job, receipt: &v1::Receipt) -> Result<(), JobError> {
    if !job.feed.numerics().admits(&receipt.numerics) {
        return Err(JobError::Numerics { asked: receipt.numerics.clone() });
    }
    if receipt.digest != job.digest[..] {
        return Err(JobError::Expected {
            name: job.name.clone(),
            what: "receipt",
            expected: job::hex(&job.digest),
            found: job::hex(&receipt.digest),
        });
    }
    Ok(())
}

pub(super) fn check_rank(feed: &Feed, rank: u32, world_size: u32) -> Result<(), Status> {
    let legal = feed.world_sizes();
    if legal.binary_search(&world_size).is_err() {
        let legal = legal.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let why = format!(
            "is {world_size}, want one of {legal}: ranks take whole blocks of {} slots",
            feed.mix_block
        );
        return Err(status::invalid_field("world_size", why));
    }
    if rank >= world_size {
        return Err(status::invalid_field(
            "rank",
            format!("is {rank}, want less than world_size ({world_size})"),
        ));
    }
    Ok(())
}

/// Ahead of its end a finite job has every step; at its end it answers with EndOfJob.
fn check_step(job: &Job, feed: &Feed, step: u64) -> Result<(), Status> {
    let why = match feed.order.steps() {
        Some(steps) if step > steps => {
            format!("step {step} is beyond the end of job `{}`, which has {steps} steps", job.name)
        }
        None if step > MAX_STEP => format!("step {step} is above {MAX_STEP}, the last one that is served"),
        Some(_) | None => match feed.order.covered() {
            Some(covered) if step > covered => {
                format!(
                    "step {step} is not planned yet, job `{}` learns and is planned up to {covered}",
                    job.name
                )
            }
            Some(_) | None => return Ok(()),
        },
    };
    Err(status::of_job(&JobError::Position(why)))
}
