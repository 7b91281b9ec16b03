//! `mixfeed healthcheck`.

use super::dial::Secure;
use anyhow::bail;
use mixfeed_client::{Client, ClientOptions, Health};
use std::time::Duration;

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Server, "https://HOST:PORT", "http://HOST:PORT" or "unix:PATH".
    #[arg(long, env = "MIXFEED_ENDPOINT", default_value = "http://127.0.0.1:7443")]
    endpoint: String,
    /// Seconds to wait for an answer.
    #[arg(long, default_value_t = 3)]
    timeout: u64,
    #[command(flatten)]
    secure: Secure,
}

/// Fails unless the server serves.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let time = Duration::from_secs(args.timeout);
    let options = ClientOptions::default().connect_timeout(time).call_timeout(time).patience(Duration::ZERO);
    let options = args.secure.over(options)?;
    let client = Client::connect_with([args.endpoint.as_str()], options).await?;
    match client.health().await? {
        Health::Serving => Ok(()),
        other => bail!("{} is {other:?}", args.endpoint),
    }
}
