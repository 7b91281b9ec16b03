//! Contact sheets of a job's rows.

use crate::assemble::{self, BlockAt, Sample};
use crate::job::{Feed, Image};
use crate::picture::{Line, Picture};
use crate::plan::{Plan, Row};
use crate::{batch::Dtype, exec};
use anyhow::{Context, ensure};

/// One block of a job of pictures, opened up.
pub struct Shown<'a> {
    feed: &'a Feed,
    image: &'a Image,
    clean: Vec<u8>,
    samples: Vec<Sample>,
    /// What becomes of it.
    pub plan: Plan,
}

impl<'a> Shown<'a> {
    /// The first block of `step`.
    pub fn new(feed: &'a Feed, step: u64) -> anyhow::Result<Shown<'a>> {
        let image = feed.image().context("the job has no pictures")?;
        ensure!(image.format.dtype == Dtype::U8, "pictures show u8 rows only");
        let mut places = feed.order.step(step);
        places.truncate(feed.mix_block as usize);
        let (clean, samples, plan) = assemble::show(feed, image, &BlockAt { step, slot: 0, places })?;
        Ok(Shown { feed, image, clean, samples, plan })
    }

    /// Row `i` as the executor makes it.
    pub fn result(&self, i: usize) -> Vec<u8> {
        let mut out = vec![0; self.image.bytes()];
        exec::run(
            &self.plan.rows[i],
            &self.clean,
            &self.image.format,
            &mut exec::Scratch::default(),
            &mut out,
        );
        out
    }

    /// Row `i` as a line of a sheet; `result` holds its finished pixels.
    pub fn line(&self, i: usize, result: &[u8]) -> Line {
        let row = &self.plan.rows[i];
        let raster = &self.image.format.raster;
        let (height, width) = (self.image.view.height, self.image.view.width);
        let clean = |slot: u32| {
            let at = slot as usize * raster.len();
            Picture::from_row(&self.clean[at..at + raster.len()], raster)
        };
        let mask = exec::mask(row, height, width);
        let label = |slot: u32| self.label(slot);
        let (own, rest) = (row.own, 1.0 - row.own);
        Line {
            base: clean(row.base),
            partner: clean(row.partner),
            mask: Picture::from_mask(&mask, height, width),
            result: Picture::from_row(result, raster),
            captions: [
                label(row.base),
                label(row.partner),
                format!("{}\nlambda drawn {:.3}", self.policy(row), row.sampled),
                format!("{:.3} {}\n{:.3} {}", own, label(row.base), rest, label(row.partner)),
            ],
        }
    }

    /// Name of a row's policy.
    pub fn policy(&self, row: &Row) -> &'static str {
        row.policy.map_or("clean", |p| self.image.mix.members[p as usize].policy.name())
    }

    /// Label weights of row `i` in one line.
    pub fn caption(&self, i: usize) -> String {
        let row = &self.plan.rows[i];
        let (a, b) = (self.label(row.base), self.label(row.partner));
        format!("{}\n{:.2} {a} {:.2} {b}", self.policy(row), row.own, 1.0 - row.own)
    }

    fn label(&self, slot: u32) -> String {
        let label = self.samples[slot as usize].label;
        usize::try_from(label)
            .ok()
            .and_then(|l| self.feed.classes.get(l))
            .cloned()
            .unwrap_or_else(|| "no class".into())
    }
}
