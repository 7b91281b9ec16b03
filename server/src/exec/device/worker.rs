//! The thread that owns a device, and its queue.

use super::{Buffer, DeviceError, Input, Mixer, Progress, RowMade, Scenes};
use crate::exec::Format;
use crate::plan::Plan;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SendError, SyncSender, sync_channel};
use std::sync::{
    Arc, Condvar, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use std::{fmt, thread, time::Duration};

/// Blocks that wait for the device: one is always ready when the last one is done.
const QUEUE: usize = 2;
/// How long [`Worker::close`] waits. Whoever ends the program while a device works on a block has its library crash.
const FAREWELL: Duration = Duration::from_secs(10);

/// A block of pictures to mix; its buffers come back with the answer.
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

/// A block of scenes to make; it comes back with the answer.
#[derive(Debug)]
pub struct SceneTask<B> {
    /// What to do.
    pub plan: Plan,
    /// What to do it with.
    pub block: Box<Scenes>,
    /// Takes the columns of the plan's rows.
    pub out: B,
}

/// A block that was not mixed.
#[derive(Debug)]
pub struct Failed<T> {
    /// The block, a [`Task`] or [`SceneTask`], with any bytes in `out`; `None` when the thread is gone with it.
    pub task: Option<T>,
    /// Why.
    pub error: DeviceError,
}

/// A block of scenes and what each row was made of, or the block and why not.
type Scened<B> = Result<(SceneTask<B>, Vec<RowMade>), Box<Failed<SceneTask<B>>>>;

/// A block on its way, and who waits for it.
struct Ask<T, R = ()> {
    task: T,
    answer: SyncSender<(T, Result<R, DeviceError>)>,
}

/// Hands blocks to the thread of a device; clones share it. The thread ends with the last of them.
pub struct Worker<B> {
    queue: SyncSender<Wish<B>>,
    lost: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
    given: Arc<Given>,
}

/// What comes to the thread.
enum Wish<B> {
    Pictures(Ask<Task<B>>),
    Scenes(Ask<SceneTask<B>, Vec<RowMade>>),
    /// Only wakes it: it looks whether it is closed.
    Look,
}

/// Whether the thread has given back its device.
#[derive(Default)]
struct Given(Mutex<bool>, Condvar);

impl Given {
    fn back(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        let given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.1.wait_timeout_while(given, FAREWELL, |given| !*given);
        if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            tracing::warn!("the device does not end its last block");
        }
    }
}

impl<B> Clone for Worker<B> {
    fn clone(&self) -> Worker<B> {
        let Worker { queue, lost, closed, given } = self;
        Worker { queue: queue.clone(), lost: lost.clone(), closed: closed.clone(), given: given.clone() }
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

    /// Gives the device back: waits for the block that it works on, not for those that stand in the queue, which come back
    /// with an error as all later ones do.
    pub fn close(&self) {
        self.lost.store(true, Ordering::Relaxed);
        self.closed.store(true, Ordering::SeqCst);
        // A full queue wakes it just as well.
        let _ = self.queue.try_send(Wish::Look);
        self.given.wait();
    }
}

impl<B: Buffer> Worker<B> {
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
        let (closed, given) = (Arc::new(AtomicBool::new(false)), Arc::new(Given::default()));
        let flags = (lost.clone(), closed.clone(), given.clone());
        let body = move || {
            let (lost, closed, given) = flags;
            let opened = catch_unwind(AssertUnwindSafe(open))
                .unwrap_or_else(|panic| Err(DeviceError::Failed(message(panic.as_ref()))));
            match opened {
                Ok(mixer) => {
                    let _ = ready.send(Ok(())); // an error means that nobody waits any more
                    serve(mixer, &tasks, &lost, &closed);
                    given.back();
                    // Those who come too late.
                    tasks.iter().for_each(|wish| wish.refuse(&stops()));
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
        Ok(Worker { queue, lost, closed, given })
    }

    /// Mixes a block of pictures; waits for its turn and for the answer.
    ///
    /// # Errors
    /// [`Failed`] with the block.
    pub fn run(&self, task: Task<B>) -> Result<Task<B>, Box<Failed<Task<B>>>> {
        self.ask(task, Wish::Pictures).map(|(task, ())| task)
    }

    /// Makes a block of scenes; waits for its turn and for the answer, what each row was made of.
    ///
    /// # Errors
    /// [`Failed`] with the block.
    pub fn scenes(&self, task: SceneTask<B>) -> Scened<B> {
        self.ask(task, Wish::Scenes)
    }

    fn ask<T, R>(&self, task: T, wish: impl FnOnce(Ask<T, R>) -> Wish<B>) -> Result<(T, R), Box<Failed<T>>> {
        let (answer, answered) = sync_channel(1);
        let gone = || DeviceError::Lost("its thread ended".into());
        if let Err(SendError(wish)) = self.queue.send(wish(Ask { task, answer })) {
            self.lost.store(true, Ordering::Relaxed);
            wish.refuse(&gone());
        }
        match answered.recv() {
            Ok((task, Ok(made))) => Ok((task, made)),
            Ok((task, Err(error))) => Err(Box::new(Failed { task: Some(task), error })),
            Err(_) => Err(Box::new(Failed { task: None, error: gone() })),
        }
    }
}

/// Makes blocks until it is closed or the last [`Worker`] is gone, one ahead where the device lets it; gives the device
/// back.
fn serve<B: Buffer>(mixer: impl Mixer<B>, tasks: &Receiver<Wish<B>>, lost: &AtomicBool, closed: &AtomicBool) {
    let mut bench = Bench { mixer, lost, reason: None };
    let mut begun: Option<Ask<Task<B>>> = None;
    loop {
        let wish = match begun {
            Some(_) => tasks.try_recv().ok(),
            None => match tasks.recv() {
                Ok(wish) => Some(wish),
                Err(_) => return,
            },
        };
        if closed.load(Ordering::SeqCst) {
            // The device must have left the memory of what it works on; how that ends is of no interest.
            let waited = begun.and_then(|ask| bench.step(ask, |mixer, _| mixer.wait()));
            waited.into_iter().for_each(|ask| ask.answer(Err(stops())));
            wish.into_iter().for_each(|wish| wish.refuse(&stops()));
            return;
        }
        let (pictures, scenes) = match wish {
            Some(Wish::Pictures(ask)) => (Some(ask), None),
            Some(Wish::Scenes(ask)) => (None, Some(ask)),
            Some(Wish::Look) | None => (None, None),
        };
        let staged =
            pictures.and_then(|ask| bench.step(ask, |mixer, task| mixer.stage(&task.input, &task.format)));
        let waited = begun.take().and_then(|ask| bench.step(ask, |mixer, _| mixer.wait()));
        begun = staged.and_then(|ask| bench.begin(ask));
        if let Some(ask) = waited.and_then(|ask| bench.step(ask, collect)) {
            ask.answer(Ok(()));
        }
        // What was begun is collected now, and nothing else was begun.
        scenes.into_iter().for_each(|ask| bench.scenes(ask));
    }
}

/// Hands on the rows of a block that was waited for.
fn collect<B: Buffer>(mixer: &mut impl Mixer<B>, task: &mut Task<B>) -> Result<(), DeviceError> {
    match mixer.lend(task.out.as_ref().len()) {
        Some(rows) => task.out.replace(rows),
        None => mixer.collect(task.out.as_mut())?,
    }
    Ok(())
}

fn stops() -> DeviceError {
    DeviceError::Lost("the server stops".into())
}

impl<T, R> Ask<T, R> {
    fn answer(self, result: Result<R, DeviceError>) {
        let _ = self.answer.send((self.task, result)); // an error means that the client left
    }
}

impl<B> Wish<B> {
    /// Gives a block back.
    fn refuse(self, why: &DeviceError) {
        match self {
            Wish::Pictures(ask) => ask.answer(Err(why.clone())),
            Wish::Scenes(ask) => ask.answer(Err(why.clone())),
            Wish::Look => {}
        }
    }
}

/// A device and what is known of it.
struct Bench<'a, M> {
    mixer: M,
    lost: &'a AtomicBool,
    /// Why it is lost: it is not asked again.
    reason: Option<DeviceError>,
}

impl<M> Bench<'_, M> {
    /// Takes a block one step further; one that fails is answered and goes no further.
    fn step<T, R>(
        &mut self,
        mut ask: Ask<T, R>,
        step: impl FnOnce(&mut M, &mut T) -> Result<(), DeviceError>,
    ) -> Option<Ask<T, R>> {
        let result = match &self.reason {
            Some(error) => Err(error.clone()),
            None => catch_unwind(AssertUnwindSafe(|| step(&mut self.mixer, &mut ask.task)))
                .unwrap_or_else(|panic| Err(DeviceError::Failed(message(panic.as_ref())))),
        };
        let Err(error) = result else { return Some(ask) };
        if let (DeviceError::Lost(_), None) = (&error, &self.reason) {
            tracing::error!(%error, "no block is sent to the device any more");
            self.reason = Some(error.clone());
            self.lost.store(true, Ordering::Relaxed);
        }
        ask.answer(Err(error));
        None
    }

    /// Makes and answers a block of scenes.
    fn scenes<B: AsMut<[u8]>>(&mut self, ask: Ask<SceneTask<B>, Vec<RowMade>>)
    where
        M: Mixer<B>,
    {
        let mut made = Vec::new();
        let run = |mixer: &mut M, task: &mut SceneTask<B>| {
            made = mixer.scenes(&task.plan.rows, &task.block, task.out.as_mut())?;
            Ok(())
        };
        if let Some(ask) = self.step(ask, run) {
            ask.answer(Ok(made));
        }
    }

    /// Runs a block of pictures; one that is done is answered.
    fn begin<B: AsMut<[u8]>>(&mut self, ask: Ask<Task<B>>) -> Option<Ask<Task<B>>>
    where
        M: Mixer<B>,
    {
        let mut progress = Progress::Done;
        let run = |mixer: &mut M, task: &mut Task<B>| {
            let Task { plan, format, input, out } = task;
            progress = mixer.run(&plan.rows, input, format, out.as_mut())?;
            Ok(())
        };
        let ask = self.step(ask, run)?;
        match progress {
            Progress::Begun => Some(ask),
            Progress::Done => {
                ask.answer(Ok(()));
                None
            }
        }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into())
}

#[cfg(test)]
mod tests;
