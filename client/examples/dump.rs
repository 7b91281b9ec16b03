//! Writes the bytes of a job's first batches, tensor after tensor, to standard output: what another client must have too.
//!
//! `cargo run --example dump -- http://127.0.0.1:7443 JOB STEPS`

use mixfeed_client::{Client, StreamOptions};
use std::io::{self, Write};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, job, steps] = &arguments[..] else {
        return Err("expected an endpoint, a job and a number of steps".into());
    };
    let mut batches = Client::connect([endpoint]).await?.stream(job, StreamOptions::default()).await?;
    let mut out = io::stdout().lock();
    for _ in 0..steps.parse()? {
        let Some(batch) = batches.next_batch().await? else { break };
        for tensor in batch.tensors() {
            out.write_all(tensor.bytes)?;
        }
    }
    Ok(out.flush()?)
}
