//! `mixfeed policies`.

use crate::plan::{image, points};

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the table of the README.
    #[arg(long)]
    markdown: bool,
}

/// Prints the registry.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.markdown {
        say!("{}\n\n{}", image::table().trim_end(), points::table().trim_end());
        return Ok(());
    }
    for policy in image::all().chain(points::POLICIES.iter().copied()) {
        say!("{}\n  {}\n  {}  {}", policy.name(), policy.summary(), policy.paper(), policy.url());
        for p in policy.params() {
            say!("  {:<12} {} ({}..={}): {}", p.name, p.default, p.min, p.max, p.doc);
        }
        for c in policy.choices() {
            say!("  {:<12} {}: {}", c.name, c.values.join(" | "), c.doc);
        }
        if let Some(name) = policy.mixer() {
            say!("  {name:<12} name of a mixer of [server.mixers.NAME]");
        }
        say!("");
    }
    Ok(())
}
