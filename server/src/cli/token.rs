//! `mixfeed token`.

use crate::auth::{Secret, Tokens};
use anyhow::{Context, bail};
use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the token: in logs and errors, never secret.
    name: String,
    /// What it may do: pull, report, admin.
    #[arg(long, value_delimiter = ',', required = true)]
    verbs: Vec<String>,
    /// Jobs that it may see, patterns such as "vit-*"; "*" is every job.
    #[arg(long, value_delimiter = ',', required = true)]
    jobs: Vec<String>,
    /// Most open streams.
    #[arg(long, value_name = "N")]
    max_streams: Option<u64>,
    /// Most bytes promised to its streams, such as "4GiB".
    #[arg(long, value_name = "SIZE")]
    max_bytes: Option<String>,
    /// Most open jobs that it opened.
    #[arg(long, value_name = "N")]
    max_jobs: Option<u64>,
    /// When it expires: 2027-01-31, or with time and offset.
    #[arg(long, value_name = "DATE")]
    expires: Option<String>,
    /// Append the block to this token file; it is made when it is missing.
    #[arg(long, value_name = "FILE")]
    append: Option<PathBuf>,
}

/// Makes a token.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let secret = Secret::new().context("cannot make a secret")?;
    let block = block(args, &secret);
    let whole = match &args.append {
        None => block.clone(),
        Some(file) => after(file, &block)?,
    };
    let name = args.append.as_deref().unwrap_or(Path::new("token"));
    Tokens::parse(&whole, name)?;
    if let Some(file) = &args.append {
        replace(file, &whole).with_context(|| format!("cannot write `{}`", file.display()))?;
    }
    say!("{}", secret.reveal());
    say!("");
    match &args.append {
        None => say!("# Shown once: give it to its owner. The token file gets this:\n{block}"),
        Some(file) => say!("# Shown once: give it to its owner. {} knows its hash.", file.display()),
    }
    Ok(())
}

fn block(args: &Args, secret: &Secret) -> String {
    let list = |all: &[String]| {
        toml::Value::Array(all.iter().map(|one| toml::Value::String(one.clone())).collect()).to_string()
    };
    let name = match args.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        true => args.name.clone(),
        false => toml::Value::String(args.name.clone()).to_string(),
    };
    let mut text = format!("[tokens.{name}]\nhash = \"{}\"\n", secret.hash());
    text += &format!("jobs = {}\nverbs = {}\n", list(&args.jobs), list(&args.verbs));
    let max_bytes = args.max_bytes.as_ref().map(|size| toml::Value::String(size.clone()).to_string());
    for (key, value) in [
        ("max_streams", args.max_streams.map(|n| n.to_string())),
        ("max_bytes", max_bytes),
        ("max_jobs", args.max_jobs.map(|n| n.to_string())),
        ("expires", args.expires.clone()),
    ] {
        if let Some(value) = value {
            let _ = writeln!(text, "{key} = {value}"); // a string takes everything
        }
    }
    text
}

/// The file's text with the block behind it.
fn after(file: &Path, block: &str) -> anyhow::Result<String> {
    match fs::read_to_string(file) {
        Ok(text) if text.is_empty() => Ok(block.into()),
        Ok(text) => Ok(format!("{}\n\n{block}", text.trim_end())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(block.into()),
        Err(error) => bail!("cannot read `{}`: {error}", file.display()),
    }
}

/// Written whole and moved into place: a server that looks meanwhile never sees half a file. Owner and mode stay, or the
/// server could no longer read it.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let draft = file.with_extension("draft");
    let written = write(file, &draft, text).and_then(|()| fs::rename(&draft, file));
    if written.is_err() {
        let _ = fs::remove_file(&draft); // what failed is told
    }
    written
}

fn write(file: &Path, draft: &Path, text: &str) -> std::io::Result<()> {
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft)?;
    out.write_all(text.as_bytes())?;
    if let Ok(old) = fs::metadata(file) {
        let made = out.metadata()?;
        if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
            fchown(&out, Some(old.uid()), Some(old.gid()))?;
        }
        out.set_permissions(old.permissions())?;
    }
    out.sync_all()
}
