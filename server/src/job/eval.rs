//! The feed of an eval set.

use super::pictures::dense_fits;
use super::{Feed, Job, JobError, MAX_BATCH, Order, Pipeline, check::Check, known_names};

/// See [`Job::eval`].
pub(super) fn feed(job: &Job, group: &str, batch: u32, pad: bool, held_out: bool) -> Result<Feed, JobError> {
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
    if let Some(image) = feed.image() {
        dense_fits(&mut check, "batch", image.labels.dense, batch, feed.classes.len());
    }
    let held = job.held.as_ref().filter(|_| held_out);
    check.ensure(held.is_some() || !held_out, "held_out", || {
        "is true, but the job holds nothing out; want `held_out` in its spec".into()
    });
    let groups = held.map_or(&feed.groups, |held| &held.groups).clone();
    let pipeline = match &feed.pipeline {
        Pipeline::Image(image) => Pipeline::Image(Box::new(image.plain(job.spec.seed))),
        Pipeline::Points(points) => {
            Pipeline::Points(Box::new(points.plain(&mut check, batch, feed.order.batch())))
        }
        Pipeline::Tokens(tokens) => Pipeline::Tokens(tokens.of(held.map_or(&tokens.tables, |h| &h.tables))),
    };
    check.finish()?;
    Ok(Feed {
        job: job.name.clone(),
        classes: feed.classes.clone(),
        order: Order::Eval {
            spans: chosen.into_iter().map(|g| (g, groups[g as usize].len())).collect(),
            batch: u64::from(batch),
            pad,
        },
        mix_block: u64::from(job.spec.mix_block.min(batch)),
        groups,
        pipeline,
    })
}
