//! The program as a user runs it.
#![allow(clippy::unwrap_used)]

mod serving;

use serving::Serving;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn mixfeed(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mixfeed")).args(args).env_remove("MIXFEED_CONFIG").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder with a config on the demo photographs.
fn config(more: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-data/photos").canonicalize().unwrap();
    let text =
        format!("[sources.photos]\nkind = \"folder\"\npath = {:?}\n{more}", photos.display().to_string());
    fs::write(folder.path().join("mixfeed.toml"), text).unwrap();
    folder
}

fn file(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

#[test]
fn wrong_flags_and_files_exit_with_a_sentence() {
    for (args, code, say) in [
        (vec!["serve", "--config", "/nonexistent/mixfeed.toml"], 78, "cannot read config"),
        (vec!["serve", "--confg", "x"], 2, "--config"),
        (vec!["fly"], 2, "unrecognized subcommand"),
        (vec!["--log", "a=b=c", "policies"], 2, "--log"),
        (vec!["preview", "--policy", "mixdown", "--out", "/tmp/x.png"], 1, "`mixdown`, want one of cutmix"),
        (vec!["preview", "--policy", "mixup", "--set", "alpha=-1", "--out", "/tmp/x.png"], 1, "alpha"),
        (vec!["preview", "--policy", "mixup", "--set", "alpha", "--out", "/tmp/x.png"], 1, "NAME=VALUE"),
        (vec!["preview", "--policy", "mixup", "--out", "/nonexistent/x.png"], 1, "cannot write"),
        (vec!["pull", "--job", "j", "--spec", "/nonexistent.toml"], 1, "cannot read spec"),
        (vec!["healthcheck", "--endpoint", "http://127.0.0.1:9", "--timeout", "1"], 1, "error: "),
        (vec!["healthcheck", "--endpoint", "nonsense://", "--timeout", "1"], 1, "error: "),
    ] {
        let out = mixfeed(&args);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out.stderr));
        assert!(text(&out.stderr).contains(say), "{args:?}: {}", text(&out.stderr));
    }
}

#[test]
fn a_wrong_config_names_key_and_line() {
    let folder = config("\n[server]\nthreds = 3\n");
    let out = mixfeed(&["serve", "--config", &file(&folder, "mixfeed.toml")]);
    assert_eq!(out.status.code(), Some(78));
    assert!(
        text(&out.stderr).contains("threds") && text(&out.stderr).contains("line 6"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn a_job_of_the_config_is_served_watched_and_stopped() {
    let job = "\n[jobs.night]\nglobal_batch = 6\nmix_block = 3\nseed = 3\n\
        groups = [{ group = \"photos/cat\" }, { group = \"photos/eye\" }]\n\
        image = { height = 48, width = 64, random_resized_crop = {} }\n\
        mix = { policies = [{ name = \"cutmix\" }] }\n";
    let folder = config(job);
    let mut server = Serving::start(&file(&folder, "mixfeed.toml"));
    let endpoint = server.endpoint.clone();
    assert!(mixfeed(&["healthcheck", "--endpoint", &endpoint, "--timeout", "60"]).status.success());
    let out = mixfeed(&[
        "pull",
        "--endpoint",
        &endpoint,
        "--job",
        "night",
        "--batches",
        "5",
        "--warmup",
        "1",
        "--json",
    ]);
    let pulled: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((pulled["batches"].as_u64(), pulled["samples"].as_u64()), (Some(5), Some(30)), "{pulled}");
    assert_eq!(pulled["next_step"].as_u64(), Some(6));

    let scraped = scrape(&server.http);
    for wanted in [
        "mixfeed_batches_delivered_total{job=\"night\"}",
        "mixfeed_mixture_weight_ratio{job=\"night\",group=\"photos/cat\"} 0.5",
        "mixfeed_stage_duration_seconds_bucket{stage=\"decode\"",
        "mixfeed_build_info{",
    ] {
        assert!(scraped.contains(wanted), "{wanted} is not in\n{scraped}");
    }
    assert!(server.signal("-TERM").success(), "a drained server ends with 0");
    assert!(!mixfeed(&["healthcheck", "--endpoint", &endpoint, "--timeout", "1"]).status.success());
}

/// GET by hand: what a scraper does.
fn scrape(url: &str) -> String {
    use std::io::{Read, Write};
    let (address, path) = url.trim_start_matches("http://").split_once('/').unwrap();
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    write!(socket, "GET /{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

#[test]
fn a_job_is_checked_as_the_server_will_open_it() {
    let mut digests = Vec::new();
    for (device, numerics) in [("cpu", "cpu-1"), ("torch", "torch-1"), ("cuda:3", "torch-1")] {
        let folder = config(&format!(
            "[server]\ndevice = \"{device}\"\n[jobs.plain]\nglobal_batch = 2\n\
            groups = [{{ group = \"photos\" }}]\nimage = {{ height = 8, width = 9 }}\n"
        ));
        let said = text(&mixfeed(&["check", "--config", &file(&folder, "mixfeed.toml")]).stdout);
        let line = said.lines().find_map(|line| line.strip_prefix("job plain: digest "));
        let (digest, told) = line.unwrap_or_else(|| panic!("{said}")).split_once(", numerics ").unwrap();
        assert_eq!(told, numerics, "{device}");
        digests.push(digest.to_owned());
    }
    assert!(digests[0] != digests[1] && digests[1] == digests[2], "{digests:?}");
}

#[test]
fn texts_are_tokenised_ahead_and_checked() {
    let prose = "\n[sources.prose]\nkind = \"text\"\npath = \"a.txt\"\ntokenizer = \"bytes\"\neod = 256\n\
        documents = \"line\"\n[jobs.llm]\nglobal_batch = 2\ngroups = [{ group = \"prose\" }]\n\
        tokens = { seq_len = 4, packing = \"concat\" }\nheld_out = { fraction = 0.4 }\n";
    let folder = config(prose);
    fs::write(folder.path().join("a.txt"), "alpha\nbeta\n\ngamma\ndelta\neta\n").unwrap();
    let config = file(&folder, "mixfeed.toml");
    for _ in 0..2 {
        let out = mixfeed(&["tokenize", "--config", &config, "prose"]);
        assert!(out.status.success(), "{}", text(&out.stderr));
        assert!(text(&out.stdout).contains("prose/all: 5 documents, 27 tokens"), "{}", text(&out.stdout));
        assert!(!text(&out.stderr).contains("made again"), "{}", text(&out.stderr));
    }
    let out = mixfeed(&["check", "--config", &config]);
    let said = text(&out.stdout);
    assert!(out.status.success(), "{said}{}", text(&out.stderr));
    for line in ["read 5 documents, 27 tokens, largest id 256, 0 bad", "tokens fill no row", "2 held out"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let out = mixfeed(&["tokenize", "--config", &config, "photos"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("`photos` is of kind `folder`, want `text`"), "{}", text(&out.stderr));
}

#[test]
fn check_lists_bad_records_and_fails() {
    let folder = config("");
    let out = mixfeed(&["check", "--config", &file(&folder, "mixfeed.toml")]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("decoded 72 records, 0 bad"), "{}", text(&out.stdout));

    let broken = tempfile::tempdir().unwrap();
    fs::create_dir(broken.path().join("good")).unwrap();
    fs::create_dir(broken.path().join("empty")).unwrap();
    fs::write(broken.path().join("good/text.jpg"), "no picture").unwrap();
    fs::write(broken.path().join("good/notes.txt"), "no record").unwrap();
    let toml = format!("[sources.s]\nkind = \"folder\"\npath = {:?}\n", broken.path().display().to_string());
    fs::write(broken.path().join("c.toml"), toml).unwrap();
    let out = mixfeed(&["check", "--config", &file(&broken, "c.toml")]);
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        said.contains("bad: good/text.jpg: is no JPEG") && said.contains("empty: 0 records, EMPTY"),
        "{said}"
    );
    assert!(said.contains("notes.txt"), "nothing is skipped silently: {said}");
}

#[test]
fn demo_and_preview_write_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let out = mixfeed(&["demo", "--out", &file(&folder, "demo"), "--batches", "2"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("bytes received are the bytes made"), "{}", text(&out.stdout));
    let preview = file(&folder, "p.png");
    assert!(mixfeed(&["preview", "--policy", "fmix", "--rows", "1", "--out", &preview]).status.success());
    for name in ["demo/policies.png", "demo/batch.png", "p.png"] {
        let png = fs::read(file(&folder, name)).unwrap();
        assert!(png.starts_with(b"\x89PNG") && png.len() > 20_000, "{name}: {} bytes", png.len());
    }
}

#[test]
fn policies_are_listed_with_their_parameters() {
    let said = text(&mixfeed(&["policies"]).stdout);
    for name in
        ["mixup", "cutmix", "fmix", "gridmix", "maskmix", "resizemix", "smoothmix", "alpha", "box_rule"]
    {
        assert!(said.contains(name), "{name}");
    }
}

#[test]
fn a_reader_that_left_or_a_full_disk_ends_the_program_without_a_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mixfeed"))
        .args(["policies", "--markdown"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""));

    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_mixfeed")).arg("policies").stdout(full).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).starts_with("error: cannot write to standard output"), "{}", text(&out.stderr));
}
