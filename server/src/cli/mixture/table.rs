//! A job's mixture as lines of text.

use crate::picture::{shares, status};
use mixfeed_client::{Outcome, spec::JobInfo};
use mixfeed_proto as v1;

/// Most characters of a name in a table.
const NAME: usize = 44;

/// What holds for the job as a whole.
pub fn summary(job: &JobInfo, mixture: &v1::GetMixtureResponse) -> Vec<String> {
    let spec = job.spec.as_ref().and_then(|spec| spec.mixture.as_ref());
    let mut learning = match spec.and_then(|spec| spec.estimator.as_ref()) {
        Some(estimator) => format!("estimator {}", estimator.name),
        None => "weights are given".into(),
    };
    let shadows: Vec<&str> =
        spec.iter().flat_map(|s| &s.shadows).map(|shadow| shadow.name.as_str()).collect();
    if !shadows.is_empty() {
        learning = format!("{learning}, shadows {}", shadows.join(" "));
    }
    let (status, attempt, horizon) = (status(mixture.status()), mixture.attempt, mixture.horizon);
    let reports: Vec<String> = mixture.reports.iter().map(count).collect();
    let reports = if reports.is_empty() { "none".into() } else { reports.join(", ") };
    vec![
        plain(&format!("job        {}, log at entry {}, horizon {horizon}", job.job, mixture.version)),
        plain(&format!("learning   {learning}; {status}; attempt {attempt}")),
        plain(&format!("reports    {reports}")),
    ]
}

fn count(count: &v1::OutcomeCount) -> String {
    let outcome = match count.outcome() {
        v1::ReportOutcome::Accepted => Outcome::Accepted.to_string(),
        v1::ReportOutcome::Duplicate => Outcome::Duplicate.to_string(),
        v1::ReportOutcome::Stale => Outcome::Stale.to_string(),
        v1::ReportOutcome::Conflict => Outcome::Conflict.to_string(),
        v1::ReportOutcome::Rejected => Outcome::Rejected(count.reason()).to_string(),
        v1::ReportOutcome::Unspecified => format!("outcome {}", count.outcome),
    };
    format!("{} {outcome}", count.reports)
}

/// One line per group: share now, share served, rows, tokens, epochs, last held-out loss.
pub fn groups(mixture: &v1::GetMixtureResponse, accounting: &v1::GetAccountingResponse) -> Vec<String> {
    let now = mixture.entry.as_ref().map(shares).unwrap_or_default();
    let names: Vec<String> = mixture.groups.iter().map(|group| plain(group)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).clamp(5, NAME);
    let head = format!(
        "{:<width$}  {:>7}  {:>7}  {:>12}  {:>15}  {:>8}  {:>8}",
        "group", "now", "served", "rows", "tokens", "epochs", "loss"
    );
    let line = |(i, name): (usize, &String)| {
        let short: String = name.chars().take(width).collect();
        let account = accounting.groups.iter().find(|account| account.group == mixture.groups[i]);
        let now = now.get(i).map_or("-".into(), |share| format!("{share:.4}"));
        let served = account.map_or("-".into(), |a| format!("{:.4}", a.share_served));
        let rows = account.map_or("-".into(), |a| a.rows.to_string());
        let tokens = account.filter(|a| a.tokens > 0).map_or("-".into(), |a| a.tokens.to_string());
        let epochs = account.map_or("-".into(), |a| format!("{:.2}", a.epochs));
        let task = mixture.tasks.iter().position(|task| *task == mixture.groups[i]);
        let loss = task.and_then(|task| mixture.losses.get(task)).filter(|loss| loss.is_finite());
        let loss = loss.map_or("-".into(), |loss| format!("{loss:.4}"));
        format!("{short:<width$}  {now:>7}  {served:>7}  {rows:>12}  {tokens:>15}  {epochs:>8}  {loss:>8}")
    };
    std::iter::once(head).chain(names.iter().enumerate().map(line)).collect()
}

/// One entry of the log in one line.
pub fn entry(entry: &v1::MixtureEntry) -> String {
    let kind = entry.kind().as_str_name().trim_start_matches("MIXTURE_KIND_").to_lowercase();
    let until = if entry.until_step > 0 { entry.until_step.to_string() } else { String::new() };
    let steps = format!("{}..{until}", entry.from_step);
    let shares: Vec<String> = shares(entry).iter().map(|share| format!("{share:.3}")).collect();
    let line = format!(
        "{:>6}  {steps:<18} {kind:<8} {:<24} {}  {}",
        entry.seq,
        entry.author,
        shares.join(" "),
        entry.receipt.chars().take(120).collect::<String>()
    );
    plain(line.trim_end())
}

/// Others' text without characters that steer a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
