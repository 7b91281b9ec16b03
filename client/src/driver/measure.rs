//! From "a report is due" to its numbers.

use super::{
    Dots, DriveError, Driver, GradientStats, Influence, Ledger, LossSum, Moment, Sketch, Trainer,
    TrainerError, evals,
};
use crate::{
    Batch, Error,
    learn::{ReportKind, ReportRequest},
};
use std::sync::Arc;

impl<T: Trainer> Driver<T> {
    /// Measures what is due and queues it, all or nothing.
    pub(super) async fn measure(&mut self, batch: &Arc<Batch>, due: &[ReportKind]) -> Result<(), DriveError> {
        // What comes to nothing must leave no trace: it is measured again then.
        let (mut queued, mut ledger) = (Vec::new(), self.ledger.clone());
        for kind in due {
            if self.reports {
                queued.extend(self.numbers(&mut ledger, batch, *kind).await?);
            } else if *kind == ReportKind::Eval && self.options.evaluate_always {
                self.evaluate().await?;
            }
        }
        self.ledger = ledger;
        self.outbox.extend(queued);
        Ok(())
    }

    /// Queues the losses of the weights as they are when the attempt begins.
    pub(super) async fn first_losses(&mut self) -> Result<(), DriveError> {
        if self.reports || self.options.evaluate_always {
            let losses = self.evaluate().await?;
            if self.reports {
                let mut ledger = self.ledger.clone();
                let report = self.losses(&mut ledger, &losses);
                self.ledger = ledger;
                self.outbox.push_back(report);
            }
        }
        Ok(())
    }

    /// A report of held-out losses.
    fn losses(&self, ledger: &mut Ledger, losses: &[LossSum]) -> ReportRequest {
        ReportRequest {
            values: losses.iter().map(|loss| loss.sum).collect(),
            counts: losses.iter().map(|loss| loss.count).collect(),
            eval_digest: self.job.eval_digest.clone(),
            ..ledger.report(ReportKind::Eval, self.completed)
        }
    }

    /// The reports of one kind.
    async fn numbers(
        &mut self,
        ledger: &mut Ledger,
        batch: &Arc<Batch>,
        kind: ReportKind,
    ) -> Result<Vec<ReportRequest>, DriveError> {
        let step = self.completed;
        let (groups, tasks) = (self.groups.len(), self.evals.tasks.len());
        let missing = DriveError::Unsupported { kind, step };
        let against_held_out =
            [ReportKind::Dots, ReportKind::Influence, ReportKind::Sketch, ReportKind::Candidates];
        if against_held_out.contains(&kind) && self.stats.evaluations == 0 {
            // Otherwise the trainer might never see the sets: losses need not be due at all.
            self.evaluate().await?;
        }
        let report = match kind {
            ReportKind::Unspecified => return Err(missing),
            ReportKind::Train | ReportKind::Excess => ledger.sums(kind, step)?,
            ReportKind::Eval => {
                let losses = self.evaluate().await?;
                self.losses(ledger, &losses)
            }
            ReportKind::Dots => {
                let Dots { dots, mean_norm, lr } =
                    self.ask(batch, kind, |trainer, at| trainer.dots(at)).await?.ok_or(missing)?;
                check(kind, dots.len(), groups)?;
                ReportRequest { values: dots, more: vec![mean_norm], lr, ..ledger.report(kind, step) }
            }
            ReportKind::GradientStats => {
                let GradientStats { norms, variances } =
                    self.ask(batch, kind, |trainer, at| trainer.gradients(at)).await?.ok_or(missing)?;
                check(kind, norms.len(), groups)?;
                check(kind, variances.len(), groups)?;
                ReportRequest { values: norms, more: variances, ..ledger.report(kind, step) }
            }
            ReportKind::Influence => {
                let Influence { matrix, tokens } =
                    self.ask(batch, kind, |trainer, at| trainer.influence(at)).await?.ok_or(missing)?;
                check(kind, matrix.len(), tasks * groups)?;
                ReportRequest { values: matrix, counts: vec![tokens], ..ledger.report(kind, step) }
            }
            ReportKind::Sketch => {
                let sketches =
                    self.ask(batch, kind, |trainer, at| trainer.sketches(at)).await?.ok_or(missing)?;
                let report = |Sketch { owner, held_out, values }| {
                    let report = ledger.report(kind, step);
                    ReportRequest { owner, held_out, values, ..report }
                };
                return Ok(sketches.into_iter().map(report).collect());
            }
            ReportKind::Candidates => {
                let mixtures = self.mixtures(batch.segment()).await?;
                let expected = mixtures.len();
                let ask = move |trainer: &mut T, at: &Moment<'_>| trainer.candidates(at, &mixtures);
                let values = self.ask(batch, kind, ask).await?.ok_or(missing)?;
                check(kind, values.len(), expected)?;
                ReportRequest { values, ..ledger.report(kind, step) }
            }
        };
        Ok(vec![report])
    }

    /// Mixtures whose influence is wanted in `segment`.
    async fn mixtures(&self, segment: u64) -> Result<Vec<Vec<f64>>, DriveError> {
        let wanted = self.client.candidates(&self.job.job).await?;
        if wanted.segment != segment {
            let found = wanted.segment;
            let text = format!("candidates are for segment {found}, but segment {segment} asks for them");
            return Err(Error::Protocol(text).into());
        }
        Ok(wanted.candidates.into_iter().map(|mixture| mixture.values).collect())
    }

    /// Losses on all held-out sets, in order of the tasks.
    async fn evaluate(&mut self) -> Result<Vec<LossSum>, DriveError> {
        let mut losses = Vec::new();
        for index in 0..self.evals.tasks.len() {
            let rows = self.evals.rows(&self.client, &self.job.job, index).await?;
            let (tasks, wanted) = (Arc::clone(&self.evals.tasks), self.evals.rows_wanted(index));
            let work = move |trainer: &mut T| evals::evaluate(trainer, &tasks[index], rows, wanted);
            losses.push(self.work(work).await??);
        }
        self.stats.evaluations += 1;
        Ok(losses)
    }

    /// Asks the trainer to measure something.
    async fn ask<R: Send + 'static>(
        &mut self,
        batch: &Arc<Batch>,
        kind: ReportKind,
        measure: impl FnOnce(&mut T, &Moment<'_>) -> Result<R, TrainerError> + Send + 'static,
    ) -> Result<R, DriveError> {
        let (batch, groups) = (Arc::clone(batch), Arc::clone(&self.groups));
        let (tasks, completed) = (Arc::clone(&self.evals.tasks), self.completed);
        let work = move |trainer: &mut T| {
            measure(trainer, &Moment { completed, batch: &batch, groups: &groups, tasks: &tasks })
        };
        let what = || format!("measure {}", kind.as_str_name());
        self.work(work).await?.map_err(|source| DriveError::Trainer { what: what(), source })
    }
}

fn check(kind: ReportKind, found: usize, expected: usize) -> Result<(), DriveError> {
    if found == expected { Ok(()) } else { Err(DriveError::Length { kind, found, expected }) }
}
