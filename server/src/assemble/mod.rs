//! 4 BATCH: one pairing block from positions to finished rows.
//!
//! A block is read on a few blocking threads (reads wait for disks, not for cores), then decoded, planned and mixed on
//! the CPU pool. Rows of tokens are finished where they are read: copying them is all there is to do. Blocks are independent of each other: which server or thread makes them changes nothing.

mod block;
mod compare;
mod error;
mod fetch;
mod mix;
mod points;
mod pool;
mod replace;
mod rows;
mod slab;
mod tokens;

pub use block::{Block, BlockAt, Extent};
pub use error::AssembleError;
pub use points::{Mixed, Opened, SceneRow, open, open_read};
pub use pool::Pool;
pub use replace::{Refusal, Replaced, Sample, Slots};
pub use rows::{Shown, show, show_read};
pub use slab::{Slab, Slabs};
pub use tokens::{TokenRow, tokens};

use crate::batch::SampleId;
use crate::decode::DecodeError;
use crate::exec::device::Worker;
use crate::job::{Feed, Pipeline, Place};
use crate::metrics::{self, Stage};
use crate::plan::{
    Plan,
    block::{self as mixing, MixRule},
    fields::Bank,
};
use crate::rng::Stream;
use crate::source::SourceError;
use crate::trace;
use bytes::Bytes;
use pool::{Readers, Work as Counted};
use replace::Slot;
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration, time::Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::Span;

/// Bytes of a permit of a stream's budget: a semaphore counts in 32 bits.
pub const BUDGET_UNIT: usize = 1024;
/// Records that one reader thread fetches in a row: fewer cost more hand-overs, more leave readers idle.
const READ_RUN: usize = 8;
/// Blocks that one stream may have in the CPU pool, for each thread.
const TURNS: usize = 2;
/// Stack of a CPU thread.
const STACK: usize = 8 << 20;
/// Pauses before a failed read is tried again.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(250)];

/// A block in the making.
struct Work {
    feed: Arc<Feed>,
    at: BlockAt,
    slots: Slots,
    permit: Option<OwnedSemaphorePermit>,
}

impl Work {
    fn make(&mut self, slabs: &Slabs, device: Option<&Worker<Slab>>) -> Result<Option<Block>, AssembleError> {
        let Work { feed, at, slots, permit } = self;
        match &feed.pipeline {
            Pipeline::Image(image) => rows::make(feed, image, at, slots, (slabs, device), permit),
            Pipeline::Points(rule) => points::make(feed, rule, at, slots, (slabs, device), permit),
            Pipeline::Tokens(_) => tokens::make(feed, at, slabs, permit.take()).map(Some),
        }
    }
}

/// Threads and memory that make blocks, shared by all streams.
#[derive(Clone, Debug)]
pub struct Assembler {
    pool: Arc<rayon::ThreadPool>,
    cpu: Arc<Counted>,
    readers: Readers,
    slabs: Slabs,
    device: Option<Arc<Closing>>,
}

/// A device that is given back with the last assembler, whoever still waits for it.
#[derive(Debug)]
struct Closing(Worker<Slab>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Assembler {
    /// `threads` CPU threads (0 means one per core), `readers` reader threads (0 means 8), at most `keep` bytes of free
    /// buffers.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new(
        threads: usize,
        readers: usize,
        keep: usize,
    ) -> Result<Assembler, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("mixfeed-cpu-{i}"))
            // A thread that waits for its rows may begin another block meanwhile, and another on top of that.
            .stack_size(STACK)
            .build()?;
        let readers = Readers::new(if readers == 0 { 8 } else { readers });
        let (cpu, slabs) = (Arc::default(), Slabs::new(keep));
        Ok(Assembler { pool: Arc::new(pool), cpu, readers, slabs, device: None })
    }

    /// The same, with a device for jobs that are mixed by one.
    pub fn with_device(self, device: Option<Worker<Slab>>) -> Assembler {
        let device = device.map(|worker| Arc::new(Closing(worker)));
        Assembler { device, ..self }
    }

    /// Whether it has a device.
    pub fn has_device(&self) -> bool {
        self.device.is_some()
    }

    /// Turns of one stream: enough to keep every thread busy while the next blocks are handed over (one more than threads
    /// cost 6 % of the speed of a single stream, twice as many 1 %).
    pub fn turns(&self) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(self.threads() * TURNS))
    }

    /// Whether more blocks are in the CPU pool than two streams may have there: whoever comes stands in a line.
    pub fn is_crowded(&self) -> bool {
        self.cpu.queued() > 2 * self.threads() * TURNS
    }

    /// Runs `look` beside the pool, on a thread of its own that is all its parallel loops get; waits for it. A panic of
    /// `look` is returned as an error.
    ///
    /// # Errors
    /// [`AssembleError::Panic`], also when the system gives no thread; what `look` returns.
    pub fn beside<T: Send, E: From<AssembleError> + Send>(
        &self,
        look: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, E> {
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).stack_size(STACK);
        let pool = one.thread_name(|_| "mixfeed-look".into()).build();
        let pool = pool.map_err(|error| AssembleError::Panic(error.to_string()))?;
        let looked = std::panic::catch_unwind(AssertUnwindSafe(|| pool.install(look)));
        looked.unwrap_or_else(|panic| Err(AssembleError::Panic(message(panic.as_ref())).into()))
    }

    /// CPU threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// How busy its pools are, by name.
    pub fn pools(&self) -> [(&'static str, Pool); 2] {
        [("cpu", self.cpu.pool(self.threads())), ("read", self.readers.pool())]
    }

    /// Bytes that making and keeping a block takes: (while it is made, until it was sent).
    pub fn cost(feed: &Feed, at: &BlockAt) -> (usize, usize) {
        match &feed.pipeline {
            Pipeline::Image(image) => {
                let encoded: u64 =
                    at.places.iter().map(|p| feed.size(p.id).min(image.limits.max_bytes)).sum();
                let rows = feed.rows_of(at.places.len());
                let clean = rows::clean_bytes(image, at.places.len());
                let sent = image.sent(at.places.len(), rows);
                (encoded as usize + clean + rows * image.mask_bytes(), sent.0 + sent.1)
            }
            Pipeline::Tokens(rule) => (0, tokens::bytes(rule, tokens::extent(rule, &at.places))),
            Pipeline::Points(rule) => points::cost(feed, rule, at),
        }
    }

    /// Bytes that an ordinary block of `slots` slots takes: (while it is made, until it was sent).
    pub fn block_cost(feed: &Feed, slots: usize) -> (usize, usize) {
        match &feed.pipeline {
            Pipeline::Image(image) => {
                let making = image.mean_record_bytes as usize + image.mask_bytes();
                let sent = image.sent(slots, feed.rows_of(slots));
                (rows::clean_bytes(image, slots) + slots * making, sent.0 + sent.1)
            }
            Pipeline::Tokens(rule) => {
                let (tokens, pieces) = (u64::from(rule.seq_len), u64::from(rule.most_pieces()));
                let row = tokens::bytes(rule, Extent { rows: 1, tokens, pieces, ..Extent::default() });
                (0, slots * row)
            }
            Pipeline::Points(rule) => points::block_cost(feed, rule, slots),
        }
    }

    /// What the rows of `places` hold; `None` when only making them tells.
    pub fn extent(feed: &Feed, places: &[Place]) -> Option<Extent> {
        match &feed.pipeline {
            Pipeline::Image(_) => {
                let (rows, slots) = (feed.rows_of(places.len()) as u64, places.len() as u64);
                Some(Extent { rows, slots, ..Extent::default() })
            }
            Pipeline::Tokens(rule) => Some(tokens::extent(rule, places)),
            Pipeline::Points(_) => None,
        }
    }

    /// Makes a block. `permit` is held until its pixels were sent; `turns` is the stream's share of the CPU pool: blocks
    /// beyond it wait here, so that another stream's block stands behind a few of them and not behind a whole budget.
    ///
    /// # Errors
    /// [`AssembleError`].
    pub async fn block(
        &self,
        feed: Arc<Feed>,
        at: BlockAt,
        permit: Option<OwnedSemaphorePermit>,
        turns: &Semaphore,
    ) -> Result<Block, AssembleError> {
        let start = Instant::now();
        if feed.tokens().is_some() {
            return self.tokens(feed, at, permit).await;
        }
        let reading = trace::stage("read");
        let mut work = Work { slots: Slots::new(&at), feed, at, permit };
        self.read(&work.feed, &mut work.slots, |_| true).await?;
        drop(reading);
        Stage::Read.done(start);
        loop {
            let (made, rest) = self.begun(work, turns).await?;
            if let Some(block) = made {
                return Ok(block);
            }
            work = rest;
            self.read(&work.feed, &mut work.slots, |_| true).await?;
        }
    }

    /// Makes a block in the CPU pool; without one, records of `work` are to be read first.
    async fn begun(&self, mut work: Work, turns: &Semaphore) -> Result<(Option<Block>, Work), AssembleError> {
        let waiting = self.cpu.wait();
        let _turn = turns.acquire().await.expect("never closed");
        let (answer, made) = oneshot::channel();
        let (slabs, device) = (self.slabs.clone(), self.device.as_ref().map(|device| device.0.clone()));
        let (queued, span) = (self.cpu.queue(), Span::current());
        self.pool.spawn(move || {
            let (_busy, _queued) = (waiting.begin(), queued);
            if answer.is_closed() {
                return; // the client left
            }
            let _block = span.enter();
            // A panic here would take the process down with every other stream.
            let made = std::panic::catch_unwind(AssertUnwindSafe(|| work.make(&slabs, device.as_ref())));
            let made = made.unwrap_or_else(|panic| Err(AssembleError::Panic(message(panic.as_ref()))));
            let _ = answer.send(made.map(|made| (made, work)));
        });
        made.await.unwrap_or_else(|_| Err(AssembleError::Panic("the CPU pool is gone".into())))
    }

    /// Makes a block of tokens on one reader thread.
    async fn tokens(
        &self,
        feed: Arc<Feed>,
        at: BlockAt,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Block, AssembleError> {
        let reader = self.readers.take().await;
        let (slabs, span) = (self.slabs.clone(), Span::current());
        let made = tokio::task::spawn_blocking(move || {
            let (_reader, _block) = (reader, span.enter());
            tokens::make(&feed, &at, &slabs, permit)
        });
        made.await.unwrap_or_else(|lost| Err(AssembleError::Panic(lost.to_string())))
    }

    /// Reads what is not read yet of the slots of a block whose records are in a store, and nothing else; nobody waits
    /// for it who drops this.
    ///
    /// # Errors
    /// [`AssembleError`].
    pub async fn read_far(&self, feed: &Arc<Feed>, slots: &mut Slots) -> Result<(), AssembleError> {
        self.read(feed, slots, |id| replace::far(feed, id)).await
    }

    /// Reads what is not read yet and `wanted`; a record over the job's size limit is not read at all.
    async fn read(
        &self,
        feed: &Arc<Feed>,
        slots: &mut Slots,
        wanted: impl Fn(SampleId) -> bool,
    ) -> Result<(), AssembleError> {
        let mut missing: Vec<&mut Slot> =
            slots.0.iter_mut().filter(|slot| slot.encoded.is_none() && wanted(slot.id)).collect();
        let ids: Vec<SampleId> = missing.iter().map(|slot| slot.id).collect();
        let (begun, rest) = fetch::begin(feed, &ids);
        let own: Vec<SampleId> = rest.iter().map(|at| ids[*at]).collect();
        let (fetched, read) =
            futures_util::future::try_join(fetch::end(begun), self.read_runs(feed, &own)).await?;
        for (at, bytes) in rest.into_iter().zip(read).chain(fetched) {
            missing[at].encoded = Some(bytes);
        }
        Ok(())
    }

    /// Reads records on reader threads.
    async fn read_runs(&self, feed: &Arc<Feed>, ids: &[SampleId]) -> Result<Vec<Encoded>, AssembleError> {
        let runs = ids.chunks(READ_RUN).map(|run| {
            let (feed, readers) = (feed.clone(), self.readers.clone());
            let ids = run.to_vec();
            async move {
                let permit = readers.take().await;
                let run = tokio::task::spawn_blocking(move || {
                    let _permit = permit;
                    let limit = max_bytes(&feed);
                    ids.into_iter().map(|id| read(&feed, id, limit)).collect::<Result<Vec<_>, _>>()
                });
                run.await.unwrap_or_else(|lost| Err(AssembleError::Panic(lost.to_string())))
            }
        });
        Ok(futures_util::future::try_join_all(runs).await?.into_iter().flatten().collect())
    }
}

/// The plan of a block of `samples`: who is mixed with whom, by which draws; `size` is that of a row's raster.
fn planned(
    feed: &Feed,
    at: &BlockAt,
    samples: &[Sample],
    (mix, stream, fields): (&MixRule, &Stream, &Bank),
    size: (u32, u32),
) -> Plan {
    let labels: Vec<i32> = samples.iter().map(|s| s.label).collect();
    let epoch = feed.order.epoch(at.step);
    let place = mixing::Place { stream, fields, step: at.step, epoch, slot: at.slot, size };
    mixing::block(mix, &place, &labels)
}

/// A record's bytes, or why they were not read.
type Encoded = Result<Bytes, DecodeError>;

/// Largest encoded size of a record in bytes.
fn max_bytes(feed: &Feed) -> u64 {
    match &feed.pipeline {
        Pipeline::Image(image) => image.limits.max_bytes,
        Pipeline::Points(points) => points.max_bytes,
        Pipeline::Tokens(_) => 0,
    }
}

/// Reads one record; `limit` is the job's of its encoded size.
fn read(feed: &Feed, id: SampleId, limit: u64) -> Result<Encoded, AssembleError> {
    let size = feed.size(id);
    if size > limit {
        return Ok(Err(DecodeError::Limit { what: "encoded size in bytes", value: size, limit }));
    }
    let group = &feed.groups[id.group as usize];
    let bytes = retried(|| group.source.read(group.record(id.index)))?;
    metrics::reads(1, bytes.len() as u64, true);
    Ok(Ok(bytes))
}

/// Reads, trying again when the system fails.
fn retried<T>(mut read: impl FnMut() -> Result<T, SourceError>) -> Result<T, AssembleError> {
    let mut pauses = RETRY_PAUSES.iter();
    loop {
        let error = match read() {
            Ok(read) => return Ok(read),
            Err(error) => error,
        };
        match (&error, pauses.next()) {
            (SourceError::Io { .. }, Some(pause)) => {
                metrics::retry();
                std::thread::sleep(*pause);
            }
            _ => {
                metrics::reads(1, 0, false);
                return Err(error.into());
            }
        }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into())
}
