//! The feed of an eval set.

use super::resolve::dense_fits;
use super::{Feed, Job, JobError, JobGroup, LabelRule, MAX_BATCH, Order, Tally, check::Check, known_names};
use crate::plan::block::{Granularity, MixRule};
use crate::plan::{fields::Bank, view};

/// See [`Job::eval`].
pub(super) fn feed(job: &Job, group: &str, batch: u32, pad: bool) -> Result<Feed, JobError> {
    let feed = &job.feed;
    let wanted =
        |name: &str| name == group || name.split_once('/').is_some_and(|(source, _)| source == group);
    let chosen: Vec<u32> =
        (0..feed.groups.len() as u32).filter(|&g| wanted(&feed.groups[g as usize].name)).collect();
    if chosen.is_empty() {
        let known = known_names(feed.groups.iter().map(|g| g.name.as_str()));
        return Err(JobError::Unknown { what: "group", name: group.into(), known });
    }
    let mut check = Check::default();
    check.ensure((1..=MAX_BATCH).contains(&batch), "batch", || format!("is {batch}, want 1..={MAX_BATCH}"));
    dense_fits(&mut check, "batch", feed.labels.dense, batch, feed.classes.len());
    check.finish()?;
    let copy = |g: &JobGroup| JobGroup {
        name: g.name.clone(),
        source: g.source.clone(),
        classes: g.classes.clone(),
        ..*g
    };
    let none =
        MixRule { members: Vec::new(), granularity: Granularity::Elem, clean: 0.0, ..feed.mix.clone() };
    Ok(Feed {
        groups: feed.groups.iter().map(copy).collect(),
        classes: feed.classes.clone(),
        order: Order::Eval {
            spans: chosen.into_iter().map(|g| (g, feed.groups[g as usize].len())).collect(),
            batch: u64::from(batch),
            pad,
        },
        mix_block: u64::from(job.spec.mix_block.min(batch)),
        view: view::plain(&feed.view),
        mix: none,
        format: feed.format.clone(),
        labels: LabelRule { smoothing: 0.0, ..feed.labels },
        limits: feed.limits,
        max_bad_fraction: feed.max_bad_fraction,
        mix_stream: feed.mix_stream.clone(),
        view_stream: feed.view_stream.clone(),
        fields: Bank::new(job.spec.seed, feed.view.height, feed.view.width),
        mean_record_bytes: feed.mean_record_bytes,
        tally: Tally::default(),
    })
}
