//! Through the service: the same sets, with batches over gRPC and held-out losses from the client's driver, give the log
//! and the model of a run in process, bit for bit.

use crate::feed::{Log, log};
use crate::sets::{self, BATCH, Set, Way, aioli, trained};
use crate::stand::Server;
use crate::text::{Group, ROW, Row};
use mixfeed_client::driver::{Driver, DriverOptions};
use mixfeed_client::ngram::{NGram, NGramTrainer};
use mixfeed_proto as v1;
use mixfeed_server::assemble::{self, BlockAt};
use mixfeed_server::job::{self, Job};
use mixfeed_server::source::{Source, TokenMemory};
use mixfeed_server::{Sources, store};
use std::sync::Arc;

/// Documents of a group that are held out.
const HELD_OUT: u64 = 64;
/// Rows of one batch of evaluation: every held-out set at once, so that its losses are one sum, as in [`crate::train`].
const EVAL_BATCH: u32 = 4096;
const SEED: u64 = 7;

/// A set as a job of a server, and as the same rows in this process.
pub struct Twin {
    /// What is learnt.
    pub set: Set,
    /// The server's sources.
    pub sources: Sources,
    /// The job, with one reporter.
    pub spec: v1::JobSpec,
    /// Its rows by number and its held-out sets.
    pub groups: Vec<Group>,
}

impl Twin {
    /// `set` for `steps` steps; a document is a row of a group's text.
    pub fn new(set: &Set, way: &Way, steps: u64) -> Twin {
        let set = Set { steps, ..*set };
        let loaded: Vec<Group> = set.groups.iter().map(|name| Group::load(name)).collect();
        let ids = |row: &Row| row.iter().map(|byte| u32::from(*byte)).collect();
        let documents = |g: &Group| g.train.iter().chain(&g.held_out).map(ids).collect();
        let source = set.groups.iter().zip(&loaded).map(|(name, g)| ((*name).into(), documents(g)));
        let source: Arc<dyn Source> = Arc::new(TokenMemory::new(source.collect()).unwrap());
        let sources = Sources::from([("text".into(), source)]);
        let spec = spec(&set, way);
        let job = job::resolve("job", spec.clone(), &sources).unwrap().open(&store::memory()).unwrap();
        let of = |(name, g): (&&str, Group)| {
            let name = format!("text/{name}");
            Group { train: rows(&job, &name, false), held_out: rows(&job, &name, true), test: g.test }
        };
        let groups = set.groups.iter().zip(loaded).map(of).collect();
        Twin { set, sources, spec, groups }
    }

    /// The run in process.
    pub fn here(&self, way: &Way) -> (NGram, Log) {
        let groups: Vec<&Group> = self.groups.iter().collect();
        trained(&self.set, &groups, way, SEED)
    }

    /// The run through the service.
    pub async fn served(&self) -> (NGram, Vec<v1::MixtureEntry>) {
        let server = Server::start(self.sources.clone()).await;
        let client = server.open(&self.spec).await;
        let trainer = NGramTrainer::new(self.groups.len());
        let options = DriverOptions { eval_batch: EVAL_BATCH, ..Default::default() };
        let mut driver = Driver::open(client.clone(), "job", trainer, options).await.unwrap();
        assert!(driver.run(self.set.steps + 1).await.unwrap().end.is_some(), "the job is over");
        let log = client.mixture_log("job", 1).await.unwrap();
        (driver.into_trainer().await.unwrap().model, log)
    }

    /// Losses on each group's held-out and test rows, as bits.
    pub fn judged(&self, model: &NGram) -> Vec<u64> {
        let sets = self.groups.iter().flat_map(|g| [&g.held_out, &g.test]);
        sets.map(|rows| model.loss::<Row>(rows).to_bits()).collect()
    }
}

/// Rows of a group in the order of their numbers.
fn rows(job: &Job, group: &str, held_out: bool) -> Vec<Row> {
    let feed = job.eval(group, EVAL_BATCH, false, held_out).unwrap();
    let bytes = |ids: Vec<i32>| ids.into_iter().map(|id| u8::try_from(id).unwrap()).collect();
    let step = |step| {
        let at = BlockAt { step, slot: 0, places: feed.order.step(step) };
        assemble::tokens(&feed, &at).unwrap().into_iter().map(move |row| bytes(row.ids))
    };
    (0..feed.order.steps().unwrap()).flat_map(step).collect()
}

/// `way` on `set` as a client asks for it.
fn spec(set: &Set, way: &Way) -> v1::JobSpec {
    let name = |group: &&str| format!("text/{group}");
    let group = |(group, weight): (&&str, &f64)| v1::GroupSpec {
        group: name(group),
        weight: Some(*weight),
        ..Default::default()
    };
    let task = |t: &usize| v1::TaskSpec { group: name(&set.groups[*t]), weight: None };
    let estimator = v1::EstimatorSpec {
        name: way.method.into(),
        params: way.numbers.iter().map(|(k, v)| ((*k).into(), *v)).collect(),
        options: way.words.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        ..Default::default()
    };
    v1::JobSpec {
        groups: set.groups.iter().zip(set.initial).map(group).collect(),
        seed: SEED,
        global_batch: BATCH as u32,
        tokens: Some(v1::TokenSpec { seq_len: ROW as u32, ..Default::default() }),
        held_out: Some(v1::HeldOutSpec { fraction: 0.1, max_records: HELD_OUT }),
        mixture: Some(v1::MixtureSpec {
            estimator: Some(estimator),
            objective: set.tasks.iter().map(task).collect(),
            barrier: v1::Barrier::Strict as i32,
            paper_faithful: true,
            ..Default::default()
        }),
        max_steps: set.steps,
        ..Default::default()
    }
}

/// Largest change of a share from one entry's mixture to a later one's.
pub fn moved(log: &Log) -> u64 {
    let changes = log.iter().flat_map(|(_, weights)| weights.iter().zip(&log[0].1));
    changes.map(|(now, then)| now.abs_diff(*then)).max().unwrap()
}

/// Both runs of `set` give the same; the mixture moves `rounds` times.
async fn same(set: &Set, way: &Way, steps: u64, rounds: usize) {
    let twin = Twin::new(set, way, steps);
    let (model, here) = twin.here(way);
    let (served, entries) = twin.served().await;
    assert_eq!(log(&entries), here, "{}: another log", set.name);
    assert_eq!(twin.judged(&served), twin.judged(&model), "{}: another model", set.name);
    let learnt = entries.iter().filter(|e| e.kind == v1::MixtureKind::Main as i32);
    let mut learnt: Vec<_> = learnt.map(|e| &e.weights).collect();
    learnt.dedup();
    assert_eq!(learnt.len(), rounds, "{}: mixtures in turn: {learnt:?}", set.name);
    assert!(moved(&here) > 1 << 20, "{}: the mixture moves: {learnt:?}", set.name);
}

/// Rounds of 30 steps, 3 of them.
fn quick(eta: f64) -> Way {
    aioli(&[("round_steps", 30.0), ("probe_steps", 2.0), ("eta", eta)])
}

#[tokio::test(flavor = "multi_thread")]
async fn two_and_three_groups_are_learnt_the_same_through_the_service() {
    same(&sets::V1, &quick(1.0), 90, 3).await;
    same(&sets::V2, &quick(0.2), 90, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_objective_of_fewer_groups_is_learnt_the_same_through_the_service() {
    let numbers = [("round_steps", 30.0), ("probe_steps", 2.0), ("one_hot", 0.75), ("eta", 1.0)];
    same(&sets::V5, &aioli(&numbers), 60, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_prior_is_left_the_same_through_the_service() {
    let way = aioli(&[("prior_steps", 20.0), ("round_steps", 30.0), ("probe_steps", 2.0), ("eta", 1.0)]);
    same(&sets::V6, &Way { words: vec![("variant", "paper_eg"), ("start", "prior")], ..way }, 80, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_without_gain_are_learnt_the_same_through_the_service() {
    same(&sets::CONTROL, &quick(0.2), 60, 2).await;
    same(&sets::NEGATIVE, &quick(1.0), 60, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sketches_of_gradients_are_learnt_from_the_same_through_the_service() {
    same(&sets::V2, &sets::tikmix(), 80, 4).await;
}
