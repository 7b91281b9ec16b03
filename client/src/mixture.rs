//! Calls of the mixture service, on the control connection: a trainer that stops reading batches can still report.

use crate::{
    Client, Error, Watch,
    client::{Inner, Known, feed},
    learn::{
        EstimatorInfo, GetAccountingResponse, GetCandidatesResponse, GetMixtureResponse, GetPlanResponse,
        MixtureEntry, OpenAttemptResponse, ReportReason, ReportRequest, ResumeAttempt, SetWeightsResponse,
    },
};
use mixfeed_proto as v1;
use prost::Message;
use std::{fmt, sync::Arc};

/// Entries per page of the log.
const PAGE: u32 = 1000;

macro_rules! learn {
    ($call:literal) => {
        concat!("/mixfeed.v1.MixtureService/", $call)
    };
}
pub(crate) use learn;

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Counted.
    Accepted,
    /// Already counted: its first answer was lost.
    Duplicate,
    /// About a segment that is closed: not counted.
    Stale,
    /// Another report with the same key was counted before.
    Conflict,
    /// Refused; nothing changed.
    Rejected(ReportReason),
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Accepted => out.write_str("accepted"),
            Outcome::Duplicate => out.write_str("duplicate"),
            Outcome::Stale => out.write_str("stale"),
            Outcome::Conflict => out.write_str("conflict"),
            Outcome::Rejected(reason) => {
                let name = reason.as_str_name().trim_start_matches("REPORT_REASON_");
                write!(out, "rejected ({})", name.to_lowercase())
            }
        }
    }
}

/// The server's answer to a report. None of them is an error of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What became of it.
    pub outcome: Outcome,
    /// The same for people, may be empty.
    pub message: String,
    /// Last sequence number of the log after the report.
    pub version: u64,
    /// Whether its segment now has every report that it was waiting for.
    pub segment_complete: bool,
}

impl Answer {
    /// Whether the numbers are part of what is learnt from.
    pub fn counted(&self) -> bool {
        matches!(self.outcome, Outcome::Accepted | Outcome::Duplicate)
    }

    fn from_wire(response: v1::ReportResponse) -> Result<Self, Error> {
        let unknown = |field: &str, value: i32| {
            Error::Protocol(format!(
                "answer of `Report` has `{field}` {value}, which this client does not know"
            ))
        };
        let reason =
            ReportReason::try_from(response.reason).map_err(|_| unknown("reason", response.reason))?;
        let outcome = match v1::ReportOutcome::try_from(response.outcome) {
            Ok(v1::ReportOutcome::Accepted) => Outcome::Accepted,
            Ok(v1::ReportOutcome::Duplicate) => Outcome::Duplicate,
            Ok(v1::ReportOutcome::Stale) => Outcome::Stale,
            Ok(v1::ReportOutcome::Conflict) => Outcome::Conflict,
            Ok(v1::ReportOutcome::Rejected) => Outcome::Rejected(reason),
            Ok(v1::ReportOutcome::Unspecified) | Err(_) => return Err(unknown("outcome", response.outcome)),
        };
        let v1::ReportResponse { message, version, segment_complete, .. } = response;
        Ok(Answer { outcome, message, version, segment_complete })
    }
}

/// Weights that an operator asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SetWeights {
    /// Version of the log that the operator has seen ([`GetMixtureResponse::version`]); with newer entries the call
    /// fails with [`Error::Aborted`]. 0: whatever it is.
    pub expected_version: u64,
    /// First step that gets the weights; 0 means as soon as possible.
    pub from_step: u64,
    /// Share of each group, any positive scale, finite and >= 0.
    pub weights: Vec<f64>,
    /// Who asks, 1..=64 printable characters.
    pub operator: String,
    /// Why.
    pub note: String,
}

impl Client {
    /// Begins a new life of the job's trainer: reports of older ones are refused with [`Error::Aborted`] from now on.
    /// `completed_steps` are the steps whose updates are in the trainer's weights, trained on `branch` (0 for a fresh
    /// start; a checkpoint's cursor has both). Repeated after a lost answer, which
    /// may skip a number and nothing else.
    pub async fn open_attempt(
        &self,
        job: &str,
        completed_steps: u64,
        branch: u64,
        resume: ResumeAttempt,
    ) -> Result<OpenAttemptResponse, Error> {
        let request =
            v1::OpenAttemptRequest { job: job.into(), completed_steps, resume: resume.into(), branch };
        self.inner.call_for(job, learn!("OpenAttempt"), &request).await
    }

    /// Reports one vector. Repeated with the same key over lost connections, so it counts once; what became of it is in
    /// the [`Answer`]. A fenced attempt is [`Error::Aborted`].
    pub async fn report(&self, report: &ReportRequest) -> Result<Answer, Error> {
        let response: v1::ReportResponse = self.inner.call_for(&report.job, learn!("Report"), report).await?;
        Answer::from_wire(response)
    }

    /// The segments that are planned from a step on.
    pub async fn plan(&self, job: &str, from_step: u64) -> Result<GetPlanResponse, Error> {
        let request = v1::GetPlanRequest { job: job.into(), from_step };
        self.inner.call_for(job, learn!("GetPlan"), &request).await
    }

    /// Entries of the log from `from_seq` (>= 1) on, old ones first, then as they are appended; over reconnects, without
    /// gap or repeat. It has a connection of its own, made by the first read: an unread watch holds up nothing else.
    pub fn watch(&self, job: &str, from_seq: u64) -> Watch {
        Watch::new(Arc::clone(&self.inner), job.into(), from_seq.max(1))
    }

    /// Sets the weights. Sent once when it expects a version, since a second try would find the first one's entry and
    /// fail: after [`Error::Unavailable`] look into the log.
    pub async fn set_weights(&self, job: &str, set: SetWeights) -> Result<SetWeightsResponse, Error> {
        let SetWeights { expected_version, from_step, weights, operator, note } = set;
        let job = job.to_owned();
        let request = v1::SetWeightsRequest { job, expected_version, from_step, weights, operator, note };
        if expected_version == 0 {
            return self.inner.call_for(&request.job, learn!("SetWeights"), &request).await;
        }
        self.inner.call_once(learn!("SetWeights"), &request).await
    }

    /// The weights in force and the state of learning.
    pub async fn mixture(&self, job: &str) -> Result<GetMixtureResponse, Error> {
        self.inner.call_for(job, learn!("GetMixture"), &v1::GetMixtureRequest { job: job.into() }).await
    }

    /// The log of changes from `from_seq` on, every page of it.
    pub async fn mixture_log(&self, job: &str, from_seq: u64) -> Result<Vec<MixtureEntry>, Error> {
        let mut entries = Vec::new();
        let mut next = from_seq.max(1);
        loop {
            let request = v1::GetMixtureLogRequest { job: job.into(), from_seq: next, page_size: PAGE };
            let page: v1::GetMixtureLogResponse =
                self.inner.call_for(job, learn!("GetMixtureLog"), &request).await?;
            entries.extend(page.entries);
            match page.next_seq {
                0 => return Ok(entries),
                seq if seq > next => next = seq,
                seq => return Err(Error::Protocol(format!("page of the log after {next} leads to {seq}"))),
            }
        }
    }

    /// What was served per group and per mixture before `until_step`; 0 means up to the horizon.
    pub async fn accounting(&self, job: &str, until_step: u64) -> Result<GetAccountingResponse, Error> {
        let request = v1::GetAccountingRequest { job: job.into(), until_step };
        self.inner.call_for(job, learn!("GetAccounting"), &request).await
    }

    /// The mixtures whose influence the estimator wants measured.
    pub async fn candidates(&self, job: &str) -> Result<GetCandidatesResponse, Error> {
        self.inner.call_for(job, learn!("GetCandidates"), &v1::GetCandidatesRequest { job: job.into() }).await
    }

    /// Estimators and their parameters, by name.
    pub async fn estimators(&self) -> Result<Vec<EstimatorInfo>, Error> {
        let request = v1::ListEstimatorsRequest {};
        let response: v1::ListEstimatorsResponse =
            self.inner.call(learn!("ListEstimators"), &request).await?;
        Ok(response.estimators)
    }
}

impl Inner {
    /// A call about a job. A server that lost it (a restart, another endpoint) is told it once and asked again.
    async fn call_for<M: Message + Default>(
        &self,
        job: &str,
        path: &'static str,
        request: &impl Message,
    ) -> Result<M, Error> {
        match self.call(path, request).await {
            Err(error @ Error::NotFound { .. }) => {
                self.tell(job, error).await?;
                self.call(path, request).await
            }
            answer => answer,
        }
    }

    /// Opens a job again, from memory, on a server that answered `error` since it did not know it.
    pub(crate) async fn tell(&self, job: &str, error: Error) -> Result<(), Error> {
        let Some(Known { spec, digest }) = self.known(job) else { return Err(error) };
        let open = v1::OpenJobRequest { job: job.into(), spec, expected_digest: digest };
        let _: v1::OpenJobResponse = self.call(feed!("OpenJob"), &open).await?;
        Ok(())
    }
}
