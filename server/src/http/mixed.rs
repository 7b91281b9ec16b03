//! How the mixture of a job stands and went, from its log; kept for a few seconds.

use super::page::{Group, Mixture};
use crate::job::Job;
use crate::keeper::{Account, KeeperError, Stretch, stretches};
use crate::mixture::ONE;
use crate::picture::{History, Plot, status};
use mixfeed_proto as v1;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Points of a group's plot.
const PARTS: u64 = 40;
/// How long an answer holds, at least; one that took long holds longer.
const FRESH: Duration = Duration::from_secs(4);
const SPARED: u32 = 20;
/// How long a look waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// Answers that are kept.
const KEPT: usize = 64;
/// Looks at logs at a time.
const AT_A_TIME: usize = 2;
/// Plots at a time: they read whole logs, and must not stand in the way of looks.
const PLOTS: usize = 1;

/// See the module.
#[derive(Debug)]
pub(super) struct Mixtures {
    kept: Arc<Mutex<BTreeMap<String, Kept>>>,
    few: Arc<Semaphore>,
    plots: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
struct Kept {
    until: Instant,
    digest: [u8; 32],
    mixture: Mixture,
}

impl Default for Mixtures {
    fn default() -> Self {
        let semaphore = |n| Arc::new(Semaphore::new(n));
        Mixtures { kept: Arc::default(), few: semaphore(AT_A_TIME), plots: semaphore(PLOTS) }
    }
}

impl Mixtures {
    /// The mixture of a job, or why it cannot be told.
    pub async fn of(&self, job: &Arc<Job>) -> Result<Mixture, String> {
        let kept = lock(&self.kept).get(&job.name).cloned();
        if let Some(kept) = kept.filter(|kept| kept.digest == job.digest && Instant::now() < kept.until) {
            return Ok(kept.mixture);
        }
        let kept = self.kept.clone();
        spared(&self.few, job, move |job| {
            let start = Instant::now();
            let mixture = mixture(job)?;
            let until = Instant::now() + (start.elapsed() * SPARED).max(FRESH);
            let mut all = lock(&kept);
            if all.len() >= KEPT {
                let now = Instant::now();
                all.retain(|_, kept| now < kept.until);
            }
            if all.len() < KEPT {
                all.insert(job.name.clone(), Kept { until, digest: job.digest, mixture: mixture.clone() });
            }
            Ok(mixture)
        })
        .await
    }

    /// Its plot as SVG.
    pub async fn plot(&self, job: &Arc<Job>) -> Result<String, String> {
        spared(&self.plots, job, |job| Ok(plot(job)?.svg())).await
    }
}

/// Runs `look` where it may block, as many at a time as `few` has permits; not waited for longer than [`PATIENCE`].
async fn spared<T: Send + 'static>(
    few: &Arc<Semaphore>,
    job: &Arc<Job>,
    look: impl FnOnce(&Job) -> Result<T, KeeperError> + Send + 'static,
) -> Result<T, String> {
    let (few, job) = (few.clone(), job.clone());
    let looked = async {
        let permit = few.acquire_owned().await.expect("never closed");
        let looking = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            look(&job)
        });
        looking.await.map_err(|lost| lost.to_string())?.map_err(|error| error.to_string())
    };
    let late = |_| "its log takes longer than a few seconds to read; look again".to_owned();
    tokio::time::timeout(PATIENCE, looked).await.unwrap_or_else(|out| Err(late(out)))
}

/// What is in force and what was served, as far as pages show it. Waits for the keeper's lock.
fn mixture(job: &Job) -> Result<Mixture, KeeperError> {
    let keeper = &job.keeper;
    let (view, horizon) = (keeper.view(), keeper.horizon());
    let (entries, attempt, losses) =
        keeper.with(|course| (course.entries().to_vec(), course.attempt(), course.losses().to_vec()))?;
    let (state, sequence) = (keeper.status(), &view.sequence);
    let by_tokens = job.feed.tokens().is_some_and(|tokens| tokens.ragged());
    let covered = sequence.covered().unwrap_or(u64::MAX);
    let end = sequence.end_by(horizon).map_or(u64::MAX, |end| end.steps);
    let until = horizon.min(covered).min(end);
    // Rows that cost tokens are walked to, so they are looked at once.
    let parts = if by_tokens { 1 } else { PARTS };
    let track = stretches(&entries, sequence, until, parts);
    let now = sequence.entry(horizon.min(covered.saturating_sub(1)));
    let shares = now.map_or(&[][..], |entry| entry.weights.shares());
    let rules = keeper.rules();
    let groups: Vec<Group> = (0..job.feed.groups.len())
        .map(|g| {
            let name = job.feed.groups[g].name.clone();
            let task = rules.tasks.iter().position(|task| *task == name);
            let loss = task.and_then(|task| losses.get(task)).copied().filter(|loss| loss.is_finite());
            let now = shares.get(g).map_or(0.0, |share| *share as f64 / ONE as f64);
            group(job, g, &track, Group { name, now, loss, ..Group::default() }, by_tokens)
        })
        .collect();
    let reports = keeper.outcomes().iter().map(|count| (outcome(count), count.reports)).collect();
    Ok(Mixture {
        status: status(state),
        estimator: rules.learner.as_ref().map(|learner| learner.name.clone()).unwrap_or_default(),
        version: view.version,
        horizon,
        attempt,
        rows: track.iter().flat_map(|stretch| &stretch.rows).sum(),
        by_tokens,
        groups,
        reports,
    })
}

/// Shares of group `g` in every stretch and in all.
fn group(job: &Job, g: usize, track: &[Stretch], known: Group, by_tokens: bool) -> Group {
    let all: u64 = track.iter().flat_map(|stretch| &stretch.rows).sum();
    let rows: u64 = track.iter().map(|stretch| stretch.rows[g]).sum();
    let steps: u64 = track.iter().map(|stretch| stretch.steps).sum();
    let asked: f64 = track.iter().map(|stretch| stretch.asked[g] * stretch.steps as f64).sum();
    let share = |rows: u64, all: u64| (all > 0 && !by_tokens).then(|| rows as f64 / all as f64);
    let at = |stretch: &Stretch| (stretch.asked[g], share(stretch.rows[g], stretch.rows.iter().sum()));
    Group {
        asked: if steps > 0 { asked / steps as f64 } else { known.now },
        served: share(rows, all),
        epochs: rows as f64 / job.feed.groups[g].len().max(1) as f64,
        track: track.iter().map(at).collect(),
        ..known
    }
}

/// "accepted", "rejected (not_finite)".
fn outcome(count: &v1::OutcomeCount) -> String {
    let outcome = count.outcome().as_str_name().trim_start_matches("REPORT_OUTCOME_").to_lowercase();
    let reason = count.reason();
    if reason == v1::ReportReason::Unspecified {
        return outcome;
    }
    format!("{outcome} ({})", reason.as_str_name().trim_start_matches("REPORT_REASON_").to_lowercase())
}

/// Weights, losses and realised shares over all steps, as `mixfeed mixture --plot` draws them.
fn plot(job: &Job) -> Result<Plot, KeeperError> {
    let keeper = &job.keeper;
    let (view, horizon) = (keeper.view(), keeper.horizon());
    let (entries, attempt) = keeper.with(|course| (course.entries().to_vec(), course.attempt()))?;
    let rules = keeper.rules();
    let mixture = |m: crate::keeper::MixtureAccount| v1::MixtureAccount {
        mixture_id: m.mixture_id,
        from_step: m.from,
        steps: m.steps,
        rows: m.rows,
    };
    // Rows that cost tokens are walked to: what was served of them is not drawn.
    let mixtures = match job.feed.tokens().is_some_and(|tokens| tokens.ragged()) {
        true => Vec::new(),
        false => Account::new(&entries, &view.sequence, horizon).mixtures.into_iter().map(mixture).collect(),
    };
    let info = v1::JobInfo { job: job.name.clone(), spec: Some(job.spec.clone()), ..Default::default() };
    let stands = v1::GetMixtureResponse {
        horizon,
        version: entries.len() as u64,
        status: keeper.status().into(),
        attempt,
        groups: rules.groups.clone(),
        tasks: rules.tasks.clone(),
        ..Default::default()
    };
    let served = v1::GetAccountingResponse { until_step: horizon, groups: Vec::new(), mixtures };
    Ok(History::new(&entries).plot(&info, &stands, &served))
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
