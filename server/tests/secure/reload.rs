//! What is put in force while the server runs, and what is not.

use super::*;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(120);

/// Opens nothing, and that only once there is a file "go" beside the config.
fn no_sources_yet(_: &BTreeMap<String, Declaration>, config: &Path) -> Result<Sources, SourceError> {
    std::fs::write(config.with_file_name("began"), "").unwrap();
    let late = Instant::now() + PATIENCE;
    while !config.with_file_name("go").exists() {
        assert!(Instant::now() < late, "nobody says go");
        std::thread::yield_now();
    }
    Ok(Sources::new())
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let late = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < late, "{what}");
        tokio::task::yield_now().await;
    }
}

/// What is wrong may pass without a change of the file; here it is a certificate whose time comes.
#[tokio::test]
async fn a_certificate_is_tried_again_until_it_can_be_used() {
    let (files, mut current) = (Files::new(), Authority::new());
    let tls = files.pair(&current.certify(2040));
    let (server, settings) = serve(|settings| settings.tls = Some(tls.clone())).await;
    let text = "[server.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n";
    let mut reload = reload(&files, &server, &settings, text);
    for by_hangup in [false, true] {
        let new = Authority::new();
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let soon = Duration::from_secs(now().as_secs() + 4);
        files.pair(&new.certify_from(soon, 2040));
        reload.files();
        let stays = connect(&server, impatient().ca_pem(current.pem.as_bytes())).await;
        // A machine that stood still that long has seen it too late.
        let early = now() < soon;
        assert!(stays.is_ok() || !early, "the old one stays: {stays:?}");
        let late = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < late, "never tried again");
            if by_hangup {
                match reload.all().await {
                    Ok(changes) => break assert!(changes == ["certificate"] || !early, "{changes:?}"),
                    Err(early) => {
                        assert!(early.to_string().contains("is not valid before another"), "{early}")
                    }
                }
            } else {
                reload.files();
                if connect(&server, impatient().ca_pem(new.pem.as_bytes())).await.is_ok() {
                    break;
                }
            }
        }
        current = new;
    }
    connect(&server, impatient().ca_pem(current.pem.as_bytes())).await.unwrap();
}

fn enters(server: &Server, token: &Token) -> bool {
    let header = format!("Bearer {}", token.secret.reveal());
    server.running.shared.access.enter(Some(header.as_bytes()), "/mixfeed.v1.FeedService/ListJobs").is_ok()
}

#[tokio::test]
async fn a_token_is_revoked_while_a_hangup_opens_sources() {
    let files = Files::new();
    let (keeps, loses) = (token("keeps", "\"pull\"", "\"*\"", ""), token("loses", "\"pull\"", "\"*\"", ""));
    let path = files.put("tokens.toml", &file_of(&[&keeps, &loses]));
    let (server, settings) = serve(|settings| settings.tokens = Some(path.clone())).await;
    let text = "[server]\ntokens = \"tokens.toml\"\n";
    let mut reload = reload_with(no_sources_yet, &files, &server, &settings, text);
    let hangup = tokio::spawn(async move { reload.all().await });
    until("sources are opened", || files.path("began").exists()).await;
    files.put("tokens.toml", &file_of(&[&keeps]));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    until("it is revoked", || !enters(&server, &loses)).await;
    files.put("go", "");
    assert_eq!(hangup.await.unwrap().unwrap(), [] as [String; 0]);
    assert!(enters(&server, &keeps) && !enters(&server, &loses), "what was read before is not put back");
}

#[tokio::test]
async fn tokens_that_change_during_the_start_are_read_again() {
    let files = Files::new();
    let (old, new) = (token("old", "\"pull\"", "\"*\"", ""), token("new", "\"pull\"", "\"*\"", ""));
    let path = files.put("tokens.toml", &file_of(&[&old]));
    let (server, settings) = serve(|settings| settings.tokens = Some(path.clone())).await;
    files.put("tokens.toml", &file_of(&[&new]));
    let mut reload = reload(&files, &server, &settings, "");
    reload.files();
    assert!(enters(&server, &new) && !enters(&server, &old));
}

#[tokio::test]
async fn a_job_that_could_not_be_opened_is_tried_again() {
    let files = Files::new();
    let (server, settings) = serve(|_| {}).await;
    let text = "[jobs.a]\nglobal_batch = 12\nmix_block = 3\nseed = 77\ngroups = [{ group = \"pics\" }]\n\
                image = { height = 33, width = 45 }\n";
    let mut reload = reload(&files, &server, &settings, text);
    let client = connect(&server, impatient()).await.unwrap();
    client.open_job("a", &spec()).await.unwrap();
    assert_eq!(reload.all().await.unwrap(), ["job a NOT opened"], "another `a` is open");
    client.close_job("a").await.unwrap();
    assert_eq!(reload.all().await.unwrap(), ["job a opened"]);
    assert_eq!(reload.all().await.unwrap(), [] as [String; 0]);
}

#[tokio::test]
async fn a_reload_is_whole_or_nothing() {
    let files = Files::new();
    let (old, new) = (token("old", "\"admin\"", "\"*\"", ""), token("new", "\"admin\"", "\"*\"", ""));
    let path = files.put("tokens.toml", &file_of(&[&old]));
    let (server, settings) = serve(|settings| settings.tokens = Some(path.clone())).await;
    let mut reload = reload(&files, &server, &settings, "");
    files.put("tokens.toml", &file_of(&[&new]));
    let opens = async |token: &Token| {
        let client = connect(&server, with(token)).await.unwrap();
        client.list_jobs().await.is_ok()
    };
    for (text, says) in [
        ("[server]\ntokens = \"tokens.toml\"\nmax_jobs = 0\n", "line 3: `server.max_jobs` is 0"),
        ("[server]\ntokens = \"tokens.toml\"\nthreads = 2\nreaders = 3\n", "`server.threads`"),
        ("[server]\ntokens = \"tokens.toml\"\nthreads = 2\nreaders = 3\n", "`server.readers`"),
        ("[server]\ntokens = \"tokens.toml\"\ndevice = \"auto\"\n", "`server.device`"),
        ("[server]\ntokens = \"tokens.toml\"\nmixers = { m = { manifest = \"m\" } }\n", "`server.mixers`"),
        ("[server]\nmax_jobs = 1\n", "open the server to everybody"),
        ("[server]\ntokens = \"none.toml\"\n", "none.toml"),
        ("[server]\ntokens = \"tokens.toml\"\n[server.tls]\ncert = \"c\"\nkey = \"k\"\n", "`server.tls`"),
        ("[server]\ntokens = \"tokens.toml\"\n[jobs.a]\nglobal_batch = 2\n", "job `a`"),
        (
            "[server]\ntokens = \"tokens.toml\"\nmax_jobs = 1\n[jobs.a]\nglobal_batch = 2\n[jobs.b]\nglobal_batch = 2\n",
            "`server.max_jobs` is 1, want at least 2: 0 open jobs, 2 new",
        ),
        ("[server\n", "line 1"),
    ] {
        files.put("mixfeed.toml", text);
        let refused = reload.all().await.unwrap_err().to_string();
        assert!(refused.contains(says), "{says}: {refused}");
        assert!(opens(&old).await && !opens(&new).await, "{says}: nothing changed");
    }
    let text = "[server]\ntokens = \"tokens.toml\"\nmax_jobs = 1\nprefetch = \"1MiB\"\ndrain_timeout = 7\n";
    files.put("mixfeed.toml", text);
    let changes = reload.all().await.unwrap().join("; ");
    assert_eq!(
        changes,
        "server.max_jobs = 1; server.prefetch = 1048576; server.drain_timeout = 7; tokens new"
    );
    assert!(!opens(&old).await && opens(&new).await);
    let limits = server.running.shared.limits();
    assert_eq!((limits.prefetch, limits.drain), (1 << 20, Duration::from_secs(7)));
    let client = connect(&server, with(&new)).await.unwrap();
    client.open_job("a", &spec()).await.unwrap();
    assert!(client.open_job("b", &spec()).await.is_err(), "max_jobs is 1 now");
}
