//! `MixtureService`: thin; the keeper of the job decides.

use super::{Shared, code_name, gate, status};
use crate::auth::Caller;
use crate::job::Job;
use crate::keeper::{Account, Course, Keeper, KeeperError};
use crate::mixture::Weights;
use crate::{metrics, wire};
use mixfeed_proto as v1;
use std::{pin::Pin, sync::Arc};
use tonic::{Request, Response, Status};

/// Entries of a page when the caller does not say, and at most.
const PAGE: (usize, usize) = (100, 1_000);
/// Bytes of a page.
const PAGE_BYTES: usize = 1 << 20;
/// Characters of an operator's name and note.
const MAX_NAME: usize = 64;
const MAX_NOTE: usize = 1_000;

/// The service.
#[derive(Clone, Debug)]
pub struct Mixture(pub Arc<Shared>);

type Entries = Pin<Box<dyn futures_util::Stream<Item = Result<v1::WatchMixtureResponse, Status>> + Send>>;

/// Counts an answer.
fn answer<T>(method: &'static str, result: Result<T, Status>) -> Result<Response<T>, Status> {
    let code = result.as_ref().err().map_or(tonic::Code::Ok, Status::code);
    metrics::request(method, code_name(code));
    result.map(Response::new)
}

impl Mixture {
    fn job(&self, caller: &Caller, name: &str) -> Result<Arc<Job>, Status> {
        gate::job(&self.0, caller, name)
    }

    async fn open(
        &self,
        caller: &Caller,
        request: v1::OpenAttemptRequest,
    ) -> Result<v1::OpenAttemptResponse, Status> {
        let job = self.job(caller, &request.job)?;
        let resume = v1::ResumeAttempt::try_from(request.resume);
        let resume =
            resume.map_err(|_| status::invalid_field("resume", "is not known, want rewind or replay"))?;
        let keeper = &job.keeper;
        let opened = keeper.open_attempt(request.completed_steps, request.branch, resume).await;
        let opened = opened.map_err(|e| status::of_keeper(&e))?;
        let (segment, mixture_id) = opened.evaluate.unwrap_or_default();
        let (attempt, branch) = (opened.attempt, opened.branch);
        tracing::info!(
            job = job.name,
            attempt,
            branch,
            completed = request.completed_steps,
            "attempt opened"
        );
        Ok(v1::OpenAttemptResponse {
            attempt,
            branch,
            evaluate_first: opened.evaluate.is_some(),
            segment,
            mixture_id,
        })
    }

    async fn take(&self, caller: &Caller, request: v1::ReportRequest) -> Result<v1::ReportResponse, Status> {
        let job = self.job(caller, &request.job)?;
        let taken = job.keeper.report(request).await;
        let (answer, version, segment_complete) = taken.map_err(|e| status::of_keeper(&e))?;
        Ok(v1::ReportResponse {
            outcome: answer.outcome.into(),
            reason: answer.reason.into(),
            message: answer.message,
            version,
            segment_complete,
        })
    }

    async fn set(
        &self,
        caller: &Caller,
        request: v1::SetWeightsRequest,
    ) -> Result<v1::SetWeightsResponse, Status> {
        let job = self.job(caller, &request.job)?;
        let groups = job.feed.groups.len();
        if request.weights.len() != groups {
            let why = format!("are {}, want one per group ({groups})", request.weights.len());
            return Err(status::invalid_field("weights", why));
        }
        let weights = Weights::normalise(&request.weights);
        let weights = weights.map_err(|e| status::invalid_field("weights", e.to_string()))?;
        let printable = |text: &str| text.chars().all(|c| !c.is_control());
        let name = &request.operator;
        if !(1..=MAX_NAME).contains(&name.chars().count()) || !printable(name) {
            return Err(status::invalid_field("operator", "want 1 to 64 printable characters"));
        }
        if request.note.chars().count() > MAX_NOTE || !printable(&request.note) {
            return Err(status::invalid_field("note", "want at most 1000 printable characters"));
        }
        let author = format!("operator:{name}");
        let (step, expected) = (request.from_step, request.expected_version);
        let set = job.keeper.set_weights(weights, step, expected, author, request.note).await;
        let entry = set.map_err(|e| status::of_keeper(&e))?;
        let (from, pending) = (entry.as_ref().map(|e| e.from_step), entry.is_none());
        tracing::info!(job = job.name, operator = request.operator, from, pending, "weights set");
        Ok(v1::SetWeightsResponse { entry, pending })
    }

    async fn mixture(&self, caller: &Caller, name: &str) -> Result<v1::GetMixtureResponse, Status> {
        let job = self.job(caller, name)?;
        let keeper = job.keeper.clone();
        let read = move |course: &Course| {
            let (view, horizon) = (keeper.view(), keeper.horizon());
            // At a barrier the horizon stands where nothing is planned yet.
            let at =
                view.sequence.covered().map_or(horizon, |covered| horizon.min(covered.saturating_sub(1)));
            let seq = view.sequence.entry(at).map(|e| e.seq);
            let rules = keeper.rules();
            v1::GetMixtureResponse {
                entry: seq.and_then(|seq| course.entry(seq)).cloned(),
                horizon,
                version: course.entries().len() as u64,
                status: keeper.status().into(),
                attempt: course.attempt(),
                reports: Vec::new(),
                shadows: course.shadows(),
                groups: rules.groups.clone(),
                losses: course.losses().to_vec(),
                tasks: rules.tasks.clone(),
            }
        };
        let response = read_of(&job, read).await?;
        let counted = job.keeper.clone();
        let reports = tokio::task::spawn_blocking(move || counted.outcomes()).await;
        let reports = reports.map_err(|lost| Status::internal(lost.to_string()))?;
        Ok(v1::GetMixtureResponse { reports, ..response })
    }

    async fn log(
        &self,
        caller: &Caller,
        request: v1::GetMixtureLogRequest,
    ) -> Result<v1::GetMixtureLogResponse, Status> {
        let job = self.job(caller, &request.job)?;
        let most = match request.page_size as usize {
            0 => PAGE.0,
            asked => asked.min(PAGE.1),
        };
        let page = move |course: &Course| {
            let all = course.entries();
            let from = (request.from_seq.max(1) - 1).min(all.len() as u64) as usize;
            let mut bytes = 0;
            let fits = |e: &&v1::MixtureEntry| {
                bytes += prost::Message::encoded_len(*e) + 8;
                bytes <= PAGE_BYTES
            };
            let entries: Vec<_> = all[from..].iter().take(most).take_while(fits).cloned().collect();
            let next = from + entries.len();
            let next_seq = if next < all.len() { next as u64 + 1 } else { 0 };
            v1::GetMixtureLogResponse { entries, next_seq }
        };
        read_of(&job, page).await
    }

    async fn plan(
        &self,
        caller: &Caller,
        request: v1::GetPlanRequest,
    ) -> Result<v1::GetPlanResponse, Status> {
        let job = self.job(caller, &request.job)?;
        let covered = job.keeper.view().sequence.covered();
        let from = request.from_step;
        let segments =
            read_of(&job, move |course: &Course| course.plan_from(from, PAGE.1, PAGE_BYTES)).await?;
        Ok(v1::GetPlanResponse { segments, planned_until: covered.unwrap_or(0) })
    }

    async fn candidates(&self, caller: &Caller, name: &str) -> Result<v1::GetCandidatesResponse, Status> {
        let (segment, all) =
            read_of(&*self.job(caller, name)?, Course::candidates).await?.unwrap_or_default();
        let candidates = all.into_iter().map(|values| v1::Vector { values }).collect();
        Ok(v1::GetCandidatesResponse { segment, candidates })
    }

    async fn account(
        &self,
        caller: &Caller,
        request: v1::GetAccountingRequest,
    ) -> Result<v1::GetAccountingResponse, Status> {
        let job = self.job(caller, &request.job)?;
        // Counting the tokens of half an epoch looks at each of its rows.
        let account = tokio::task::spawn_blocking(move || accounting(&job, request.until_step)).await;
        account.map_err(|lost| Status::internal(lost.to_string()))?.map_err(|e| status::of_keeper(&e))
    }
}

/// Reads a job's course.
async fn read_of<T: Send + 'static>(
    job: &Job,
    read: impl FnOnce(&Course) -> T + Send + 'static,
) -> Result<T, Status> {
    job.keeper.read(read).await.map_err(|e| status::of_keeper(&e))
}

fn accounting(job: &Job, until: u64) -> Result<v1::GetAccountingResponse, KeeperError> {
    let keeper: &Keeper = &job.keeper;
    let until = if until == 0 { keeper.horizon() } else { until.min(keeper.horizon()) };
    let sequence = keeper.view().sequence.clone();
    // Outside of the lock: counting takes a while, and a job must not wait for it.
    let entries = keeper.with(|course| course.entries().to_vec())?;
    let Account { groups, mixtures } = Account::new(&entries, &sequence, until);
    let group = |(i, account): (usize, &crate::keeper::GroupAccount)| {
        let group = &job.feed.groups[i];
        v1::GroupAccount {
            group: group.name.clone(),
            rows: account.rows,
            tokens: job.feed.tokens_served(i, account.rows),
            epochs: account.rows as f64 / group.len() as f64,
            share_wanted: account.wanted,
            share_served: account.served,
        }
    };
    let mixture = |m: crate::keeper::MixtureAccount| v1::MixtureAccount {
        mixture_id: m.mixture_id,
        from_step: m.from,
        steps: m.steps,
        rows: m.rows,
    };
    Ok(v1::GetAccountingResponse {
        until_step: until,
        groups: groups.iter().enumerate().map(group).collect(),
        mixtures: mixtures.into_iter().map(mixture).collect(),
    })
}

#[tonic::async_trait]
impl v1::mixture_service_server::MixtureService for Mixture {
    async fn open_attempt(
        &self,
        request: Request<v1::OpenAttemptRequest>,
    ) -> Result<Response<v1::OpenAttemptResponse>, Status> {
        let caller = gate::caller(&request)?;
        answer("OpenAttempt", self.open(&caller, request.into_inner()).await)
    }

    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        let caller = gate::caller(&request)?;
        answer("Report", self.take(&caller, request.into_inner()).await)
    }

    async fn report_stats(
        &self,
        request: Request<v1::ReportStatsRequest>,
    ) -> Result<Response<v1::ReportStatsResponse>, Status> {
        let caller = gate::caller(&request)?;
        answer("ReportStats", super::stats::take(&self.0, &caller, &request.into_inner()))
    }

    async fn get_plan(
        &self,
        request: Request<v1::GetPlanRequest>,
    ) -> Result<Response<v1::GetPlanResponse>, Status> {
        let caller = gate::caller(&request)?;
        answer("GetPlan", self.plan(&caller, request.into_inner()).await)
    }

    type WatchMixtureStream = Entries;
    async fn watch_mixture(
        &self,
        request: Request<v1::WatchMixtureRequest>,
    ) -> Result<Response<Entries>, Status> {
        let caller = gate::caller(&request)?;
        let v1::WatchMixtureRequest { job, from_seq } = request.into_inner();
        let watch = || {
            let job = self.job(&caller, &job)?;
            let hold = caller.stream(0, 0).map_err(|denial| status::of_denial(&denial))?;
            let revoked = gate::revoked(&self.0, &caller, &job.name);
            Ok(super::watching::entries(job, from_seq, self.0.draining.clone(), revoked, hold))
        };
        answer("WatchMixture", watch())
    }

    async fn set_weights(
        &self,
        request: Request<v1::SetWeightsRequest>,
    ) -> Result<Response<v1::SetWeightsResponse>, Status> {
        let caller = gate::caller(&request)?;
        answer("SetWeights", self.set(&caller, request.into_inner()).await)
    }

    async fn get_mixture(
        &self,
        request: Request<v1::GetMixtureRequest>,
    ) -> Result<Response<v1::GetMixtureResponse>, Status> {
        let caller = gate::caller(&request)?;
        answer("GetMixture", self.mixture(&caller, &request.into_inner().job).await)
    }

    async fn get_mixture_log(
        &self,
        request: Request<v1::GetMixtureLogRequest>,
    ) -> Result<Response<v1::GetMixtureLogResponse>, Status> {
        let caller = gate::caller(&request)?;
        answer("GetMixtureLog", self.log(&caller, request.into_inner()).await)
    }

    async fn get_accounting(
        &self,
        request: Request<v1::GetAccountingRequest>,
    ) -> Result<Response<v1::GetAccountingResponse>, Status> {
        let caller = gate::caller(&request)?;
        answer("GetAccounting", self.account(&caller, request.into_inner()).await)
    }

    async fn get_candidates(
        &self,
        request: Request<v1::GetCandidatesRequest>,
    ) -> Result<Response<v1::GetCandidatesResponse>, Status> {
        let caller = gate::caller(&request)?;
        answer("GetCandidates", self.candidates(&caller, &request.into_inner().job).await)
    }

    async fn list_estimators(
        &self,
        _: Request<v1::ListEstimatorsRequest>,
    ) -> Result<Response<v1::ListEstimatorsResponse>, Status> {
        answer("ListEstimators", Ok(v1::ListEstimatorsResponse { estimators: wire::estimators() }))
    }
}
