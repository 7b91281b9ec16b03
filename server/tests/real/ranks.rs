//! Two trainers with one model between them. Sketches are linear: what two ranks report adds up to what one would have.

use crate::feed::{Log, log};
use crate::served::{Twin, moved};
use crate::sets::{self, Way};
use crate::stand::Server;
use crate::text::ROW;
use crate::train::RECENT;
use mixfeed_client::driver::{
    Driver, DriverOptions, EvalTask, LossSum, Moment, Sketch, StepReport, Trainer, TrainerError,
};
use mixfeed_client::ngram::{NGram, SKETCH, rows};
use mixfeed_client::{Batch, Client};
use mixfeed_proto as v1;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const RANKS: u32 = 2;

/// Rows of a group by (step, slot), each with the rank that has it.
type Rows = BTreeMap<(u64, u32), (u32, Vec<u8>)>;

/// What ranks have in common: the model, and how much of each group was seen.
#[derive(Debug)]
struct Common {
    model: Mutex<NGram>,
    groups: Mutex<Vec<Rows>>,
    /// Where they wait for each other: nobody learns while somebody measures.
    meet: Meet,
}

/// A place where each rank waits for the others; not for one that has failed.
#[derive(Debug, Default)]
struct Meet {
    arrived: Mutex<u32>,
    all: Condvar,
}

impl Meet {
    fn wait(&self) -> Result<(), TrainerError> {
        let mut arrived = self.arrived.lock().unwrap();
        *arrived += 1;
        let wanted = arrived.next_multiple_of(RANKS);
        self.all.notify_all();
        let patience = Duration::from_secs(60);
        let (arrived, waited) = self.all.wait_timeout_while(arrived, patience, |n| *n < wanted).unwrap();
        drop(arrived);
        if waited.timed_out() { Err("the other rank never came".into()) } else { Ok(()) }
    }
}

/// One of them.
#[derive(Debug)]
struct Rank {
    number: u32,
    common: Arc<Common>,
    /// Its part of each task's held-out set.
    held_out: Vec<Vec<Vec<u8>>>,
}

impl Trainer for Rank {
    fn train(&mut self, batch: &Batch) -> Result<StepReport, TrainerError> {
        let (rows, groups) = (rows(batch)?, batch.groups()?);
        self.common.meet.wait()?;
        self.common.model.lock().unwrap().learn(&rows);
        let mut seen = self.common.groups.lock().unwrap();
        for ((slot, row), group) in batch.slots().zip(rows).zip(groups.own()) {
            seen[group as usize].insert((batch.step(), slot), (self.number, row));
        }
        drop(seen);
        self.common.meet.wait()?;
        Ok(StepReport::default())
    }

    fn evaluate(&mut self, task: &EvalTask, batch: &Batch) -> Result<LossSum, TrainerError> {
        let rows = rows(batch)?;
        let model = self.common.model.lock().unwrap();
        let sum = rows.iter().fold(0.0, |sum, row| sum + model.nll(row));
        let count = rows.iter().map(Vec::len).sum::<usize>() as f64;
        self.held_out[task.index].extend(rows);
        Ok(LossSum { sum, count })
    }

    /// Its own addends of the sketches over all ranks. The server's mean over two ranks is half of their sum, a factor
    /// that the shares do not see.
    fn sketches(&mut self, moment: &Moment<'_>) -> Result<Option<Vec<Sketch>>, TrainerError> {
        let mut model = self.common.model.lock().unwrap();
        let seen = self.common.groups.lock().unwrap();
        let last: Vec<Vec<&(u32, Vec<u8>)>> =
            seen.iter().map(|rows| rows.values().rev().take(RECENT).collect()).collect();
        let recent: Vec<&Vec<u8>> = last.iter().flatten().map(|(_, row)| row).collect();
        model.forget(&recent);
        let mut out = Vec::new();
        let mut add = |owner: usize, held_out: bool, rows: &[&Vec<u8>], all: u64| {
            let (mut values, tokens) = (vec![0.0; SKETCH], all * ROW as u64);
            model.sketch(rows, 1.0 / tokens as f64, &mut values);
            out.push(Sketch { owner: owner as u32, held_out, values });
        };
        for (task, mine) in moment.tasks.iter().zip(&self.held_out) {
            assert!(!mine.is_empty() && (mine.len() as u64) < task.rows, "a part of the set");
            add(task.index, true, &mine.iter().collect::<Vec<_>>(), task.rows);
        }
        for (owner, all) in last.iter().enumerate() {
            let mine = all.iter().filter(|(rank, _)| *rank == self.number).map(|(_, row)| row);
            add(owner, false, &mine.collect::<Vec<_>>(), all.len() as u64);
        }
        model.learn(&recent);
        Ok(Some(out))
    }
}

/// A rank's driver; the first one opens the attempt.
async fn opened(
    client: &Client,
    common: &Arc<Common>,
    number: u32,
    tasks: usize,
    first: Option<&Driver<Rank>>,
) -> Driver<Rank> {
    let rank = Rank { number, common: common.clone(), held_out: vec![Vec::new(); tasks] };
    let options = DriverOptions {
        rank: number,
        world_size: RANKS,
        attempt: first.map(Driver::attempt),
        eval_rank: number,
        eval_world_size: RANKS,
        ..Default::default()
    };
    Driver::open(client.clone(), "job", rank, options).await.unwrap()
}

/// The twin's job by two trainers that both report.
async fn by_two(twin: &Twin) -> (NGram, Log) {
    let mut spec = twin.spec.clone();
    spec.mix_block = 16;
    spec.mixture.as_mut().unwrap().reporters = RANKS;
    let (groups, tasks) = (twin.groups.len(), twin.set.tasks.len());
    let server = Server::start(twin.sources.clone()).await;
    let client = server.open(&spec).await;
    let common = Arc::new(Common {
        model: Mutex::new(NGram::new()),
        groups: Mutex::new(vec![Rows::new(); groups]),
        meet: Meet::default(),
    });
    let mut one = opened(&client, &common, 0, tasks, None).await;
    let mut other = opened(&client, &common, 1, tasks, Some(&one)).await;
    let steps = twin.set.steps + 1;
    let (first, second) = tokio::join!(one.run(steps), other.run(steps));
    assert!(first.unwrap().end.is_some() && second.unwrap().end.is_some());
    let reports = client.mixture("job").await.unwrap().reports;
    let accepted = reports.iter().filter(|r| r.outcome == v1::ReportOutcome::Accepted as i32);
    assert_eq!(accepted.map(|r| r.reports).sum::<u64>(), reports.iter().map(|r| r.reports).sum::<u64>());
    let model = common.model.lock().unwrap().clone();
    (model, log(&client.mixture_log("job", 1).await.unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sketches_of_two_ranks_add_up_to_those_of_one() {
    let way: Way = sets::tikmix();
    let twin = Twin::new(&sets::V2, &way, 80);
    let (model, here) = twin.here(&way);
    let (shared, by_two) = by_two(&twin).await;
    assert!(moved(&here) > 1 << 24, "the mixture moves: {here:?}");
    assert_eq!(by_two, here);
    assert_eq!(twin.judged(&shared), twin.judged(&model));
}
