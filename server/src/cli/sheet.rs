//! Contact sheets of a job's rows.

use crate::assemble::{self, BlockAt, Sample};
use crate::job::Feed;
use crate::picture::{Line, Picture};
use crate::plan::{Plan, Row};
use crate::{batch::Dtype, exec};
use anyhow::ensure;

/// One block, opened up.
pub struct Shown {
    clean: Vec<u8>,
    samples: Vec<Sample>,
    /// What becomes of it.
    pub plan: Plan,
}

impl Shown {
    /// The first block of `step`.
    pub fn new(feed: &Feed, step: u64) -> anyhow::Result<Shown> {
        ensure!(feed.format.dtype == Dtype::U8, "pictures show u8 rows only");
        let mut places = feed.order.step(step);
        places.truncate(feed.mix_block as usize);
        let (clean, samples, plan) = assemble::show(feed, &BlockAt { step, slot: 0, places })?;
        Ok(Shown { clean, samples, plan })
    }

    /// Row `i` as the executor makes it.
    pub fn result(&self, feed: &Feed, i: usize) -> Vec<u8> {
        let mut out = vec![0; feed.image_bytes()];
        exec::run(&self.plan.rows[i], &self.clean, &feed.format, &mut exec::Scratch::default(), &mut out);
        out
    }

    /// Row `i` as a line of a sheet; `result` holds its finished pixels.
    pub fn line(&self, feed: &Feed, i: usize, result: &[u8]) -> Line {
        let row = &self.plan.rows[i];
        let raster = &feed.format.raster;
        let clean = |slot: u32| {
            let at = slot as usize * raster.len();
            Picture::from_row(&self.clean[at..at + raster.len()], raster)
        };
        let mask = exec::mask(row, feed.view.height, feed.view.width);
        let label = |slot: u32| self.label(feed, slot);
        let (own, rest) = (row.own, 1.0 - row.own);
        Line {
            base: clean(row.base),
            partner: clean(row.partner),
            mask: Picture::from_mask(&mask, feed.view.height, feed.view.width),
            result: Picture::from_row(result, raster),
            captions: [
                label(row.base),
                label(row.partner),
                format!("{}\nlambda drawn {:.3}", self.policy(feed, row), row.sampled),
                format!("{:.3} {}\n{:.3} {}", own, label(row.base), rest, label(row.partner)),
            ],
        }
    }

    /// Name of a row's policy.
    pub fn policy(&self, feed: &Feed, row: &Row) -> &'static str {
        row.policy.map_or("clean", |p| feed.mix.members[p as usize].policy.name())
    }

    /// Label weights of row `i` in one line.
    pub fn caption(&self, feed: &Feed, i: usize) -> String {
        let row = &self.plan.rows[i];
        let (a, b) = (self.label(feed, row.base), self.label(feed, row.partner));
        format!("{}\n{:.2} {a} {:.2} {b}", self.policy(feed, row), row.own, 1.0 - row.own)
    }

    fn label(&self, feed: &Feed, slot: u32) -> String {
        let label = self.samples[slot as usize].label;
        usize::try_from(label)
            .ok()
            .and_then(|l| feed.classes.get(l))
            .cloned()
            .unwrap_or_else(|| "no class".into())
    }
}
