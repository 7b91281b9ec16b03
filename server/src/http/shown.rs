//! The last batch of each job, as it was last made for a look: one at a time in the process, kept for a few seconds.

use super::page::LastBatch;
use super::sheet::{self, Sheet};
use crate::assemble::Assembler;
use crate::job::Job;
use crate::stream::Memory;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// How long rows are shown before they are made anew.
const FRESH: Duration = Duration::from_secs(10);
/// How long a look waits for them.
const PATIENCE: Duration = Duration::from_secs(3);
/// Jobs whose rows are kept: some 200 kB each.
const KEPT: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Shown {
    assembler: Assembler,
    memory: Memory,
    /// Whether rows may be shown at all.
    allowed: bool,
    kept: Arc<Mutex<BTreeMap<String, Kept>>>,
    one: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
struct Kept {
    made: Instant,
    /// Job that it is of: another one may have its name by now.
    digest: [u8; 32],
    step: u64,
    sheet: Arc<Sheet>,
}

impl Shown {
    pub fn new(assembler: Assembler, memory: Memory, allowed: bool) -> Shown {
        let one = Arc::new(Semaphore::new(1));
        Shown { assembler, memory, allowed, kept: Arc::default(), one }
    }

    /// The rows of `step` of a job if they are kept.
    pub fn kept(&self, job: &Job, step: u64) -> Option<Arc<Sheet>> {
        self.known(job).filter(|kept| kept.step == step).map(|kept| kept.sheet)
    }

    /// The rows of the last step of a job, or of one that was the last a few seconds ago, or why there are none.
    pub async fn look(&self, job: &Arc<Job>, step: Option<u64>) -> Arc<Sheet> {
        let Some(step) = step else { return message("Nothing was sent yet.") };
        if !self.allowed {
            return message("Rows are not shown: `page_pictures` is false.");
        }
        match tokio::time::timeout(PATIENCE, self.fresh(job, step)).await {
            Ok(sheet) => sheet,
            Err(_) => match self.known(job) {
                Some(kept) => kept.sheet,
                None => message("Making these rows once more takes longer than a few seconds; look again."),
            },
        }
    }

    /// What is kept of a job. Older rows, which say their step, are better than none.
    fn known(&self, job: &Job) -> Option<Kept> {
        lock(&self.kept).get(&job.name).filter(|kept| kept.digest == job.digest).cloned()
    }

    async fn fresh(&self, job: &Arc<Job>, step: u64) -> Arc<Sheet> {
        let fresh = || self.known(job).filter(|kept| kept.step == step || kept.made.elapsed() < FRESH);
        if let Some(kept) = fresh() {
            return kept.sheet;
        }
        let permit = self.one.clone().acquire_owned().await.expect("never closed");
        if let Some(kept) = fresh() {
            return kept.sheet; // made while this look waited
        }
        if self.assembler.is_crowded() {
            if let Some(kept) = self.known(job) {
                return kept.sheet;
            }
            return message("The CPU threads are busy with batches; rows are shown when they are not.");
        }
        let (assembler, memory) = (self.assembler.clone(), self.memory.clone());
        let (job, kept) = (job.clone(), self.kept.clone());
        // Goes on when nobody waits any longer, and holds the place: a second one could only stand behind it.
        let made = tokio::spawn(async move {
            let _permit = permit;
            let sheet = match sheet::make(&assembler, &memory, &job, step).await {
                Ok(sheet) => Arc::new(sheet),
                Err(why) => message(&format!("The last batch is not shown: {why}.")),
            };
            keep(&kept, &job, step, &sheet);
            sheet
        });
        made.await.unwrap_or_else(|lost| message(&format!("The last batch is not shown: {lost}.")))
    }
}

fn keep(all: &Mutex<BTreeMap<String, Kept>>, job: &Job, step: u64, sheet: &Arc<Sheet>) {
    let mut all = lock(all);
    let made = Instant::now();
    all.insert(job.name.clone(), Kept { made, digest: job.digest, step, sheet: sheet.clone() });
    while all.len() > KEPT {
        let oldest = all.iter().min_by_key(|(_, kept)| kept.made).map(|(job, _)| job.clone());
        oldest.map(|job| all.remove(&job));
    }
}

fn message(text: &str) -> Arc<Sheet> {
    Arc::new(Sheet { last: LastBatch::Message(text.into()), png: None })
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
