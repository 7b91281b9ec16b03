//! `mixfeed demo`.

use super::{learn, photos, points, serve, sheet::Shown};
use crate::job::Feed;
use crate::picture;
use crate::plan::image;
use anyhow::{Context, ensure};
use mixfeed_client::{Batch, Client, StreamOptions};
use mixfeed_proto as v1;
use std::{path::PathBuf, time::Instant};
use tokio::sync::watch;

/// Rows of a batch of the demo: enough that every policy is drawn.
const BATCH: u32 = 48;

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for the pictures.
    #[arg(long, default_value = "demo")]
    out: PathBuf,
    /// Batches to pull.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    batches: u64,
    /// Learn the mixture of three embedded texts instead, against equal shares, and plot it.
    #[arg(long)]
    mixture: bool,
    /// Unite blocks of two embedded survey tiles instead.
    #[arg(long, conflicts_with = "mixture")]
    points: bool,
    /// Seed of the job.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Starts a server, pulls from it over TCP, draws what came.
pub async fn run(args: Args) -> anyhow::Result<()> {
    if args.mixture {
        return learn::run(&args.out, args.seed).await;
    }
    if args.points {
        return points::run(&args.out, args.batches, args.seed).await;
    }
    let (stop, stopped) = watch::channel(false);
    let running =
        crate::start(&serve::private(), photos::sources(), Default::default(), None, stopped).await?;
    let endpoint = running.endpoints[0].clone();
    say!("server     {endpoint}, 72 embedded photographs in 6 groups");

    let start = Instant::now();
    let client = Client::connect([endpoint]).await?;
    let every =
        image::POLICIES.iter().map(|p| v1::PolicySpec { name: p.name().into(), ..Default::default() });
    let spec = photos::job(args.seed, BATCH, every.collect());
    let job = client.open_job("demo", &spec).await?;
    say!("job        digest {}, classes {}", &crate::job::hex(&job.digest)[..16], job.classes.join(" "));

    let mut stream = client.stream("demo", StreamOptions::default()).await?;
    let mut first = None;
    let mut rows = 0;
    for _ in 0..args.batches {
        let batch = stream.next_batch().await?.context("the demo job has no end")?;
        rows += batch.images()?.shape[0] as u64;
        if first.is_none() {
            say!("first      batch after {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
            describe(&batch);
            first = Some(batch);
        }
    }
    let (seconds, stats) = (start.elapsed().as_secs_f64(), stream.stats());
    say!(
        "pulled     {} batches, {rows} rows, {:.1} MB in {seconds:.2} s: {:.0} samples/s",
        stats.batches,
        stats.bytes as f64 / 1e6,
        rows as f64 / seconds
    );
    let shared = running.shared.clone();
    let feed = shared.jobs.get("demo")?.feed.clone();
    draw(&args, &feed, &first.context("at least one batch")?)?;
    drop((stream, client));
    stop.send_replace(true);
    running.wait().await;
    Ok(())
}

fn describe(batch: &Batch) {
    for tensor in batch.tensors() {
        say!("           {:<13} {:?} {}", tensor.name, tensor.shape, tensor.dtype.name());
    }
}

/// Writes the sheets; every pixel of "result" came over the wire.
fn draw(args: &Args, feed: &Feed, batch: &Batch) -> anyhow::Result<()> {
    let shown = &Shown::new(feed, batch.step())?;
    let image = feed.image().context("the demo's job has pictures")?;
    let pixels = batch.images()?.as_u8()?;
    let received: Vec<&[u8]> = pixels.chunks_exact(image.bytes()).collect();
    for (i, row) in received.iter().enumerate() {
        ensure!(shown.result(i) == *row, "row {i} came over the wire with other bytes than were made");
    }
    say!("checked    all {} rows of the first batch: bytes received are the bytes made", received.len());

    // Of each policy the row that shows most of both pictures.
    let even = |i: &usize| (shown.plan.rows[*i].own * 1e3 - 500.0).abs() as u32;
    let of = |p: usize| (0..received.len()).filter(move |i| shown.plan.rows[*i].policy == Some(p as u32));
    let lines = (0..image.mix.members.len()).filter_map(|p| of(p).min_by_key(even));
    let lines = lines.map(|i| shown.line(i, received[i]));
    let subtitle = "one row per policy; label weights under each result are what the trainer receives".into();
    let sheet =
        picture::Sheet { title: "mixfeed demo: mixing policies".into(), subtitle, lines: lines.collect() };

    let picture = |i: usize| picture::Picture::from_row(received[i], &image.format.raster);
    let cells: Vec<_> = (0..received.len().min(24)).map(|i| (picture(i), shown.caption(i))).collect();
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot create `{}`", args.out.display()))?;
    for (name, png) in [
        ("policies.png", sheet.png()?),
        ("batch.png", picture::grid("mixfeed demo: first batch", &cells, 6)?),
    ] {
        let file = args.out.join(name);
        std::fs::write(&file, &png).with_context(|| format!("cannot write `{}`", file.display()))?;
        say!("wrote      {} ({} kB)", file.display(), png.len() / 1000);
    }
    Ok(())
}
