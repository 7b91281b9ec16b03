//! `mixfeed demo --mixture`: learns a mixture over embedded texts, through a server on this machine.
//!
//! A byte n-gram is trained twice per seed on the same three groups: with equal shares, and with Aioli, which sees nothing
//! but the held-out losses that the trainer reports. What counts is the loss on code and speech; that the proofs help
//! neither is for Aioli to find out. Both runs are judged on documents that were neither served nor reported on.

use super::serve;
use crate::picture::History;
use crate::source::TokenMemory;
use crate::{Sources, job};
use anyhow::{Context, ensure};
use mixfeed_client::driver::{Driver, DriverOptions};
use mixfeed_client::ngram::{NGram, NGramTrainer};
use mixfeed_client::{Client, spec::JobInfo};
use mixfeed_proto as v1;
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Instant};
use tokio::sync::watch;

/// Texts by group.
const TEXTS: [(&str, &str); 3] = [
    ("code", include_str!("../../../demo-data/text/code.txt")),
    ("proofs", include_str!("../../../demo-data/text/proofs.txt")),
    ("speech", include_str!("../../../demo-data/text/speech.txt")),
];
/// Groups whose loss counts.
const TASKS: [&str; 2] = ["code", "speech"];
/// Bytes of a document, about: runs of whole lines.
const DOCUMENT: usize = 2_000;
/// One document in so many is kept for the final test and never served.
const TEST_EVERY: usize = 10;
/// Bytes of a row.
const ROW: u32 = 64;
/// Rows of a step.
const BATCH: u32 = 32;
/// Steps of a run.
const STEPS: u64 = 200;
/// Paired runs.
const SEEDS: u64 = 8;

/// Documents of one text: those that are served, and the last test's.
struct Text {
    served: Vec<Vec<u32>>,
    test: Vec<Vec<u8>>,
}

impl Text {
    fn new(text: &str) -> Text {
        let mut documents = vec![String::new()];
        for line in text.split_inclusive('\n') {
            if documents.last().is_some_and(|d| d.len() >= DOCUMENT) {
                documents.push(String::new());
            }
            documents.last_mut().expect("starts with one").push_str(line);
        }
        let kept = |(i, _): &(usize, &String)| i % TEST_EVERY == TEST_EVERY - 1;
        let (test, served): (Vec<_>, Vec<_>) = documents.iter().enumerate().partition(kept);
        let rows = |d: &String| d.as_bytes().chunks(ROW as usize).map(<[u8]>::to_vec).collect::<Vec<_>>();
        Text {
            served: served.iter().map(|(_, d)| d.bytes().map(u32::from).collect()).collect(),
            test: test.into_iter().flat_map(|(_, d)| rows(d)).collect(),
        }
    }
}

/// A job over all three groups in equal shares; `learn` puts Aioli in charge.
fn spec(seed: u64, learn: bool) -> v1::JobSpec {
    let group = |(name, _): &(&str, &str)| v1::GroupSpec {
        group: format!("text/{name}"),
        weight: Some(1.0),
        ..Default::default()
    };
    let aioli = |eta: f64| v1::EstimatorSpec {
        name: "aioli".into(),
        params: BTreeMap::from([
            ("eta".into(), eta),
            ("round_steps".into(), 10.0),
            ("sweeps".into(), 1.0),
            ("probe_steps".into(), 2.0),
        ]),
        options: BTreeMap::from([("variant".into(), "paper_eg".into())]),
        ..Default::default()
    };
    v1::JobSpec {
        groups: TEXTS.iter().map(group).collect(),
        seed,
        global_batch: BATCH,
        tokens: Some(v1::TokenSpec { seq_len: ROW, ..Default::default() }),
        held_out: Some(v1::HeldOutSpec { fraction: 0.1, max_records: 0 }),
        mixture: learn.then(|| v1::MixtureSpec {
            estimator: Some(aioli(1.0)),
            shadows: vec![aioli(0.2)],
            objective: TASKS
                .map(|name| v1::TaskSpec { group: format!("text/{name}"), weight: None })
                .to_vec(),
            paper_faithful: true,
            ..Default::default()
        }),
        max_steps: STEPS,
        ..Default::default()
    }
}

/// Trains one model to the end of its job; returns it with what the job was.
async fn train(client: &Client, name: &str, spec: &v1::JobSpec) -> anyhow::Result<(NGram, JobInfo)> {
    let job = client.open_job(name, spec).await?;
    let trainer = NGramTrainer::new(job.groups.len());
    let mut driver = Driver::open(client.clone(), name, trainer, DriverOptions::default()).await?;
    let progress = driver.run(STEPS + 1).await?;
    ensure!(progress.end.is_some(), "the demo's job ends after {STEPS} steps");
    Ok((driver.into_trainer().await?.model, job))
}

/// Runs the demonstration; writes `mixture.png` and `mixture.svg` into `out`.
pub async fn run(out: &Path, first: u64) -> anyhow::Result<()> {
    let start = Instant::now();
    let texts: Vec<Text> = TEXTS.iter().map(|(_, text)| Text::new(text)).collect();
    let groups = TEXTS.iter().zip(&texts).map(|((name, _), text)| (name.to_string(), text.served.clone()));
    let sources = Sources::from([("text".into(), Arc::new(TokenMemory::new(groups.collect())?) as Arc<_>)]);
    let (stop, stopped) = watch::channel(false);
    let running = crate::start(&serve::private(), sources, Default::default(), None, stopped).await?;
    let endpoint = running.endpoints[0].clone();
    say!("server     {endpoint}, three embedded texts of 250 to 280 kB: code, proofs, speech");
    say!(
        "runs       {SEEDS} seeds, {STEPS} steps of {BATCH} rows of {ROW} bytes, a byte n-gram as the model"
    );
    let client = Client::connect([endpoint]).await?;
    say!("           loss on documents of code and speech that were never served, nats per byte");
    say!("           seed   equal shares   Aioli      difference");
    let mut differences = Vec::new();
    for seed in first..first + SEEDS {
        let (equal, _) = train(&client, &format!("equal-{seed}"), &spec(seed, false)).await?;
        let (learnt, _) = train(&client, &format!("aioli-{seed}"), &spec(seed, true)).await?;
        let (equal, learnt) = (judge(&equal, &texts), judge(&learnt, &texts));
        say!("           {seed:>4}   {equal:>12.4}   {learnt:.4}   {:>+12.4}", learnt - equal);
        differences.push(learnt - equal);
    }
    let better = differences.iter().filter(|d| **d < 0.0).count();
    let average = differences.iter().sum::<f64>() / differences.len() as f64;
    say!("result     {average:+.4} nats per byte on average, better on {better} of {SEEDS} seeds");
    plot(&client, &format!("aioli-{first}"), out).await?;
    say!("took       {:.1} s", start.elapsed().as_secs_f64());
    drop(client);
    stop.send_replace(true);
    running.wait().await;
    Ok(())
}

/// Mean over the tasks of the loss per byte on their test documents.
fn judge(model: &NGram, texts: &[Text]) -> f64 {
    let judged = TEXTS.iter().zip(texts).filter(|((name, _), _)| TASKS.contains(name));
    judged.map(|(_, text)| model.loss(&text.test)).sum::<f64>() / TASKS.len() as f64
}

/// Shares served and plots of one run.
async fn plot(client: &Client, name: &str, out: &Path) -> anyhow::Result<()> {
    let job = client.attach(name).await?;
    let (mixture, log) = (client.mixture(name).await?, client.mixture_log(name, 1).await?);
    let accounting = client.accounting(name, 0).await?;
    for group in &accounting.groups {
        let (served, epochs) = (group.share_served, group.epochs);
        say!("           {:<12} {served:.3} of all rows, {epochs:.2} epochs", group.group);
    }
    say!("log        {} entries of job {name}, digest {}", log.len(), &job::hex(&job.digest)[..16]);
    std::fs::create_dir_all(out).with_context(|| format!("cannot create `{}`", out.display()))?;
    let plot = History::new(&log).plot(&job, &mixture, &accounting);
    for (file, bytes) in [("mixture.png", plot.png()?), ("mixture.svg", plot.svg().into_bytes())] {
        let file = out.join(file);
        std::fs::write(&file, &bytes).with_context(|| format!("cannot write `{}`", file.display()))?;
        say!("wrote      {} ({} kB)", file.display(), bytes.len() / 1000);
    }
    Ok(())
}
