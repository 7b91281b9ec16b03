//! Learning through the service gives the numbers of learning in process, bit for bit: the wire, the client and its driver
//! add nothing and lose nothing.
#![allow(clippy::unwrap_used)]

mod stand;

use mixfeed_client::driver::{Driver, DriverOptions};
use mixfeed_client::ngram::{NGram, NGramTrainer};
use mixfeed_proto as v1;
use mixfeed_server::assemble::{self, BlockAt};
use mixfeed_server::job::{self, Feed, Job, Place};
use mixfeed_server::keeper::Reached;
use mixfeed_server::source::{self, Declaration, Documents, GroupBy, Kind};
use mixfeed_server::{Sources, store};
use stand::Server;
use std::{collections::BTreeMap, path::Path};

const BATCH: u32 = 32;
const STEPS: u64 = 150;
const EVAL: i32 = v1::ReportKind::Eval as i32;

/// The demo's three texts, a document a paragraph, a group a file.
fn texts(folder: &tempfile::TempDir) -> Sources {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-data/text");
    let declared = Declaration {
        tokenizer: Some("bytes".into()),
        documents: Some(Documents::Paragraph),
        groups: Some(GroupBy::Shard),
        cache: Some(folder.path().display().to_string()),
        ..Declaration::new(Kind::Text, path.display().to_string())
    };
    Sources::from([("text".into(), source::open("text", &declared, Path::new("."), &|_, _| {}).unwrap())])
}

fn spec(sources: &Sources) -> v1::JobSpec {
    let aioli = v1::EstimatorSpec {
        name: "aioli".into(),
        params: [("eta", 1.0), ("round_steps", 50.0), ("sweeps", 2.0), ("probe_steps", 3.0)]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        options: BTreeMap::from([("variant".into(), "paper_eg".into())]),
        ..Default::default()
    };
    let groups = sources["text"].index().groups.iter();
    let group = |g: &source::Group| v1::GroupSpec {
        group: format!("text/{}", g.name),
        weight: Some(1.0),
        ..Default::default()
    };
    v1::JobSpec {
        groups: groups.map(group).collect(),
        seed: 11,
        global_batch: BATCH,
        tokens: Some(v1::TokenSpec { seq_len: 64, ..Default::default() }),
        held_out: Some(v1::HeldOutSpec { fraction: 0.1, max_records: 40 }),
        mixture: Some(v1::MixtureSpec { estimator: Some(aioli), ..Default::default() }),
        max_steps: STEPS,
        ..Default::default()
    }
}

/// Rows of slots as bytes.
fn rows(feed: &Feed, step: u64, places: Vec<Place>) -> Vec<Vec<u8>> {
    let rows = assemble::tokens(feed, &BlockAt { step, slot: 0, places }).unwrap();
    rows.into_iter().map(|row| row.ids.into_iter().map(|id| id as u8).collect()).collect()
}

/// Sum of losses and tokens of a group's held-out set, batch by batch as a trainer adds them up.
fn evaluate(job: &Job, group: &str, model: &NGram) -> (f64, f64) {
    let feed = job.eval(group, BATCH, false, true).unwrap();
    let (mut sum, mut tokens) = (0.0, 0.0);
    for step in 0..feed.order.steps().unwrap() {
        let rows = rows(&feed, step, feed.order.step(step));
        sum += rows.iter().fold(0.0, |sum, row| sum + model.nll(row));
        tokens += rows.iter().map(Vec::len).sum::<usize>() as f64;
    }
    (sum, tokens)
}

/// The whole run without a service: the keeper asked directly, rows read directly.
async fn in_process(job: &Job) -> NGram {
    let (keeper, mut model) = (&job.keeper, NGram::new());
    let attempt = keeper.open_attempt(0, 0, v1::ResumeAttempt::Unspecified).await.unwrap().attempt;
    let mut seq = 0;
    for step in 0.. {
        let Reached::Step(sequence, mark) = keeper.reach(step).await.unwrap() else { break };
        let mut report = |at: u64, model: &NGram| {
            let (values, counts) = job.feed.groups.iter().map(|g| evaluate(job, &g.name, model)).unzip();
            seq += 1;
            v1::ReportRequest {
                attempt,
                segment: mark.seq,
                kind: EVAL,
                seq,
                mixture_id: mark.mixture_id,
                values,
                counts,
                from_step: at,
                to_step: at,
                eval_digest: job.held.as_ref().unwrap().digest.to_vec().into(),
                ..Default::default()
            }
        };
        if mark.due_before.contains(&EVAL) {
            keeper.report(report(step, &model)).await.unwrap();
        }
        model.learn(&rows(&job.feed, step, job::places(&sequence, step)));
        if mark.due_after.contains(&EVAL) {
            keeper.report(report(step + 1, &model)).await.unwrap();
        }
    }
    model
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_gives_the_numbers_of_a_run_in_process() {
    let folder = tempfile::tempdir().unwrap();
    let sources = texts(&folder);
    let spec = spec(&sources);
    let job = job::resolve("job", spec.clone(), &sources).unwrap().open(&store::memory()).unwrap();
    let model = in_process(&job).await;
    let log = job.keeper.with(|course| course.entries().to_vec()).unwrap();
    assert_eq!(log.iter().filter(|e| e.kind == v1::MixtureKind::Main as i32).count(), 3, "three rounds");
    let moved =
        log.last().unwrap().weights.iter().max().unwrap() - log.last().unwrap().weights.iter().min().unwrap();
    assert!(moved > 1 << 24, "it learnt something: {:?}", log.last().unwrap().weights);

    let server = Server::start(sources).await;
    let client = server.open(&spec).await;
    let trainer = NGramTrainer::new(3);
    let mut driver = Driver::open(client.clone(), "job", trainer, DriverOptions::default()).await.unwrap();
    assert!(driver.run(STEPS + 1).await.unwrap().end.is_some());
    let served = driver.into_trainer().await.unwrap().model;
    assert_eq!(client.mixture_log("job", 1).await.unwrap(), log);
    for group in &job.feed.groups {
        let (one, other) = (evaluate(&job, &group.name, &model), evaluate(&job, &group.name, &served));
        assert_eq!(one.0.to_bits(), other.0.to_bits(), "{}", group.name);
    }
}
