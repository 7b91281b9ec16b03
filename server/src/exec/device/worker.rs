//! The thread that owns a device, and its queue.

use super::{DeviceError, Input, Mixer};
use crate::exec::Format;
use crate::plan::Plan;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::{fmt, thread};

/// Blocks that wait for the device: one is always ready when the last one is done.
const QUEUE: usize = 2;

/// A block to mix; its buffers come back with the answer.
#[derive(Debug)]
pub struct Task<B> {
    /// What to do.
    pub plan: Plan,
    /// What rows look like.
    pub format: Format,
    /// What to do it with.
    pub input: Input<B>,
    /// Takes the rows of the plan.
    pub out: B,
}

/// A block that was not mixed.
#[derive(Debug)]
pub struct Failed<B> {
    /// The block, with any bytes in `out`; `None` when the thread is gone with it.
    pub task: Option<Task<B>>,
    /// Why.
    pub error: DeviceError,
}

struct Ask<B> {
    task: Task<B>,
    answer: SyncSender<(Task<B>, Result<(), DeviceError>)>,
}

/// Hands blocks to the thread of a device; clones share it. The thread ends with the last of them.
pub struct Worker<B> {
    queue: SyncSender<Ask<B>>,
    lost: Arc<AtomicBool>,
}

impl<B> Clone for Worker<B> {
    fn clone(&self) -> Worker<B> {
        Worker { queue: self.queue.clone(), lost: self.lost.clone() }
    }
}

impl<B> fmt::Debug for Worker<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("lost", &self.lost()).finish_non_exhaustive()
    }
}

impl<B> Worker<B> {
    /// Whether the device is gone for this process: every block will come back at once.
    pub fn lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]> + Send + 'static> Worker<B> {
    /// Starts a thread that owns what `open` makes there.
    ///
    /// # Errors
    /// What `open` answers; [`DeviceError::Failed`] when the system gives no thread.
    pub fn start<M: Mixer<B>>(
        open: impl FnOnce() -> Result<M, DeviceError> + Send + 'static,
    ) -> Result<Worker<B>, DeviceError> {
        let (queue, tasks) = sync_channel(QUEUE);
        let (ready, opened) = sync_channel(1);
        let lost = Arc::new(AtomicBool::new(false));
        let flag = lost.clone();
        let body = move || {
            let opened = catch_unwind(AssertUnwindSafe(open))
                .unwrap_or_else(|panic| Err(DeviceError::Failed(message(panic.as_ref()))));
            match opened {
                Ok(mixer) => {
                    let _ = ready.send(Ok(())); // an error means that nobody waits any more
                    serve(mixer, &tasks, &flag);
                }
                Err(error) => {
                    let _ = ready.send(Err(error)); // as above
                }
            }
        };
        let started = thread::Builder::new().name("mixfeed-device".into()).spawn(body);
        started.map_err(|error| DeviceError::Failed(format!("cannot start its thread: {error}")))?;
        let gone = || Err(DeviceError::Failed("its thread ended".into()));
        opened.recv().unwrap_or_else(|_| gone())?;
        Ok(Worker { queue, lost })
    }

    /// Mixes a block; waits for its turn and for the answer.
    ///
    /// # Errors
    /// [`Failed`] with the block.
    pub fn run(&self, task: Task<B>) -> Result<Task<B>, Box<Failed<B>>> {
        let (answer, answered) = sync_channel(1);
        let gone = || DeviceError::Lost("its thread ended".into());
        if let Err(back) = self.queue.send(Ask { task, answer }) {
            self.lost.store(true, Ordering::Relaxed);
            return Err(Box::new(Failed { task: Some(back.0.task), error: gone() }));
        }
        match answered.recv() {
            Ok((task, Ok(()))) => Ok(task),
            Ok((task, Err(error))) => Err(Box::new(Failed { task: Some(task), error })),
            Err(_) => Err(Box::new(Failed { task: None, error: gone() })),
        }
    }
}

/// Mixes until the last [`Worker`] is gone. A lost device is not asked again.
fn serve<B: AsRef<[u8]> + AsMut<[u8]>>(
    mut mixer: impl Mixer<B>,
    tasks: &Receiver<Ask<B>>,
    lost: &AtomicBool,
) {
    let mut reason: Option<DeviceError> = None;
    for Ask { mut task, answer } in tasks {
        let result = match &reason {
            Some(error) => Err(error.clone()),
            None => mix(&mut mixer, &mut task),
        };
        if let Err(error @ DeviceError::Lost(_)) = &result {
            tracing::error!(%error, "no block is sent to the device any more");
            reason = Some(error.clone());
            lost.store(true, Ordering::Relaxed);
        }
        let _ = answer.send((task, result)); // an error means that the client left
    }
}

fn mix<B: AsRef<[u8]> + AsMut<[u8]>>(
    mixer: &mut impl Mixer<B>,
    task: &mut Task<B>,
) -> Result<(), DeviceError> {
    let Task { plan, format, input, out } = task;
    let mixed = catch_unwind(AssertUnwindSafe(|| mixer.run(&plan.rows, input, format, out.as_mut())));
    mixed.unwrap_or_else(|panic| Err(DeviceError::Failed(message(panic.as_ref()))))
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Dtype, Layout, Raster};
    use crate::plan::Row;

    /// Answers as the first byte of the block says; otherwise copies.
    struct Moody;

    impl Mixer<Vec<u8>> for Moody {
        fn run(
            &mut self,
            rows: &[Row],
            input: &Input<Vec<u8>>,
            _: &Format,
            out: &mut [u8],
        ) -> Result<(), DeviceError> {
            assert!(rows.is_empty(), "these blocks have no plan");
            let Input::Clean(clean) = input else { panic!("clean rows") };
            match clean[0] {
                1 => Err(DeviceError::Memory("full".into())),
                2 => Err(DeviceError::Lost("fell off the bus".into())),
                3 => panic!("a defect"),
                _ => {
                    out.copy_from_slice(clean);
                    Ok(())
                }
            }
        }
    }

    fn task(first: u8) -> Task<Vec<u8>> {
        let raster = Raster::new(1, 1, Layout::Nchw);
        let format = Format { raster, dtype: Dtype::U8, normalize: None };
        Task { plan: Plan::default(), format, input: Input::Clean(vec![first, 9, 9]), out: vec![0; 3] }
    }

    fn error(worker: &Worker<Vec<u8>>, first: u8) -> DeviceError {
        let failed = worker.run(task(first)).expect_err("the device fails");
        let task = failed.task.expect("the block comes back");
        assert!(matches!(task.input, Input::Clean(clean) if clean == [first, 9, 9]));
        failed.error
    }

    #[test]
    fn blocks_come_back_mixed_or_with_the_reason_until_the_device_is_lost() {
        let worker = Worker::start(|| Ok(Moody)).expect("it starts");
        assert_eq!(worker.run(task(0)).expect("mixed").out, [0, 9, 9]);
        assert_eq!(error(&worker, 1), DeviceError::Memory("full".into()));
        assert_eq!(error(&worker, 3), DeviceError::Failed("a defect".into()));
        assert_eq!(worker.run(task(7)).expect("a panic ends one block only").out, [7, 9, 9]);
        assert!(!worker.lost());
        let lost = DeviceError::Lost("fell off the bus".into());
        assert_eq!(error(&worker, 2), lost);
        assert_eq!(error(&worker, 0), lost, "it is not asked again");
        assert!(worker.lost());
    }

    #[test]
    fn many_threads_share_one_device() {
        let worker = Worker::start(|| Ok(Moody)).expect("it starts");
        thread::scope(|scope| {
            for i in 10..40 {
                let worker = worker.clone();
                scope.spawn(move || assert_eq!(worker.run(task(i)).expect("mixed").out, [i, 9, 9]));
            }
        });
    }

    #[test]
    fn what_cannot_be_opened_is_told() {
        let absent = DeviceError::Absent { index: 1, found: 0, hint: "none".into() };
        let told = absent.clone();
        let error = Worker::<Vec<u8>>::start(move || Err::<Moody, _>(told)).expect_err("absent");
        assert_eq!(error, absent);
        let error = Worker::<Vec<u8>>::start(|| -> Result<Moody, _> { panic!("no driver") });
        assert_eq!(error.expect_err("a panic"), DeviceError::Failed("no driver".into()));
    }
}
