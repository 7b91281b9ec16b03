//! A trainer: learns what a feed gives, reports what it asks for.

use crate::feed::{Batch, Feed};
use crate::text::{Group, ROW, Row};
use mixfeed_client::ngram::{NGram, SKETCH};
use mixfeed_server::estimate::{Reduced, Want};

/// Batches behind one influence report, and rows of each.
const INFLUENCE: (usize, usize) = (4, 32);
/// Last rows of each group that a sketch is of, as in [`mixfeed_client::ngram::NGramTrainer`].
pub const RECENT: usize = 128;

/// Trains `model` on `groups` until the feed ends; `tasks` are the groups whose held-out sets count.
pub fn train(feed: &mut dyn Feed, groups: &[&Group], tasks: &[usize], model: &mut NGram) {
    let mut recent = vec![Vec::new(); groups.len()];
    while let Some(batch) = feed.next() {
        for want in &batch.due_before {
            feed.report(measure(*want, batch.step, &batch, groups, tasks, model));
        }
        let ahead = batch.due_after.iter().filter(|w| **w == Want::Train);
        let losses: Vec<Reduced> =
            ahead.map(|w| measure(*w, batch.step + 1, &batch, groups, tasks, model)).collect();
        model.learn(&rows(&batch, groups));
        losses.into_iter().for_each(|report| feed.report(report));
        batch.rows.iter().for_each(|(group, row)| recent[*group].push(groups[*group].train[*row].as_slice()));
        for want in batch.due_after.iter().filter(|w| **w != Want::Train) {
            match want {
                Want::Sketch => sketches(batch.step + 1, groups, tasks, model, &recent)
                    .into_iter()
                    .for_each(|sketch| feed.report(sketch)),
                Want::Eval
                | Want::Train
                | Want::Excess
                | Want::Dots
                | Want::GradientStats
                | Want::Influence
                | Want::Candidates => {
                    feed.report(measure(*want, batch.step + 1, &batch, groups, tasks, model));
                }
            }
        }
    }
}

fn rows<'a>(batch: &Batch, groups: &[&'a Group]) -> Vec<&'a Row> {
    batch.rows.iter().map(|(group, row)| &groups[*group].train[*row]).collect()
}

/// A report of kind `want` after `to_step` steps.
fn measure(
    want: Want,
    to_step: u64,
    batch: &Batch,
    groups: &[&Group],
    tasks: &[usize],
    model: &mut NGram,
) -> Reduced {
    let (values, counts) = match want {
        Want::Eval => tasks.iter().map(|t| total(model, &groups[*t].held_out)).unzip(),
        Want::Train => {
            let of = |g: usize| batch.rows.iter().filter(move |(group, _)| *group == g);
            let rows = |g: usize| of(g).map(|(g, r)| groups[*g].train[*r].clone()).collect::<Vec<Row>>();
            (0..groups.len()).map(|g| total(model, &rows(g))).unzip()
        }
        Want::Influence => {
            (influence(to_step, groups, tasks, model), vec![tokens(INFLUENCE.0 * INFLUENCE.1)])
        }
        Want::Excess | Want::Dots | Want::GradientStats | Want::Sketch | Want::Candidates => {
            panic!("a count model has no {want:?}")
        }
    };
    Reduced { want, to_step, values, counts, more: Vec::new(), lr: 0.0, owner: 0, held_out: false }
}

fn tokens(rows: usize) -> f64 {
    (rows * ROW) as f64
}

/// Sum of losses over rows, and their tokens.
fn total(model: &NGram, rows: &[Row]) -> (f64, f64) {
    (rows.iter().fold(0.0, |sum, row| sum + model.nll(row)), tokens(rows.len()))
}

/// Sketches of the tasks' held-out sets and of the last rows of each group, by the model without those.
fn sketches(
    to_step: u64,
    groups: &[&Group],
    tasks: &[usize],
    model: &mut NGram,
    recent: &[Vec<&[u8]>],
) -> Vec<Reduced> {
    let last: Vec<&[&[u8]]> = recent.iter().map(|rows| &rows[rows.len().saturating_sub(RECENT)..]).collect();
    last.iter().for_each(|rows| model.forget(rows));
    let one = |owner: usize, held_out: bool, rows: &[&[u8]]| {
        let mut values = vec![0.0; SKETCH];
        model.sketch(rows, 1.0 / tokens(rows.len()), &mut values);
        let want = Want::Sketch;
        Reduced { want, to_step, values, counts: Vec::new(), more: Vec::new(), lr: 0.0, owner, held_out }
    };
    let held = |t: &usize| groups[*t].held_out.iter().map(Vec::as_slice).collect::<Vec<_>>();
    let of_tasks = tasks.iter().enumerate().map(|(i, t)| one(i, true, &held(t)));
    let sketches = of_tasks.chain(last.iter().enumerate().map(|(j, rows)| one(j, false, rows))).collect();
    last.iter().for_each(|rows| model.learn(rows));
    sketches
}

/// Influence of learning one batch of group j on task i, (tasks, groups) row-major, mean over a few batches.
fn influence(step: u64, groups: &[&Group], tasks: &[usize], model: &mut NGram) -> Vec<f64> {
    let held_out: Vec<Vec<&[u8]>> =
        tasks.iter().map(|t| groups[*t].held_out.iter().map(Vec::as_slice).collect()).collect();
    let held_out: Vec<&[&[u8]]> = held_out.iter().map(Vec::as_slice).collect();
    let mut values = vec![0.0; tasks.len() * groups.len()];
    for (j, group) in groups.iter().enumerate() {
        for n in 0..INFLUENCE.0 {
            // Rows far apart, other ones for every step.
            let at = |i: usize| (step as usize * 31 + (n * INFLUENCE.1 + i) * 7919) % group.train.len();
            let rows: Vec<&[u8]> = (0..INFLUENCE.1).map(|i| group.train[at(i)].as_slice()).collect();
            for (i, gain) in model.influence(&rows, &held_out).into_iter().enumerate() {
                values[i * groups.len() + j] += gain / INFLUENCE.0 as f64;
            }
        }
    }
    values
}
