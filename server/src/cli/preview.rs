//! `mixfeed preview`.

use super::{clouds::Clouds, photos, serve, sheet::Shown, tiles};
use crate::config::Config;
use crate::exec::{
    device::Device,
    mixer::{self, Mixers},
};
use crate::plan::points;
use crate::{job, picture, store};
use anyhow::{Context, bail};
use mixfeed_proto as v1;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Policy to draw, see `mixfeed policies`.
    #[arg(long)]
    policy: String,
    /// Picture to write, PNG.
    #[arg(long)]
    out: PathBuf,
    /// A parameter or option of the policy as NAME=VALUE; may be given several times.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Rows to draw, 1..=64.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    rows: u32,
    /// Seed of the draws.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Draw a source of this config file instead of the embedded photographs.
    #[arg(long)]
    config: Option<PathBuf>,
    /// "SOURCE" or "SOURCE/GROUP" of the config file; default: its first source.
    #[arg(long, requires = "config")]
    group: Option<String>,
}

/// Draws a contact sheet.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let scenes = points::POLICIES.iter().any(|policy| policy.name() == args.policy);
    let mut mixers = Mixers::new();
    let (sources, group) = match &args.config {
        None if scenes => (tiles::sources()?, None),
        None => (photos::sources(), None),
        Some(file) => {
            let mut config = Config::load(file)?;
            config.server.rebase(file.parent().unwrap_or(Path::new(".")));
            mixers = mixer::open(config.server.mixers(), Device::Cpu)?;
            let sources = serve::open(&config.sources, file)?;
            let first = sources.keys().next().cloned().context("the config declares no source")?;
            (sources, Some(args.group.clone().unwrap_or(first)))
        }
    };
    // At least two rows in the block: a single one has no partner.
    let (rows, policies) = (args.rows.max(2), vec![policy(args)?]);
    let mut spec = match scenes {
        true => tiles::scan(args.seed, rows, policies),
        false => photos::job(args.seed, rows, policies),
    };
    if let Some(group) = group {
        spec.groups[0].group = group;
    }
    let job = job::resolve_with("preview", spec, &sources, &mixers)?.open(&store::memory())?;
    let subtitle = job.spec.mix.as_ref().and_then(|m| m.policies.first()).map(describe).unwrap_or_default();
    let title = format!("mixfeed: {}", args.policy);
    let png = match scenes {
        true => {
            let shown = Clouds::new(&job.feed, 0)?;
            shown.png(&title, &subtitle, &shown.mixed(args.rows as usize), args.config.is_none())?
        }
        false => {
            let shown = Shown::new(&job.feed, 0)?;
            let lines = (0..args.rows as usize).map(|i| shown.line(i, &shown.result(i))).collect();
            picture::Sheet { title, subtitle, lines }.png()?
        }
    };
    std::fs::write(&args.out, png).with_context(|| format!("cannot write `{}`", args.out.display()))?;
    say!("wrote {}", args.out.display());
    Ok(())
}

fn policy(args: &Args) -> anyhow::Result<v1::PolicySpec> {
    let (mut params, mut options) = (BTreeMap::new(), BTreeMap::new());
    for given in &args.set {
        let Some((name, value)) = given.split_once('=') else {
            bail!("--set `{given}`: want NAME=VALUE");
        };
        match value.parse::<f64>() {
            Ok(number) => drop(params.insert(name.to_owned(), number)),
            Err(_) => drop(options.insert(name.to_owned(), value.to_owned())),
        }
    }
    Ok(v1::PolicySpec { name: args.policy.clone(), weight: None, params, options })
}

fn describe(policy: &v1::PolicySpec) -> String {
    let numbers = policy.params.iter().map(|(n, v)| format!("{n} {v}"));
    numbers.chain(policy.options.iter().map(|(n, v)| format!("{n} {v}"))).collect::<Vec<_>>().join(", ")
}
