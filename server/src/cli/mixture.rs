//! `mixfeed mixture`.

mod table;

use super::dial::Secure;
use crate::picture::History;
use anyhow::{Context, bail};
use mixfeed_client::{Client, ClientOptions, SetWeights};
use std::path::{Path, PathBuf};

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of an open job.
    job: String,
    /// Servers, "https://HOST:PORT", "http://HOST:PORT" or "unix:PATH"; may be given several times.
    #[arg(long, env = "MIXFEED_ENDPOINT", value_delimiter = ',', default_value = "http://127.0.0.1:7443")]
    endpoint: Vec<String>,
    /// Draw weights, held-out losses and realised shares into this file, .svg or .png.
    #[arg(long, value_name = "FILE", value_parser = picture)]
    plot: Option<PathBuf>,
    /// Go on printing entries of the log as they are appended.
    #[arg(long)]
    watch: bool,
    /// Set the weights first: every group with its share, any positive scale. A group is "SOURCE/GROUP", or "GROUP" when
    /// only one has that name.
    #[arg(long, value_name = "GROUP=WEIGHT,...", value_delimiter = ',', requires = "operator")]
    set: Vec<String>,
    /// Who sets them.
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// Why they are set.
    #[arg(long, default_value = "")]
    note: String,
    /// First step that gets them; 0 means as soon as possible.
    #[arg(long, default_value_t = 0)]
    from_step: u64,
    /// Close the job and delete all that the server keeps of its mixture; also for one that was closed. Opened again it
    /// begins at step 0.
    #[arg(long, conflicts_with_all = ["set", "watch", "plot"])]
    forget: bool,
    /// Entries of the log to list.
    #[arg(long, default_value_t = 8)]
    entries: usize,
    #[command(flatten)]
    secure: Secure,
}

fn picture(file: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(file);
    match extension(&path) {
        Some("svg" | "png") => Ok(path),
        Some(_) | None => Err("want a file that ends in .svg or .png".into()),
    }
}

fn extension(file: &Path) -> Option<&str> {
    file.extension().and_then(|name| name.to_str())
}

/// Sets, shows, draws, follows.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let options = args.secure.over(ClientOptions::default())?;
    let client = Client::connect_with(args.endpoint.iter().cloned(), options).await?;
    if args.forget {
        client.forget_job(&args.job).await?;
        say!("forgot the mixture of {}", args.job);
        return Ok(());
    }
    let job = client.attach(&args.job).await?;
    if !args.set.is_empty() {
        set(&client, &args).await?;
    }
    let mixture = client.mixture(&args.job).await?;
    let entries = client.mixture_log(&args.job, 1).await?;
    let accounting = client.accounting(&args.job, 0).await?;
    for line in table::summary(&job, &mixture) {
        say!("{line}");
    }
    say!("");
    for line in table::groups(&mixture, &accounting) {
        say!("{line}");
    }
    say!("");
    for entry in &entries[entries.len().saturating_sub(args.entries)..] {
        say!("{}", table::entry(entry));
    }
    if let Some(file) = &args.plot {
        let plot = History::new(&entries).plot(&job, &mixture, &accounting);
        let bytes = if extension(file) == Some("svg") { plot.svg().into_bytes() } else { plot.png()? };
        std::fs::write(file, bytes).with_context(|| format!("cannot write `{}`", file.display()))?;
        say!("wrote {}", file.display());
    }
    if args.watch {
        let next = entries.last().map_or(1, |entry| entry.seq + 1);
        let mut watch = client.watch(&args.job, next);
        loop {
            say!("{}", table::entry(&watch.next_entry().await?));
        }
    }
    Ok(())
}

/// Sets the weights against the version that is in force now.
async fn set(client: &Client, args: &Args) -> anyhow::Result<()> {
    let mixture = client.mixture(&args.job).await?;
    let weights = weights(&args.set, &mixture.groups)?;
    let set = SetWeights {
        expected_version: mixture.version,
        from_step: args.from_step,
        weights,
        operator: args.operator.clone().unwrap_or_default(),
        note: args.note.clone(),
    };
    let done = client.set_weights(&args.job, set).await?;
    let entry = done.entry.as_ref().map(table::entry).unwrap_or_default();
    match done.pending {
        true => say!("will be set when the estimator's round ends: {}", entry.trim_start()),
        false => say!("set: {}", entry.trim_start()),
    }
    Ok(())
}

/// One weight per group, from "NAME=WEIGHT" for each of them.
fn weights(given: &[String], groups: &[String]) -> anyhow::Result<Vec<f64>> {
    let mut weights = vec![None; groups.len()];
    for text in given {
        let Some((name, value)) = text.rsplit_once('=') else { bail!("--set `{text}`: want GROUP=WEIGHT") };
        let value: f64 = value.trim().parse().with_context(|| format!("--set `{text}`: want a number"))?;
        if !value.is_finite() || value < 0.0 {
            bail!("--set `{text}`: want a finite weight >= 0");
        }
        let at = find(name.trim(), groups)?;
        if weights[at].replace(value).is_some() {
            bail!("--set gives group `{}` twice", groups[at]);
        }
    }
    let missing = groups.iter().zip(&weights).filter(|(_, w)| w.is_none()).map(|(group, _)| group.as_str());
    let missing: Vec<&str> = missing.collect();
    if !missing.is_empty() {
        bail!("--set must name every group, lacks {}", missing.join(", "));
    }
    Ok(weights.into_iter().flatten().collect())
}

fn find(name: &str, groups: &[String]) -> anyhow::Result<usize> {
    if let Some(at) = groups.iter().position(|group| group == name) {
        return Ok(at);
    }
    let short = |group: &String| group.rsplit_once('/').is_some_and(|(_, last)| last == name);
    let hits: Vec<usize> = (0..groups.len()).filter(|i| short(&groups[*i])).collect();
    match hits[..] {
        [at] => Ok(at),
        [] => bail!("--set: no group `{name}`, the job has {}", groups.join(", ")),
        _ => bail!("--set: several groups are called `{name}`, want SOURCE/GROUP"),
    }
}

#[cfg(test)]
mod tests;
