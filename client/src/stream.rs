//! The async face of a reader.

use crate::{Batch, BlockingBatches, Cursor, EndOfJob, Error, reader::Reader};
use futures_util::{FutureExt, Stream, future::BoxFuture};
use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

/// What a stream has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StreamStats {
    /// Batches handed out.
    pub batches: u64,
    /// Bytes of their tensors.
    pub bytes: u64,
    /// Time that the caller spent waiting for batches: from the first poll for a batch until it was there.
    pub waited: Duration,
    /// Connections after the first.
    pub reconnects: u64,
}

impl StreamStats {
    pub(crate) fn count(&mut self, batch: &Batch) {
        self.batches += 1;
        self.bytes += batch.bytes() as u64;
    }
}

type Pending = BoxFuture<'static, (Reader, Option<Result<Batch, Error>>)>;

enum State {
    Idle(Box<Reader>),
    /// Reading, with the position before it.
    Busy(Pending, Box<Reader>, Instant),
    /// Between two states; never seen.
    Moving,
}

/// A rank's batches, every step exactly once and in order, over reconnects and server restarts. Ends with `None` after
/// the job's last step, or after one error. Dropping it closes its connection. While it is not polled it holds what the
/// HTTP/2 windows allow and no more.
pub struct BatchStream {
    state: State,
    stats: StreamStats,
}

impl fmt::Debug for BatchStream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BatchStream").field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl BatchStream {
    pub(crate) fn new(reader: Reader) -> Self {
        BatchStream { state: State::Idle(Box::new(reader)), stats: StreamStats::default() }
    }

    /// The next batch, as `StreamExt::next` and `?` give it. Dropping the future loses nothing.
    pub async fn next_batch(&mut self) -> Result<Option<Batch>, Error> {
        poll_fn(|context| self.poll_batch(context)).await.transpose()
    }

    /// Position after the last batch handed out, or where the stream starts when that was given as a cursor.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.reader().and_then(Reader::cursor)
    }

    /// How the job ended, once the stream has.
    pub fn end(&self) -> Option<EndOfJob> {
        self.reader().and_then(Reader::end)
    }

    /// What the stream has done so far.
    pub fn stats(&self) -> StreamStats {
        self.stats
    }

    /// Reads on a thread of its own, one batch ahead of the caller, for trainers without a runtime. A connection that
    /// this stream has already made is given up; no batch is lost.
    pub fn blocking(self) -> Result<BlockingBatches, Error> {
        let reader = self.reader().map(Reader::detached);
        BlockingBatches::start(BatchStream {
            state: reader.map_or(State::Moving, |reader| State::Idle(Box::new(reader))),
            stats: self.stats,
        })
    }

    fn reader(&self) -> Option<&Reader> {
        match &self.state {
            State::Idle(reader) | State::Busy(_, reader, _) => Some(reader),
            State::Moving => None,
        }
    }

    pub(crate) fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Batch, Error>>> {
        if let State::Idle(_) = self.state
            && let State::Idle(mut reader) = std::mem::replace(&mut self.state, State::Moving)
        {
            let before = Box::new(reader.detached());
            let pending = async move {
                let batch = reader.next().await;
                (*reader, batch)
            };
            self.state = State::Busy(pending.boxed(), before, Instant::now());
        }
        let State::Busy(pending, _, since) = &mut self.state else { return Poll::Ready(None) };
        let (reader, batch) = ready!(pending.poll_unpin(context));
        self.stats.waited += since.elapsed();
        self.stats.reconnects = reader.reconnects();
        if let Some(Ok(batch)) = &batch {
            self.stats.count(batch);
        }
        self.state = State::Idle(Box::new(reader));
        Poll::Ready(batch)
    }
}

impl Stream for BatchStream {
    type Item = Result<Batch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_batch(context)
    }
}
