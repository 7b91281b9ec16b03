//! Fits to finished runs: from a table of mixtures and final losses to the mixture that should do best. Pure functions.

pub mod dml;
pub mod regmix;
#[cfg(test)]
mod tests;

/// Finished runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Runs {
    /// Shares of each run, a list of one per group, >= 0, summing to 1.
    pub mixtures: Vec<Vec<f64>>,
    /// Final held-out losses of each run in nats, one per task; NaN where there is none.
    pub losses: Vec<Vec<f64>>,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Aim {
    /// Weight of each task, >= 0, summing to 1.
    pub objective: Vec<f64>,
    /// Largest share of each group.
    pub caps: Vec<f64>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Shares with the lowest predicted objective.
    pub shares: Vec<f64>,
    /// Predicted objective there: weighted mean loss.
    pub predicted: f64,
    /// The lowest objective among the runs that have every weighted loss; NaN when none has.
    pub best_run: f64,
}

/// Runs that no fit can be made from.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum FitError {
    /// Not enough runs for the unknowns.
    #[error("task {task} has {found} runs with a loss, want at least {want}")]
    Few {
        /// Task, from 0; for the objective the number of tasks.
        task: usize,
        /// Runs.
        found: usize,
        /// Least number.
        want: usize,
    },
    /// The mixtures do not tell all groups apart: only contrasts of groups can be known, and these not all.
    #[error("the mixtures vary in {found} directions, want {want} to tell all groups apart")]
    Directions {
        /// Directions in which they vary.
        found: usize,
        /// Groups less one.
        want: usize,
    },
    /// Caps leave no mixture.
    #[error("the largest shares sum to {sum:.4}, want at least 1")]
    Caps {
        /// Sum of the caps.
        sum: f64,
    },
    /// Numbers that are no losses or mixtures, or lists of other lengths.
    #[error("{0}")]
    Table(String),
}

impl Runs {
    /// Groups.
    pub fn groups(&self) -> usize {
        self.mixtures.first().map_or(0, Vec::len)
    }

    /// Tasks.
    pub fn tasks(&self) -> usize {
        self.losses.first().map_or(0, Vec::len)
    }

    /// The runs that have a loss of `task`, with their losses.
    fn with_loss(&self, task: usize) -> (Vec<&[f64]>, Vec<f64>) {
        let rows = self.mixtures.iter().zip(&self.losses).filter(|(_, l)| l[task].is_finite());
        rows.map(|(w, l)| (&w[..], l[task])).unzip()
    }

    /// The runs that have every loss that `objective` weighs, with their weighted means.
    fn with_objective(&self, objective: &[f64]) -> (Vec<Vec<f64>>, Vec<f64>) {
        let value = |losses: &[f64]| {
            let weighed = losses.iter().zip(objective).filter(|(_, q)| **q > 0.0);
            weighed.map(|(l, q)| l * q).sum::<f64>()
        };
        let rows = self.mixtures.iter().zip(&self.losses).map(|(w, l)| (w.clone(), value(l)));
        rows.filter(|(_, v)| v.is_finite()).unzip()
    }

    fn best_run(&self, objective: &[f64]) -> f64 {
        self.with_objective(objective).1.into_iter().fold(f64::NAN, f64::min)
    }

    /// Checks shapes and numbers against an aim.
    fn check(&self, aim: &Aim) -> Result<(), FitError> {
        let (m, n) = (self.groups(), self.tasks());
        let wrong = |text: &str| Err(FitError::Table(text.to_owned()));
        if m == 0 || n == 0 || self.mixtures.len() != self.losses.len() {
            return wrong("want at least one run, one group and one task, and losses for each run");
        }
        if self.mixtures.iter().any(|w| w.len() != m) || self.losses.iter().any(|l| l.len() != n) {
            return wrong("every run wants the same groups and tasks");
        }
        if aim.objective.len() != n || aim.caps.len() != m {
            return wrong("the objective wants one weight per task, and caps one share per group");
        }
        let share = |w: &f64| w.is_finite() && *w >= 0.0;
        let mixed = |w: &Vec<f64>| w.iter().all(share) && (w.iter().sum::<f64>() - 1.0).abs() < 1e-6;
        if !self.mixtures.iter().all(mixed) {
            return wrong("every mixture wants shares >= 0 that sum to 1");
        }
        if self.losses.iter().flatten().any(|l| l.is_infinite() || *l <= 0.0) {
            return wrong("losses must be above 0");
        }
        if !aim.objective.iter().all(share) || aim.objective.iter().sum::<f64>() <= 0.0 {
            return wrong("weights of tasks must be >= 0, and not all 0");
        }
        let sum: f64 = aim.caps.iter().sum();
        if aim.caps.iter().any(|c| c.is_nan() || *c < 0.0) || sum < 1.0 - 1e-9 {
            return Err(FitError::Caps { sum });
        }
        Ok(())
    }

    /// In how many directions the mixtures of these runs differ, by elimination.
    fn directions(mixtures: &[&[f64]]) -> usize {
        let Some(first) = mixtures.first() else { return 0 };
        let mut rows: Vec<Vec<f64>> =
            mixtures[1..].iter().map(|w| w.iter().zip(*first).map(|(a, b)| a - b).collect()).collect();
        let size = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>();
        let mut found = 0;
        while let Some(largest) = (0..rows.len()).max_by(|a, b| size(&rows[*a]).total_cmp(&size(&rows[*b]))) {
            let pivot = rows.swap_remove(largest);
            let square = size(&pivot);
            if square < 1e-12 {
                break;
            }
            found += 1;
            for row in &mut rows {
                let part = row.iter().zip(&pivot).map(|(a, b)| a * b).sum::<f64>() / square;
                row.iter_mut().zip(&pivot).for_each(|(a, b)| *a -= part * b);
            }
        }
        found
    }
}
