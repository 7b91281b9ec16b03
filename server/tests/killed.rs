//! A server that is killed with -9 in the middle of learning, and what comes after.
#![allow(clippy::unwrap_used)]

mod serving;

use mixfeed_client::driver::{DriveError, Driver, DriverOptions};
use mixfeed_client::learn::{MixtureEntry, ResumeAttempt};
use mixfeed_client::ngram::{NGram, NGramTrainer};
use mixfeed_client::{Client, ClientOptions, Cursor};
use serving::Serving;
use std::{fs, path::Path, time::Duration};

const STEPS: u64 = 60;

/// A config on the demo's texts with a job that learns: rounds of 20 steps, six of them probes.
fn config() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let texts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-data/text").canonicalize().unwrap();
    let text = format!(
        "[sources.text]\nkind = \"text\"\npath = {:?}\ntokenizer = \"bytes\"\ndocuments = \"paragraph\"\n\
         groups = \"shard\"\n\n[jobs.lm]\nseed = 3\nglobal_batch = 16\nmax_steps = {STEPS}\n\
         groups = [{{ group = \"text\" }}]\ntokens = {{ seq_len = 64 }}\n\
         held_out = {{ fraction = 0.1, max_records = 20 }}\n\n[jobs.lm.mixture]\n\
         estimator = {{ name = \"aioli\", params = {{ eta = 1.0, round_steps = 20, sweeps = 1, probe_steps = 2 }}, \
         options = {{ variant = \"paper_eg\" }} }}\n",
        texts.display().to_string()
    );
    fs::write(folder.path().join("mixfeed.toml"), text).unwrap();
    folder
}

fn start(folder: &tempfile::TempDir) -> Serving {
    Serving::start(&folder.path().join("mixfeed.toml").display().to_string())
}

async fn connect(server: &Serving) -> Client {
    let options = ClientOptions::default().patience(Duration::ZERO);
    Client::connect_with([server.endpoint.clone()], options).await.unwrap()
}

/// A trainer whose checkpoint is taken after every step.
struct Life {
    trainer: NGramTrainer,
    cursor: Option<Cursor>,
}

/// Trains on until `until` steps are done; the checkpoint after them.
async fn live(client: &Client, life: Life, until: u64) -> Life {
    let options = DriverOptions {
        start: life.cursor.clone(),
        resume: ResumeAttempt::Unspecified,
        ..Default::default()
    };
    let done = life.cursor.as_ref().map_or(0, Cursor::next_step);
    let mut driver = Driver::open(client.clone(), "lm", life.trainer, options).await.unwrap();
    driver.run(until - done).await.unwrap();
    let cursor = driver.cursor().cloned();
    Life { trainer: driver.into_trainer().await.unwrap(), cursor }
}

fn bits(model: &NGram) -> u64 {
    model.loss(&[b"what the model has learnt".as_slice(), b"fn main() { let x = 1; }"]).to_bits()
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_anywhere_in_a_round_changes_nothing() {
    let fresh = || Life { trainer: NGramTrainer::new(3), cursor: None };
    let folder = config();
    let mut server = start(&folder);
    let client = connect(&server).await;
    let whole = live(&client, fresh(), STEPS).await;
    let log: Vec<MixtureEntry> = client.mixture_log("lm", 1).await.unwrap();
    drop(client);
    server.signal("-9");
    for kills in [vec![1, 2], vec![5, 6, 7], vec![13, 20, 21, 26, 44]] {
        let folder = config();
        let mut life = fresh();
        let mut server = start(&folder);
        for kill in kills.iter().copied() {
            life = live(&connect(&server).await, life, kill).await;
            server.signal("-9");
            server = start(&folder);
        }
        let client = connect(&server).await;
        let life = live(&client, life, STEPS).await;
        assert_eq!(client.mixture_log("lm", 1).await.unwrap(), log, "killed after {kills:?}");
        assert_eq!(bits(&life.trainer.model), bits(&whole.trainer.model), "killed after {kills:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_that_lost_its_server_goes_on_from_its_checkpoint() {
    let folder = config();
    let mut server = start(&folder);
    let client = connect(&server).await;
    let life = live(&client, Life { trainer: NGramTrainer::new(3), cursor: None }, 4).await;
    let options = DriverOptions { start: life.cursor.clone(), ..Default::default() };
    let mut driver = Driver::open(client, "lm", life.trainer, options).await.unwrap();
    driver.run(3).await.unwrap();
    server.signal("-9");
    // Batches that are on their way may still be trained on; then the loss of the server is an error, not a hang.
    let mut error = None;
    while error.is_none() {
        error = driver.run(1).await.err();
    }
    assert!(matches!(error, Some(DriveError::Client(_))), "{error:?}");
    let checkpoint = driver.cursor().cloned();
    let trainer = driver.into_trainer().await.unwrap();
    let server = start(&folder);
    let life = live(&connect(&server).await, Life { trainer, cursor: checkpoint }, STEPS).await;
    assert_eq!(life.cursor.unwrap().next_step(), STEPS);
}
