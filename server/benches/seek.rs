//! Seek: the records of every slot of step 10,000,000 in a fresh process, index included; no decoding.
//! `cargo bench --bench seek -- FOLDER`: class folders; default: the demo photographs.
#![allow(clippy::unwrap_used, missing_docs)]

use mixfeed_proto as v1;
use mixfeed_server::{Sources, config::Config, job, source, store};
use std::{path::Path, time::Instant};

fn main() {
    let start = Instant::now();
    let folder = std::env::args().nth(1).filter(|a| !a.starts_with("--"));
    let folder = folder.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../demo-data/photos").into());
    let toml = format!("[sources.s]\nkind = \"folder\"\npath = {folder:?}\n");
    let config = Config::parse(&toml, Path::new("bench.toml")).unwrap();
    let source = source::open("s", &config.sources["s"], Path::new("."), &|_, _| {}).unwrap();
    let spec = v1::JobSpec {
        groups: vec![v1::GroupSpec { group: "s".into(), ..Default::default() }],
        global_batch: 256,
        image: Some(v1::ImageSpec { height: 224, width: 224, ..Default::default() }),
        ..Default::default()
    };
    let job = job::resolve("seek", spec, &Sources::from([("s".to_owned(), source)]))
        .unwrap()
        .open(&store::memory())
        .unwrap();
    let places = job.feed.order.step(10_000_000);
    let ms = start.elapsed().as_secs_f64() * 1e3;
    assert_eq!(places.len(), 256);
    println!(r#"{{"bench": "seek_ms", "value": {ms:.3}, "unit": "ms"}}"#);
}
