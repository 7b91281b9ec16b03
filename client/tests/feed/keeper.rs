//! A mixture service that keeps barriers and whose failures are scripted.

use crate::fake::Fake;
use futures_util::{Stream, StreamExt, stream};
use mixfeed_proto::{self as v1, DueWhen, ReportKind, mixture_service_server::MixtureService};
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

#[derive(Default)]
pub struct State {
    pub entries: Vec<v1::MixtureEntry>,
    pub attempts: Vec<v1::OpenAttemptRequest>,
    pub evaluate_first: bool,
    /// Reports that were counted.
    pub reports: Vec<v1::ReportRequest>,
    /// Answers to reports that get lost on their way, after they were counted.
    pub lost: usize,
    /// Answer to every report of this kind.
    pub refuse: Option<(ReportKind, v1::ReportResponse)>,
    /// What trainers said of their waits, and the answer to it if it is no OK.
    pub stats: Vec<v1::ReportStatsRequest>,
    pub stats_refusal: Option<Status>,
    /// Where each watch began.
    pub watches: Vec<u64>,
    /// Entries after which each watch ends.
    pub cuts: VecDeque<usize>,
    pub candidates: v1::GetCandidatesResponse,
    /// What happened, trainers' notes among it.
    pub events: Vec<String>,
}

pub struct Keeper {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    /// Step that a stream waits for reports with.
    pub blocked: watch::Sender<Option<u64>>,
}

impl Default for Keeper {
    fn default() -> Self {
        Keeper { state: Mutex::default(), changed: watch::channel(0).0, blocked: watch::channel(None).0 }
    }
}

/// A segment with what is due around it.
pub fn entry(seq: u64, steps: std::ops::Range<u64>, due: &[(DueWhen, ReportKind)]) -> v1::MixtureEntry {
    let due = due.iter().map(|(when, kind)| v1::Due { kind: (*kind).into(), when: (*when).into() });
    v1::MixtureEntry {
        seq,
        from_step: steps.start,
        until_step: steps.end,
        mixture_id: 10 * seq,
        due: due.collect(),
        ..Default::default()
    }
}

/// Segment, mixture, and what is due before and after a step.
#[derive(Default)]
pub struct At {
    pub seq: u64,
    pub mixture_id: u64,
    pub before: Vec<i32>,
    pub after: Vec<i32>,
}

impl State {
    pub fn at(&self, step: u64) -> At {
        let governs = |e: &&v1::MixtureEntry| (e.from_step..e.until_step).contains(&step);
        let Some(entry) = self.entries.iter().rfind(governs) else {
            return At { seq: 1, mixture_id: 11, ..At::default() };
        };
        let mut at = At { seq: entry.seq, mixture_id: entry.mixture_id, ..At::default() };
        for due in &entry.due {
            match due.when() {
                DueWhen::Before if step == entry.from_step => at.before.push(due.kind),
                DueWhen::After if step + 1 == entry.until_step => at.after.push(due.kind),
                DueWhen::EachStep => at.after.push(due.kind),
                DueWhen::Before | DueWhen::After | DueWhen::Unspecified => {}
            }
        }
        at
    }

    /// Whether every report that steps in `from..step` ask for is there.
    fn complete(&self, from: u64, step: u64) -> bool {
        (from..step).all(|step| {
            let at = self.at(step);
            let there = |kind: &i32, completed| {
                let mut reports = self.reports.iter();
                reports.any(|r| (r.segment, r.kind, r.to_step) == (at.seq, *kind, completed))
            };
            at.before.iter().all(|kind| there(kind, step))
                && at.after.iter().all(|kind| there(kind, step + 1))
        })
    }
}

impl Keeper {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while locked")
    }

    pub fn note(&self, event: String) {
        self.state().events.push(event);
    }

    pub fn append(&self, entry: v1::MixtureEntry) {
        self.state().entries.push(entry);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Waits at the barrier before `step` for reports of a stream that began at `from`.
    pub async fn ready(&self, from: u64, step: u64) {
        let mut changed = self.changed.subscribe();
        while !self.state().complete(from, step) {
            self.blocked.send_replace(Some(step));
            changed.changed().await.expect("the keeper lives");
        }
    }

    fn count(&self, report: v1::ReportRequest) -> Result<v1::ReportResponse, Status> {
        let mut state = self.state();
        let attempt = state.attempts.len() as u64;
        if report.attempt != attempt {
            return Err(Status::aborted(format!("attempt {} was superseded by {attempt}", report.attempt)));
        }
        let kind = report.kind();
        if let Some((_, answer)) = state.refuse.as_ref().filter(|(refused, _)| *refused == kind) {
            return Ok(answer.clone());
        }
        let key = |r: &v1::ReportRequest| (r.attempt, r.segment, r.rank, r.kind, r.seq);
        let known = state.reports.iter().find(|r| key(r) == key(&report)).cloned();
        let outcome = match known {
            Some(known) if known == report => v1::ReportOutcome::Duplicate,
            Some(_) => v1::ReportOutcome::Conflict,
            None => {
                let name = kind.as_str_name().trim_start_matches("REPORT_KIND_").to_lowercase();
                let (segment, seq) = (report.segment, report.seq);
                state.events.push(format!("{name} {segment}#{seq} at {}", report.to_step));
                state.reports.push(report);
                v1::ReportOutcome::Accepted
            }
        };
        if state.lost > 0 {
            state.lost -= 1;
            return Err(Status::unavailable("the answer got lost"));
        }
        let version = state.entries.len() as u64;
        Ok(v1::ReportResponse { outcome: outcome.into(), version, ..Default::default() })
    }
}

type Entries = Pin<Box<dyn Stream<Item = Result<v1::WatchMixtureResponse, Status>> + Send>>;

#[tonic::async_trait]
impl MixtureService for Fake {
    type WatchMixtureStream = Entries;

    async fn open_attempt(
        &self,
        request: Request<v1::OpenAttemptRequest>,
    ) -> Result<Response<v1::OpenAttemptResponse>, Status> {
        let mut state = self.keeper.state();
        let request = request.into_inner();
        let later = state.reports.iter().any(|r| r.to_step > request.completed_steps);
        if later && request.resume() == v1::ResumeAttempt::Unspecified {
            return Err(Status::failed_precondition("later steps were reported on"));
        }
        let at = request.completed_steps;
        let governs = |e: &&v1::MixtureEntry| e.from_step <= at && (e.until_step == 0 || at < e.until_step);
        let (segment, mixture_id) =
            state.entries.iter().rfind(governs).map_or((0, 0), |e| (e.seq, e.mixture_id));
        state.attempts.push(request);
        let (attempt, evaluate_first) = (state.attempts.len() as u64, state.evaluate_first);
        Ok(Response::new(v1::OpenAttemptResponse {
            attempt,
            branch: attempt,
            evaluate_first,
            segment,
            mixture_id,
        }))
    }

    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        let answer = self.keeper.count(request.into_inner());
        self.keeper.changed.send_modify(|n| *n += 1);
        answer.map(Response::new)
    }

    async fn report_stats(
        &self,
        request: Request<v1::ReportStatsRequest>,
    ) -> Result<Response<v1::ReportStatsResponse>, Status> {
        let mut state = self.keeper.state();
        state.stats.push(request.into_inner());
        match state.stats_refusal.clone() {
            Some(refusal) => Err(refusal),
            None => Ok(Response::new(v1::ReportStatsResponse {})),
        }
    }

    async fn get_plan(
        &self,
        request: Request<v1::GetPlanRequest>,
    ) -> Result<Response<v1::GetPlanResponse>, Status> {
        let from = request.into_inner().from_step;
        let state = self.keeper.state();
        let segments: Vec<_> = state.entries.iter().filter(|e| e.until_step > from).cloned().collect();
        let planned_until = segments.last().map_or(0, |entry| entry.until_step);
        Ok(Response::new(v1::GetPlanResponse { segments, planned_until }))
    }

    async fn watch_mixture(
        &self,
        request: Request<v1::WatchMixtureRequest>,
    ) -> Result<Response<Entries>, Status> {
        let from = request.into_inner().from_seq;
        let mut state = self.keeper.state();
        state.watches.push(from);
        let most = state.cuts.pop_front().unwrap_or(usize::MAX);
        let keeper = Arc::clone(&self.keeper);
        let entries = stream::unfold((keeper, from), |(keeper, seq)| async move {
            let mut changed = keeper.changed.subscribe();
            loop {
                let entry = keeper.state().entries.iter().find(|e| e.seq == seq).cloned();
                if let Some(entry) = entry {
                    return Some((Ok(v1::WatchMixtureResponse { entry: Some(entry) }), (keeper, seq + 1)));
                }
                changed.changed().await.expect("the keeper lives");
            }
        });
        Ok(Response::new(Box::pin(entries.take(most))))
    }

    async fn set_weights(
        &self,
        request: Request<v1::SetWeightsRequest>,
    ) -> Result<Response<v1::SetWeightsResponse>, Status> {
        let request = request.into_inner();
        let version = self.keeper.state().entries.len() as u64;
        if request.expected_version != 0 && request.expected_version != version {
            return Err(Status::aborted(format!("the log is at {version}")));
        }
        let weights = request.weights.iter().map(|w| (w * 2f64.powi(32)) as u64).collect();
        let author = format!("operator:{}", request.operator);
        let entry = v1::MixtureEntry { weights, author, ..entry(version + 1, 0..0, &[]) };
        self.keeper.append(entry.clone());
        if self.keeper.state().lost > 0 {
            self.keeper.state().lost -= 1;
            return Err(Status::unavailable("the answer got lost"));
        }
        Ok(Response::new(v1::SetWeightsResponse { entry: Some(entry), pending: false }))
    }

    async fn get_mixture(
        &self,
        _: Request<v1::GetMixtureRequest>,
    ) -> Result<Response<v1::GetMixtureResponse>, Status> {
        let state = self.keeper.state();
        let (version, attempt) = (state.entries.len() as u64, state.attempts.len() as u64);
        let entry = state.entries.last().cloned();
        Ok(Response::new(v1::GetMixtureResponse { entry, version, attempt, ..Default::default() }))
    }

    /// Three entries per page.
    async fn get_mixture_log(
        &self,
        request: Request<v1::GetMixtureLogRequest>,
    ) -> Result<Response<v1::GetMixtureLogResponse>, Status> {
        let from = request.into_inner().from_seq;
        let state = self.keeper.state();
        let entries: Vec<_> = state.entries.iter().filter(|e| e.seq >= from).take(3).cloned().collect();
        let last = entries.last().map_or(0, |entry| entry.seq);
        let next_seq = if last < state.entries.len() as u64 { last + 1 } else { 0 };
        Ok(Response::new(v1::GetMixtureLogResponse { entries, next_seq }))
    }

    async fn get_accounting(
        &self,
        request: Request<v1::GetAccountingRequest>,
    ) -> Result<Response<v1::GetAccountingResponse>, Status> {
        let until_step = request.into_inner().until_step;
        Ok(Response::new(v1::GetAccountingResponse { until_step, ..Default::default() }))
    }

    async fn get_candidates(
        &self,
        _: Request<v1::GetCandidatesRequest>,
    ) -> Result<Response<v1::GetCandidatesResponse>, Status> {
        Ok(Response::new(self.keeper.state().candidates.clone()))
    }

    async fn list_estimators(
        &self,
        _: Request<v1::ListEstimatorsRequest>,
    ) -> Result<Response<v1::ListEstimatorsResponse>, Status> {
        let estimators = vec![v1::EstimatorInfo { name: "aioli".into(), ..Default::default() }];
        Ok(Response::new(v1::ListEstimatorsResponse { estimators }))
    }
}
