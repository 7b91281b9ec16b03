//! `mixfeed estimators`.

use crate::estimate::{METHODS, Method, table, wanted};

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
        say!("{}", table().trim_end());
        return Ok(());
    }
    for method in METHODS {
        describe(*method);
        say!("");
    }
    Ok(())
}

fn describe(method: &dyn Method) {
    say!("{}\n  {}", method.name(), method.summary());
    say!("{}", format!("  {}  {}", method.paper(), method.url()).trim_end());
    let reports = wanted(method);
    if !reports.is_empty() {
        say!("  {:<12} {}", "reports", reports.join(", "));
    }
    for p in method.params() {
        say!("  {:<12} {} ({}..={}): {}", p.name, p.default, p.min, p.max, p.doc);
    }
    for c in method.choices() {
        say!("  {:<12} {}: {}", c.name, c.values.join(" | "), c.doc);
    }
    for v in method.vectors() {
        say!("  {:<12} list: {}", v.name, v.doc);
    }
}
