//! `mixfeed check`.

use super::serve;
use crate::assemble::Assembler;
use crate::batch::Crop;
use crate::cloud;
use crate::config::Config;
use crate::decode::{DecodeError, Decoder, Limits, peek};
use crate::exec::{device::Device, mixer};
use crate::job::{NUMERICS, Numerics, TORCH};
use crate::source::{Corpus, Source, SourceError};
use crate::{Guards, job, store};
use anyhow::bail;
use indicatif::ProgressBar;
use rayon::{iter::Either, prelude::*};
use std::path::{Path, PathBuf};

/// Bad records that are listed by name.
const LISTED: usize = 50;
/// Tokens of a document that are read at once.
const READ_TOKENS: usize = 1 << 16;
/// Limits when no job says otherwise: the defaults of a job spec.
const LIMITS: Limits = Limits { max_pixels: 100_000_000, max_bytes: 64 << 20 };
/// The same for scenes.
const SCENE_LIMITS: cloud::Limits = cloud::Limits { points: 20_000_000 };

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Config file.
    #[arg(long, env = "MIXFEED_CONFIG", default_value = "mixfeed.toml")]
    config: PathBuf,
    /// Decode at most this many records of each source, evenly spread; 0 means all.
    #[arg(long, default_value_t = 0)]
    records: usize,
}

/// Opens and decodes everything; fails when something is wrong.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut config = Config::load(&args.config)?;
    config.server.rebase(args.config.parent().unwrap_or(Path::new(".")));
    Guards::read(&config.server)?;
    let mixers = mixer::open(config.server.mixers(), Device::Cpu)?;
    let sources = serve::open(&config.sources, &args.config)?;
    let mut wrong = 0;
    for (name, source) in &sources {
        wrong += check_source(name, source.as_ref(), args.records);
    }
    for (name, spec) in config.jobs {
        let spec = match config.server.device {
            Device::Torch | Device::Cuda(_) => job::with_device(spec),
            // With `auto` a measurement will choose, where the server is started.
            Device::Cpu | Device::Auto => spec,
        };
        match job::resolve_with(&name, spec, &sources, &mixers).and_then(|draft| draft.open(&store::memory()))
        {
            Ok(job) => describe(&job, &config.server),
            Err(error) => {
                say!("job {name}: {error}");
                wrong += 1;
            }
        }
    }
    match wrong {
        0 => Ok(()),
        1 => bail!("1 problem found"),
        n => bail!("{n} problems found"),
    }
}

fn check_source(name: &str, source: &dyn Source, most: usize) -> usize {
    let index = source.index();
    let total = index.len();
    let what = if source.tokens().is_some() { "documents" } else { "records" };
    say!("source {name}: {}, {total} {what}, {} classes", source.kind(), index.classes.len());
    for group in &index.groups {
        let empty = if group.records.is_empty() { ", EMPTY: no job can name it" } else { "" };
        say!("  group {name}/{}: {} {what}{empty}", group.name, group.records.len());
    }
    for note in source.notes() {
        say!("  note: {note}");
    }
    if let Some(corpus) = source.tokens() {
        return check_documents(corpus, total, most);
    }
    let step = if most == 0 { 1 } else { total.div_ceil(most).max(1) };
    let numbers: Vec<usize> = (0..total).step_by(step).collect();
    let bar = ProgressBar::new(numbers.len() as u64);
    let bad: Vec<(usize, String)> = numbers
        .par_iter()
        .map_init(Decoder::new, |decoder, &i| {
            bar.inc(1);
            decode(source, i, decoder).err().map(|why| (i, why))
        })
        .flatten()
        .collect();
    bar.finish_and_clear();
    say!("  decoded {} records, {} bad", numbers.len(), bad.len());
    for (i, why) in bad.iter().take(LISTED) {
        say!("  bad: {}: {why}", index.records[*i].name);
    }
    if bad.len() > LISTED {
        say!("  ... and {} more", bad.len() - LISTED);
    }
    bad.len()
}

/// Reads documents whole; returns how many cannot be read.
fn check_documents(corpus: &dyn Corpus, total: usize, most: usize) -> usize {
    let step = if most == 0 { 1 } else { total.div_ceil(most).max(1) };
    let numbers: Vec<usize> = (0..total).step_by(step).collect();
    let bar = ProgressBar::new(numbers.len() as u64);
    let read = |number: &usize| {
        bar.inc(1);
        let document = *number as u32;
        let (mut ids, mut largest, tokens) = (vec![[0; 4]; READ_TOKENS], 0, corpus.len(document));
        for from in (0..tokens).step_by(READ_TOKENS) {
            let ids = &mut ids[..(tokens - from).min(READ_TOKENS as u64) as usize];
            corpus.read(document, from, ids).map_err(|error| format!("document {document}: {error}"))?;
            largest = ids.iter().map(|id| u32::from_le_bytes(*id)).fold(largest, u32::max);
        }
        Ok((tokens, largest))
    };
    let (good, bad): (Vec<_>, Vec<_>) =
        numbers.par_iter().map(read).partition_map(|read: Result<(u64, u32), String>| match read {
            Ok(good) => Either::Left(good),
            Err(why) => Either::Right(why),
        });
    bar.finish_and_clear();
    let tokens: u64 = good.iter().map(|(tokens, _)| tokens).sum();
    let largest = good.iter().map(|(_, id)| id).max().unwrap_or(&0);
    say!("  read {} documents, {tokens} tokens, largest id {largest}, {} bad", numbers.len(), bad.len());
    bad.iter().take(LISTED).for_each(|why| say!("  bad: {why}"));
    bad.len()
}

fn decode(source: &dyn Source, number: usize, decoder: &mut Decoder) -> Result<(), String> {
    let bytes = source.read(number as u32).map_err(|e: SourceError| e.to_string())?;
    if source.scenes() {
        return cloud::record(&bytes, &SCENE_LIMITS).map(drop).map_err(|e| e.to_string());
    }
    let whole = |decoder: &mut Decoder| -> Result<(), DecodeError> {
        let peek = peek(&bytes, LIMITS)?;
        let crop = Crop { y: 0.0, x: 0.0, height: peek.height.into(), width: peek.width.into() };
        decoder.decode(&bytes, &peek, &crop, (16, 24), &mut [0; 16 * 24 * 3])
    };
    whole(decoder).map_err(|e| e.to_string())
}

fn describe(job: &job::Job, server: &crate::config::Server) {
    let feed = &job.feed;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let block = Assembler::block_cost(feed, feed.mix_block as usize).1 as u64;
    let numerics = match feed.numerics() {
        Numerics::Cpu => NUMERICS,
        Numerics::Torch => TORCH,
        Numerics::Tolerant => "tolerant",
    };
    say!("job {}: digest {}, numerics {numerics}", job.name, job::hex(&job.digest));
    say!(
        "  world sizes {:?}, steps {}",
        feed.world_sizes(),
        match feed.order.steps() {
            Some(steps) => steps.to_string(),
            None => "without end".into(),
        }
    );
    if let Some(tokens) = feed.tokens() {
        for (group, table) in feed.groups.iter().zip(&tokens.tables) {
            let (rows, served, left) = (table.rows(), table.tokens(), table.left());
            say!("  {}: {rows} rows of {served} tokens an epoch, {left} tokens fill no row", group.name);
        }
    }
    if let Some(held) = &job.held {
        let sets = feed.groups.iter().zip(&held.groups).zip(&held.sets);
        sets.for_each(|((group, held), set)| {
            say!("  {}: {} held out, {} eval rows", group.name, held.records(), set.rows);
        });
    }
    say!("  one step {:.1} MiB, one block {:.1} MiB", mib(crate::wire::job_info(job).step_bytes), mib(block));
    let streams = server.memory.0 / server.prefetch().0.max(1);
    say!(
        "  memory: {:.0} MiB ahead per stream, {streams} such streams fit into {:.0} MiB",
        mib(server.prefetch().0 as u64),
        mib(server.memory.0 as u64)
    );
}
