//! Jobs, sources and policies as messages.

use crate::batch::Dtype;
use crate::job::Job;
use crate::plan::{Policy, image};
use crate::source::Source;
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
    let groups = feed.groups.iter().map(|g| v1::GroupInfo {
        name: g.name.clone(),
        records: g.len(),
        weight: g.weight,
        index_digest: g.source.index().groups[g.group].digest.to_vec().into(),
    });
    let rows = feed.rows_of_slots(feed.order.batch());
    v1::JobInfo {
        job: job.name.clone(),
        digest: job.digest.to_vec().into(),
        spec: Some(job.spec.clone()),
        groups: groups.collect(),
        classes: feed.classes.clone(),
        world_sizes: feed.world_sizes(),
        steps: feed.order.steps().unwrap_or(0),
        step_bytes: super::descriptors(feed, rows).iter().map(|t| t.bytes).sum(),
    }
}

/// Describes a source.
pub fn source_info(name: &str, source: &dyn Source) -> v1::SourceInfo {
    let index = source.index();
    v1::SourceInfo {
        source: name.into(),
        kind: source.kind().into(),
        records: index.records.len() as u64,
        groups: index.groups.iter().map(|g| group_info(name, g)).collect(),
        classes: index.classes.clone(),
    }
}

/// Describes a group of a source.
pub fn group_info(source: &str, group: &crate::source::Group) -> v1::GroupInfo {
    v1::GroupInfo {
        name: format!("{source}/{}", group.name),
        records: group.records.len() as u64,
        weight: 0,
        index_digest: group.digest.to_vec().into(),
    }
}

/// The registry of policies.
pub fn policies() -> Vec<v1::PolicyInfo> {
    image::POLICIES.iter().map(|p| policy(*p)).collect()
}

fn policy(policy: &dyn Policy) -> v1::PolicyInfo {
    let params = policy.params().iter().map(|p| v1::ParamInfo {
        name: p.name.into(),
        default: p.default,
        min: p.min,
        max: p.max,
        doc: p.doc.into(),
    });
    let options = policy.choices().iter().map(|c| v1::OptionInfo {
        name: c.name.into(),
        values: c.values.iter().map(|v| v.to_string()).collect(),
        doc: c.doc.into(),
    });
    v1::PolicyInfo {
        name: policy.name().into(),
        paper: policy.paper().into(),
        url: policy.url().into(),
        summary: policy.summary().into(),
        params: params.collect(),
        options: options.collect(),
    }
}
