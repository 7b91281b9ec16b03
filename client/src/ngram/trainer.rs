//! A trainer around the n-gram, for jobs whose tokens are bytes.

use super::{NGram, SKETCH};
use crate::driver::{EvalTask, Influence, LossSum, Moment, Sketch, StepReport, Trainer, TrainerError};
use crate::learn::ReportKind;
use crate::{Batch, Tokens};

/// Batches of rows behind an influence that is reported.
const BATCHES: usize = 4;
/// Rows of each group that are kept for it.
const KEPT: usize = 128;

/// This rank's rows of a task's held-out set.
#[derive(Debug, Default)]
struct HeldOut {
    rows: Vec<Vec<u8>>,
    /// Batches that they came in.
    batches: u64,
}

/// Counts the rows of every batch; one pass over a job with `tokens` (tokenizer "bytes") trains it.
#[derive(Debug, Default)]
pub struct NGramTrainer {
    /// The model.
    pub model: NGram,
    groups: usize,
    /// The last rows of each group: influence is measured on rows that were not held out.
    recent: Vec<Vec<Vec<u8>>>,
    /// Held-out sets of the tasks, once they were evaluated.
    held_out: Vec<HeldOut>,
}

impl NGramTrainer {
    /// A model that has seen nothing, for a job of so many groups.
    pub fn new(groups: usize) -> Self {
        NGramTrainer { groups, recent: vec![Vec::new(); groups], ..NGramTrainer::default() }
    }

    /// Training loss per group of rows that are about to be learnt.
    fn losses(&self, rows: &[Vec<u8>], groups: &[u32]) -> Vec<LossSum> {
        let mut losses = vec![LossSum::default(); self.groups];
        for (row, group) in rows.iter().zip(groups) {
            losses[*group as usize].add(LossSum { sum: self.model.nll(row), count: row.len() as f64 });
        }
        losses
    }
}

/// Rows of a batch as bytes, padding left out.
///
/// # Errors
/// When the batch has no tokens, or ids that are no bytes.
pub fn rows(batch: &Batch) -> Result<Vec<Vec<u8>>, TrainerError> {
    let tokens: Tokens<'_> = batch.tokens()?;
    let mask = tokens.loss_mask()?;
    let mut out = Vec::with_capacity(tokens.len());
    let mut at = 0;
    for row in (0..tokens.len()).filter_map(|i| tokens.row(i)) {
        let kept = mask.map(|mask| &mask[at..at + row.len()]);
        at += row.len();
        let real = row.iter().enumerate().filter(|(i, _)| kept.is_none_or(|kept| kept[*i] == 1));
        let bytes =
            real.map(|(_, id)| u8::try_from(*id).map_err(|_| format!("token {id} is no byte").into()));
        out.push(bytes.collect::<Result<Vec<u8>, TrainerError>>()?);
    }
    Ok(out)
}

impl Trainer for NGramTrainer {
    fn train(&mut self, batch: &Batch) -> Result<StepReport, TrainerError> {
        let (rows, groups) = (rows(batch)?, batch.groups()?.own().collect::<Vec<u32>>());
        let wanted = batch.due_after().contains(&ReportKind::Train);
        let losses = if wanted { self.losses(&rows, &groups) } else { Vec::new() };
        self.model.learn(&rows);
        for (row, group) in rows.into_iter().zip(groups) {
            let recent = &mut self.recent[group as usize];
            recent.push(row);
            let spare = recent.len().saturating_sub(KEPT);
            recent.drain(..spare);
        }
        Ok(StepReport { losses, ..StepReport::default() })
    }

    fn evaluate(&mut self, task: &EvalTask, batch: &Batch) -> Result<LossSum, TrainerError> {
        let rows = rows(batch)?;
        let mut loss = LossSum::default();
        for row in &rows {
            loss.add(LossSum { sum: self.model.nll(row), count: row.len() as f64 });
        }
        if self.held_out.len() <= task.index {
            self.held_out.resize_with(task.index + 1, HeldOut::default);
        }
        // The same batches come at every evaluation.
        let known = &mut self.held_out[task.index];
        if known.batches == batch.step() {
            known.rows.extend(rows);
            known.batches += 1;
        }
        Ok(loss)
    }

    fn influence(&mut self, moment: &Moment<'_>) -> Result<Option<Influence>, TrainerError> {
        let (groups, tasks) = (moment.groups.len(), moment.tasks.len());
        if self.held_out.len() < tasks {
            return Ok(None);
        }
        let sets: Vec<&[Vec<u8>]> = self.held_out[..tasks].iter().map(|set| set.rows.as_slice()).collect();
        let mut matrix = vec![0.0; groups * tasks];
        let mut tokens = 0;
        for (j, recent) in self.recent.iter().enumerate() {
            for rows in recent.chunks(KEPT / BATCHES) {
                tokens += rows.iter().map(Vec::len).sum::<usize>();
                let gains = self.model.influence(rows, &sets);
                gains
                    .iter()
                    .enumerate()
                    .for_each(|(i, gain)| matrix[i * groups + j] += gain / BATCHES as f64);
            }
        }
        let known = matrix.iter().all(|v| v.is_finite());
        Ok(known.then_some(Influence { matrix, tokens: tokens as f64 }))
    }

    /// Means over this rank's held-out rows, and over the last rows of each group, by the model as it was before those; a
    /// group that has sent none yet has no sketch.
    fn sketches(&mut self, moment: &Moment<'_>) -> Result<Option<Vec<Sketch>>, TrainerError> {
        let tasks = self.held_out.iter().map(|set| &set.rows).take(moment.tasks.len());
        if tasks.len() < moment.tasks.len() {
            return Ok(None);
        }
        self.recent.iter().for_each(|rows| self.model.forget(rows));
        let one = |owner: usize, rows: &Vec<Vec<u8>>, held_out: bool| {
            let (mut values, bytes) = (vec![0.0; SKETCH], rows.iter().map(Vec::len).sum::<usize>());
            self.model.sketch(rows, 1.0 / bytes as f64, &mut values);
            Sketch { owner: owner as u32, held_out, values }
        };
        let groups = self.recent.iter().enumerate().filter(|(_, rows)| !rows.is_empty());
        let tasks = tasks.enumerate().map(|(i, rows)| one(i, rows, true));
        let sketches = tasks.chain(groups.map(|(j, rows)| one(j, rows, false))).collect();
        self.recent.iter().for_each(|rows| self.model.learn(rows));
        Ok(Some(sketches))
    }
}
