//! `mixfeed demo --points`.

use super::{clouds::Clouds, serve, tiles};
use crate::assemble::{BlockAt, open};
use crate::job::Feed;
use anyhow::{Context, ensure};
use mixfeed_client::{Batch, Client, Inverse, StreamOptions};
use mixfeed_proto as v1;
use std::{collections::BTreeMap, path::Path, time::Instant};
use tokio::sync::watch;

/// Rows of a batch.
const BATCH: u32 = 6;
/// Rows drawn of each job.
const DRAWN: usize = 2;

/// Starts a server on the embedded tiles, pulls united scenes from it over TCP, draws what came.
pub async fn run(out: &Path, batches: u64, seed: u64) -> anyhow::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let sources = tiles::sources()?;
    let scenes: usize = sources.values().map(|source| source.index().len()).sum();
    let running = crate::start(&serve::private(), sources, Default::default(), None, stopped).await?;
    say!("server     {}, {scenes} blocks of two embedded survey tiles", running.endpoints[0]);
    let client = Client::connect([running.endpoints[0].clone()]).await?;
    std::fs::create_dir_all(out).with_context(|| format!("cannot create `{}`", out.display()))?;
    for group in tiles::groups() {
        let policy = v1::PolicySpec { name: "mix3d".into(), ..Default::default() };
        let job = client.open_job(group, &tiles::job(group, seed, BATCH, vec![policy])).await?;
        say!("job        {group}: digest {}", &crate::job::hex(&job.digest)[..16]);
        let start = Instant::now();
        let mut stream = client.stream(group, StreamOptions::default()).await?;
        let mut first = None;
        let (mut rows, mut points) = (0, 0);
        for _ in 0..batches {
            let batch = stream.next_batch().await?.context("the demo job has no end")?;
            rows += batch.points()?.len();
            points += batch.points()?.points();
            first.get_or_insert(batch);
        }
        let seconds = start.elapsed().as_secs_f64();
        say!("pulled     {batches} batches, {rows} unions, {points} voxels in {seconds:.2} s");
        let feed = running.shared.jobs.get(group)?.feed.clone();
        let batch = first.context("at least one batch")?;
        describe(&feed, &batch)?;
        let shown = Clouds::new(&feed, batch.step())?;
        let title = format!("mixfeed demo: {group}");
        let subtitle = "two blocks of a real survey tile, each transformed on its own, and their union";
        let png = shown.png(&title, subtitle, &shown.mixed(DRAWN), true)?;
        let file = out.join(format!("{group}.png"));
        std::fs::write(&file, &png).with_context(|| format!("cannot write `{}`", file.display()))?;
        say!("wrote      {} ({} kB)", file.display(), png.len() / 1000);
    }
    drop(client);
    stop.send_replace(true);
    running.wait().await;
    Ok(())
}

/// Tells what a batch holds, after comparing its points with those that were united.
fn describe(feed: &Feed, batch: &Batch) -> anyhow::Result<()> {
    for tensor in batch.tensors() {
        say!("           {:<19} {:?} {}", tensor.name, tensor.shape, tensor.dtype.name());
    }
    let rule = feed.points().context("the demo's job has scenes")?;
    let opened =
        open(feed, rule, &BlockAt { step: batch.step(), slot: 0, places: feed.order.step(batch.step()) })?;
    let points = batch.points()?;
    let (mut received, mut united) = (BTreeMap::new(), BTreeMap::new());
    for (i, row) in opened.mixed.rows.iter().enumerate() {
        let Inverse { voxels, segment } =
            points.inverse(i)?.context("the job asks for every point's voxel")?;
        let counts = points.voxel_count()?.context("the job asks for counts")?;
        let own = &counts[points.row(i).context("as many rows as were made")?];
        let mut seen = vec![0; own.len()];
        voxels.iter().for_each(|voxel| seen[*voxel as usize] += 1);
        ensure!(seen == own, "row {i}: voxels have other counts than points point to them");
        segment.iter().for_each(|class| *received.entry(*class).or_insert(0u64) += 1);
        for part in row {
            let scene = opened.scenes[part.slot as usize].segment.as_deref().unwrap_or_default();
            part.numbers().for_each(|n| *united.entry(scene[n as usize]).or_insert(0u64) += 1);
        }
    }
    ensure!(received == united, "points of a class came otherwise than they were united");
    let total: u64 = received.values().sum();
    say!("checked    {total} points of {} classes: each is in one voxel, none is lost", received.len());
    Ok(())
}
