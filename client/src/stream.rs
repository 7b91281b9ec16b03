//! A stream of batches: a thread that receives, and the two faces of it.
//!
//! Receiving moves every byte of a batch twice, so it has a thread with a single-threaded runtime of its own: on the
//! caller's runtime the connection and the copy would meet on different threads, frame by frame, and would hold up
//! whatever else runs there.

use crate::{
    Batch, Cursor, EndOfJob, Error,
    reader::Reader,
    waits::{Meter, Teller},
};
use futures_util::Stream;
use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker, ready},
    thread::{self, Thread},
    time::{Duration, Instant},
};
use tokio::{runtime, sync::mpsc};

/// Finished batches that wait for the caller while the next one is being received.
const READY: usize = 1;

/// Bytes of the block that [`teach_allocator`] frees: many times what is read at once.
const LESSON: usize = 8 << 20;

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

/// What the thread hands over.
#[derive(Debug)]
struct Handover {
    /// `None` is the end.
    batch: Option<Result<Batch, Error>>,
    reconnects: u64,
    end: Option<EndOfJob>,
}

/// A rank's batches, every step exactly once and in order, over reconnects and server restarts. Ends with `None` after
/// the job's last step, or after one error. It is read on a thread of its own: at most one finished batch waits for the
/// caller and one is being received; further ones stay with the server. Dropping it closes its connection.
#[derive(Debug)]
pub struct BatchStream {
    batches: mpsc::Receiver<Handover>,
    cursor: Option<Cursor>,
    end: Option<EndOfJob>,
    stats: StreamStats,
    /// When the caller began to wait.
    since: Option<Instant>,
    meter: Meter,
}

impl BatchStream {
    /// Starts receiving.
    pub(crate) fn start(reader: Reader) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::Argument {
            name: "stream".into(),
            reason: format!("cannot start its thread: {error}"),
        };
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (sender, batches) = mpsc::channel(READY);
        let cursor = reader.cursor().cloned();
        let meter = Meter::default();
        let teller = reader.teller(meter.clone());
        let body = move || {
            teach_allocator();
            runtime.block_on(run(reader, sender, teller));
        };
        thread::Builder::new().name("mixfeed-batches".into()).spawn(body).map_err(failed)?;
        Ok(BatchStream { batches, cursor, end: None, stats: StreamStats::default(), since: None, meter })
    }

    /// The next batch, as `StreamExt::next` and `?` give it. Dropping the future loses nothing.
    pub async fn next_batch(&mut self) -> Result<Option<Batch>, Error> {
        poll_fn(|context| self.poll_batch(context)).await.transpose()
    }

    /// Position after the last batch handed out, or where the stream starts when that was given as a cursor.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// How the job ended, once the stream has.
    pub fn end(&self) -> Option<EndOfJob> {
        self.end
    }

    /// What the stream has handed out so far.
    pub fn stats(&self) -> StreamStats {
        self.stats
    }

    /// The same batches as a blocking iterator, for trainers without a runtime.
    pub fn blocking(self) -> BlockingBatches {
        BlockingBatches { stream: self }
    }

    pub(crate) fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Batch, Error>>> {
        let since = *self.since.get_or_insert_with(|| {
            let now = Instant::now();
            self.meter.asks(now);
            now
        });
        let handover = ready!(self.batches.poll_recv(context));
        let now = Instant::now();
        self.since = None;
        self.stats.waited += now - since;
        let batch = handover.as_ref().and_then(|handover| handover.batch.as_ref());
        self.meter.has(now, batch.and_then(|batch| batch.as_ref().ok()));
        let Some(Handover { batch, reconnects, end }) = handover else { return Poll::Ready(None) };
        self.stats.reconnects = reconnects;
        self.end = end;
        if let Some(Ok(batch)) = &batch {
            self.stats.count(batch);
            self.cursor = batch.cursor().cloned();
        }
        Poll::Ready(batch)
    }
}

impl Drop for BatchStream {
    fn drop(&mut self) {
        self.meter.left(Instant::now());
    }
}

impl Stream for BatchStream {
    type Item = Result<Batch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_batch(context)
    }
}

/// Has the C library's allocator keep what is freed. It begins with giving blocks of megabytes, and ends of its heaps, back to
/// the system, and learns from the first such block that is freed to keep blocks of its size and twice as much of a heap. What
/// frames are read into is such a block, one after the other: depending on how the first ones fell, every page of the stream
/// was faulted in anew, at a third of the speed. Of the block that is freed here no page is ever touched.
fn teach_allocator() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LESSON)));
}

/// Receives, and tells meanwhile and at the end what the caller waited.
async fn run(mut reader: Reader, sender: mpsc::Sender<Handover>, teller: Option<Teller>) {
    let Some(mut teller) = teller else { return receive(&mut reader, &sender).await };
    tokio::select! {
        () = receive(&mut reader, &sender) => {}
        () = teller.run() => {}
    }
    // The caller sees the end, and the server that nobody reads, before the last word.
    drop((reader, sender));
    teller.finish().await;
}

/// Receives until the end, an error, or until the caller has left.
async fn receive(reader: &mut Reader, sender: &mpsc::Sender<Handover>) {
    loop {
        let batch = tokio::select! {
            batch = reader.next() => batch,
            // The caller left in the middle of a batch, or of a wait for a server.
            () = sender.closed() => return,
        };
        let more = matches!(batch, Some(Ok(_)));
        let handover = Handover { batch, reconnects: reader.reconnects(), end: reader.end() };
        if sender.send(handover).await.is_err() || !more {
            return;
        }
    }
}

/// A [`BatchStream`] as an iterator; works inside and outside of any runtime.
#[derive(Debug)]
pub struct BlockingBatches {
    stream: BatchStream,
}

impl BlockingBatches {
    /// See [`BatchStream::cursor`].
    pub fn cursor(&self) -> Option<&Cursor> {
        self.stream.cursor()
    }

    /// See [`BatchStream::end`].
    pub fn end(&self) -> Option<EndOfJob> {
        self.stream.end()
    }

    /// See [`BatchStream::stats`]; `waited` is the time spent in `next`.
    pub fn stats(&self) -> StreamStats {
        self.stream.stats()
    }
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Iterator for BlockingBatches {
    type Item = Result<Batch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match self.stream.poll_batch(&mut context) {
                Poll::Ready(batch) => return batch,
                Poll::Pending => thread::park(),
            }
        }
    }
}
