//! `mixfeed policies`.

use crate::plan::image;

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
        print!("{}", image::table());
        return Ok(());
    }
    for policy in image::POLICIES {
        println!("{}\n  {}\n  {}  {}", policy.name(), policy.summary(), policy.paper(), policy.url());
        for p in policy.params() {
            println!("  {:<12} {} ({}..={}): {}", p.name, p.default, p.min, p.max, p.doc);
        }
        for c in policy.choices() {
            println!("  {:<12} {}: {}", c.name, c.values.join(" | "), c.doc);
        }
        println!();
    }
    Ok(())
}
