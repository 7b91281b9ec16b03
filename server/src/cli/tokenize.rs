//! `mixfeed tokenize`.

use super::serve;
use crate::config::Config;
use crate::source::Kind;
use anyhow::{Context, bail};
use std::{collections::BTreeMap, path::PathBuf, time::Instant};

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Config file.
    #[arg(long, env = "MIXFEED_CONFIG", default_value = "mixfeed.toml")]
    config: PathBuf,
    /// Sources of kind `text`; none means all of them.
    sources: Vec<String>,
}

/// Makes the token caches that are missing or stale; `serve` would do the same when it starts.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let declared = Config::load(&args.config)?.sources;
    for name in &args.sources {
        let kind = declared.get(name).with_context(|| format!("source `{name}` is not in the config"))?.kind;
        if kind != Kind::Text {
            bail!("source `{name}` is of kind `{}`, want `text`", kind.name());
        }
    }
    let wanted = |name: &String| args.sources.is_empty() || args.sources.contains(name);
    let text: Vec<_> = declared.iter().filter(|(name, d)| d.kind == Kind::Text && wanted(name)).collect();
    if text.is_empty() {
        bail!("the config has no source of kind `text`");
    }
    for (name, declaration) in text {
        let start = Instant::now();
        let one = BTreeMap::from([(name.clone(), declaration.clone())]);
        for (name, source) in serve::open(&one, &args.config)? {
            let index = source.index();
            let Some(corpus) = source.tokens() else { continue };
            for group in &index.groups {
                let tokens: u64 = group.records.iter().map(|document| corpus.len(*document)).sum();
                say!("{name}/{}: {} documents, {tokens} tokens", group.name, group.records.len());
            }
            say!("{name}: ready after {:.1} s", start.elapsed().as_secs_f64());
        }
    }
    Ok(())
}
