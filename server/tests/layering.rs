//! Who may import whom. The order of rooms is the data flow; an arrow against it is a design change, not a detail.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::Path};

/// Rooms with the rooms that they may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("args", &[]),
    ("batch", &[]),
    ("rng", &[]),
    ("metrics", &[]),
    ("cloud", &[]),
    ("live", &[]),
    ("trace", &[]),
    ("size", &[]),
    ("auth", &["size"]),
    ("source", &["batch", "cloud", "metrics", "size"]),
    ("decode", &["batch"]),
    ("mixture", &["batch", "rng"]),
    ("pack", &["rng"]),
    ("plan", &["args", "batch", "rng"]),
    ("estimate", &["args", "rng"]),
    ("store", &[]),
    ("exec", &["batch", "cloud", "plan"]),
    ("keeper", &["args", "estimate", "metrics", "mixture", "store"]),
    (
        "job",
        &[
            "args", "batch", "cloud", "decode", "estimate", "exec", "keeper", "metrics", "mixture", "pack",
            "plan", "rng", "source", "store",
        ],
    ),
    (
        "assemble",
        &[
            "batch", "cloud", "decode", "exec", "job", "keeper", "metrics", "pack", "plan", "rng", "source",
            "trace",
        ],
    ),
    ("wire", &["args", "assemble", "batch", "estimate", "exec", "job", "keeper", "plan", "source"]),
    ("stream", &["assemble", "batch", "job", "keeper", "live", "metrics", "mixture", "trace", "wire"]),
    (
        "service",
        &[
            "assemble", "auth", "job", "keeper", "live", "metrics", "mixture", "source", "store", "stream",
            "trace", "wire",
        ],
    ),
    ("heap", &[]),
    (
        "http",
        &[
            "assemble", "batch", "exec", "job", "keeper", "live", "metrics", "mixture", "picture", "source",
            "stream",
        ],
    ),
    ("picture", &["batch"]),
    ("config", &["exec", "size", "source"]),
    ("shutdown", &[]),
    ("reload", &["auth", "config", "job", "metrics", "service", "source"]),
];

/// Crates with the rooms that may use them.
const THIRD_PARTY: &[(&str, &[&str])] = &[
    ("tonic", &["service", "stream"]),
    ("hyper", &["service", "http"]),
    ("image", &["decode", "picture"]),
    ("turbojpeg_sys", &["decode"]),
    ("fast_image_resize", &["decode"]),
    ("rand_chacha", &["rng"]),
    ("tch", &["exec"]),
    ("sha2", &["exec"]),
    ("rayon", &["assemble", "cli", "cloud", "exec", "source"]),
    ("clap", &["cli"]),
    ("anyhow", &["cli"]),
    ("mixfeed_client", &["cli"]),
    ("metrics_process", &["metrics"]),
    ("metrics_exporter_prometheus", &["metrics", "http"]),
    ("parquet", &["source"]),
    ("tiktoken_rs", &["source"]),
    ("tokenizers", &["source"]),
    ("zstd", &["source"]),
    ("laz", &["cloud"]),
    ("flate2", &["cloud"]),
    ("memmap2", &["source"]),
    ("libc", &["exec", "heap", "shutdown", "source"]),
    ("rlimit", &["cli"]),
    ("toml", &["auth", "config", "cli"]),
    ("tokio_rustls", &["auth", "service", "source"]),
    ("rustls_pki_types", &["service"]),
    ("x509_parser", &["service"]),
    ("redb", &["store"]),
    ("opentelemetry", &["cli", "trace"]),
    ("opentelemetry_sdk", &["cli", "trace"]),
    ("opentelemetry_otlp", &["cli"]),
    ("tracing_opentelemetry", &["cli", "trace"]),
    ("tracing_subscriber", &["cli"]),
    ("object_store", &["source"]),
    ("reqwest", &["source"]),
];

/// Text of every file of each room, without tests and comments.
fn rooms() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut rooms, mut folders) = (BTreeMap::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        let paths: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        let texts: Vec<_> =
            paths.iter().filter(|p| p.is_file()).map(|p| (p, fs::read_to_string(p).unwrap())).collect();
        let tests: Vec<String> = texts.iter().flat_map(|(_, text)| test_modules(text)).collect();
        folders.extend(paths.iter().filter(|p| p.is_dir()).cloned());
        for (path, text) in &texts {
            let name = path.file_stem().unwrap().to_string_lossy();
            if tests.iter().any(|t| *t == name) || ["lib", "main"].contains(&&*name) {
                continue;
            }
            let inside = path.strip_prefix(&root).unwrap();
            let room = inside.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let code: Vec<&str> = code.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
            rooms.entry(room).or_insert_with(String::new).push_str(&code.join("\n"));
        }
    }
    rooms
}

/// Names of the modules in files of their own that `text` declares for tests only.
fn test_modules(text: &str) -> Vec<String> {
    let after = text.split("#[cfg(test)]\nmod ").skip(1);
    after
        .filter_map(|rest| rest.split_once(';').map(|(name, _)| name.to_owned()))
        .filter(|n| !n.contains(' '))
        .collect()
}

/// Uses of the crate `image`, whose name our registry of image policies shares.
fn names_image_crate(code: &str) -> bool {
    ["use image::", "image::Image", "image::Rgb", "image::Dynamic", "image::codecs", "image::Limits"]
        .iter()
        .any(|use_| code.contains(use_))
}

/// Whether `word` begins an import path in `code`: `crate::word`, `use word::`, `word::x`, `{word, `.
fn names(code: &str, word: &str, ours: bool) -> bool {
    let hit = |found: usize| {
        let (before, after) = (&code[..found], &code[found + word.len()..]);
        let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        if !edge(before.chars().next_back()) || !edge(after.chars().next()) {
            return false;
        }
        let line = before.rsplit('\n').next().unwrap_or("");
        if ours {
            before.ends_with("crate::")
                || (line.trim_start().starts_with("use crate::{") && !line.contains("::{::"))
        } else {
            after.starts_with("::") && !before.ends_with("::")
        }
    };
    code.match_indices(word).any(|(at, _)| hit(at))
}

#[test]
fn every_room_uses_only_what_it_may() {
    for (room, code) in rooms().iter().filter(|(room, _)| *room != "cli") {
        let Some((_, may)) = MAY_USE.iter().find(|(name, _)| name == room) else {
            panic!("room `{room}` is not in the table: say what it may use");
        };
        for (other, _) in MAY_USE.iter().filter(|(other, _)| other != room && !may.contains(other)) {
            assert!(!names(code, other, true), "`{room}` must not use `{other}`");
        }
        assert!(!names(code, "cli", true), "`{room}` must not use `cli`");
    }
}

#[test]
fn third_party_borders_hold() {
    for (room, code) in rooms() {
        for (krate, may) in THIRD_PARTY {
            let used = if *krate == "image" { names_image_crate(&code) } else { names(&code, krate, false) };
            assert!(may.contains(&room.as_str()) || !used, "`{room}` must not use `{krate}`");
        }
    }
}

#[test]
fn the_test_sees_imports() {
    assert!(names("use crate::exec::Format;", "exec", true));
    assert!(names("let x = crate::wire::frame();", "wire", true));
    assert!(names("use crate::{exec, wire};", "exec", true));
    assert!(!names("fn exec() {}", "exec", true));
    assert!(names("use tonic::Status;", "tonic", false));
    assert!(!names("use tonic_types::Status;", "tonic", false));
}
