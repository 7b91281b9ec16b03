//! Held-out sets of a job's tasks: kept in memory while they fit, else streamed again for each evaluation.

use super::{DriveError, EvalTask, LossSum, Trainer};
use crate::{
    Batch, BlockingBatches, Client, Error, EvalOptions,
    spec::{JobInfo, LastBatch},
};
use std::sync::Arc;

/// How sets are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// Rows of one step over all ranks.
    pub batch: u32,
    /// This reader's part.
    pub rank: u32,
    /// Readers that share the sets.
    pub world_size: u32,
    /// Bytes of tensors that are kept over all sets.
    pub memory: u64,
}

/// Batches of a set for one evaluation.
#[derive(Debug)]
pub(super) enum Rows {
    Kept(Arc<Vec<Batch>>),
    Streamed(BlockingBatches),
}

/// What is known of a set's batches.
#[derive(Debug)]
enum Stock {
    Unread,
    Kept(Arc<Vec<Batch>>),
    /// Too large.
    Streamed,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Evals {
    pub tasks: Arc<Vec<EvalTask>>,
    stocks: Vec<Stock>,
    reading: Reading,
    kept: u64,
}

impl Evals {
    /// The tasks of a job: its objective's groups, or all that have a held-out set.
    pub fn new(job: &JobInfo, reading: Reading) -> Self {
        let objective = job.spec.as_ref().and_then(|spec| spec.mixture.as_ref()).map(|m| &m.objective);
        let named: Vec<&String> = objective.into_iter().flatten().map(|task| &task.group).collect();
        let rows = |group: &String| job.eval_sets.iter().find(|set| set.group == *group).map(|set| set.rows);
        let groups: Vec<&String> =
            if named.is_empty() { job.eval_sets.iter().map(|set| &set.group).collect() } else { named };
        let task = |(index, group): (usize, &String)| EvalTask {
            index,
            group: group.clone(),
            rows: rows(group).unwrap_or_default(),
        };
        let tasks: Vec<EvalTask> = groups.into_iter().enumerate().map(task).collect();
        let stocks = tasks.iter().map(|_| Stock::Unread).collect();
        Evals { tasks: Arc::new(tasks), stocks, reading, kept: 0 }
    }

    /// Batches of task `index`, from memory or from a new stream.
    pub async fn rows(&mut self, client: &Client, job: &str, index: usize) -> Result<Rows, DriveError> {
        if let Stock::Unread = self.stocks[index] {
            self.stocks[index] = self.load(client, job, index).await?;
        }
        Ok(match &self.stocks[index] {
            Stock::Kept(batches) => Rows::Kept(Arc::clone(batches)),
            Stock::Unread | Stock::Streamed => {
                Rows::Streamed(client.eval(job, self.options(index)).await?.blocking())
            }
        })
    }

    async fn load(&mut self, client: &Client, job: &str, index: usize) -> Result<Stock, Error> {
        if self.kept >= self.reading.memory {
            return Ok(Stock::Streamed);
        }
        let mut stream = client.eval(job, self.options(index)).await?;
        let (mut batches, mut bytes) = (Vec::new(), 0);
        while let Some(batch) = stream.next_batch().await? {
            bytes += batch.bytes() as u64;
            if self.kept + bytes > self.reading.memory {
                return Ok(Stock::Streamed);
            }
            batches.push(batch);
        }
        self.kept += bytes;
        Ok(Stock::Kept(Arc::new(batches)))
    }

    fn options(&self, index: usize) -> EvalOptions {
        EvalOptions {
            group: self.tasks[index].group.clone(),
            batch: self.reading.batch,
            rank: self.reading.rank,
            world_size: self.reading.world_size,
            last_batch: LastBatch::Partial,
            from_step: 0,
            held_out: true,
        }
    }

    /// Rows of task `index` that this reader must see; `None` when it has only a part of them.
    pub fn rows_wanted(&self, index: usize) -> Option<u64> {
        (self.reading.world_size == 1).then(|| self.tasks[index].rows)
    }
}

/// Loss over a whole set, summed batch by batch in its order.
pub(super) fn evaluate<T: Trainer>(
    trainer: &mut T,
    task: &EvalTask,
    rows: Rows,
    wanted: Option<u64>,
) -> Result<LossSum, DriveError> {
    let (mut total, mut seen) = (LossSum::default(), 0);
    let mut one = |batch: &Batch| -> Result<(), DriveError> {
        seen += batch.groups()?.rows() as u64;
        let failed = |source| DriveError::Trainer { what: format!("evaluate `{}`", task.group), source };
        total.add(trainer.evaluate(task, batch).map_err(failed)?);
        Ok(())
    };
    match rows {
        Rows::Kept(batches) => batches.iter().try_for_each(&mut one)?,
        Rows::Streamed(mut batches) => batches.try_for_each(|batch| one(&batch?))?,
    }
    match wanted.filter(|wanted| *wanted != seen) {
        Some(expected) => Err(DriveError::EvalSet { group: task.group.clone(), found: seen, expected }),
        None => Ok(total),
    }
}
