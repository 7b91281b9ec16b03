//! What crosses about a mixture, as JSON: its present state and its log. Vectors are in the job's order of groups and of
//! tasks; a loss that nobody told is null.

use mixfeed_client::{
    Error,
    learn::{
        Due, DueWhen, GetMixtureResponse, MixtureEntry, MixtureKind, MixtureStatus, OutcomeCount, ReportKind,
        ReportOutcome, ReportReason, ShadowMixture,
    },
};
use serde_json::{Value, json};

/// Scale of the weights on the wire: shares sum to it.
const ONE: f64 = 4_294_967_296.0;

/// The name of a value, "main" for `MIXTURE_KIND_MAIN`.
fn short(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_ascii_lowercase()
}

fn due(due: &Due) -> Value {
    let kind = ReportKind::try_from(due.kind).unwrap_or_default();
    let when = DueWhen::try_from(due.when).unwrap_or_default();
    json!([short(when.as_str_name(), "DUE_WHEN_"), short(kind.as_str_name(), "REPORT_KIND_")])
}

fn shadow(shadow: &ShadowMixture) -> Value {
    json!([shadow.estimator, shadow.shares])
}

fn outcome(count: &OutcomeCount) -> Value {
    let outcome = ReportOutcome::try_from(count.outcome).unwrap_or_default();
    let reason = ReportReason::try_from(count.reason).unwrap_or_default();
    let mut name = short(outcome.as_str_name(), "REPORT_OUTCOME_");
    if reason != ReportReason::Unspecified {
        name = format!("{name} ({})", short(reason.as_str_name(), "REPORT_REASON_"));
    }
    json!([name, count.reports])
}

fn entry(entry: &MixtureEntry) -> Value {
    let kind = MixtureKind::try_from(entry.kind).unwrap_or_default();
    let shares: Vec<f64> = entry.weights.iter().map(|weight| *weight as f64 / ONE).collect();
    json!({
        "seq": entry.seq,
        "branch": entry.branch,
        "from_step": entry.from_step,
        "until_step": entry.until_step,
        "kind": short(kind.as_str_name(), "MIXTURE_KIND_"),
        "weights": shares,
        "counts": entry.counts,
        "mixture_id": entry.mixture_id,
        "author": entry.author,
        "receipt": entry.receipt,
        "due": entry.due.iter().map(due).collect::<Vec<_>>(),
        "probe_group": (kind == MixtureKind::Probe).then_some(entry.probe_group),
        "round": entry.round,
        "losses": entry.losses,
        "shadows": entry.shadows.iter().map(shadow).collect::<Vec<_>>(),
    })
}

/// The state of a mixture.
///
/// # Errors
/// [`Error::Protocol`] when no entry is in force.
pub fn state_json(state: &GetMixtureResponse) -> Result<String, Error> {
    let Some(in_force) = &state.entry else {
        return Err(Error::Protocol("answer of `GetMixture` has no `entry`, want the one in force".into()));
    };
    let status = MixtureStatus::try_from(state.status).unwrap_or_default();
    let text = json!({
        "entry": entry(in_force),
        "horizon": state.horizon,
        "version": state.version,
        "status": short(status.as_str_name(), "MIXTURE_STATUS_"),
        "attempt": state.attempt,
        "reports": state.reports.iter().map(outcome).collect::<Vec<_>>(),
        "shadows": state.shadows.iter().map(shadow).collect::<Vec<_>>(),
        "groups": state.groups,
        "losses": state.losses,
        "tasks": state.tasks,
    });
    Ok(text.to_string())
}

/// Entries of a log.
pub fn log_json(entries: &[MixtureEntry]) -> String {
    Value::Array(entries.iter().map(entry).collect()).to_string()
}
