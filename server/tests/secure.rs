//! TLS, tokens, quotas, and their reload.
#![allow(clippy::unwrap_used)]

#[path = "secure/reload.rs"]
mod reload_tests;
mod stand;

use mixfeed_client::{Client, ClientOptions, Error, Health, StreamOptions};
use mixfeed_server::auth::{Secret, Tokens};
use mixfeed_server::source::{Declaration, SourceError};
use mixfeed_server::{Sources, config, reload::Reload};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use stand::{Server, sources, spec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// An authority that tests make up.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for this machine and its key, in PEM.
    fn certify(&self, until: i32) -> (String, String) {
        self.certify_from(Duration::from_secs(1_000_000_000), until)
    }

    /// As `certify`, valid from a time after 1970 on.
    fn certify_from(&self, from: Duration, until: i32) -> (String, String) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
        params.not_before = date_time_ymd(1970, 1, 1) + from;
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A folder with the files of a server.
struct Files(TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        // As those do who renew files with care: a new file, moved into place.
        let draft = self.path("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, self.path(name)).unwrap();
        self.path(name)
    }

    fn pair(&self, (cert, key): &(String, String)) -> config::Tls {
        config::Tls { cert: self.put("cert.pem", cert), key: self.put("key.pem", key), client_ca: None }
    }
}

/// A block of a token file and its secret.
struct Token {
    block: String,
    secret: Secret,
}

fn token(name: &str, verbs: &str, jobs: &str, more: &str) -> Token {
    let secret = Secret::new().unwrap();
    let hash = secret.hash();
    let block = format!("[tokens.{name}]\nhash = \"{hash}\"\njobs = [{jobs}]\nverbs = [{verbs}]\n{more}\n");
    Token { block, secret }
}

fn file_of(tokens: &[&Token]) -> String {
    tokens.iter().map(|token| token.block.as_str()).collect()
}

fn impatient() -> ClientOptions {
    ClientOptions::default().patience(Duration::ZERO).connect_timeout(Duration::from_secs(30))
}

fn with(token: &Token) -> ClientOptions {
    impatient().token(token.secret.reveal())
}

async fn connect(server: &Server, options: ClientOptions) -> Result<Client, Error> {
    Client::connect_with([server.endpoint()], options).await
}

async fn pull_two(client: &Client) -> Vec<Vec<(String, Vec<u8>)>> {
    client.open_job("job", &spec()).await.unwrap();
    stand::pull(client, 0, 1, 0, 2).await.iter().map(stand::bytes).collect()
}

fn no_sources(_: &BTreeMap<String, Declaration>, _: &Path) -> Result<Sources, SourceError> {
    Ok(Sources::new())
}

/// Reload of a server whose settings are `server`, with a config file of `text`.
fn reload(files: &Files, server: &Server, settings: &config::Server, text: &str) -> Reload {
    reload_with(no_sources, files, server, settings, text)
}

fn reload_with(
    open: mixfeed_server::reload::Open,
    files: &Files,
    server: &Server,
    settings: &config::Server,
    text: &str,
) -> Reload {
    let file = files.put("mixfeed.toml", text);
    let current = config::Config { server: settings.clone(), ..Default::default() };
    let base = files.0.path().to_owned();
    let over = Box::new(move |server: &mut config::Server| {
        server.listen = vec!["127.0.0.1:0".into()];
        server.http = String::new();
        server.rebase(&base);
    });
    Reload::new(file, current, over, open, &server.running)
}

/// A server with these settings, and the settings.
async fn serve(change: impl Fn(&mut config::Server)) -> (Server, config::Server) {
    let mut settings =
        config::Server { listen: vec!["127.0.0.1:0".into()], http: String::new(), ..Default::default() };
    change(&mut settings);
    (Server::with(sources(), |server| *server = settings.clone()).await, settings)
}

#[tokio::test]
async fn batches_come_over_tls_as_they_do_in_plaintext() {
    let (files, authority) = (Files::new(), Authority::new());
    let tls = files.pair(&authority.certify(2040));
    let (server, _) = serve(|settings| settings.tls = Some(tls.clone())).await;
    assert!(server.endpoint().starts_with("https://"));
    let trusting = impatient().ca_pem(authority.pem.as_bytes());
    let secured = pull_two(&connect(&server, trusting.clone()).await.unwrap()).await;
    let plain = Server::start(sources()).await;
    assert_eq!(secured, pull_two(&plain.client().await).await);

    let other = impatient().ca_pem(Authority::new().pem);
    let refused = connect(&server, other).await.unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");
    let refused =
        connect(&server, trusting.clone().server_name("data.example")).await.unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");

    let stripped = server.endpoint().replace("https://", "http://");
    let crossed = Client::connect_with([stripped], impatient()).await;
    let crossed = match crossed {
        Ok(client) => client.health().await.map(drop),
        Err(error) => Err(error),
    };
    assert!(crossed.unwrap_err().is_transient(), "plaintext on a TLS port ends");
    let dressed = plain.endpoint().replace("http://", "https://");
    assert!(Client::connect_with([dressed], trusting).await.unwrap_err().is_transient());
}

#[tokio::test]
async fn clients_show_certificates_where_they_are_asked_for() {
    let (files, authority, clients) = (Files::new(), Authority::new(), Authority::new());
    let mut tls = files.pair(&authority.certify(2040));
    tls.client_ca = Some(files.put("clients.pem", &clients.pem));
    let (server, _) = serve(|settings| settings.tls = Some(tls.clone())).await;
    let trusting = impatient().ca_pem(authority.pem.as_bytes());
    let (cert, key) = clients.certify(2040);
    let known = trusting.clone().identity_pem(cert, key);
    assert_eq!(pull_two(&connect(&server, known).await.unwrap()).await.len(), 2);
    let (cert, key) = authority.certify(2040);
    let (late, late_key) = clients.certify(2002);
    for (who, options) in [
        ("nobody", trusting.clone()),
        ("a stranger", trusting.clone().identity_pem(cert, key)),
        ("yesterday's", trusting.identity_pem(late, late_key)),
    ] {
        // With TLS 1.3 a client learns of its refusal when it reads first.
        let done = match connect(&server, options).await {
            Ok(client) => client.health().await.map(drop),
            Err(error) => Err(error),
        };
        assert!(done.is_err(), "{who}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_a_broken_one_for_nobody() {
    let (files, old, new) = (Files::new(), Authority::new(), Authority::new());
    let tls = files.pair(&old.certify(2040));
    let (server, settings) = serve(|settings| settings.tls = Some(tls.clone())).await;
    let mut reload = reload(&files, &server, &settings, "");
    let before = connect(&server, impatient().ca_pem(old.pem.as_bytes())).await.unwrap();
    before.open_job("job", &spec()).await.unwrap();
    let mut stream = before.stream("job", StreamOptions::default()).await.unwrap();
    stream.next_batch().await.unwrap().unwrap();

    // A key of another certificate, no PEM at all, one that has expired.
    let others = new.certify(2040);
    for (cert, key) in [
        (old.certify(2040).0, others.1.clone()),
        ("nothing".to_owned(), others.1.clone()),
        (others.0.clone(), "nothing".to_owned()),
        new.certify(2002),
    ] {
        files.pair(&(cert, key));
        reload.files();
        connect(&server, impatient().ca_pem(old.pem.as_bytes())).await.expect("the old one stays");
    }
    // Others of the chain may have expired: clients do without them.
    files.pair(&(format!("{}{}", others.0, old.certify(2002).0), others.1));
    reload.files();
    let after = connect(&server, impatient().ca_pem(new.pem.as_bytes())).await.unwrap();
    assert_eq!(after.health().await.unwrap(), Health::Serving);
    assert!(connect(&server, impatient().ca_pem(old.pem.as_bytes())).await.is_err());
    for _ in 0..3 {
        stream.next_batch().await.unwrap().expect("old connections go on");
    }
    assert_eq!(before.health().await.unwrap(), Health::Serving);
}

#[tokio::test]
async fn plaintext_that_others_can_reach_does_not_start() {
    let open = |allow| {
        let listen = vec!["0.0.0.0:0".to_owned()];
        config::Server { listen, http: String::new(), allow_plaintext: allow, ..Default::default() }
    };
    let start = async |settings: &config::Server| {
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        mixfeed_server::start(settings, sources(), BTreeMap::new(), None, stopped).await.map(drop)
    };
    let refused = start(&open(false)).await.unwrap_err();
    assert!(refused.is_configuration());
    for word in ["`0.0.0.0:0`", "[server.tls]", "loopback", "allow_plaintext", "--allow-plaintext"] {
        assert!(refused.to_string().contains(word), "{word}: {refused}");
    }
    start(&open(true)).await.unwrap();
}

/// Whether a call was denied, with words that hold all of `says`.
fn denied<T: std::fmt::Debug>(answer: Result<T, Error>, says: &[&str]) {
    match answer {
        Err(Error::Denied { message }) => {
            assert!(says.iter().all(|word| message.contains(word)), "{says:?}: {message}");
            assert!(!message.contains("mf_"), "{message}");
        }
        other => panic!("want a denial that says {says:?}, got {other:?}"),
    }
}

#[tokio::test]
async fn a_token_does_what_its_verbs_and_patterns_say() {
    let files = Files::new();
    let trainer = token("trainer", "\"pull\", \"report\"", "\"vit-*\"", "");
    let reporter = token("reporter", "\"report\"", "\"vit-*\"", "");
    let admin = token("admin", "\"admin\"", "\"*\"", "");
    let path = files.put("tokens.toml", &file_of(&[&trainer, &reporter, &admin]));
    let (server, _) = serve(|settings| settings.tokens = Some(path.clone())).await;
    let nobody = connect(&server, impatient()).await.unwrap();
    assert_eq!(nobody.health().await.unwrap(), Health::Serving, "health needs no token");
    denied(nobody.list_jobs().await, &["a token is wanted"]);
    denied(nobody.open_job("vit-1", &spec()).await, &["a token is wanted"]);
    let stranger = connect(&server, with(&token("x", "", "", ""))).await.unwrap();
    denied(stranger.list_jobs().await, &["not known"]);

    let (trainer, reporter) =
        (connect(&server, with(&trainer)).await, connect(&server, with(&reporter)).await);
    let (trainer, reporter) = (trainer.unwrap(), reporter.unwrap());
    let admin = connect(&server, with(&admin)).await.unwrap();
    admin.open_job("bert", &spec()).await.unwrap();
    trainer.open_job("vit-1", &spec()).await.unwrap();
    let mut stream = trainer.stream("vit-1", StreamOptions::default()).await.unwrap();
    stream.next_batch().await.unwrap().unwrap();
    denied(trainer.open_job("bert", &spec()).await, &["trainer", "pull", "`bert`"]);
    denied(trainer.attach("bert").await, &["trainer", "`bert`"]);
    denied(trainer.describe_job("bert").await, &["trainer", "`bert`"]);
    denied(trainer.mixture("bert").await, &["trainer", "`bert`"]);
    denied(trainer.close_job("vit-1").await, &["trainer", "CloseJob", "admin"]);
    denied(trainer.forget_job("vit-1").await, &["trainer", "CloseJob", "admin"]);
    denied(reporter.attach("vit-1").await, &["reporter", "OpenJob", "pull"]);
    assert!(!reporter.mixture("vit-1").await.unwrap().groups.is_empty());
    let seen = |jobs: Vec<mixfeed_proto::JobInfo>| jobs.into_iter().map(|job| job.job).collect::<Vec<_>>();
    assert_eq!(seen(trainer.list_jobs().await.unwrap()), ["vit-1"]);
    assert_eq!(seen(admin.list_jobs().await.unwrap()), ["bert", "vit-1"]);
    let unknown = trainer.attach("vit-2").await.unwrap_err().to_string();
    assert!(unknown.contains("vit-1") && !unknown.contains("bert"), "{unknown}");
    admin.close_job("vit-1").await.unwrap();
}

/// The server's words when something is used up, and whether it is worth asking again.
fn exhausted<T: std::fmt::Debug>(answer: Result<T, Error>) -> (String, bool) {
    match answer {
        Err(Error::Exhausted { message, retry_after }) => (message, retry_after.is_some()),
        other => panic!("want RESOURCE_EXHAUSTED, got {other:?}"),
    }
}

#[tokio::test]
async fn a_token_holds_no_more_than_its_quota() {
    let files = Files::new();
    let one = token("one", "\"pull\"", "\"*\"", "max_streams = 1\nmax_jobs = 1");
    let small = token("small", "\"pull\"", "\"*\"", "max_bytes = \"1KiB\"");
    let path = files.put("tokens.toml", &file_of(&[&one, &small]));
    let (server, _) = serve(|settings| settings.tokens = Some(path.clone())).await;
    let client = connect(&server, with(&one)).await.unwrap();
    client.open_job("job", &spec()).await.unwrap();
    client.open_job("job", &spec()).await.expect("to attach takes nothing");
    let (said, again) = exhausted(client.open_job("second", &spec()).await);
    assert!(said.contains("token `one` holds 1 of 1 jobs") && again, "{said}");

    let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
    stream.next_batch().await.unwrap().unwrap();
    let mut second = client.stream("job", StreamOptions::default()).await.unwrap();
    let (said, again) = exhausted(second.next_batch().await);
    assert!(said.contains("token `one` holds 1 of 1 streams") && again, "{said}");
    drop(stream);
    let patient = with(&one).patience(Duration::from_secs(60));
    let client = connect(&server, patient).await.unwrap();
    client.attach("job").await.unwrap();
    let mut third = client.stream("job", StreamOptions::default()).await.unwrap();
    third.next_batch().await.unwrap().expect("there is room again");

    let client = connect(&server, with(&small)).await.unwrap();
    client.attach("job").await.unwrap();
    let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
    let (said, again) = exhausted(stream.next_batch().await);
    assert!(said.contains("token `small` holds 0 of 1024 bytes") && !again, "never fits: {said}");
}

#[tokio::test]
async fn a_revoked_token_ends_its_streams_at_a_batch_boundary() {
    let files = Files::new();
    let (keeps, loses) = (token("keeps", "\"admin\"", "\"*\"", ""), token("loses", "\"admin\"", "\"*\"", ""));
    let path = files.put("tokens.toml", &file_of(&[&keeps, &loses]));
    let (server, settings) = serve(|settings| settings.tokens = Some(path.clone())).await;
    let mut reload = reload(&files, &server, &settings, "");
    let patient = |token: &Token| with(token).patience(Duration::from_secs(60));
    let (kept, lost) = (connect(&server, patient(&keeps)).await, connect(&server, patient(&loses)).await);
    let (kept, lost) = (kept.unwrap(), lost.unwrap());
    kept.open_job("job", &spec()).await.unwrap();
    let mut goes_on = kept.stream("job", StreamOptions::default()).await.unwrap();
    let mut ends = lost.stream("job", StreamOptions::default()).await.unwrap();
    let mut watch = lost.watch("job", 1);
    watch.next_entry().await.unwrap();
    goes_on.next_batch().await.unwrap().unwrap();
    ends.next_batch().await.unwrap().unwrap();

    files.put("tokens.toml", "[tokens.half");
    reload.files();
    assert_eq!(lost.list_jobs().await.unwrap().len(), 1, "a broken file changes nothing");
    files.put("tokens.toml", &file_of(&[&keeps]));
    reload.files();
    denied(lost.list_jobs().await, &["not known"]);
    let mut whole = 1;
    let end = loop {
        match ends.next_batch().await {
            Ok(Some(batch)) => {
                assert_eq!(batch.step(), whole, "batches are whole, and in order");
                whole += 1;
            }
            other => break other,
        }
    };
    denied(end, &["not known"]);
    denied(watch.next_entry().await, &["not known"]);
    for _ in 0..3 {
        goes_on.next_batch().await.unwrap().expect("others go on");
    }
}

#[tokio::test]
async fn tokens_of_a_file_are_told_by_name_only() {
    let secret = token("vit", "\"pull\"", "\"*\"", "");
    let tokens = Tokens::parse(&secret.block, Path::new("t")).unwrap();
    let shown = format!("{tokens:?} {:?}", with(&secret));
    assert!(shown.contains("vit") && !shown.contains(&secret.secret.reveal()[3..]), "{shown}");
}
