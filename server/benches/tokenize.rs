//! Text to a token cache, as `mixfeed tokenize` does it, against the encoder of tiktoken-rs alone on all cores, both on the
//! same documents: this repository's source files, over and over. Prints a JSON line: the median over rounds of the ratio
//! within a round.
#![allow(clippy::unwrap_used, missing_docs)] // a bench may stop at the first surprise

use mixfeed_server::source::{self, Declaration, Kind, Source};
use rayon::prelude::*;
use std::{fs, path::Path, sync::Arc, time::Instant};

const ROUNDS: usize = 5;
const BYTES: usize = 24 << 20;

fn main() {
    let mut texts = Vec::new();
    gather(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut texts);
    texts.sort();
    let total: usize = texts.iter().map(String::len).sum();
    let texts: Vec<&String> = (0..BYTES.div_ceil(total)).flat_map(|_| &texts).collect();
    let folder = tempfile::tempdir().unwrap();
    let lines: String = texts.iter().map(|t| serde_json::json!({ "text": t }).to_string() + "\n").collect();
    fs::write(folder.path().join("t.jsonl"), lines).unwrap();
    let bytes: usize = texts.iter().map(|t| t.len()).sum();
    let bpe = tiktoken_rs::cl100k_base_singleton();
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let start = Instant::now();
        let count: usize = texts.par_iter().map(|text| bpe.encode_ordinary(text).len()).sum();
        let library = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let source = open(folder.path(), round);
        let ours = start.elapsed().as_secs_f64();
        let corpus = source.tokens().unwrap();
        let made: u64 = source.index().groups[0].records.iter().map(|d| corpus.len(*d)).sum();
        assert_eq!(made, count as u64);
        let rate = |seconds: f64| bytes as f64 / seconds / 1e6;
        eprintln!("round {round}: library {:.1} MB/s, mixfeed {:.1} MB/s", rate(library), rate(ours));
        ratios.push(library / ours);
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[ROUNDS / 2];
    println!(
        r#"{{"bench": "tokenize_vs_library", "ratio": {ratio:.3}, "peer": "tiktoken-rs on all cores"}}"#
    );
}

/// Opens the texts with a cache of this round's own.
fn open(folder: &Path, round: usize) -> Arc<dyn Source> {
    let declaration = Declaration {
        tokenizer: Some("cl100k_base".into()),
        cache: Some(format!("cache-{round}")),
        ..Declaration::new(Kind::Text, "t.jsonl")
    };
    source::open("t", &declaration, folder, &|_, _| {}).unwrap()
}

fn gather(folder: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => gather(&path, texts),
            false => texts.push(fs::read_to_string(path).unwrap()),
        }
    }
}
