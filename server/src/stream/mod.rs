//! 8 STREAM: one reader's batches, made ahead within a byte budget and sent in order.
//!
//! ```text
//! make ahead (budget) -> blocks in order -> frames -> body -> HTTP/2 windows -> client
//! ```
//! The budget is the only queue limit: a permit is taken before a block is begun and given back when the last of its
//! bytes left for the socket. A client that stops reading therefore holds its budget and nothing more.

mod body;
mod join;
mod leave;
mod memory;
mod send;

pub use body::Body;
pub use leave::Leave;
pub use memory::{Memory, OutOfMemory, Reservation};

use crate::assemble::{AssembleError, Assembler, BUDGET_UNIT, Block, BlockAt, Extent};
use crate::job::{Feed, Job, Place, places};
use crate::keeper::{KeeperError, Mark, Reached};
use crate::live::{self, Wait};
use crate::metrics::OpenStream;
use crate::mixture::Sequence;
use crate::trace;
use futures_util::FutureExt;
use std::{ops::Range, sync::Arc, time::Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

/// Blocks in the making; only bounds bookkeeping, the byte budget is what limits.
const MAX_AHEAD: usize = 1024;
/// Frames between the sender and the connection: one being written, one ready.
const FRAMES: usize = 4;
/// What a slot of a step takes: its place in a list or two, its row of the small tensors.
const SLOT_BYTES: usize = 256;
/// What a stream takes beside its blocks: h2's buffers, tasks.
const STREAM_BYTES: usize = 512 << 10;

/// How the edge tells a failed block.
pub type ToStatus = fn(&AssembleError) -> tonic::Status;

/// What a stream delivers.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Job it belongs to.
    pub job: Arc<Job>,
    /// Its batches: the job's own feed or one of an eval set.
    pub feed: Arc<Feed>,
    /// Rank, < world_size.
    pub rank: u32,
    /// Ranks, one of [`Feed::world_sizes`].
    pub world_size: u32,
    /// First step.
    pub from: u64,
    /// Steps to send at most; `None` until the job ends.
    pub steps: Option<u64>,
    /// Whether batches carry cursors and receipts of the job.
    pub training: bool,
    /// Digest of plan and sample ids that the batch must have: of a receipt.
    pub expected: Option<Vec<u8>>,
    /// Where its positions come from.
    pub positions: Positions,
    /// Since when the client waits.
    pub asked: Instant,
    /// The call that asked.
    pub call: Span,
}

/// Where the positions of a stream's steps come from.
#[derive(Clone, Debug)]
pub enum Positions {
    /// The job's mixture as it goes on: waits at barriers, moves the horizon.
    Follow,
    /// A sequence as it was, with what its header says.
    Recorded(Arc<Sequence>, Mark),
    /// The feed's own order (eval sets).
    Fixed,
}

impl Ask {
    /// Slots of the rank in a full step.
    fn slots(&self) -> Range<u64> {
        let per = self.feed.blocks() / u64::from(self.world_size) * self.feed.mix_block;
        let from = per * u64::from(self.rank);
        from..(from + per).min(self.feed.order.batch())
    }

    /// First step that is not asked for.
    fn end(&self) -> u64 {
        self.steps.map_or(u64::MAX, |n| self.from.saturating_add(n))
    }

    /// Slots of `step` and what its header says of the mixture, as soon as it may be served.
    async fn reach(&self, step: u64) -> Result<Ahead, AssembleError> {
        let order = &self.feed.order;
        let over = |steps, (dropped, padded)| Ahead::Over { steps, dropped, padded };
        Ok(match &self.positions {
            Positions::Follow => match self.job.keeper.reach(step).await? {
                Reached::Step(sequence, mark) => Ahead::Step(places(&sequence, step), mark),
                Reached::Over(end) => over(end.steps, (end.dropped, end.padded)),
            },
            Positions::Recorded(sequence, mark) => Ahead::Step(places(sequence, step), mark.clone()),
            Positions::Fixed => match order.steps().filter(|steps| step >= *steps) {
                Some(steps) => over(steps, order.leftovers()),
                None => Ahead::Step(order.step(step), Mark::default()),
            },
        })
    }

    /// As [`Ask::reach`]; tells when it waits for reports and no longer for the server.
    async fn reach_told(&self, step: u64, live: &live::Maker) -> Result<Ahead, AssembleError> {
        if !matches!(self.positions, Positions::Follow) {
            return self.reach(step).await;
        }
        let mut views = self.job.keeper.watch();
        let mut reach = std::pin::pin!(self.reach(step));
        if let Some(ahead) = reach.as_mut().now_or_never() {
            return ahead;
        }
        let ahead = loop {
            let barrier = views.borrow_and_update().barrier.is_some_and(|barrier| barrier <= step);
            live.waits(if barrier { Wait::Barrier } else { Wait::Making });
            tokio::select! {
                biased;
                ahead = reach.as_mut() => break ahead,
                Ok(()) = views.changed() => {}
            }
        };
        live.waits(Wait::Making);
        ahead
    }

    /// Blocks of the rank among the slots of `step`.
    fn blocks(&self, step: u64, places: &[Place]) -> Vec<BlockAt> {
        let own = self.slots();
        let until = own.end.min(places.len() as u64);
        let unit = self.feed.unit();
        let starts = (own.start..until).step_by(unit as usize);
        let block = |slot: u64| {
            let end = (slot + unit).min(until);
            BlockAt { step, slot, places: places[slot as usize..end as usize].to_vec() }
        };
        starts.map(block).collect()
    }

    /// Bytes without which the stream cannot begin: two ordinary blocks, or all of a step that is sent as a whole, and the
    /// positions of a step.
    pub fn least_bytes(&self) -> usize {
        let (feed, unit) = (&self.feed, self.feed.unit().min(self.feed.order.batch()));
        let (making, keeping) = Assembler::block_cost(feed, unit as usize);
        let blocks = match Assembler::extent(feed, &[]) {
            Some(_) => 2 * (making + keeping),
            None => {
                let own = self.slots();
                2 * making + (own.end - own.start).div_ceil(unit.max(1)) as usize * keeping
            }
        };
        blocks + feed.order.batch() as usize * SLOT_BYTES + STREAM_BYTES
    }
}

/// What comes next in the sequence.
enum Ahead {
    Step(Vec<Place>, Mark),
    Over { steps: u64, dropped: u64, padded: u64 },
}

impl Ahead {
    /// Refuses to go on on another branch than the stream's first step: what it sent before may have been taken back.
    fn on(self, branch: &mut Option<u64>) -> Result<Ahead, AssembleError> {
        let Ahead::Step(_, mark) = &self else { return Ok(self) };
        let (first, current) = (*branch.get_or_insert(mark.branch), mark.branch);
        if first == current { Ok(self) } else { Err(KeeperError::Struck { branch: first, current }.into()) }
    }
}

/// A block on its way; dropped means no longer wanted.
#[derive(Debug)]
pub struct Coming(JoinHandle<Result<Block, AssembleError>>);

impl Coming {
    /// Starts making a block.
    pub fn spawn(block: impl Future<Output = Result<Block, AssembleError>> + Send + 'static) -> Coming {
        Coming(tokio::spawn(block))
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the sender gets, in order: a step, its blocks, the next step.
#[derive(Debug)]
pub enum Next {
    /// A step begins.
    Step {
        /// Which.
        step: u64,
        /// What this rank's rows hold; `None` when that is known only once they are made: all blocks of such a step are
        /// made before its first one is sent.
        extent: Option<Extent>,
        /// Blocks of this rank: after the last one the batch is closed, whatever comes next or does not.
        blocks: usize,
        /// What its header says of the mixture.
        mark: Mark,
        /// What it goes through.
        span: Span,
    },
    /// The job is over.
    Over {
        /// Steps in all.
        steps: u64,
        /// Rows not served at its end.
        dropped: u64,
        /// Rows repeated at its end.
        padded: u64,
    },
    /// A block of the step.
    Block {
        /// Its first slot.
        slot: u64,
        /// The block.
        block: Coming,
    },
}

/// Starts a stream and returns its response body. `live` is told what it waits for; `budget` bounds its memory; `leave`
/// says when its reader has to go; `status` says how a failed block is told.
pub fn start(
    assembler: &Assembler,
    ask: Ask,
    live: live::Stream,
    budget: Reservation,
    leave: Leave,
    status: ToStatus,
) -> Body {
    let (next, coming) = mpsc::channel(MAX_AHEAD);
    tokio::spawn(make(assembler.clone(), ask.clone(), live.maker(), budget.bytes(), next));
    send(ask, coming, live, budget, leave, status)
}

/// As [`start`], with blocks that the caller makes.
pub fn send(
    ask: Ask,
    coming: mpsc::Receiver<Next>,
    live: live::Stream,
    budget: Reservation,
    leave: Leave,
    status: ToStatus,
) -> Body {
    let (frames, body) = mpsc::channel(FRAMES);
    tokio::spawn(send::run(ask, coming, frames, leave, status, (OpenStream::default(), live), budget));
    Body::new(body)
}

/// Begins blocks in order, as far ahead as the budget allows.
async fn make(assembler: Assembler, ask: Ask, live: live::Maker, budget: usize, next: mpsc::Sender<Next>) {
    let whole = budget / BUDGET_UNIT;
    let (budget, turns) = (Arc::new(Semaphore::new(whole)), assembler.turns());
    let mut branch = None;
    for step in ask.from..ask.end() {
        // A closed channel ends the wait at a barrier: the client left.
        let ahead = tokio::select! {
            ahead = ask.reach_told(step, &live) => ahead.and_then(|ahead| ahead.on(&mut branch)),
            () = next.closed() => return,
        };
        let (places, mark) = match ahead {
            Ok(Ahead::Step(places, mark)) => (places, mark),
            Ok(Ahead::Over { steps, dropped, padded }) => {
                if ask.steps.is_none() {
                    let _ = next.send(Next::Over { steps, dropped, padded }).await; // an error: the client left
                }
                return;
            }
            Err(error) => {
                let block = Coming::spawn(async { Err(error) });
                let _ = next.send(Next::Block { slot: 0, block }).await; // an error: the client left
                return;
            }
        };
        let blocks = ask.blocks(step, &places);
        let extent: Option<Extent> = blocks.iter().map(|b| Assembler::extent(&ask.feed, &b.places)).sum();
        let costs: Vec<(usize, usize)> = blocks.iter().map(|at| cost(&ask.feed, at)).collect();
        // A step that is sent as a whole keeps its blocks until the last one is made.
        let kept = if extent.is_none() { costs.iter().map(|(_, keeping)| keeping).sum() } else { 0 };
        let span = trace::batch(&ask.call, &ask.job.name, ask.rank, step);
        let begun = Next::Step { step, extent, blocks: blocks.len(), mark, span: span.clone() };
        if next.send(begun).await.is_err() {
            return;
        }
        for (at, (making, keeping)) in blocks.into_iter().zip(costs) {
            let needed = making + keeping.max(kept);
            if needed > whole {
                let error =
                    AssembleError::TooLarge { needed: needed * BUDGET_UNIT, budget: whole * BUDGET_UNIT };
                let block = Coming::spawn(async { Err(error) });
                let _ = next.send(Next::Block { slot: at.slot, block }).await; // an error means that the client left
                return;
            }
            let Some(mut work) = room(&budget, (making + keeping) as u32, &live, &next).await else { return };
            let kept = work.split(keeping).expect("it is part of what was acquired");
            let (assembler, turns) = (assembler.clone(), turns.clone());
            let (feed, slot) = (ask.feed.clone(), at.slot);
            let making = async move {
                let block = assembler.block(feed, at, Some(kept), &turns).await;
                drop(work);
                block
            };
            let block = Coming::spawn(making.instrument(trace::block(&span, slot)));
            if next.send(Next::Block { slot, block }).await.is_err() {
                return;
            }
        }
    }
}

/// Part of the budget for a block; `None` when the client left.
async fn room(
    budget: &Arc<Semaphore>,
    units: u32,
    live: &live::Maker,
    next: &mpsc::Sender<Next>,
) -> Option<OwnedSemaphorePermit> {
    if let Ok(room) = budget.clone().try_acquire_many_owned(units) {
        return Some(room);
    }
    // What holds the budget once nothing is in the making was sent, and is not taken.
    live.waits(Wait::Sending);
    let room = tokio::select! {
        room = budget.clone().acquire_many_owned(units) => room.ok(),
        () = next.closed() => None,
    };
    live.waits(Wait::Making);
    room
}

/// What a block takes of the budget, in its units: (while it is made, until it was sent).
fn cost(feed: &Feed, at: &BlockAt) -> (usize, usize) {
    let (making, keeping) = Assembler::cost(feed, at);
    (making.div_ceil(BUDGET_UNIT), keeping.div_ceil(BUDGET_UNIT))
}
