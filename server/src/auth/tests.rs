use super::*;
use base64::{Engine, engine::general_purpose::STANDARD};

const OPEN: &str = "/mixfeed.v1.FeedService/OpenJob";
const CLOSE: &str = "/mixfeed.v1.FeedService/CloseJob";
const REPORT: &str = "/mixfeed.v1.MixtureService/Report";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// A file's block and its secret.
fn block(name: &str, verbs: &str, jobs: &str, more: &str) -> (String, Secret) {
    let secret = Secret::new().unwrap();
    let text =
        format!("[tokens.{name}]\nhash = \"{}\"\njobs = {jobs}\nverbs = {verbs}\n{more}\n", secret.hash());
    (text, secret)
}

fn tokens(blocks: &[&(String, Secret)]) -> Tokens {
    let text: String = blocks.iter().map(|(text, _)| text.as_str()).collect();
    Tokens::parse(&text, Path::new("tokens.toml")).unwrap()
}

fn bearer(secret: &Secret) -> Vec<u8> {
    format!("Bearer {}", secret.reveal()).into_bytes()
}

#[test]
fn verbs_open_calls_and_admin_opens_all() {
    let puller = block("puller", "[\"pull\"]", "[\"vit-*\"]", "");
    let reporter = block("reporter", "[\"report\"]", "[\"*\"]", "");
    let admin = block("admin", "[\"admin\"]", "[\"*\"]", "");
    let access = Access::new(Some(tokens(&[&puller, &reporter, &admin])));
    let may = |who: &(String, Secret), path| access.enter(Some(&bearer(&who.1)), path).map(drop);
    for path in [OPEN, CLOSE, REPORT, REFLECTION] {
        assert_eq!(may(&admin, path), Ok(()), "{path}");
    }
    assert_eq!(may(&puller, OPEN), Ok(()));
    assert_eq!(may(&reporter, REPORT), Ok(()));
    for (who, path, says) in [
        (&puller, CLOSE, "token `puller` may not call CloseJob: that takes the verb admin"),
        (&puller, REPORT, "token `puller` may not call Report: that takes the verb report"),
        (&reporter, OPEN, "token `reporter` may not call OpenJob: that takes the verb pull"),
        (&admin, "/mixfeed.v1.FeedService/Fly", "there is no call `/mixfeed.v1.FeedService/Fly`"),
    ] {
        assert_eq!(may(who, path).unwrap_err().to_string(), says);
    }
}

#[test]
fn without_a_good_token_only_health_is_open() {
    let known = block("known", "[\"pull\"]", "[\"*\"]", "");
    let old = block("old", "[\"admin\"]", "[\"*\"]", "expires = 2001-01-01");
    let access = Access::new(Some(tokens(&[&known, &old])));
    assert_eq!(access.enter(None, HEALTH).map(drop), Ok(()));
    assert_eq!(access.enter(Some(b"nonsense"), HEALTH).map(drop), Ok(()));
    let basic = format!("Basic {}", STANDARD.encode(format!("x:{}", known.1.reveal())));
    let long = format!("Bearer {}", "x".repeat(10_000));
    for path in [OPEN, REPORT, REFLECTION, "/nonsense"] {
        assert_eq!(access.enter(None, path).unwrap_err(), Denial::Missing, "{path}");
        for wrong in ["", "Bearer", "Bearer ", "Bearer mf_x", known.1.reveal(), &basic, &long] {
            assert_eq!(access.enter(Some(wrong.as_bytes()), path).unwrap_err(), Denial::Unknown, "{wrong}");
        }
        assert_eq!(access.enter(Some(b"Bearer \xff"), path).unwrap_err(), Denial::Unknown);
        let late = access.enter(Some(&bearer(&old.1)), path).unwrap_err();
        assert_eq!(late, Denial::Expired { token: "old".into() });
    }
    let open = Access::default();
    assert!(open.enter(None, OPEN).is_ok() && open.enter(None, "/nonsense").is_ok() && !open.is_guarded());
}

#[test]
fn jobs_are_seen_by_pattern() {
    let who = block("vit", "[\"pull\"]", "[\"vit-*\", \"demo\"]", "");
    let access = Access::new(Some(tokens(&[&who])));
    let caller = access.enter(Some(&bearer(&who.1)), OPEN).unwrap();
    assert!(caller.sees("vit-large") && caller.sees("demo") && !caller.sees("bert") && !caller.sees_all());
    assert_eq!(caller.check("vit-large"), Ok(()));
    let said = caller.check("bert").unwrap_err().to_string();
    assert_eq!(said, "token `vit` may not pull job `bert`: none of its patterns fits");
    let anybody = Access::default().enter(None, OPEN).unwrap();
    assert!(anybody.sees("bert") && anybody.sees_all() && anybody.check("bert").is_ok());
}

#[test]
fn pages_are_for_those_who_may_see_everything() {
    let admin = block("admin", "[\"admin\"]", "[\"*\"]", "");
    let team = block("team", "[\"admin\"]", "[\"vit-*\"]", "");
    let puller = block("puller", "[\"pull\", \"report\"]", "[\"*\"]", "");
    let access = Access::new(Some(tokens(&[&admin, &team, &puller])));
    let headers = |secret: &Secret| {
        let basic = format!("Basic {}", STANDARD.encode(format!("me:{}", secret.reveal())));
        [format!("Bearer {}", secret.reveal()), basic]
    };
    assert!(headers(&admin.1).iter().all(|header| access.allows_page(Some(header))));
    for who in [&team, &puller] {
        assert!(headers(&who.1).iter().all(|header| !access.allows_page(Some(header))));
    }
    assert!(!access.allows_page(None) && !access.allows_page(Some("Bearer x")));
    assert!(Access::default().allows_page(None));
}

#[tokio::test(start_paused = true)]
async fn callers_learn_that_their_token_is_gone_changed_or_over() {
    let who = block("vit", "[\"pull\"]", "[\"vit-*\"]", "");
    let other = block("other", "[\"pull\"]", "[\"*\"]", "");
    let access = Access::new(Some(tokens(&[&who])));
    let caller = access.enter(Some(&bearer(&who.1)), OPEN).unwrap();
    let after = |tokens: Tokens| {
        let (access, caller) = (access.clone(), caller.clone());
        async move {
            let waiting = tokio::spawn({
                let access = access.clone();
                async move { access.revoked(caller, "vit-1".into()).await }
            });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            access.replace(Some(tokens));
            waiting.await.unwrap()
        }
    };
    let with = |verbs: &str, jobs: &str, more: &str| {
        let text =
            format!("[tokens.vit]\nhash = \"{}\"\njobs = {jobs}\nverbs = {verbs}\n{more}\n", who.1.hash());
        Tokens::parse(&text, Path::new("t")).unwrap()
    };
    assert_eq!(after(tokens(&[&other])).await, Denial::Unknown);
    access.replace(Some(tokens(&[&who])));
    assert!(matches!(after(with("[\"report\"]", "[\"*\"]", "")).await, Denial::Verb { .. }));
    access.replace(Some(tokens(&[&who])));
    assert!(matches!(after(with("[\"pull\"]", "[\"bert\"]", "")).await, Denial::Job { .. }));
    access.replace(Some(tokens(&[&who, &other])));
    let over = after(with("[\"pull\"]", "[\"*\"]", "expires = 2001-01-01")).await;
    assert_eq!(over, Denial::Expired { token: "vit".into() });
}

#[test]
fn what_a_token_holds_outlives_a_reload_and_its_limits_change() {
    let who = block("vit", "[\"pull\"]", "[\"*\"]", "max_streams = 1");
    let access = Access::new(Some(tokens(&[&who])));
    let enter = || access.enter(Some(&bearer(&who.1)), OPEN).unwrap();
    let hold = enter().stream(10, 1).unwrap();
    assert!(enter().stream(10, 1).is_err());
    access.replace(Some(tokens(&[&who])));
    assert!(enter().stream(10, 1).is_err(), "the stream goes on to count");
    let text = who.0.replace("max_streams = 1", "max_streams = 2");
    access.replace(Some(Tokens::parse(&text, Path::new("t")).unwrap()));
    let second = enter().stream(10, 1).unwrap();
    assert!(enter().stream(10, 1).is_err());
    drop((hold, second));
    assert!(enter().stream(10, 1).is_ok());
}

#[test]
fn nothing_shows_a_secret() {
    let who = block("vit", "[\"pull\"]", "[\"*\"]", "");
    let access = Access::new(Some(tokens(&[&who])));
    let caller = access.enter(Some(&bearer(&who.1)), OPEN).unwrap();
    let shown = format!("{access:?} {caller:?} {:?}", who.1);
    assert!(!shown.contains(&who.1.reveal()[3..]) && !shown.contains(&who.1.hash()[7..]), "{shown}");
}
