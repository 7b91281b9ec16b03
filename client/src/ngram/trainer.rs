//! A trainer around the n-gram, for jobs whose tokens are bytes.

use super::NGram;
use crate::driver::{EvalTask, Influence, LossSum, Moment, StepReport, Trainer, TrainerError};
use crate::learn::ReportKind;
use crate::{Batch, Tokens};

/// Batches of rows behind an influence that is reported.
const BATCHES: usize = 4;
/// Rows of each group that are kept for it.
const KEPT: usize = 128;

/// Counts the rows of every batch; one pass over a job with `tokens` (tokenizer "bytes") trains it.
#[derive(Debug, Default)]
pub struct NGramTrainer {
    /// The model.
    pub model: NGram,
    groups: usize,
    /// The last rows of each group: influence is measured on rows that were not held out.
    recent: Vec<Vec<Vec<u8>>>,
    /// Held-out rows of each task, once it was evaluated.
    held_out: Vec<Vec<Vec<u8>>>,
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
        self.held_out.resize(self.held_out.len().max(task.index + 1), Vec::new());
        let known = &mut self.held_out[task.index];
        if (known.len() as u64) < task.rows {
            known.extend(rows);
        }
        Ok(loss)
    }

    fn influence(&mut self, moment: &Moment<'_>) -> Result<Option<Influence>, TrainerError> {
        let (groups, tasks) = (moment.groups.len(), moment.tasks.len());
        self.held_out.resize(self.held_out.len().max(tasks), Vec::new());
        let held_out = std::mem::take(&mut self.held_out);
        let sets: Vec<&[Vec<u8>]> = held_out[..tasks].iter().map(Vec::as_slice).collect();
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
        self.held_out = held_out;
        let known = matrix.iter().all(|v| v.is_finite());
        Ok(known.then_some(Influence { matrix, tokens: tokens as f64 }))
    }
}
