//! From the log of a mixture to a plot of it.

use super::{Curve, Panel, Plot};
use mixfeed_proto as v1;
use std::collections::BTreeSet;

/// The entries that hold: what was struck is left out.
#[derive(Debug)]
pub struct History<'a> {
    entries: Vec<&'a v1::MixtureEntry>,
}

impl<'a> History<'a> {
    /// `log` in order of its sequence numbers.
    pub fn new(log: &'a [v1::MixtureEntry]) -> Self {
        let mut entries: Vec<&v1::MixtureEntry> = Vec::new();
        for entry in log {
            match entry.kind() {
                v1::MixtureKind::Strike => entries.retain(|old| old.from_step < entry.from_step),
                v1::MixtureKind::Unspecified
                | v1::MixtureKind::Main
                | v1::MixtureKind::Probe
                | v1::MixtureKind::Hold
                | v1::MixtureKind::Feedback
                | v1::MixtureKind::Executor => entries.push(entry),
            }
        }
        entries.sort_by_key(|entry| entry.from_step);
        History { entries }
    }

    /// Three panels over steps: weights with shadows, held-out losses, realised shares.
    pub fn plot(
        &self,
        job: &v1::JobInfo,
        mixture: &v1::GetMixtureResponse,
        accounting: &v1::GetAccountingResponse,
    ) -> Plot {
        let last = self.entries.last().map_or(0, |entry| entry.from_step);
        let end = last.max(mixture.horizon).max(accounting.until_step).max(1);
        let names = short(&mixture.groups);
        let hue = |task: &String| mixture.groups.iter().position(|group| group == task).unwrap_or_default();
        let tasks: Vec<(usize, String)> =
            mixture.tasks.iter().map(|t| (hue(t), names[hue(t)].clone())).collect();
        let spec = job.spec.as_ref().and_then(|spec| spec.mixture.as_ref());
        let estimator = spec.and_then(|spec| spec.estimator.as_ref()).map_or("given", |e| e.name.as_str());
        let status = status(mixture.status());
        Plot {
            title: format!("mixture of job {}", job.job),
            subtitle: format!(
                "estimator {estimator}, {status}, log at entry {}, attempt {}",
                mixture.version, mixture.attempt
            ),
            across: "step".into(),
            steps: (0.0, end as f64),
            panels: vec![self.weights(&names, end), self.losses(&tasks), self.realised(&names, accounting)],
        }
    }

    fn probes(&self) -> impl Iterator<Item = &v1::MixtureEntry> {
        self.entries.iter().copied().filter(|entry| entry.kind() == v1::MixtureKind::Probe)
    }

    fn shades(&self) -> Vec<(f64, f64)> {
        self.probes().map(|probe| (probe.from_step as f64, probe.until_step as f64)).collect()
    }

    /// Weights in charge; during probes the last ones go on, shaded.
    fn weights(&self, names: &[String], end: u64) -> Panel {
        let main =
            self.entries.iter().filter(|e| e.kind() != v1::MixtureKind::Probe && !e.weights.is_empty());
        let main: Vec<(u64, Vec<f64>)> = main.map(|entry| (entry.from_step, shares(entry))).collect();
        let mut curves = curves(names, &main, end);
        let mut shadows: Vec<&str> = Vec::new();
        for shadow in self.entries.iter().flat_map(|entry| &entry.shadows) {
            if !shadows.contains(&shadow.estimator.as_str()) {
                shadows.push(&shadow.estimator);
            }
        }
        for (number, name) in shadows.iter().enumerate() {
            let of = |entry: &&v1::MixtureEntry| {
                let shadow = entry.shadows.iter().find(|shadow| shadow.estimator == *name);
                shadow.map(|shadow| (entry.from_step, shadow.shares.clone()))
            };
            let values: Vec<_> = self.entries.iter().filter_map(of).collect();
            let unlisted = |curve: Curve| Curve { name: String::new(), dash: number + 1, ..curve };
            curves.extend(self::curves(names, &values, end).into_iter().map(unlisted));
        }
        let meaning = |(i, name): (usize, &&str)| (i + 1, format!("shadow {name}"));
        Panel {
            title: "weights (share of rows), probes shaded".into(),
            curves,
            dashes: shadows.iter().enumerate().map(meaning).collect(),
            shades: self.shades(),
            from_zero: true,
            empty: "no weights yet".into(),
        }
    }

    fn losses(&self, tasks: &[(usize, String)]) -> Panel {
        let curve = |(task, (hue, name)): (usize, &(usize, String))| {
            let known = self.entries.iter().filter_map(|e| Some((e.from_step as f64, *e.losses.get(task)?)));
            Curve { name: name.clone(), hue: *hue, points: known.collect(), ..Curve::default() }
        };
        Panel {
            title: "held-out loss (nats per token)".into(),
            curves: tasks.iter().enumerate().map(curve).collect(),
            shades: self.shades(),
            empty: "no evaluation yet".into(),
            ..Panel::default()
        }
    }

    /// Shares of rows that were served under each mixture in charge.
    fn realised(&self, names: &[String], accounting: &v1::GetAccountingResponse) -> Panel {
        let probes: BTreeSet<u64> = self.probes().map(|probe| probe.mixture_id).collect();
        let main = accounting.mixtures.iter().filter(|m| !probes.contains(&m.mixture_id) && m.steps > 0);
        let served = |m: &v1::MixtureAccount| {
            let sum = m.rows.iter().sum::<u64>().max(1) as f64;
            (m.from_step, m.rows.iter().map(|rows| *rows as f64 / sum).collect())
        };
        let values: Vec<(u64, Vec<f64>)> = main.map(served).collect();
        Panel {
            title: "realised share of rows, without probes".into(),
            curves: curves(names, &values, accounting.until_step),
            shades: self.shades(),
            from_zero: true,
            empty: "nothing was served yet".into(),
            ..Panel::default()
        }
    }
}

/// State of learning in words.
pub fn status(status: v1::MixtureStatus) -> &'static str {
    match status {
        v1::MixtureStatus::Unspecified => "unknown",
        v1::MixtureStatus::Given => "given",
        v1::MixtureStatus::Serving => "serving",
        v1::MixtureStatus::Waiting => "waiting for reports",
        v1::MixtureStatus::Degraded => "degraded: three rounds without usable evidence",
    }
}

/// Shares of an entry: of its counts for a probe, else of its weights.
pub fn shares(entry: &v1::MixtureEntry) -> Vec<f64> {
    let parts = if entry.counts.is_empty() { &entry.weights } else { &entry.counts };
    let sum: f64 = parts.iter().map(|part| *part as f64).sum();
    parts.iter().map(|part| if sum > 0.0 { *part as f64 / sum } else { 0.0 }).collect()
}

/// One stepped curve per group through (step, shares), the last of which hold to `end`.
fn curves(names: &[String], values: &[(u64, Vec<f64>)], end: u64) -> Vec<Curve> {
    let curve = |(group, name): (usize, &String)| {
        let mut points: Vec<(f64, f64)> =
            values.iter().filter_map(|(step, shares)| Some((*step as f64, *shares.get(group)?))).collect();
        if let Some((step, share)) = points.last().copied() {
            points.push((step.max(end as f64), share));
        }
        Curve { name: name.clone(), hue: group, stepped: true, points, ..Curve::default() }
    };
    names.iter().enumerate().map(curve).collect()
}

/// Names without their source when all have the same one.
fn short(groups: &[String]) -> Vec<String> {
    let parts: Vec<_> = groups.iter().map(|group| group.split_once('/')).collect();
    let source = |part: &Option<(&str, &str)>| part.map(|(source, _)| source.to_owned());
    let first = parts.first().and_then(source);
    if first.is_some() && parts.iter().all(|part| source(part) == first) {
        return parts.iter().flatten().map(|(_, group)| (*group).to_owned()).collect();
    }
    groups.to_vec()
}
