//! `mixfeed fit`.

use crate::estimate::fit::{Aim, Answer, FitError, Runs, dml, regmix};
use anyhow::{Context, bail};
use std::{collections::BTreeMap, path::PathBuf};

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The table has a header and a line per finished run. Columns `w:GROUP` hold the shares of the run, on any positive scale; \
columns `loss:TASK` its final held-out losses in nats, empty where there is none; a column `run` may hold a name.

  run,w:web,w:code,loss:web,loss:code
  a,0.7,0.3,2.91,1.64
  b,0.4,0.6,3.02,1.41")]
pub struct Args {
    /// How: a data mixing law per task (at least groups + 1 runs), or RegMix with a quadratic ridge (at least 8).
    #[arg(long, value_enum)]
    method: FitMethod,
    /// Table of runs, CSV.
    #[arg(long)]
    runs: PathBuf,
    /// What to minimise: weights of tasks as TASK=WEIGHT; tasks that are not named do not count. Default: all alike.
    #[arg(long, value_name = "TASK=WEIGHT,...", value_delimiter = ',')]
    objective: Vec<String>,
    /// Most epochs of each group; needs --sizes and --tokens.
    #[arg(long, requires_all = ["sizes", "tokens"])]
    max_epochs: Option<f64>,
    /// Tokens of one epoch of a group as GROUP=TOKENS; groups that are not named have no limit.
    #[arg(long, value_name = "GROUP=TOKENS,...", value_delimiter = ',', requires = "max_epochs")]
    sizes: Vec<String>,
    /// Tokens of the run to come.
    #[arg(long, requires = "max_epochs")]
    tokens: Option<f64>,
    /// Seed of RegMix's simulation.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FitMethod {
    Dml,
    Regmix,
}

/// A table with its names.
#[derive(Debug, PartialEq)]
struct Table {
    groups: Vec<String>,
    tasks: Vec<String>,
    runs: Runs,
}

/// Reads the table, fits, prints the answer.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let shown = args.runs.display();
    let text = std::fs::read_to_string(&args.runs).with_context(|| format!("cannot read `{shown}`"))?;
    let table = Table::parse(&text).with_context(|| format!("`{shown}`"))?;
    let aim = Aim { objective: objective(args, &table)?, caps: caps(args, &table)? };
    let told = |error| named(error, &table);
    let (answer, lines) = match args.method {
        FitMethod::Dml => {
            let (answer, laws) = dml::fit(&table.runs, &aim).map_err(told)?;
            let line = |(task, law): (&String, &Option<dml::Law>)| match law {
                None => format!("{task:<20} {:>9} {:>9} {:>7}", "-", "-", "-"),
                Some(law) => {
                    format!("{task:<20} {:>9.4} {:>9.4} {:>7.3}", law.at(&answer.shares), law.floor, law.r2)
                }
            };
            let mut lines = vec![format!("{:<20} {:>9} {:>9} {:>7}", "task", "predicted", "floor", "R2")];
            lines.extend(table.tasks.iter().zip(&laws).map(line));
            (answer, lines)
        }
        FitMethod::Regmix => {
            let (answer, r2) = regmix::fit(&table.runs, &aim, args.seed).map_err(told)?;
            (answer, vec![format!("R2 of the regression on runs left out: {r2:.3}")])
        }
    };
    print(&table, &answer, &lines, args);
    Ok(())
}

fn print(table: &Table, answer: &Answer, lines: &[String], args: &Args) {
    let runs = table.runs.mixtures.len();
    say!("# {:?} on {runs} runs of {}", args.method, args.runs.display());
    lines.iter().for_each(|line| say!("# {line}"));
    say!("# objective: {:.4} predicted, {:.4} in the best run", answer.predicted, answer.best_run);
    say!("#");
    say!("# {:<20} {:>9} {:>9}", "group", "share", "in runs");
    for (j, (group, share)) in table.groups.iter().zip(&answer.shares).enumerate() {
        let mean = table.runs.mixtures.iter().map(|w| w[j]).sum::<f64>() / runs as f64;
        say!("# {group:<20} {share:>9.4} {mean:>9.4}");
    }
    say!("\n[weights]");
    for (group, share) in table.groups.iter().zip(&answer.shares) {
        say!("{} = {share:.6}", toml::Value::from(group.as_str()));
    }
}

/// An error with the table's names in place of numbers.
fn named(error: FitError, table: &Table) -> anyhow::Error {
    let FitError::Few { task, found, want } = error else { return error.into() };
    match table.tasks.get(task) {
        Some(name) => anyhow::anyhow!("task `{name}` has {found} runs with a loss, want at least {want}"),
        None => anyhow::anyhow!("{found} runs have every weighted loss, want at least {want}"),
    }
}

/// NAME=NUMBER, by name; names must be known.
fn pairs(given: &[String], flag: &str, known: &[String]) -> anyhow::Result<BTreeMap<String, f64>> {
    let mut found = BTreeMap::new();
    for pair in given {
        let Some((name, number)) = pair.split_once('=') else { bail!("{flag} `{pair}`: want NAME=NUMBER") };
        if !known.iter().any(|k| k == name) {
            bail!("{flag} `{pair}`: no `{name}` in the table, want one of {}", known.join(", "));
        }
        match number.trim().parse::<f64>() {
            Ok(number) if number.is_finite() && number >= 0.0 => found.insert(name.to_owned(), number),
            Ok(_) | Err(_) => bail!("{flag} `{pair}`: `{number}` is no finite number >= 0"),
        };
    }
    Ok(found)
}

fn objective(args: &Args, table: &Table) -> anyhow::Result<Vec<f64>> {
    let tasks = &table.tasks;
    if args.objective.is_empty() {
        return Ok(vec![1.0 / tasks.len() as f64; tasks.len()]);
    }
    let given = pairs(&args.objective, "--objective", tasks)?;
    let sum: f64 = given.values().sum();
    if sum <= 0.0 {
        bail!("--objective: the weights sum to 0, want more");
    }
    Ok(tasks.iter().map(|t| given.get(t).copied().unwrap_or(0.0) / sum).collect())
}

/// Largest share of each group: epochs times size over the tokens of the run.
fn caps(args: &Args, table: &Table) -> anyhow::Result<Vec<f64>> {
    let (Some(epochs), Some(tokens)) = (args.max_epochs, args.tokens) else {
        return Ok(vec![1.0; table.groups.len()]);
    };
    if !(epochs > 0.0 && epochs.is_finite() && tokens > 0.0 && tokens.is_finite()) {
        bail!("--max-epochs and --tokens must be above 0, are {epochs} and {tokens}");
    }
    let sizes = pairs(&args.sizes, "--sizes", &table.groups)?;
    let cap = |group: &String| sizes.get(group).map_or(1.0, |size| (epochs * size / tokens).min(1.0));
    Ok(table.groups.iter().map(cap).collect())
}

/// What a column holds.
enum Column {
    Share(usize),
    Loss(usize),
    Name,
}

impl Table {
    /// Reads CSV; errors name line and column.
    fn parse(text: &str) -> anyhow::Result<Table> {
        let mut reader =
            csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(text.as_bytes());
        let header = reader.headers()?.clone();
        let (columns, groups, tasks) = columns(&header)?;
        let mut runs = Runs { mixtures: Vec::new(), losses: Vec::new() };
        for record in reader.records() {
            let record = record?;
            let line = record.position().map_or(0, csv::Position::line);
            if record.len() != header.len() {
                bail!("line {line} has {} columns, want {}", record.len(), header.len());
            }
            let (mut shares, mut losses) = (vec![0.0; groups.len()], vec![f64::NAN; tasks.len()]);
            for ((column, cell), title) in columns.iter().zip(&record).zip(&header) {
                let place = || format!("line {line}, column `{title}`");
                match column {
                    Column::Name => {}
                    Column::Share(j) => shares[*j] = number(cell, true).with_context(place)?,
                    Column::Loss(_) if cell.is_empty() => {}
                    Column::Loss(i) => losses[*i] = number(cell, false).with_context(place)?,
                }
            }
            let sum: f64 = shares.iter().sum();
            if sum <= 0.0 || !sum.is_finite() {
                bail!("line {line}: the shares sum to {sum}, want a number above 0");
            }
            runs.mixtures.push(shares.iter().map(|w| w / sum).collect());
            runs.losses.push(losses);
        }
        if runs.mixtures.is_empty() {
            bail!("has no runs below its header");
        }
        Ok(Table { groups, tasks, runs })
    }
}

type Columns = (Vec<Column>, Vec<String>, Vec<String>);

fn columns(header: &csv::StringRecord) -> anyhow::Result<Columns> {
    let (mut columns, mut groups, mut tasks) = (Vec::new(), Vec::new(), Vec::new());
    let add = |names: &mut Vec<String>, name: &str, title: &str| {
        if name.is_empty() || names.iter().any(|n| n == name) {
            bail!("line 1, column `{title}`: names must be unique and not empty");
        }
        names.push(name.to_owned());
        Ok(names.len() - 1)
    };
    for title in header {
        columns.push(match title.split_once(':') {
            Some(("w", group)) => Column::Share(add(&mut groups, group, title)?),
            Some(("loss", task)) => Column::Loss(add(&mut tasks, task, title)?),
            None if title == "run" => Column::Name,
            Some(_) | None => bail!("line 1, column `{title}`: want `w:GROUP`, `loss:TASK` or `run`"),
        });
    }
    if groups.is_empty() || tasks.is_empty() {
        bail!("line 1: want at least one column `w:GROUP` and one `loss:TASK`");
    }
    Ok((columns, groups, tasks))
}

/// A share (0 is legal) or a loss (it is not).
fn number(cell: &str, share: bool) -> anyhow::Result<f64> {
    let want = if share { "a number >= 0" } else { "a number above 0, or nothing" };
    match cell.parse::<f64>() {
        Ok(x) if x.is_finite() && (x > 0.0 || share && x == 0.0) => Ok(x),
        Ok(_) | Err(_) => bail!("`{cell}`: want {want}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_by_the_names_of_its_columns() {
        let text = "run,loss:x,w:a, w:b\nfirst,2.5,1,3\nsecond,,0.5,0.5\n";
        let table = Table::parse(text).expect("legal");
        assert_eq!(
            (&table.groups[..], &table.tasks[..]),
            (&["a".to_owned(), "b".into()][..], &["x".to_owned()][..])
        );
        assert_eq!(table.runs.mixtures, [[0.25, 0.75], [0.5, 0.5]]);
        assert_eq!(table.runs.losses[0], [2.5]);
        assert!(table.runs.losses[1][0].is_nan());
    }

    #[test]
    fn errors_name_line_and_column() {
        let said = |text: &str| format!("{:#}", Table::parse(text).expect_err("a wrong table"));
        let head = "w:a,w:b,loss:x\n";
        assert_eq!(said("w:a,B,loss:x\n"), "line 1, column `B`: want `w:GROUP`, `loss:TASK` or `run`");
        assert_eq!(said("w:a,w:a,loss:x\n"), "line 1, column `w:a`: names must be unique and not empty");
        assert_eq!(said("w:a\n1\n"), "line 1: want at least one column `w:GROUP` and one `loss:TASK`");
        assert_eq!(
            said(&format!("{head}1,1,2\n1,much,2\n")),
            "line 3, column `w:b`: `much`: want a number >= 0"
        );
        assert_eq!(
            said(&format!("{head}1,1,-2\n")),
            "line 2, column `loss:x`: `-2`: want a number above 0, or nothing"
        );
        assert_eq!(said(&format!("{head}1,1\n")), "line 2 has 2 columns, want 3");
        assert_eq!(said(&format!("{head}0,0,1\n")), "line 2: the shares sum to 0, want a number above 0");
        assert_eq!(said(head), "has no runs below its header");
    }

    #[test]
    fn names_in_flags_must_be_those_of_the_table() {
        let known = ["web".to_owned(), "code".into()];
        let said =
            |given: &str| pairs(&[given.to_owned()], "--sizes", &known).expect_err("wrong").to_string();
        assert_eq!(said("web"), "--sizes `web`: want NAME=NUMBER");
        assert_eq!(said("wep=1"), "--sizes `wep=1`: no `wep` in the table, want one of web, code");
        assert_eq!(said("web=-1"), "--sizes `web=-1`: `-1` is no finite number >= 0");
        assert_eq!(pairs(&["web=2".into()], "--sizes", &known).expect("legal")["web"], 2.0);
    }
}
