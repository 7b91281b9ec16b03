//! Reads one rank's batches over as many connections as it takes.

use crate::{
    Batch, Cursor, Error, EvalOptions, Replay, Resume, Start, StreamOptions,
    client::{Inner, Known, feed, other_digest},
    connection::{self, Line, Reply},
    retry::Retry,
    waits::{Meter, Teller},
    wire::{Assembly, Event, Expect, Parser, Part, Pool},
};
use bytes::Bytes;
use mixfeed_proto as v1;
use std::{collections::VecDeque, sync::Arc};
use tokio::time::timeout;
use tonic::transport::Channel;

/// Most endpoints of one GoAway that are tried.
const MAX_HINTS: usize = 16;

/// What is read.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Train(StreamOptions),
    Eval(EvalOptions),
    Replay(Replay),
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndOfJob {
    /// Steps served in all.
    pub steps: u64,
    /// Rows that did not fill a last batch and were not served.
    pub dropped_rows: u64,
    /// Rows that were repeated to fill the last batch.
    pub padded_rows: u64,
}

/// A connection in the middle of a body.
#[derive(Debug)]
struct Connection {
    reply: Reply,
    parser: Parser,
    /// Frame that is being parsed.
    input: Bytes,
    /// Keeps the connection open.
    _channel: Channel,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Reader {
    inner: Arc<Inner>,
    job: String,
    what: What,
    /// Step that comes next; `None` when a receipt names it.
    next_step: Option<u64>,
    cursor: Option<Cursor>,
    connection: Option<Connection>,
    /// The last connection, until it fails.
    line: Line,
    pool: Arc<Pool>,
    retry: Retry,
    /// Index of the endpoint to use, modulo their number.
    endpoint: usize,
    /// Endpoints that a draining server named, tried first.
    hints: VecDeque<String>,
    /// Endpoint in use; kept over a reconnect that is not the endpoint's fault.
    address: Option<String>,
    /// Open the job on the next connection, since the server did not know it.
    reopen: Reopen,
    /// The step that comes next arrived corrupt once.
    corrupt: bool,
    /// A stream that was open ended as denied, and no batch came since.
    denied: bool,
    connections: u64,
    end: Option<EndOfJob>,
    finished: bool,
}

/// Opening a forgotten job again; tried once per step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reopen {
    No,
    Due,
    Done,
}

impl Reader {
    pub(crate) fn new(inner: Arc<Inner>, job: String, what: What) -> Self {
        let (next_step, cursor, endpoint) = match &what {
            // Ranks spread over the servers.
            What::Train(StreamOptions { start: Start::Step(step), rank, .. }) => (Some(*step), None, *rank),
            What::Train(StreamOptions { start: Start::Cursor(cursor), rank, .. }) => {
                (Some(cursor.next_step()), Some(cursor.clone()), *rank)
            }
            What::Eval(options) => (Some(options.from_step), None, options.rank),
            What::Replay(Replay::Receipt(receipt)) => (Some(receipt.step), None, receipt.rank),
            What::Replay(Replay::Step { step, rank, .. }) => (Some(*step), None, *rank),
        };
        let retry = Retry::new(&inner.options);
        let pages = inner.options.pages.clone();
        Reader {
            inner,
            job,
            what,
            next_step,
            cursor,
            connection: None,
            line: Line::default(),
            pool: Arc::new(Pool::new(pages)),
            retry,
            endpoint: endpoint as usize,
            hints: VecDeque::new(),
            address: None,
            reopen: Reopen::No,
            corrupt: false,
            denied: false,
            connections: 0,
            end: None,
            finished: false,
        }
    }

    /// Tells the server what the caller waits; `None` for what is no training.
    pub(crate) fn teller(&self, meter: Meter) -> Option<Teller> {
        let What::Train(stream) = &self.what else { return None };
        let options = self.inner.options.clone();
        meter.begins(self.next_step.unwrap_or_default());
        Some(Teller::new(meter, self.line.clone(), options, self.job.clone(), stream.clone()))
    }

    pub(crate) fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    pub(crate) fn end(&self) -> Option<EndOfJob> {
        self.end
    }

    /// Connections after the first.
    pub(crate) fn reconnects(&self) -> u64 {
        self.connections.saturating_sub(1)
    }

    /// The next step's batch; `None` after the last one and after an error.
    pub(crate) async fn next(&mut self) -> Option<Result<Batch, Error>> {
        while !self.finished {
            match self.advance().await {
                Ok(Some(batch)) => {
                    self.progress(&batch);
                    return Some(Ok(batch));
                }
                Ok(None) => self.finish(),
                Err(error) => {
                    let begun = self.connection.take().is_some();
                    self.line.set(None);
                    if let Err(error) = self.recover(error, begun).await {
                        self.finish();
                        return Some(Err(error));
                    }
                }
            }
        }
        None
    }

    fn finish(&mut self) {
        self.connection = None;
        self.finished = true;
    }

    fn progress(&mut self, batch: &Batch) {
        self.next_step = Some(batch.step().saturating_add(1));
        self.cursor = batch.cursor().cloned();
        (self.corrupt, self.denied) = (false, false);
        self.reopen = Reopen::No;
        self.retry.reset();
        self.hints.clear();
        if let What::Train(options) = &mut self.what {
            // The rewind has happened; its new branch is in the cursor.
            options.resume = if options.resume == Resume::Rewind { Resume::Ask } else { options.resume };
        }
        if matches!(self.what, What::Replay(_)) {
            self.finish();
        }
    }

    /// Waits or prepares for another attempt, or gives the error back. `begun`: the stream was open when it failed.
    async fn recover(&mut self, error: Error, begun: bool) -> Result<(), Error> {
        let changes = begun && !self.denied && self.inner.options.token_changes();
        if matches!(error, Error::Denied { .. }) && changes {
            tracing::warn!(%error, "asking again: the token file may hold another one by now");
            self.denied = true;
            return Ok(());
        }
        if matches!(error, Error::Corrupt { .. }) && !self.corrupt {
            tracing::warn!(%error, "asking for the step again");
            self.corrupt = true;
            return Ok(());
        }
        if matches!(error, Error::NotFound { .. }) && self.reopen == Reopen::No {
            self.reopen = Reopen::Due;
            return Ok(());
        }
        self.address = None;
        if error.is_transient() && self.reopen == Reopen::Done {
            // The next server may not know the job either.
            self.reopen = Reopen::No;
        }
        self.retry.wait(error).await
    }

    /// Reads one batch from the connection, which is made when there is none; `None` at the end.
    async fn advance(&mut self) -> Result<Option<Batch>, Error> {
        let expect = self.expect();
        if self.connection.is_none() {
            self.connection = Some(self.connect().await?);
        }
        let idle = self.inner.options.idle_timeout;
        let connection = self.connection.as_mut().expect("was just made");
        let mut assembly: Option<Assembly> = None;
        loop {
            match connection.parser.next(&mut connection.input).map_err(Error::Protocol)? {
                Some(Event::Data { tensor, offset, data }) => match &mut assembly {
                    Some(assembly) => assembly.write(tensor, offset, &data)?,
                    None => return Err(Error::Protocol("chunk before a header".into())),
                },
                Some(Event::Part(part)) => match (part, assembly.take()) {
                    (Part::Header(header), None) => {
                        check_digest(&self.inner, &self.job, &header)?;
                        assembly = Some(Assembly::new(header, &expect, &self.pool)?);
                    }
                    (Part::End(end), Some(assembly)) => return assembly.finish(end).map(Some),
                    (Part::GoAway(away), _) => return Err(leave(&mut self.hints, away, &self.inner)),
                    (Part::EndOfJob(end), None) => {
                        let v1::EndOfJob { steps, dropped_rows, padded_rows } = end;
                        self.end = Some(EndOfJob { steps, dropped_rows, padded_rows });
                        return Ok(None);
                    }
                    (Part::End(_), None) => return Err(Error::Protocol("end before a header".into())),
                    (Part::Header(_) | Part::EndOfJob(_), Some(open)) => {
                        return Err(Error::Protocol(format!("step {} has no end", open.step())));
                    }
                },
                None => {
                    let late = |_| Error::Timeout { what: "the next frame".into(), after: idle };
                    match timeout(idle, connection.reply.frame()).await.map_err(late)?? {
                        Some(frame) => connection.input = frame,
                        None if assembly.is_none()
                            && connection.parser.is_idle()
                            && matches!(self.what, What::Eval(_)) =>
                        {
                            return Ok(None);
                        }
                        None => return Err(Error::unavailable("stream ended before its job")),
                    }
                }
            }
        }
    }

    fn expect(&self) -> Expect {
        let (slice, cursor) = match &self.what {
            What::Train(options) => ((options.rank, options.world_size), true),
            What::Eval(options) => ((options.rank, options.world_size), false),
            What::Replay(Replay::Receipt(receipt)) => ((receipt.rank, receipt.world_size), false),
            What::Replay(Replay::Step { rank, world_size, .. }) => ((*rank, *world_size), false),
        };
        let max_bytes = self.inner.options.max_batch_bytes;
        Expect { step: self.next_step, slice: Some(slice), cursor, max_bytes }
    }

    async fn connect(&mut self) -> Result<Connection, Error> {
        let address = self.address.take().or_else(|| self.hints.pop_front()).unwrap_or_else(|| {
            let endpoints = &self.inner.endpoints;
            let address = endpoints[self.endpoint % endpoints.len()].clone();
            self.endpoint = self.endpoint.wrapping_add(1);
            address
        });
        self.address = Some(address.clone());
        let channel = connection::dial(&address, &self.inner.options).await?;
        if self.reopen == Reopen::Due {
            self.open_again(channel.clone()).await?;
        }
        let idle = self.inner.options.idle_timeout;
        let reply = self.request(channel.clone());
        let late = |_| Error::Timeout { what: "the start of the stream".into(), after: idle };
        let reply = timeout(idle, reply).await.map_err(late)??;
        self.connections += 1;
        self.line.set(Some(channel.clone()));
        tracing::debug!(job = self.job, address, next_step = self.next_step, "reading batches");
        Ok(Connection { reply, parser: Parser::default(), input: Bytes::new(), _channel: channel })
    }

    /// Opens a job that the server does not know, from memory. It must be the same one.
    async fn open_again(&mut self, channel: Channel) -> Result<(), Error> {
        let Some(Known { spec, digest }) = self.inner.known(&self.job) else {
            return Err(Error::NotFound { message: format!("job `{}`", self.job) });
        };
        let request = v1::OpenJobRequest { job: self.job.clone(), spec, expected_digest: digest.clone() };
        let answer: v1::OpenJobResponse =
            connection::unary(channel, feed!("OpenJob"), &request, &self.inner.options).await?;
        self.reopen = Reopen::Done;
        let found = answer.job.map(|job| job.digest).unwrap_or_default();
        if found == digest { Ok(()) } else { Err(other_digest(&self.job, &digest, &found)) }
    }

    async fn request(&mut self, channel: Channel) -> Result<Reply, Error> {
        let (job, options) = (self.job.clone(), &self.inner.options);
        let from_step = self.next_step.unwrap_or_default();
        match &self.what {
            What::Train(stream) => {
                let start = match &self.cursor {
                    Some(cursor) => v1::stream_batches_request::Start::Cursor(cursor.0.clone()),
                    None => v1::stream_batches_request::Start::FromStep(from_step),
                };
                let resume = match stream.resume {
                    Resume::Ask => v1::Resume::Unspecified,
                    Resume::Rewind => v1::Resume::Rewind,
                    Resume::Replay => v1::Resume::Replay,
                };
                let request = v1::StreamBatchesRequest {
                    job,
                    rank: stream.rank,
                    world_size: stream.world_size,
                    replica: stream.replica,
                    start: Some(start),
                    resume: resume.into(),
                    prefetch_bytes: options.prefetch_bytes,
                    fence: stream.fence,
                };
                connection::send(channel, feed!("StreamBatches"), &request, options).await
            }
            What::Eval(eval) => {
                let request = v1::StreamEvalSetRequest {
                    job,
                    group: eval.group.clone(),
                    batch: eval.batch,
                    rank: eval.rank,
                    world_size: eval.world_size,
                    last_batch: eval.last_batch.into(),
                    from_step,
                    held_out: eval.held_out,
                };
                connection::send(channel, feed!("StreamEvalSet"), &request, options).await
            }
            What::Replay(replay) => {
                let request = replay_request(job, replay);
                connection::send(channel, feed!("ReplayBatch"), &request, options).await
            }
        }
    }
}

fn replay_request(job: String, replay: &Replay) -> v1::ReplayBatchRequest {
    use v1::replay_batch_request::What as Wanted;
    match replay {
        Replay::Receipt(receipt) => {
            let what = Some(Wanted::Receipt(receipt.clone()));
            v1::ReplayBatchRequest { job, what, rank: receipt.rank, world_size: receipt.world_size }
        }
        Replay::Step { step, rank, world_size } => {
            let what = Some(Wanted::Step(*step));
            v1::ReplayBatchRequest { job, what, rank: *rank, world_size: *world_size }
        }
    }
}

/// Refuses batches of another job: after a restart a server may have opened this name with another spec.
fn check_digest(inner: &Inner, job: &str, header: &v1::BatchHeader) -> Result<(), Error> {
    let found = header.cursor.as_ref().map(|cursor| &cursor.digest).filter(|digest| !digest.is_empty());
    match (inner.known(job), found) {
        (Some(known), Some(found)) if known.digest != *found => Err(other_digest(job, &known.digest, found)),
        _ => Ok(()),
    }
}

fn leave(hints: &mut VecDeque<String>, away: v1::GoAway, inner: &Inner) -> Error {
    let usable = |address: &String| connection::endpoint(address, &inner.options).is_ok();
    *hints = away.endpoints.into_iter().filter(usable).take(MAX_HINTS).collect();
    Error::unavailable(format!("server is draining: {}", away.reason))
}
