//! What a report must be by itself, and what is answered to it.

use super::rules::Rules;
use super::segment::Segment;
use crate::estimate::{Want, When};
use mixfeed_proto::{self as v1, ReportOutcome as Outcome, ReportReason as Reason};

/// Numbers of one sketch.
const MAX_SKETCH: usize = 16_384;
/// What a loss may lie above that of a uniform guess, in nats.
const MAX_ABOVE_UNIFORM: f64 = 5.0;

/// What is answered to a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was refused.
    pub reason: Reason,
    /// The same for people.
    pub message: String,
}

impl Answer {
    /// Counted.
    pub fn accepted() -> Answer {
        Answer { outcome: Outcome::Accepted, reason: Reason::Unspecified, message: String::new() }
    }

    pub(super) fn other(outcome: Outcome, message: impl Into<String>) -> Answer {
        Answer { outcome, reason: Reason::Unspecified, message: message.into() }
    }

    /// Refused.
    pub fn rejected(reason: Reason, message: impl Into<String>) -> Answer {
        Answer { outcome: Outcome::Rejected, reason, message: message.into() }
    }

    /// About a segment that is closed.
    pub fn stale(message: impl Into<String>) -> Answer {
        Answer::other(Outcome::Stale, message)
    }
}

/// Lengths, ranges and digest of a report's numbers.
pub(super) fn numbers(rules: &Rules, want: Want, report: &v1::ReportRequest) -> Result<(), Answer> {
    let (m, n) = (rules.groups.len(), rules.tasks.len());
    let no = |reason, why: String| Err(Answer::rejected(reason, why));
    let (values, counts, more) = match want {
        Want::Eval => (n, n, 0),
        Want::Train | Want::Excess => (m, m, 0),
        Want::Dots => (m, 0, 1),
        Want::GradientStats => (m, 0, m),
        Want::Influence => (n * m, 1, 0),
        Want::Sketch => (report.values.len().clamp(1, MAX_SKETCH), 0, 0),
        Want::Candidates => (report.values.len(), 0, 0),
    };
    for (name, list, wanted) in
        [("values", &report.values, values), ("counts", &report.counts, counts), ("more", &report.more, more)]
    {
        if list.len() != wanted {
            return no(Reason::Length, format!("`{name}` has {} numbers, want {wanted}", list.len()));
        }
        if let Some(bad) = list.iter().find(|v| !v.is_finite()) {
            return no(Reason::NotFinite, format!("`{name}` holds {bad}, want finite numbers"));
        }
    }
    let losses = matches!(want, Want::Eval | Want::Train | Want::Excess);
    let positive = losses || want == Want::GradientStats;
    let negative = |list: &[f64]| list.iter().any(|v| *v < 0.0);
    if (positive && (negative(&report.values) || negative(&report.more)))
        || negative(&report.counts)
        || report.lr < 0.0
    {
        return no(Reason::Range, "holds a negative number, want >= 0".into());
    }
    if !report.lr.is_finite() {
        return no(Reason::NotFinite, format!("`lr` is {}, want a finite number", report.lr));
    }
    let owned = match report.held_out {
        true => (report.owner as usize) < n,
        false => rules.active.contains(&(report.owner as usize)),
    };
    if want == Want::Sketch && !owned {
        return no(
            Reason::Length,
            format!("`owner` is {}, want a task or a group that is learnt", report.owner),
        );
    }
    if losses {
        means(rules, want, report)?;
    }
    if want == Want::Eval && report.eval_digest != rules.eval_digest[..] {
        return no(
            Reason::EvalDigest,
            "`eval_digest` is not the job's: other held-out sets were read".into(),
        );
    }
    Ok(())
}

/// Losses per token.
fn means(rules: &Rules, want: Want, report: &v1::ReportRequest) -> Result<(), Answer> {
    let no = |reason, why: String| Err(Answer::rejected(reason, why));
    if report.counts.iter().all(|c| *c == 0.0) {
        return no(Reason::Empty, "`counts` are all 0: there is nothing behind the numbers".into());
    }
    let most = rules.setup.log_vocabulary.map(|v| v + MAX_ABOVE_UNIFORM);
    for (i, (sum, count)) in report.values.iter().zip(&report.counts).enumerate() {
        let mean = sum / count;
        if *count == 0.0 && *sum != 0.0 {
            return no(Reason::Range, format!("number {i} is {sum} over 0 tokens"));
        }
        if want != Want::Excess && *count > 0.0 && *sum <= 0.0 {
            return no(Reason::Range, format!("loss {i} is {mean}, want above 0"));
        }
        if *count > 0.0 && !mean.is_finite() {
            return no(
                Reason::NotFinite,
                format!("loss {i} is {sum} over {count} tokens, want a finite mean"),
            );
        }
        if let Some(most) = most.filter(|most| *count > 0.0 && mean > *most) {
            return no(
                Reason::Range,
                format!("loss {i} is {mean}, want at most {most:.2} (a uniform guess and 5)"),
            );
        }
    }
    Ok(())
}

/// Steps that a report covers.
pub(super) fn steps(
    segment: &Segment,
    want: Want,
    report: &v1::ReportRequest,
    boundary: bool,
) -> Result<(), Answer> {
    let (from, to) = (report.from_step, report.to_step);
    let until = segment.until.unwrap_or(u64::MAX);
    let point = |when: When| segment.wants().contains(&(when, want));
    let fits = match want {
        Want::Eval => {
            let begin = to == segment.from && (boundary || point(When::Before));
            from == to && (begin || (to == until && point(When::After)))
        }
        Want::Train | Want::Excess => segment.from <= from && from < to && to <= until,
        Want::Dots | Want::GradientStats | Want::Influence | Want::Sketch | Want::Candidates => {
            segment.from <= to && to <= until && from == to
        }
    };
    if fits && report.skipped_steps <= until - segment.from {
        return Ok(());
    }
    let why =
        format!("steps ({from}, {to}] don't fit segment {} of steps {}..{until}", segment.seq, segment.from);
    Err(Answer::rejected(Reason::Steps, why))
}
