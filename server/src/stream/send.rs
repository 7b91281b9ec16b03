//! From blocks in order to frames in order.

use super::body::Out;
use super::join::Join;
use super::{Ask, Coming, Leave, Next, Reservation, ToStatus};
use crate::assemble::{AssembleError, Block, Extent};
use crate::job::{MadeBy, Numerics};
use crate::keeper::Mark;
use crate::live::{self, Doing};
use crate::metrics::{self, OpenStream, Stage, StreamEnd};
use crate::trace;
use crate::wire::{self, Columns};
use bytes::Bytes;
use mixfeed_proto::{self as v1, batch_part::Part};
use std::time::Instant;
use tokio::sync::mpsc::{self, PermitIterator, error::TrySendError};
use tokio::task::JoinError;
use tonic::Status;
use tracing::Span;

/// Replaced records that a receipt names; more would break the limit of a message. "sample.flags" marks every one.
const MAX_REPLACED: usize = 64;

/// Characters of a replaced record's name and of the reason.
const MAX_TEXT: usize = 100;

/// The client left.
#[derive(Debug)]
struct Gone;

/// Sends until the job ends, the client leaves, or the server stops.
pub(super) async fn run(
    ask: Ask,
    mut coming: mpsc::Receiver<Next>,
    frames: mpsc::Sender<Out>,
    leave: Leave,
    status: ToStatus,
    (mut counted, live): (OpenStream, live::Stream),
    budget: Reservation,
) {
    let mut closed = ask.job.closed.subscribe();
    let mut sender = Sender {
        ask: &ask,
        live: &live,
        frames: &frames,
        batch: None,
        leave: leave.clone(),
        to_status: status,
        join: Join::default(),
        first: true,
    };
    let (end, status) = tokio::select! {
        // The job was closed: its readers end wherever they are.
        _ = closed.wait_for(|closed| *closed) => {
            (StreamEnd::Closed, Status::aborted(format!("job `{}` was closed", ask.job.name)))
        }
        word = leave.at_once() => word,
        // The client left; nothing else would notice while a block is in the making.
        () = frames.closed() => (StreamEnd::Client, Status::cancelled("")),
        done = sender.all(&mut coming) => match done {
            Ok(done) => done,
            Err(Gone) => (StreamEnd::Client, Status::cancelled("")),
        },
    };
    if end == StreamEnd::Error {
        tracing::warn!(job = ask.job.name, rank = ask.rank, %status, "stream failed");
        live.problem(&format!("stream failed: {}", status.message()));
    }
    counted.end = end;
    // Given back before the last word: a reader that stopped reading may never take it.
    drop((coming, counted, live, budget));
    let _ = frames.send(Out::End(status)).await; // an error means that the client left
}

/// A batch that is being sent.
struct Open {
    step: u64,
    rows: u64,
    /// Blocks that are still to come.
    blocks: usize,
    mark: Mark,
    columns: Columns,
    /// Whether its header was sent.
    begun: bool,
    /// Chunks that wait for the header: tensor, first byte, bytes.
    waiting: Vec<(u32, u64, Bytes)>,
    /// What its rows hold, where that is known before they are made.
    known: Option<Extent>,
    /// What the blocks so far hold.
    extent: Extent,
    /// Checksum and bytes so far of each large tensor.
    large: Vec<(u32, u64)>,
    replaced: Vec<v1::Replacement>,
    /// Who mixed the blocks so far.
    by: MadeBy,
    span: Span,
}

struct Sender<'a> {
    ask: &'a Ask,
    live: &'a live::Stream,
    frames: &'a mpsc::Sender<Out>,
    batch: Option<Open>,
    leave: Leave,
    to_status: ToStatus,
    join: Join,
    first: bool,
}

impl Sender<'_> {
    async fn all(&mut self, coming: &mut mpsc::Receiver<Next>) -> Result<(StreamEnd, Status), Gone> {
        loop {
            // Between two batches the next one may be long in coming: a barrier, a busy server.
            let idle = self.batch.is_none();
            let next = match coming.try_recv() {
                Ok(next) => Some(Some(next)),
                Err(_) => {
                    self.live.doing(Doing::Next);
                    tokio::select! {
                        next = coming.recv() => Some(next),
                        () = self.leave.wanted(), if idle => None,
                    }
                }
            };
            let Some(next) = next else { return self.go_away().await };
            let Some(next) = next else { return Ok((StreamEnd::Complete, Status::ok(""))) };
            match next {
                Next::Step { step, extent, blocks, mark, span } => {
                    if self.leave.is_wanted() {
                        return self.go_away().await;
                    }
                    self.open(step, extent, (blocks, mark, span)).await?;
                }
                Next::Block { slot, block } => match self.made(block).await {
                    Ok(Ok(block)) => self.block(slot, block).await?,
                    Ok(Err(error)) => return Ok((StreamEnd::Error, (self.to_status)(&error))),
                    Err(lost) => return Ok((StreamEnd::Error, Status::internal(lost.to_string()))),
                },
                Next::Over { steps, dropped, padded } => return self.over(steps, dropped, padded).await,
            }
            if let Some(wrong) = self.close().await? {
                return Ok(wrong);
            }
        }
    }

    /// Waits for a block that was begun.
    async fn made(&self, mut block: Coming) -> Result<Result<Block, AssembleError>, JoinError> {
        if !block.0.is_finished() {
            self.live.doing(Doing::Block);
        }
        (&mut block.0).await
    }

    async fn go_away(&self) -> Result<(StreamEnd, Status), Gone> {
        if let Some(word) = self.leave.word() {
            return Ok(word);
        }
        let reason = "the server is stopping".into();
        self.part(Part::GoAway(v1::GoAway { reason, endpoints: Vec::new() })).await?;
        Ok((StreamEnd::Drain, Status::unavailable("the server is stopping")))
    }

    async fn over(
        &self,
        steps: u64,
        dropped_rows: u64,
        padded_rows: u64,
    ) -> Result<(StreamEnd, Status), Gone> {
        // Once a job, not once a rank or reconnect.
        if self.ask.training && self.ask.rank == 0 && self.ask.from < steps {
            metrics::leftovers(&self.ask.job.name, dropped_rows, padded_rows);
        }
        self.part(Part::EndOfJob(v1::EndOfJob { steps, dropped_rows, padded_rows })).await?;
        Ok((StreamEnd::Complete, Status::ok("")))
    }

    /// Begins a batch; its header is sent at once when it is known what its rows hold.
    async fn open(
        &mut self,
        step: u64,
        extent: Option<Extent>,
        (blocks, mark, span): (usize, Mark, Span),
    ) -> Result<(), Gone> {
        let columns = Columns::new(&self.ask.feed);
        let large =
            vec![(0, 0); wire::descriptors(&self.ask.feed, Extent::default()).len() - columns.count()];
        self.batch = Some(Open {
            step,
            rows: 0,
            blocks,
            mark,
            columns,
            begun: false,
            waiting: Vec::new(),
            extent: Extent::default(),
            large,
            replaced: Vec::new(),
            by: MadeBy::default(),
            known: extent,
            span,
        });
        // Who mixes the rows of a tolerant job is known with its first block.
        match extent.filter(|_| self.ask.feed.numerics() != Numerics::Tolerant) {
            Some(extent) => self.header(extent).await,
            None => Ok(()),
        }
    }

    async fn header(&mut self, extent: Extent) -> Result<(), Gone> {
        let ask = self.ask;
        let batch = self.batch.as_mut().expect("a batch is open");
        (batch.rows, batch.begun) = (extent.rows, true);
        let (step, mark) = (batch.step, &batch.mark);
        let slots = ask.slots();
        let full: u64 = ask.feed.rows_of_slots(slots.end - slots.start);
        let header = v1::BatchHeader {
            step,
            epoch: ask.feed.order.epoch(step),
            rank: ask.rank,
            world_size: ask.world_size,
            slot_begin: slots.start as u32,
            slot_end: slots.end as u32,
            tensors: wire::descriptors(&ask.feed, extent),
            numerics: ask.feed.numerics().told(batch.by).into(),
            mixture_seq: mark.seq,
            mixture_id: mark.mixture_id,
            cursor: ask.training.then(|| ask.job.cursor(step + 1, mark.branch, mark.seq)),
            smoothing: ask.feed.smoothing(),
            partial: extent.rows < full,
            due_before: mark.due_before.clone(),
            due_after: mark.due_after.clone(),
        };
        self.part(Part::Header(header)).await
    }

    async fn block(&mut self, slot: u64, block: Block) -> Result<(), Gone> {
        let start = Instant::now();
        let batch = self.batch.as_mut().expect("a block follows its step");
        batch.by = batch.by.and(block.by);
        if let Some(known) = batch.known.filter(|_| !batch.begun) {
            self.header(known).await?;
        }
        let batch = self.batch.as_mut().expect("it is still open");
        batch.blocks -= 1;
        let _sending = trace::part(&batch.span, "send");
        batch.extent = [batch.extent, block.extent].into_iter().sum();
        let mut parts = Vec::with_capacity(block.tensors.len());
        for (piece, (crc, bytes)) in block.tensors.iter().zip(&mut batch.large) {
            parts.push((*bytes, piece.bytes.clone()));
            *crc = self.join.join(*crc, piece);
            *bytes += piece.bytes.len() as u64;
        }
        batch.columns.add(&self.ask.feed, slot, &block);
        let replaced = block.samples.iter().enumerate().filter_map(|(i, s)| {
            let bad = s.replaced.as_ref()?;
            Some(v1::Replacement {
                slot: (slot + i as u64) as u32,
                record: bad.record.chars().take(MAX_TEXT).collect(),
                reason: bad.reason.to_string().chars().take(MAX_TEXT).collect(),
                probes: bad.probes as u32,
            })
        });
        let replaced: Vec<v1::Replacement> = replaced.collect();
        if let Some(bad) = replaced.first() {
            let also = replaced.len() - 1;
            self.live.problem(&format!("`{}` is bad ({}) and {also} more, replaced", bad.record, bad.reason));
        }
        batch.replaced.extend(replaced);
        batch.replaced.truncate(MAX_REPLACED);
        drop(block);
        for (tensor, (offset, bytes)) in (0..).zip(parts) {
            match self.batch.as_mut().filter(|batch| !batch.begun) {
                Some(batch) => batch.waiting.push((tensor, offset, bytes)),
                None => self.chunks(tensor, offset, bytes).await?,
            }
        }
        Stage::Send.done(start);
        Ok(())
    }

    /// Sends what remains of the open batch when its last block was sent; returns how the stream ends when the batch is not the expected one.
    async fn close(&mut self) -> Result<Option<(StreamEnd, Status)>, Gone> {
        let Some(batch) = self.batch.as_mut().filter(|batch| batch.blocks == 0) else { return Ok(None) };
        if !batch.begun {
            let (extent, waiting) = (batch.known.unwrap_or(batch.extent), std::mem::take(&mut batch.waiting));
            self.header(extent).await?;
            for (tensor, offset, bytes) in waiting {
                self.chunks(tensor, offset, bytes).await?;
            }
        }
        let Some(batch) = self.batch.take() else { return Ok(None) };
        let (small, plan_digest) = batch.columns.finish();
        if self.ask.expected.as_ref().is_some_and(|expected| *expected != plan_digest) {
            return Ok(Some((
                StreamEnd::Error,
                (self.to_status)(&AssembleError::Differs { step: batch.step }),
            )));
        }
        let mut crcs: Vec<u32> = batch.large.iter().map(|(crc, _)| *crc).collect();
        let mut bytes: u64 = batch.large.iter().map(|(_, bytes)| bytes).sum();
        for piece in small {
            let tensor = crcs.len() as u32;
            crcs.push(piece.crc);
            bytes += piece.bytes.len() as u64;
            self.chunks(tensor, 0, piece.bytes).await?;
        }
        let ask = self.ask;
        let receipt = v1::Receipt {
            digest: ask.job.digest.to_vec().into(),
            branch: batch.mark.branch,
            step: batch.step,
            mixture_seq: batch.mark.seq,
            numerics: ask.feed.numerics().told(batch.by).into(),
            plan_digest: plan_digest.to_vec().into(),
            rank: ask.rank,
            world_size: ask.world_size,
            replaced: batch.replaced,
        };
        let receipt = ask.training.then_some(receipt);
        let end = wire::frame(Part::End(v1::BatchEnd { crc32c: crcs, receipt }));
        let first = std::mem::take(&mut self.first);
        let mut place = self.places(1).await?;
        // Counted before it can be taken: whoever has a batch finds it in the numbers.
        metrics::delivered(&ask.job.name, batch.rows, bytes);
        self.live.sent(batch.step + 1, bytes);
        if first {
            metrics::first_batch(ask.asked);
        }
        place.next().expect("one place").send(Out::Data(end));
        Ok(None)
    }

    async fn part(&self, part: Part) -> Result<(), Gone> {
        self.data(wire::frame(part)).await
    }

    async fn chunks(&self, tensor: u32, offset: u64, bytes: Bytes) -> Result<(), Gone> {
        for (head, payload) in wire::chunks(tensor, offset, &bytes) {
            // Both or neither: a stream that ends in between would end inside a message.
            let mut places = self.places(2).await?;
            for bytes in [head, payload] {
                places.next().expect("two places").send(Out::Data(bytes));
            }
        }
        Ok(())
    }

    async fn data(&self, bytes: Bytes) -> Result<(), Gone> {
        self.places(1).await?.next().expect("one place").send(Out::Data(bytes));
        Ok(())
    }

    /// Places for frames; only a queue that is full is told as a wait.
    async fn places(&self, frames: usize) -> Result<PermitIterator<'_, Out>, Gone> {
        match self.frames.try_reserve_many(frames) {
            Ok(places) => return Ok(places),
            Err(TrySendError::Closed(())) => return Err(Gone),
            Err(TrySendError::Full(())) => {}
        }
        self.live.doing(Doing::Sending);
        let places = self.frames.reserve_many(frames).await.map_err(|_| Gone)?;
        self.live.doing(Doing::Block);
        Ok(places)
    }
}
