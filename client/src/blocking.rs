//! The blocking face of a stream.

use crate::{Batch, BatchStream, Cursor, EndOfJob, Error, StreamStats};
use std::{
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};
use tokio::{
    runtime,
    sync::{Semaphore, oneshot},
};

/// A [`BatchStream`] behind a thread with a runtime of its own. At any time at most one finished batch waits here and
/// one is being received. Dropping it stops the thread and does not wait for it.
#[derive(Debug)]
pub struct BlockingBatches {
    batches: mpsc::Receiver<Handover>,
    /// One permit: the right to put a batch into the channel.
    room: Arc<Semaphore>,
    /// Dropped with this.
    _stop: oneshot::Sender<()>,
    cursor: Option<Cursor>,
    end: Option<EndOfJob>,
    stats: StreamStats,
}

#[derive(Debug)]
struct Handover {
    batch: Option<Result<Batch, Error>>,
    reconnects: u64,
    end: Option<EndOfJob>,
}

impl BlockingBatches {
    pub(crate) fn start(stream: BatchStream) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::Argument {
            name: "blocking".into(),
            reason: format!("cannot start a thread: {error}"),
        };
        // One worker drives the connection while the thread itself copies.
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("mixfeed-net")
            .enable_all()
            .build()
            .map_err(failed)?;
        let (sender, batches) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let room = Arc::new(Semaphore::new(1));
        let (cursor, stats) = (stream.cursor().cloned(), stream.stats());
        let permits = Arc::clone(&room);
        let body = move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = pump(stream, &sender, &permits) => {}
                }
            });
            runtime.shutdown_background();
        };
        thread::Builder::new().name("mixfeed-batches".into()).spawn(body).map_err(failed)?;
        Ok(BlockingBatches { batches, room, _stop: stop, cursor, end: None, stats })
    }

    /// Position after the last batch handed out, or where the stream starts when that was given as a cursor.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// How the job ended, once the iterator has.
    pub fn end(&self) -> Option<EndOfJob> {
        self.end
    }

    /// What was handed out so far; `waited` is the time spent in `next`.
    pub fn stats(&self) -> StreamStats {
        self.stats
    }
}

async fn pump(mut stream: BatchStream, sender: &mpsc::Sender<Handover>, room: &Semaphore) {
    loop {
        let batch = stream.next_batch().await.transpose();
        let more = matches!(batch, Some(Ok(_)));
        // The channel itself has no bound; the permit is it.
        let Ok(permit) = room.acquire().await else { return };
        permit.forget();
        let handover = Handover { batch, reconnects: stream.stats().reconnects, end: stream.end() };
        if sender.send(handover).is_err() || !more {
            return;
        }
    }
}

impl Iterator for BlockingBatches {
    type Item = Result<Batch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let since = Instant::now();
        let Handover { batch, reconnects, end } = self.batches.recv().ok()?;
        self.room.add_permits(1);
        self.stats.waited += since.elapsed();
        self.stats.reconnects = reconnects;
        self.end = end;
        if let Some(Ok(batch)) = &batch {
            self.stats.count(batch);
            self.cursor = batch.cursor().cloned();
        }
        batch
    }
}
