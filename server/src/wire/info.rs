//! Jobs, sources and policies as messages.

use crate::args::{Choice, Param};
use crate::assemble::Extent;
use crate::batch::Dtype;
use crate::estimate::{METHODS, Method};
use crate::job::{EvalSet, Feed, Job, JobGroup};
use crate::keeper::dues;
use crate::plan::{Policy, image, points};
use crate::source::{Group, Source};
use mixfeed_proto as v1;

/// Element type on the wire.
pub(super) fn dtype(dtype: Dtype) -> v1::Dtype {
    match dtype {
        Dtype::U8 => v1::Dtype::U8,
        Dtype::F16 => v1::Dtype::F16,
        Dtype::Bf16 => v1::Dtype::Bf16,
        Dtype::F32 => v1::Dtype::F32,
        Dtype::F64 => v1::Dtype::F64,
        Dtype::I32 => v1::Dtype::I32,
        Dtype::I64 => v1::Dtype::I64,
        Dtype::U32 => v1::Dtype::U32,
        Dtype::U64 => v1::Dtype::U64,
        Dtype::U16 => v1::Dtype::U16,
    }
}

/// Describes an open job.
pub fn job_info(job: &Job) -> v1::JobInfo {
    let feed = &job.feed;
    let group = |g: &JobGroup| {
        let info = group_info(g.name.clone(), &g.source.index().groups[g.group], g.weight);
        v1::GroupInfo { records: g.len(), ..info }
    };
    let tables = feed.tokens().map_or(&[][..], |tokens| &tokens.tables);
    let eval_set = |(group, set): (&JobGroup, &EvalSet)| v1::EvalSetInfo {
        group: group.name.clone(),
        rows: set.rows,
        digest: set.digest.to_vec().into(),
    };
    let held = job.held.as_ref();
    v1::JobInfo {
        job: job.name.clone(),
        digest: job.digest.to_vec().into(),
        spec: Some(job.spec.clone()),
        groups: feed.groups.iter().map(group).collect(),
        classes: feed.classes.clone(),
        world_sizes: feed.world_sizes(),
        steps: feed.order.steps().unwrap_or(0),
        step_bytes: super::descriptors(feed, step(feed)).iter().map(|t| t.bytes).sum(),
        eval_sets: held.map_or(Vec::new(), |h| feed.groups.iter().zip(&h.sets).map(eval_set).collect()),
        eval_digest: held.map_or(Vec::new(), |h| h.digest.to_vec()).into(),
        group_tokens: tables.iter().map(|table| table.tokens()).collect(),
        group_left_tokens: tables.iter().map(|table| table.left()).collect(),
    }
}

/// What a full step holds; of rows that differ, as many of average length.
fn step(feed: &Feed) -> Extent {
    let rows = feed.rows_of_slots(feed.order.batch());
    if let Some(points) = feed.points() {
        // The budget: how many points are left of it depends on the scenes.
        return Extent { rows, points: points.max_points, inverse: points.max_points, ..Extent::default() };
    }
    let Some(rule) = feed.tokens() else {
        return Extent { rows, slots: feed.order.batch(), ..Extent::default() };
    };
    let all: u64 = rule.tables.iter().map(|t| t.rows()).sum();
    let mean = |total: u64| (u128::from(rows) * u128::from(total)).div_ceil(u128::from(all.max(1))) as u64;
    let pieces = rule.tables.iter().map(|t| t.all_pieces()).sum();
    let tokens = rule.tables.iter().map(|t| t.tokens()).sum();
    Extent { rows, tokens: mean(tokens), pieces: mean(pieces), ..Extent::default() }
}

/// Describes a source.
pub fn source_info(name: &str, source: &dyn Source) -> v1::SourceInfo {
    let index = source.index();
    // Weights belong to jobs.
    let group = |g: &Group| group_info(format!("{name}/{}", g.name), g, 0);
    v1::SourceInfo {
        source: name.into(),
        kind: source.kind().into(),
        records: index.len() as u64,
        groups: index.groups.iter().map(group).collect(),
        classes: index.classes.clone(),
    }
}

fn group_info(name: String, group: &Group, weight: u64) -> v1::GroupInfo {
    let index_digest = group.digest.to_vec().into();
    v1::GroupInfo { name, records: group.records.len() as u64, weight, index_digest }
}

/// The registry of policies.
pub fn policies() -> Vec<v1::PolicyInfo> {
    image::all().chain(points::POLICIES.iter().copied()).map(policy).collect()
}

fn policy(policy: &dyn Policy) -> v1::PolicyInfo {
    // Its values are the operator's names, which clients are told by errors alone.
    let mixer = policy.mixer().map(|name| v1::OptionInfo {
        name: name.into(),
        values: Vec::new(),
        doc: "name of a mixer that the operator declared; mandatory".into(),
    });
    v1::PolicyInfo {
        name: policy.name().into(),
        paper: policy.paper().into(),
        url: policy.url().into(),
        summary: policy.summary().into(),
        params: params(policy.params()),
        options: options(policy.choices()).into_iter().chain(mixer).collect(),
    }
}

fn params(declared: &[Param]) -> Vec<v1::ParamInfo> {
    let info = |p: &Param| v1::ParamInfo {
        name: p.name.into(),
        default: p.default,
        min: p.min,
        max: p.max,
        doc: p.doc.into(),
    };
    declared.iter().map(info).collect()
}

fn options(declared: &[Choice]) -> Vec<v1::OptionInfo> {
    let info = |c: &Choice| v1::OptionInfo {
        name: c.name.into(),
        values: c.values.iter().map(|v| v.to_string()).collect(),
        doc: c.doc.into(),
    };
    declared.iter().map(info).collect()
}

/// The registry of estimators.
pub fn estimators() -> Vec<v1::EstimatorInfo> {
    METHODS.iter().map(|m| estimator(*m)).collect()
}

fn estimator(method: &dyn Method) -> v1::EstimatorInfo {
    v1::EstimatorInfo {
        name: method.name().into(),
        paper: method.paper().into(),
        url: method.url().into(),
        summary: method.summary().into(),
        params: params(method.params()),
        options: options(method.choices()),
        vectors: method.vectors().iter().map(|v| format!("{}: {}", v.name, v.doc)).collect(),
        due: dues(method.wants()),
    }
}
