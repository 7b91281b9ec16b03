//! What a trainer brings to a [`Driver`](super::Driver).

use crate::Batch;

/// What a trainer's own code fails with.
pub type TrainerError = Box<dyn std::error::Error + Send + Sync>;

/// A sum of losses and what is behind it. Sums, not means: those of several ranks or batches add up exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSum {
    /// Sum of losses in nats.
    pub sum: f64,
    /// Tokens (or samples) behind it, >= 0.
    pub count: f64,
}

impl LossSum {
    /// Adds another sum; the driver does so in the order of steps and batches, so that the same run gives the same bits.
    pub fn add(&mut self, other: LossSum) {
        self.sum += other.sum;
        self.count += other.count;
    }
}

/// What one optimizer step saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepReport {
    /// Training loss per group of the job, for reports TRAIN. Empty when it was not measured; a report that needs it is
    /// an error then.
    pub losses: Vec<LossSum>,
    /// Sum over tokens of max(loss - reference loss, 0) per group, for reports EXCESS (DoReMi). As above.
    pub excess: Vec<LossSum>,
    /// Learning rate of the step, for reports DOTS; 0 when not told.
    pub lr: f64,
    /// The update was skipped (overflow of fp16): the weights are what they were.
    pub skipped: bool,
}

/// A held-out set whose loss counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalTask {
    /// Index among the job's tasks.
    pub index: usize,
    /// "SOURCE/GROUP".
    pub group: String,
    /// Rows of the whole set.
    pub rows: u64,
}

/// When and about what something is measured.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// Steps whose updates are in the weights.
    pub completed: u64,
    /// The batch of the step that is about to be taken, or was.
    pub batch: &'a Batch,
    /// Groups of the job in order.
    pub groups: &'a [String],
    /// Tasks of the objective in order.
    pub tasks: &'a [EvalTask],
}

/// Inner products of gradients (DoGE).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dots {
    /// Inner product of each group's gradient with the objective's held-out gradient.
    pub dots: Vec<f64>,
    /// Mean norm of the groups' gradients.
    pub mean_norm: f64,
    /// Learning rate.
    pub lr: f64,
}

/// Sizes of gradients (PiKE).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GradientStats {
    /// Squared norm of each group's gradient, unbiased.
    pub norms: Vec<f64>,
    /// Variance of each group's gradients per sample.
    pub variances: Vec<f64>,
}

/// Influence of groups on tasks (TiKMiX).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Influence {
    /// (tasks, groups) row-major; positive is helpful.
    pub matrix: Vec<f64>,
    /// Tokens behind it.
    pub tokens: f64,
}

/// A linear sketch of one preconditioned gradient.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sketch {
    /// Index of the task (held-out) or of the group.
    pub owner: u32,
    /// Whether it is the held-out gradient of a task.
    pub held_out: bool,
    /// At most 16384 numbers.
    pub values: Vec<f64>,
}

/// A training loop, inside out. Every method may take as long as it likes: the driver calls them on threads that may
/// block, one at a time, never two at once.
///
/// What [`evaluate`](Trainer::evaluate) must hold to for the numbers to mean something: dropout off, the precision of
/// training, no update of any weight, sums in f64.
pub trait Trainer: Send + 'static {
    /// Takes one optimizer step on a batch. The whole batch belongs to one segment: accumulation of gradients over
    /// several calls would mix segments.
    ///
    /// # Errors
    /// The trainer's own; the run ends with them, before anything is reported about the step.
    fn train(&mut self, batch: &Batch) -> Result<StepReport, TrainerError>;

    /// Loss of the weights as they are on one batch of a held-out set. Batches of a set come in the same order each
    /// time; the driver adds their sums up in it. It also asks once before it asks for anything that is measured against
    /// held-out sets (dots, influence, sketches, candidates), so that a trainer may keep their rows.
    ///
    /// # Errors
    /// The trainer's own; the run ends with them.
    fn evaluate(&mut self, task: &EvalTask, batch: &Batch) -> Result<LossSum, TrainerError>;

    /// Inner products of gradients; `None`, the default, when this trainer has none.
    ///
    /// # Errors
    /// The trainer's own.
    fn dots(&mut self, _: &Moment<'_>) -> Result<Option<Dots>, TrainerError> {
        Ok(None)
    }

    /// Norms and variances of gradients.
    ///
    /// # Errors
    /// The trainer's own.
    fn gradients(&mut self, _: &Moment<'_>) -> Result<Option<GradientStats>, TrainerError> {
        Ok(None)
    }

    /// Influence of groups on tasks.
    ///
    /// # Errors
    /// The trainer's own.
    fn influence(&mut self, _: &Moment<'_>) -> Result<Option<Influence>, TrainerError> {
        Ok(None)
    }

    /// Sketches of gradients: one per group and one per task.
    ///
    /// # Errors
    /// The trainer's own.
    fn sketches(&mut self, _: &Moment<'_>) -> Result<Option<Vec<Sketch>>, TrainerError> {
        Ok(None)
    }

    /// Aggregate influence measured for each of `mixtures`, shares per group, in order.
    ///
    /// # Errors
    /// The trainer's own.
    fn candidates(
        &mut self,
        _: &Moment<'_>,
        _mixtures: &[Vec<f64>],
    ) -> Result<Option<Vec<f64>>, TrainerError> {
        Ok(None)
    }
}
