//! A training loop: opens a job, reads batches, keeps the cursor.
//!
//! `cargo run -p mixfeed-client --example train_loop -- http://127.0.0.1:7443 photos`

use mixfeed_client::{Client, Error, StreamOptions, spec};
use std::env;

fn job(source: String) -> spec::JobSpec {
    spec::JobSpec {
        groups: vec![spec::GroupSpec { group: source, ..Default::default() }],
        seed: 1,
        global_batch: 64,
        image: Some(spec::ImageSpec { height: 160, width: 224, ..Default::default() }),
        mix: Some(spec::MixSpec {
            policies: vec![spec::PolicySpec { name: "cutmix".into(), ..Default::default() }],
            ..Default::default()
        }),
        max_steps: 100,
        ..Default::default()
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut args = env::args().skip(1);
    let server = args.next().unwrap_or_else(|| "http://127.0.0.1:7443".into());
    let source = args.next().unwrap_or_else(|| "photos".into());
    let client = Client::connect([server]).await?;
    client.open_job("train-loop", &job(source)).await?;
    let mut batches = client.stream("train-loop", StreamOptions::default()).await?;
    while let Some(batch) = batches.next_batch().await? {
        // Here a trainer would take a step and put `batch.cursor()` into its checkpoint.
        println!(
            "step {} epoch {:.3} {:?} {:?}",
            batch.step(),
            batch.epoch(),
            batch.images()?,
            batch.labels()?
        );
    }
    println!("{:?} {:?}", batches.end(), batches.stats());
    Ok(())
}
