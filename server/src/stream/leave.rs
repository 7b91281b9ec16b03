//! When a stream has to end though its job goes on.

use crate::metrics::StreamEnd;
use std::time::Duration;
use tokio::sync::watch;
use tonic::Status;

/// Time from the word that a reader has to leave to the end of a batch that it may still take.
const LAST_BATCH: Duration = Duration::from_secs(30);

/// Why a reader may not come back, for the metrics and for the reader.
type Word = (StreamEnd, Status);

/// How urgent it is.
#[derive(Clone, Debug, Default)]
enum Stage {
    #[default]
    Stay,
    /// At the next batch boundary; with a word when it may not come back.
    Boundary(Option<Word>),
    /// At once: the reader took too long to reach a boundary.
    Now(Word),
}

/// What tells a stream to end: the server stops, or its reader may no longer read.
#[derive(Clone, Debug)]
pub struct Leave(watch::Receiver<Stage>);

impl Leave {
    /// Ends at a batch boundary when `draining` turns true, or with the word of `gone` when that comes first. The
    /// future is dropped when the stream has ended.
    pub fn when(
        mut draining: watch::Receiver<bool>,
        gone: impl Future<Output = (StreamEnd, Status)> + Send + 'static,
    ) -> Leave {
        let (stage, leave) = watch::channel(Stage::default());
        tokio::spawn(async move {
            tokio::select! {
                () = async { drop(draining.wait_for(|stop| *stop).await) } => {
                    stage.send_replace(Stage::Boundary(None));
                }
                () = stage.closed() => return,
                word = gone => {
                    stage.send_replace(Stage::Boundary(Some(word.clone())));
                    tokio::select! {
                        () = tokio::time::sleep(LAST_BATCH) => {}
                        () = stage.closed() => return,
                    }
                    stage.send_replace(Stage::Now(word));
                }
            }
            stage.closed().await;
        });
        Leave(leave)
    }

    /// Waits until it has to end at a boundary.
    pub(super) async fn wanted(&mut self) {
        drop(self.0.wait_for(|stage| !matches!(stage, Stage::Stay)).await);
    }

    /// Whether it has to end at a boundary.
    pub(super) fn is_wanted(&self) -> bool {
        !matches!(*self.0.borrow(), Stage::Stay)
    }

    /// What to say to a reader that may not come back.
    pub(super) fn word(&self) -> Option<Word> {
        match &*self.0.borrow() {
            Stage::Stay => None,
            Stage::Boundary(word) => word.clone(),
            Stage::Now(word) => Some(word.clone()),
        }
    }

    /// Waits until it has to end at once.
    pub(super) async fn at_once(mut self) -> Word {
        match self.0.wait_for(|stage| matches!(stage, Stage::Now(_))).await.map(|stage| stage.clone()) {
            Ok(Stage::Now(word)) => word,
            Ok(Stage::Stay | Stage::Boundary(_)) | Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_may_not_read_leaves_at_a_boundary_or_after_a_while() {
        let (_stop, draining) = watch::channel(false);
        let mut leave = Leave::when(draining, async { (StreamEnd::Fenced, Status::unauthenticated("gone")) });
        leave.wanted().await;
        assert!(leave.is_wanted());
        let (end, status) = leave.word().expect("it is wanted for good");
        assert_eq!((end, status.code()), (StreamEnd::Fenced, tonic::Code::Unauthenticated));
        let start = tokio::time::Instant::now();
        assert_eq!(leave.at_once().await.1.message(), "gone");
        assert_eq!(start.elapsed().as_secs(), LAST_BATCH.as_secs());
    }

    #[tokio::test]
    async fn a_stopping_server_has_no_word_of_its_own() {
        let (stop, draining) = watch::channel(false);
        let mut leave = Leave::when(draining, std::future::pending());
        assert!(!leave.is_wanted());
        stop.send_replace(true);
        leave.wanted().await;
        assert!(leave.is_wanted() && leave.word().is_none());
    }
}
