//! The real program: tokens made by it, TLS, SIGHUP, and logs without secrets.
#![allow(clippy::unwrap_used)]

use rcgen::{CertificateParams, KeyPair};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server in a folder of its own: configuration, tokens, certificate, log.
struct Program {
    folder: TempDir,
    child: Child,
    endpoint: String,
    http: String,
}

impl Program {
    fn start(folder: TempDir) -> Program {
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let ready = folder.path().join("ready.json");
        let child = Command::new(env!("CARGO_BIN_EXE_mixfeed"))
            .args(["--log", "trace", "serve", "--config"])
            .arg(folder.path().join("mixfeed.toml"))
            .arg("--ready-file")
            .arg(&ready)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut program = Program { folder, child, endpoint: String::new(), http: String::new() };
        program.until("ready", |_| ready.exists());
        let addresses: serde_json::Value = serde_json::from_slice(&fs::read(&ready).unwrap()).unwrap();
        program.endpoint = addresses["grpc"][0].as_str().unwrap().to_owned();
        program.http = addresses["http"].as_str().unwrap().to_owned();
        program
    }

    fn until(&self, what: &str, done: impl Fn(&Program) -> bool) {
        let late = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < late, "{what}: {}", self.log());
            std::thread::yield_now();
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sends SIGHUP and waits for the answer: at least so many reloads of `result`. Changed tokens may have been seen
    /// without it, which counts too.
    fn hangup(&self, result: &str, reloads: u32) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        let line = format!("mixfeed_config_reloads_total{{result=\"{result}\"}} ");
        self.until(&line, |program| {
            let scraped = program.scrape();
            let count = scraped.split(&line).nth(1).unwrap().lines().next().unwrap();
            count.parse::<u32>().unwrap() >= reloads
        });
    }

    fn scrape(&self) -> String {
        use std::io::{Read, Write};
        let address = self.http.trim_start_matches("http://");
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        write!(socket, "GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Runs a command of the program against this server, with its CA and a token.
    fn ask(&self, secret: &str, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mixfeed"));
        command.args(args).args(["--endpoint", &self.endpoint]).arg("--ca").arg(self.path("cert.pem"));
        command.env("MIXFEED_TOKEN", secret).output().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill(); // ended already is fine
        let _ = self.child.wait();
    }
}

/// Makes a token in `file`; returns its secret.
fn token(file: &Path, name: &str, more: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_mixfeed"))
        .args(["token", name, "--append"])
        .arg(file)
        .args(more)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
    let secret = text(&out.stdout).lines().next().unwrap().to_owned();
    assert!(secret.starts_with("mf_") && secret.len() == 46, "{secret}");
    secret
}

fn config(more: &str) -> String {
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-data/photos").canonicalize().unwrap();
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nhttp = \"127.0.0.1:0\"\ntokens = \"tokens.toml\"\n\
         [server.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n\
         [sources.photos]\nkind = \"folder\"\npath = {photos:?}\n{more}"
    )
}

fn job(name: &str, source: &str) -> String {
    format!(
        "[jobs.{name}]\nglobal_batch = 6\nmix_block = 3\nseed = 3\ngroups = [{{ group = \"{source}\" }}]\n\
         image = {{ height = 48, width = 64 }}\n"
    )
}

const ALL: [&str; 4] = ["--verbs", "pull,report", "--jobs", "*"];

#[test]
fn the_program_serves_over_tls_to_tokens_and_reloads() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().self_signed(&key).unwrap();
    fs::write(folder.path().join("cert.pem"), cert.pem()).unwrap();
    fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
    fs::write(folder.path().join("mixfeed.toml"), config(&job("night", "photos"))).unwrap();
    let tokens = folder.path().join("tokens.toml");
    let first = token(&tokens, "first", &ALL);
    let second = token(&tokens, "second", &["--verbs", "admin", "--jobs", "day*", "--max-bytes", "1GiB"]);
    assert_eq!(fs::metadata(&tokens).unwrap().permissions().mode() & 0o777, 0o600);
    let kept = fs::read_to_string(&tokens).unwrap();
    assert!(!kept.contains(&first) && !kept.contains(&second) && kept.contains("max_bytes = \"1GiB\""));

    let program = Program::start(folder);
    assert!(program.scrape().contains("mixfeed_tls_certificate_expiry_timestamp_seconds "));
    assert!(program.ask("", &["healthcheck", "--timeout", "60"]).status.success(), "health needs no token");
    let night = ["pull", "--job", "night", "--batches", "2", "--warmup", "0", "--json"];
    let pulled = program.ask(&first, &night);
    assert!(pulled.status.success(), "{}", text(&pulled.stderr));
    for (secret, says) in [("", "a token is wanted"), ("mf_nonsense", "not known"), (&second, "`night`")] {
        let out = program.ask(secret, &night);
        assert_eq!(out.status.code(), Some(1));
        assert!(text(&out.stderr).contains(says), "{says}: {}", text(&out.stderr));
    }

    // A new source and a job of it; then what cannot change, and what is wrong.
    let source = program.path("more");
    fs::create_dir(&source).unwrap();
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-data/photos/cat");
    fs::create_dir(source.join("cat")).unwrap();
    for photo in fs::read_dir(photos).unwrap().map(|entry| entry.unwrap().path()) {
        fs::copy(&photo, source.join("cat").join(photo.file_name().unwrap())).unwrap();
    }
    let more = "[sources.more]\nkind = \"folder\"\npath = \"more\"\n";
    let grown = config(&format!("{}{more}{}", job("night", "photos"), job("day", "more")));
    fs::write(program.path("mixfeed.toml"), &grown).unwrap();
    program.hangup("ok", 1);
    let day = ["pull", "--job", "day", "--batches", "2", "--warmup", "0"];
    let pulled = program.ask(&second, &day);
    assert!(pulled.status.success(), "{}", text(&pulled.stderr));
    fs::write(program.path("mixfeed.toml"), grown.replace("[server]\n", "[server]\nthreads = 7\n")).unwrap();
    program.hangup("refused", 1);
    fs::write(program.path("mixfeed.toml"), "[server]\nthreds = 7\n").unwrap();
    program.hangup("refused", 2);

    // The second token is revoked while it streams; the streams of those before have ended by then.
    program.until("no stream", |program| program.scrape().contains("mixfeed_streams 0"));
    fs::write(program.path("mixfeed.toml"), &grown).unwrap();
    let streaming = Command::new(env!("CARGO_BIN_EXE_mixfeed"))
        .args(["pull", "--job", "day", "--batches", "1000000000", "--endpoint", &program.endpoint, "--ca"])
        .arg(program.path("cert.pem"))
        .env("MIXFEED_TOKEN", &second)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    program.until("a stream", |program| program.scrape().contains("mixfeed_streams 1"));
    let left = kept.split("[tokens.second]").next().unwrap().to_owned();
    fs::write(&tokens, left).unwrap();
    program.hangup("ok", 2);
    let ended = streaming.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(text(&ended.stderr).contains("denied: the token is not known here"), "{}", text(&ended.stderr));
    assert!(program.scrape().contains("mixfeed_streams_ended_total{reason=\"revoked\"} 1"));
    assert!(program.ask(&first, &night).status.success(), "the others stay");

    let log = program.log();
    for said in ["source more opened; job day opened", "`server.threads` cannot change", "threds"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    for secret in [&first, &second] {
        assert!(!log.contains(&secret[3..]), "a secret is in the log");
    }
    assert!(!log.contains("BEGIN PRIVATE"), "a key is in the log");
}

#[test]
fn what_guards_a_server_is_checked_before_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mixfeed.toml");
    let serve = |text: &str, flags: &[&str]| {
        fs::write(&file, text).unwrap();
        let out = Command::new(env!("CARGO_BIN_EXE_mixfeed"))
            .args(["serve", "--config"])
            .arg(&file)
            .args(flags)
            .output()
            .unwrap();
        (out.status.code(), text_of(&out))
    };
    for (config, flags, says) in [
        ("[server]\nlisten = [\"0.0.0.0:0\"]\n", &[][..], "--allow-plaintext"),
        ("", &["--listen", "[::]:0"][..], "would speak plaintext"),
        ("[server]\ntokens = \"none.toml\"\n", &[][..], "cannot read token file"),
        ("[server.tls]\ncert = \"none.pem\"\nkey = \"none.pem\"\n", &[][..], "none.pem"),
    ] {
        let (code, said) = serve(config, flags);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains(says), "{says}: {said}");
    }
    let out = Command::new(env!("CARGO_BIN_EXE_mixfeed"))
        .args(["token", "x", "--verbs", "push", "--jobs", "*"])
        .output()
        .unwrap();
    assert!(!out.status.success() && text_of(&out).contains("push"), "{}", text_of(&out));
    assert!(out.stdout.is_empty(), "no secret of a token that nobody will know");
}

#[test]
fn a_token_file_keeps_its_owner_and_mode() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    token(&file, "first", &ALL);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let _ = chown(&file, Some(12345), Some(12345)); // root may
    let before = fs::metadata(&file).unwrap();
    token(&file, "second", &ALL);
    let after = fs::metadata(&file).unwrap();
    let seen = |of: &fs::Metadata| (of.uid(), of.gid(), of.mode());
    assert_eq!(seen(&after), seen(&before));
    assert!(after.len() > before.len() && !folder.path().join("tokens.draft").exists());
}

#[test]
fn the_limit_of_open_files_is_raised_to_what_the_system_allows() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mixfeed.toml");
    fs::write(&file, "[server]\nlisten = [\"unix:none/socket\"]\n[server.limits]\nconnections = 100\n")
        .unwrap();
    let said = |limits: &str| {
        let out = Command::new("sh")
            .args(["-c", &format!("{limits}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_mixfeed")])
            .args(["serve", "--http", "", "--config"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(!out.status.success());
        text_of(&out)
    };
    let (low, raised) = (said("ulimit -n 200"), said("ulimit -Sn 200; ulimit -Hn 400"));
    assert!(low.contains("200 files may be open") && low.contains("none/socket"), "{low}");
    assert!(!raised.contains("files may be open") && raised.contains("none/socket"), "{raised}");
}

fn text_of(out: &Output) -> String {
    text(&out.stderr)
}
