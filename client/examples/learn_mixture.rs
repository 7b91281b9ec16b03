//! A whole trainer that learns its mixture: opens a job on the source "text" of a server, trains a byte n-gram on it,
//! reports when the server asks, and prints what the mixture became.
//!
//! ```text
//! cargo run --release --features ngram --example learn_mixture -- http://127.0.0.1:7443 text
//! ```

use mixfeed_client::driver::{Driver, DriverOptions};
use mixfeed_client::learn::{EstimatorSpec, HeldOutSpec, MixtureSpec};
use mixfeed_client::ngram::NGramTrainer;
use mixfeed_client::spec::{GroupSpec, JobSpec, TokenSpec};
use mixfeed_client::{Client, Error};

const STEPS: u64 = 600;

/// Every group of `source` with the same weight: what stratified sampling would serve.
async fn spec(client: &Client, source: &str) -> Result<JobSpec, Error> {
    let sources = client.list_sources().await?;
    let groups = sources.iter().filter(|s| s.source == source).flat_map(|s| &s.groups);
    let group = |name: &str| GroupSpec { group: name.into(), weight: Some(1.0), ..Default::default() };
    Ok(JobSpec {
        groups: groups.map(|g| group(&g.name)).collect(),
        seed: 1,
        global_batch: 32,
        tokens: Some(TokenSpec { seq_len: 64, ..Default::default() }),
        held_out: Some(HeldOutSpec { fraction: 0.1, max_records: 32 }),
        mixture: Some(MixtureSpec {
            estimator: Some(EstimatorSpec { name: "aioli".into(), ..Default::default() }),
            ..Default::default()
        }),
        max_steps: STEPS,
        ..Default::default()
    })
}

async fn run(endpoint: &str, source: &str) -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect([endpoint]).await?;
    let job = client.open_job("learn-mixture", &spec(&client, source).await?).await?;
    let trainer = NGramTrainer::new(job.groups.len());
    let mut driver = Driver::open(client.clone(), "learn-mixture", trainer, DriverOptions::default()).await?;
    while driver.run(100).await?.end.is_none() {
        // `driver.cursor()` belongs into the checkpoint, beside the model.
        let mixture = client.mixture("learn-mixture").await?;
        let losses: Vec<String> = mixture.losses.iter().map(|l| format!("{l:.4}")).collect();
        println!("step {:>4}: held-out losses {}", driver.completed(), losses.join(" "));
    }
    let accounting = client.accounting("learn-mixture", 0).await?;
    for group in accounting.groups {
        println!("{:<24} {:>6.3} of all rows, {:.2} epochs", group.group, group.share_served, group.epochs);
    }
    Ok(())
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(endpoint), Some(source)) = (args.next(), args.next()) else {
        eprintln!("usage: learn_mixture ENDPOINT SOURCE");
        std::process::exit(2);
    };
    if let Err(error) = run(&endpoint, &source).await {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
