//! Pictures of a job's scenes.

use crate::assemble::{BlockAt, Opened, open};
use crate::exec::points::union::Part as Taken;
use crate::job::Feed;
use crate::picture::scene::{ClassNames, Cloud, Example, Paint, Part, SceneSheet};
use anyhow::Context;

/// One block of a job of scenes, opened up.
pub struct Clouds<'a> {
    feed: &'a Feed,
    opened: Opened,
}

/// A row's points before voxels, as a picture takes them.
struct Row {
    title: String,
    parts: Vec<(String, Points)>,
    union: Points,
    origin: Vec<u8>,
}

#[derive(Default)]
struct Points {
    coord: Vec<[f32; 3]>,
    class: Vec<i32>,
}

impl Points {
    fn cloud(&self) -> Cloud<'_> {
        Cloud { coord: &self.coord, class: Some(&self.class), color: None }
    }
}

impl<'a> Clouds<'a> {
    /// The first block of `step`.
    pub fn new(feed: &'a Feed, step: u64) -> anyhow::Result<Clouds<'a>> {
        let rule = feed.points().context("the job has no scenes")?;
        let mut places = feed.order.step(step);
        places.truncate(feed.mix_block as usize);
        let opened = open(feed, rule, &BlockAt { step, slot: 0, places })?;
        Ok(Clouds { feed, opened })
    }

    /// Rows that are mixed, at most `most`; all rows when none is.
    pub fn mixed(&self, most: usize) -> Vec<usize> {
        let rows = 0..self.opened.plan.rows.len();
        let mixed: Vec<usize> =
            rows.clone().filter(|i| self.opened.mixed.facts[*i].scenes.len() > 1).collect();
        (if mixed.is_empty() { rows.collect() } else { mixed }).into_iter().take(most).collect()
    }

    /// A page with `rows`, one below the other, as PNG.
    pub fn png(&self, title: &str, subtitle: &str, rows: &[usize], asprs: bool) -> anyhow::Result<Vec<u8>> {
        let rows: Vec<Row> = rows.iter().map(|i| self.row(*i)).collect();
        let parts: Vec<Vec<Part<'_>>> = rows.iter().map(parts_of).collect();
        let examples: Vec<Example<'_>> = rows
            .iter()
            .zip(&parts)
            .map(|(row, parts)| Example {
                title: &row.title,
                parts,
                union: row.union.cloud(),
                origin: &row.origin,
            })
            .collect();
        let own: Vec<(i32, String)> = (0..).zip(self.feed.classes.iter().cloned()).collect();
        let names = if asprs { ClassNames::Asprs } else { ClassNames::Own(&own) };
        let sheet = SceneSheet { title, subtitle, examples: &examples, names, paint: Paint::Class };
        Ok(sheet.png()?)
    }

    fn row(&self, i: usize) -> Row {
        let Opened { samples, plan, mixed, .. } = &self.opened;
        let row = &mixed.rows[i];
        let (mut union, mut origin) = (Points::default(), Vec::new());
        let mut parts: Vec<(String, Points)> = Vec::new();
        for part in row {
            self.add(part, &mut union);
            origin.resize(union.coord.len(), part.scene);
            let number = usize::from(part.scene);
            if parts.len() <= number {
                let name = self.feed.record_name(samples[part.slot as usize].id);
                parts.resize_with(number + 1, || (name.clone(), Points::default()));
            }
            self.add(part, &mut parts[number].1);
        }
        let rule = self.feed.points().map(|rule| &rule.mix.members);
        let policy = plan.rows[i].policy.zip(rule).map_or("clean", |(p, all)| all[p as usize].policy.name());
        let kept = self.opened.mixed.facts[i].points;
        let title = format!("{policy}: {} points, {kept} sent", union.coord.len());
        Row { title, parts, union, origin }
    }

    fn add(&self, part: &Taken, out: &mut Points) {
        let (scene, turn) = (&self.opened.scenes[part.slot as usize], part.turn());
        for number in part.numbers() {
            out.coord.push(turn.of(scene.coord[number as usize]));
            out.class.push(scene.segment.as_ref().map_or(-1, |class| class[number as usize]));
        }
    }
}

fn parts_of(row: &Row) -> Vec<Part<'_>> {
    row.parts.iter().map(|(name, points)| Part { name, cloud: points.cloud() }).collect()
}
