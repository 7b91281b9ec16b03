//! The mixture of a spec: who sets the weights, what for, and when training waits.

use super::JobGroup;
use super::check::Check;
use crate::args::Args;
use crate::estimate::{self, Setup, Vectors, Want, post, reduce};
use crate::keeper::{Barrier, Learner, Rules};
use crate::mixture::{ONE, Weights};
use mixfeed_proto as v1;
use std::time::Duration;

/// Most shadow estimators of a job.
const MAX_SHADOWS: usize = 8;
/// Shares of all windows of one directive: they become entries of the log at once.
const MAX_DIRECTIVE: usize = 1 << 20;
/// Most reporting ranks.
const MAX_REPORTERS: u32 = 1_024;
/// Seconds that a barrier waits when the spec says nothing.
const LATE_AFTER: f64 = 600.0;

/// What the rest of the spec says.
pub(super) struct Facts {
    /// Shares of all groups.
    pub initial: Weights,
    /// Tokens or records of one epoch of each group.
    pub sizes: Vec<f64>,
    /// ln V of token jobs.
    pub log_vocabulary: Option<f64>,
    /// Digest of the objective's eval sets.
    pub eval_digest: Vec<u8>,
}

/// Names of the groups whose held-out loss counts: those of the objective, or all.
pub(super) fn tasks(check: &mut Check, spec: &v1::JobSpec, groups: &[JobGroup]) -> Vec<usize> {
    let given = spec.mixture.as_ref().map_or(&[][..], |m| &m.objective);
    if given.is_empty() {
        return (0..groups.len()).collect();
    }
    let mut out = Vec::new();
    for (i, task) in given.iter().enumerate() {
        let field = format!("mixture.objective[{i}].group");
        match groups.iter().position(|g| g.name == task.group) {
            Some(g) if out.contains(&g) => check.fail(&field, format!("`{}` is named twice", task.group)),
            Some(g) => out.push(g),
            None => check.fail(&field, format!("is `{}`, want one of the job's groups", task.group)),
        }
    }
    out
}

/// Resolves `spec.mixture`; fills in defaults.
pub(super) fn resolve(check: &mut Check, spec: &mut v1::JobSpec, groups: &[JobGroup], facts: Facts) -> Rules {
    let tasks = tasks(check, spec, groups);
    let objective = objective(check, spec, tasks.len());
    let mut given = spec.mixture.clone().unwrap_or_default();
    let active: Vec<usize> = (0..groups.len()).filter(|g| facts.initial.shares()[*g] > 0).collect();
    let transform = match check.known("mixture.transform", given.transform) {
        v1::Transform::Unspecified | v1::Transform::Loss => v1::Transform::Loss,
        v1::Transform::Perplexity => v1::Transform::Perplexity,
    };
    given.set_transform(transform);
    let narrow = |all: &[f64]| active.iter().map(|g| all[*g]).collect::<Vec<f64>>();
    let setup = Setup {
        groups: active.len(),
        tasks: tasks.len(),
        own_task: active.iter().map(|g| tasks.iter().position(|t| t == g)).collect(),
        objective,
        perplexity: transform == v1::Transform::Perplexity,
        initial: active.iter().map(|g| facts.initial.shares()[*g] as f64 / ONE as f64).collect(),
        sizes: narrow(&facts.sizes),
        batch: u64::from(spec.global_batch),
        max_steps: spec.max_steps,
        seed: spec.seed,
        log_vocabulary: facts.log_vocabulary,
    };
    let learner = given.estimator.as_mut().and_then(|e| learner(check, "mixture.estimator", e, &setup));
    let shadows = shadows(check, &mut given.shadows, &setup);
    let evaluates = learner.iter().any(|l| l.method.wants().iter().any(|(_, want)| *want == Want::Eval));
    check.ensure(!evaluates || spec.held_out.is_some(), "held_out", || {
        "is missing, want it: the estimator lives on held-out losses".into()
    });
    let reporters = if given.reporters == 0 { 1 } else { given.reporters };
    check.ensure(reporters <= MAX_REPORTERS, "mixture.reporters", || {
        format!("is {reporters}, want 1..={MAX_REPORTERS}")
    });
    given.reporters = reporters;
    let late = if given.late_after_seconds == 0.0 { LATE_AFTER } else { given.late_after_seconds };
    let late = check.within("mixture.late_after_seconds", late, 1e-3, 1e7);
    given.late_after_seconds = late;
    let rules = Rules {
        groups: groups.iter().map(|g| g.name.clone()).collect(),
        tasks: tasks.iter().map(|t| groups[*t].name.clone()).collect(),
        initial: facts.initial.clone(),
        learner,
        shadows,
        barrier: barrier(check, &mut given),
        late_after: Duration::from_secs_f64(late),
        reporters,
        reduce: reduce_rule(check, &mut given),
        faulty: given.faulty.map(|f| f as usize),
        post: bounds(check, spec, &mut given, groups, &active),
        max_epochs: given.max_epochs,
        epoch_rows: active.iter().map(|g| groups[*g].len() as f64).collect(),
        eval_digest: facts.eval_digest,
        setup,
        active,
    };
    let faulty = given.faulty.unwrap_or(0);
    check.ensure(faulty == 0 || 2 * faulty < reporters, "mixture.faulty", || {
        format!("is {faulty}, want less than half of the {reporters} reporters")
    });
    if spec.mixture.is_some() {
        spec.mixture = Some(given);
    }
    rules
}

/// Weights of the tasks, summing to 1.
fn objective(check: &mut Check, spec: &v1::JobSpec, tasks: usize) -> Vec<f64> {
    let given = spec.mixture.as_ref().map_or(&[][..], |m| &m.objective);
    let mut raw = vec![1.0; tasks];
    if given.len() == tasks {
        for (i, (weight, task)) in raw.iter_mut().zip(given).enumerate() {
            *weight = task.weight.unwrap_or(1.0);
            check.ensure(
                weight.is_finite() && *weight > 0.0,
                &format!("mixture.objective[{i}].weight"),
                || format!("is {weight}, want a finite number above 0"),
            );
        }
    }
    let sum: f64 = raw.iter().sum();
    raw.iter().map(|w| w / sum).collect()
}

/// A method with its arguments, tried on the job.
fn learner(check: &mut Check, field: &str, given: &mut v1::EstimatorSpec, setup: &Setup) -> Option<Learner> {
    let Some(method) = estimate::by_name(&given.name) else {
        let known = estimate::METHODS.iter().map(|m| m.name()).collect::<Vec<_>>().join(", ");
        check.fail(&format!("{field}.name"), format!("is `{}`, want one of {known}", given.name));
        return None;
    };
    let args = match Args::resolve(&method.declared(), &given.params, &given.options) {
        Ok(args) => args,
        Err(error) => {
            check.fail(field, error.to_string());
            return None;
        }
    };
    given.params = args.numbers().map(|(n, v)| (n.into(), v)).collect();
    given.options = args.words().map(|(n, v)| (n.into(), v.into())).collect();
    let vectors: Vectors = given.vectors.iter().map(|(n, v)| (n.clone(), v.values.clone())).collect();
    if let Some(name) = vectors.keys().find(|name| !method.vectors().iter().any(|v| v.name == **name)) {
        let known = method.vectors().iter().map(|v| v.name).collect::<Vec<_>>().join(", ");
        let why = format!("`{name}` is no list of estimator `{}`, want one of: {known}", method.name());
        check.fail(&format!("{field}.vectors"), why);
        return None;
    }
    let learner = Learner { name: method.name().into(), method, args, vectors };
    match learner.start(setup) {
        Ok(mut estimator) => {
            let numbers = estimator.directive(0).windows.len() * setup.groups;
            check.ensure(numbers <= MAX_DIRECTIVE, field, || {
                format!(
                    "plans {numbers} shares at once, want at most {MAX_DIRECTIVE}: fewer groups or sweeps"
                )
            });
            Some(learner)
        }
        Err(error) => {
            check.fail(field, error.to_string());
            None
        }
    }
}

fn shadows(check: &mut Check, given: &mut [v1::EstimatorSpec], setup: &Setup) -> Vec<Learner> {
    check.ensure(given.len() <= MAX_SHADOWS, "mixture.shadows", || {
        format!("are {}, want at most {MAX_SHADOWS}", given.len())
    });
    let mut out: Vec<Learner> = Vec::new();
    for (i, spec) in given.iter_mut().take(MAX_SHADOWS).enumerate() {
        if let Some(mut shadow) = learner(check, &format!("mixture.shadows[{i}]"), spec, setup) {
            let same = out.iter().filter(|o| o.method.name() == shadow.method.name()).count();
            if same > 0 {
                shadow.name = format!("{}#{}", shadow.name, same + 1);
            }
            out.push(shadow);
        }
    }
    out
}

fn barrier(check: &mut Check, given: &mut v1::MixtureSpec) -> Barrier {
    let lag = given.lag_steps;
    let (wire, barrier) = match check.known("mixture.barrier", given.barrier) {
        v1::Barrier::Unspecified | v1::Barrier::Strict => (v1::Barrier::Strict, Barrier::Strict),
        v1::Barrier::Segment => (v1::Barrier::Segment, Barrier::Segment),
        v1::Barrier::Lagged => (v1::Barrier::Lagged, Barrier::Lagged(lag)),
    };
    given.set_barrier(wire);
    let lagged = wire == v1::Barrier::Lagged;
    check.ensure(lagged == (lag > 0), "mixture.lag_steps", || match lagged {
        true => "is 0, want the steps that a lagged barrier lags".into(),
        false => format!("is {lag}, want it only with a lagged barrier"),
    });
    check.ensure(lag <= 1 << 40, "mixture.lag_steps", || format!("is {lag}, want at most 2^40"));
    barrier
}

fn reduce_rule(check: &mut Check, given: &mut v1::MixtureSpec) -> reduce::Rule {
    let (wire, rule) = match check.known("mixture.reduce", given.reduce) {
        v1::Reduce::Unspecified | v1::Reduce::Mean => (v1::Reduce::Mean, reduce::Rule::Mean),
        v1::Reduce::TrimmedMean => (v1::Reduce::TrimmedMean, reduce::Rule::Trimmed),
        v1::Reduce::Nearest => (v1::Reduce::Nearest, reduce::Rule::Nearest),
    };
    given.set_reduce(wire);
    rule
}

/// Bounds of learnt shares.
fn bounds(
    check: &mut Check,
    spec: &v1::JobSpec,
    given: &mut v1::MixtureSpec,
    groups: &[JobGroup],
    active: &[usize],
) -> post::Rules {
    let m = active.len();
    let mut rules = post::Rules { paper_faithful: given.paper_faithful, ..post::Rules::new(m) };
    let floor = *given.floor.get_or_insert_with(|| post::default_floor(m.max(1)));
    rules.floor = Some(check.within("mixture.floor", floor, 0.0, 1.0 / m.max(1) as f64));
    rules.trust = check.within("mixture.trust", *given.trust.get_or_insert(1.0), 0.0, 100.0);
    for (i, bound) in given.bounds.iter_mut().enumerate() {
        let field = format!("mixture.bounds[{i}]");
        let high = *bound.high.get_or_insert(1.0);
        let fits = (0.0..=1.0).contains(&bound.low) && bound.low <= high && high <= 1.0;
        check.ensure(fits, &field, || format!("is {}..={high}, want a range within 0..=1", bound.low));
        match active.iter().position(|g| groups[*g].name == bound.group) {
            Some(j) => (rules.low[j], rules.high[j]) = (bound.low, high),
            None => check
                .fail(&format!("{field}.group"), format!("is `{}`, want a group with weight", bound.group)),
        }
    }
    check.ensure(rules.low.iter().sum::<f64>() <= 1.0, "mixture.bounds.low", || "sum to more than 1".into());
    check.ensure(m == 0 || rules.high.iter().sum::<f64>() >= 1.0, "mixture.bounds.high", || {
        "sum to less than 1, want room for a mixture".into()
    });
    check.within("mixture.max_epochs", given.max_epochs, 0.0, 1e9);
    check.ensure(given.max_epochs == 0.0 || spec.max_steps > 0, "mixture.max_epochs", || {
        "needs max_steps: without an end no share leads to a number of epochs".into()
    });
    rules
}
