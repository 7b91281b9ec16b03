//! How the commands that dial a server prove who they are.

use anyhow::{Context, bail};
use mixfeed_client::ClientOptions;
use std::{env, path::PathBuf};

/// Variable with a token. There is no flag for one: command lines are seen by everybody on a machine.
const TOKEN: &str = "MIXFEED_TOKEN";

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Secure {
    /// File with the token; without it the variable MIXFEED_TOKEN is looked at.
    #[arg(long, env = "MIXFEED_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Authorities of the server's certificate, PEM; without it the system's.
    #[arg(long, env = "MIXFEED_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// This client's certificate, PEM.
    #[arg(long, env = "MIXFEED_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Private key of `--cert`, PEM.
    #[arg(long, env = "MIXFEED_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Send the token over plaintext to another machine: inside of a network that is trusted.
    #[arg(long, env = "MIXFEED_PLAINTEXT_TOKEN")]
    plaintext_token: bool,
}

impl Secure {
    /// The options with what the flags say.
    pub fn over(&self, mut options: ClientOptions) -> anyhow::Result<ClientOptions> {
        let read =
            |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()));
        if let Some(file) = &self.token_file {
            read(file)?; // a sentence now instead of at the first call
            options = options.token_file(file);
        } else if let Some(token) = env::var_os(TOKEN).filter(|token| !token.is_empty()) {
            let Some(token) = token.to_str() else { bail!("{TOKEN} is no text") };
            options = options.token(token);
        }
        if let Some(file) = &self.ca {
            options = options.ca_pem(read(file)?);
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            options = options.identity_pem(read(cert)?, read(key)?);
        }
        Ok(options.plaintext_token(self.plaintext_token))
    }
}
