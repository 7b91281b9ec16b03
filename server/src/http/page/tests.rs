use super::*;
use crate::live::Who;
use proptest::prelude::*;
use std::time::{Duration, SystemTime};

fn view(job: &str, rank: u32, wait: (Wait, u64), seconds: [f64; 3]) -> View {
    let who = Who { job: job.into(), call: "StreamBatches", rank, world_size: 2, replica: format!("r{job}") };
    View {
        id: u64::from(rank) + 1,
        who,
        age: Duration::from_secs(100),
        step: 40,
        batches: 40,
        bytes: 1 << 30,
        wait: (wait.0, Duration::from_secs(wait.1)),
        seconds,
    }
}

fn moment(spent: [f64; 3]) -> Moment {
    Moment { seconds: 4.0, batches: 8, rows: 256, bytes: 1 << 20, spent }
}

fn server() -> Server {
    Server {
        version: "1.2.3",
        numerics: "cpu-1",
        uptime: Duration::from_secs(4_000),
        memory: (1 << 29, 1 << 30),
        threads: 2,
        window: 60.0,
        stages: vec![("read", 0.1), ("decode", 1.5)],
        follow: true,
        draining: false,
    }
}

/// A job whose every text from outside is `name`.
fn job(name: &str, groups: usize, spent: [f64; 3]) -> Job {
    let group = |i: usize| Group {
        name: format!("{name}/{i}"),
        now: 1.0 / groups as f64,
        asked: 1.0 / groups as f64,
        served: Some(1.0 / groups as f64),
        epochs: 0.5,
        loss: Some(2.5),
        track: vec![(1.0 / groups as f64, Some(0.5 / groups as f64)); 40],
    };
    Job {
        name: name.into(),
        kind: "pictures 8 × 8".into(),
        batch: 1_024,
        policies: vec!["cutmix".into()],
        step: Some(40),
        steps: None,
        epoch: 1.25,
        streams: (0..2).map(|rank| view(name, rank, (Wait::Sending, 1), spent)).collect(),
        trace: vec![moment(spent); 75],
        lately: moment(spent),
        trainers: vec![Trainer { rank: 0, steps: 40, waited: 0.5, lately: Some(0.0) }],
        mixture: Ok(Mixture {
            status: "serving",
            estimator: "aioli".into(),
            rows: 100_000,
            groups: (0..groups).map(group).collect(),
            reports: vec![("accepted".into(), 7)],
            ..Mixture::default()
        }),
    }
}

fn problems(text: &str) -> Vec<(Duration, Problem)> {
    let problem = Problem { at: SystemTime::UNIX_EPOCH, subject: text.into(), text: text.into() };
    vec![(Duration::from_secs(5), problem)]
}

fn overview(jobs: Vec<Job>) -> Overview {
    Overview { server: server(), jobs, problems: Vec::new() }
}

fn page(name: &str, last: LastBatch) -> JobPage {
    JobPage { server: server(), job: job(name, 3, [1.0, 0.0, 3.0]), last, problems: problems(name) }
}

/// Tags that are opened and never closed, or closed and never opened. Also fails on what is no tag of ours.
fn unbalanced(html: &str) -> Vec<String> {
    let void = ["meta", "link", "rect", "circle", "image", "polygon", "polyline", "!doctype"];
    let (mut open, mut wrong) = (Vec::new(), Vec::new());
    for tag in html.split('<').skip(1).map(|rest| rest.split('>').next().unwrap_or_default()) {
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap_or_default();
        if tag.starts_with('/') {
            if open.pop() != Some(name) {
                wrong.push(tag.to_owned());
            }
        } else if !void.contains(&name) && !tag.ends_with('/') {
            open.push(name);
        }
    }
    wrong.extend(open.into_iter().map(str::to_owned));
    wrong
}

#[test]
fn an_empty_server_has_a_page() {
    let html = overview(Vec::new()).html();
    assert!(html.contains("No job is open") && html.contains("Nobody reads."), "{html}");
    assert!(html.contains("None since the server started.") && html.contains("1 h 6 min"));
    assert_eq!(unbalanced(&html), Vec::<String>::new());
}

#[test]
fn a_page_says_whether_a_trainer_starves_and_by_what() {
    let said = |change: fn(&mut Job)| {
        let mut job = job("a", 2, [3.0, 0.0, 1.0]);
        job.trainers.clear();
        change(&mut job);
        let verdict = Verdict::of(&job, &server());
        assert!(overview(vec![job]).html().contains(verdict.why()));
        format!("{}: {}", verdict.word(), verdict.why())
    };
    assert_eq!(
        said(|_| {}),
        "Starved: streams wait 75 % of the time for batches in the making, 94 % of it decode"
    );
    assert_eq!(said(|job| job.streams.clear()), "Nobody reads: no stream of its batches is open");
    assert_eq!(said(|job| job.lately = Moment::default()), "Begins: no sample yet");
    assert_eq!(
        said(|job| job.lately.spent = [0.0, 1.0, 99.0]),
        "Fed: streams wait 1.0 % of the time; the trainer sets the pace"
    );
    assert_eq!(
        said(|job| job.lately.spent = [1.0, 5.0, 4.0]),
        "At a barrier: streams wait 60 % of the time, mostly for reports"
    );
    assert_eq!(
        said(|job| job.streams[1].wait = (Wait::Barrier, Duration::from_secs(90))),
        "At a barrier: waits for reports since 1 min 30 s"
    );
    assert_eq!(
        said(|job| job.streams[1].wait = (Wait::Sending, Duration::from_secs(90))),
        "Stuck: rank 1 has taken nothing for 1 min 30 s"
    );
    let eval = said(|job| job.streams.iter_mut().for_each(|s| s.who.call = "StreamEvalSet"));
    assert!(eval.starts_with("Nobody reads"), "{eval}");
    // What trainers say of themselves goes before what the server sees.
    let told =
        |job: &mut Job, lately| job.trainers = vec![Trainer { lately: Some(lately), ..Trainer::default() }];
    let mut fed = job("a", 2, [3.0, 0.0, 1.0]);
    told(&mut fed, 0.01);
    assert!(matches!(Verdict::of(&fed, &server()), Verdict::Fed(_)));
    let mut slow = job("a", 2, [0.0, 0.0, 4.0]);
    told(&mut slow, 0.5);
    let Verdict::Starved(why) = Verdict::of(&slow, &server()) else { panic!("it waits half of its time") };
    assert_eq!(why, "the trainer waits 50 % of the time, but batches lie ready: network or client");
}

#[test]
fn the_heading_sums_up() {
    let heading = |spent: &[[f64; 3]]| {
        let html =
            overview(spent.iter().map(|spent| Job { trainers: Vec::new(), ..job("a", 2, *spent) }).collect())
                .html();
        html.split("<h1>").nth(1).and_then(|rest| rest.split("</h1>").next()).map(str::to_owned)
    };
    let (starved, held, fed) = ([9.0, 0.0, 1.0], [0.0, 9.0, 1.0], [0.0, 0.0, 1.0]);
    assert_eq!(heading(&[starved]).as_deref(), Some("The trainer is starved"));
    assert_eq!(heading(&[held]).as_deref(), Some("The trainer is at a barrier"));
    assert_eq!(heading(&[fed]).as_deref(), Some("The trainer is not starved"));
    assert_eq!(heading(&[fed, fed]).as_deref(), Some("No trainer is starved: 2 jobs read"));
    assert_eq!(heading(&[fed, held]).as_deref(), Some("No trainer is starved, 1 of 2 jobs at a barrier"));
    assert_eq!(heading(&[starved, fed, held]).as_deref(), Some("1 of 3 jobs starved or stuck"));
}

#[test]
fn a_page_says_whether_the_mixture_is_as_asked() {
    let of = |change: fn(&mut Mixture)| {
        let mut mixture = job("a", 2, [0.0; 3]).mixture.expect("known");
        change(&mut mixture);
        Drift::of(&mixture)
    };
    let even = of(|_| {});
    assert!(!even.is_far() && matches!(&even, Drift::Known { asked, .. } if *asked == 0.5), "{even:?}");
    let off = of(|mixture| mixture.groups[1].served = Some(0.54));
    assert!(off.is_far() && matches!(&off, Drift::Known { group, .. } if group == "a/1"), "{off:?}");
    assert!(matches!(of(|mixture| mixture.rows = 10), Drift::Unknown(_)));
    assert!(matches!(of(|mixture| mixture.by_tokens = true), Drift::Unknown(_)));
    let mut job = job("a", 2, [0.0; 3]);
    job.mixture.as_mut().expect("known").groups[1].served = Some(0.54);
    let html = overview(vec![job.clone()]).html();
    assert!(html.contains("Mixture off") && html.contains("asked 50.0 %, got 54.0 %"), "{html}");
    job.mixture = Err("the store is gone".into());
    assert!(overview(vec![job]).html().contains("the store is gone"));
}

#[test]
fn a_job_has_its_last_batch_on_its_page() {
    let captions = vec!["clean: cat".to_owned(), "cutmix: 62 % cat, 38 % <dog>".to_owned()];
    let pictures = LastBatch::Pictures { step: 41, columns: 4, size: (8, 6), captions };
    let html = page("a b", pictures).html();
    assert!(html.contains("viewBox=\"6 0 6 8\"") && html.contains("38 % &lt;dog&gt;"), "{html}");
    assert!(html.contains("href=\"/jobs/a%20b/batch.png?step=41\""));
    let html = page("a", LastBatch::Tokens { step: 1, rows: vec![("g".into(), "</q>".into())] }).html();
    assert!(html.contains("&lt;/q&gt;"), "{html}");
    assert_eq!(unbalanced(&html), Vec::<String>::new());
}

#[test]
fn a_full_server_has_a_page_of_bearable_size() {
    let jobs: Vec<Job> =
        (0..20).map(|i| job(&format!("{}{i}", "x".repeat(120)), 64, [1.0, 2.0, 3.0])).collect();
    let size = overview(jobs).html().len();
    assert!((50_000..200_000).contains(&size), "{size}");
    let mut many = job("a", 1_000, [1.0, 2.0, 3.0]);
    many.streams = (0..2_000).map(|rank| view("a", rank, (Wait::Making, 1), [1.0; 3])).collect();
    many.trainers = vec![Trainer::default(); 2_000];
    let large = JobPage { job: many.clone(), ..page("a", LastBatch::Message(String::new())) };
    let html = large.html();
    assert!(html.len() < 300_000 && html.contains("1,936 more streams"), "{}", html.len());
    let all: Vec<Job> =
        (0..1_000).map(|i| Job { name: format!("job{i}"), ..job("a", 2, [1.0; 3]) }).collect();
    assert!(overview(all).html().len() < 500_000);
}

#[test]
fn a_page_that_is_held_does_not_load_itself_anew() {
    let mut held = overview(Vec::new());
    assert!(held.html().contains("http-equiv=\"refresh\" content=\"5\""));
    held.server.follow = false;
    assert!(!held.html().contains("refresh"));
}

proptest! {
    #[test]
    fn names_and_errors_are_text(name in hostile()) {
        let tokens = LastBatch::Tokens { step: 1, rows: vec![(name.clone(), name.clone())] };
        let captions = vec![name.clone()];
        let pictures = LastBatch::Pictures { step: 1, columns: 1, size: (1, 1), captions };
        let mut all = overview(vec![job(&name, 2, [1.0, 2.0, 3.0])]);
        all.problems = problems(&name);
        let message = LastBatch::Message(name.clone());
        let pages = [all.html(), page(&name, tokens).html(), page(&name, pictures).html(), page(&name, message).html()];
        let plain = [
            overview(vec![job("a", 2, [1.0, 2.0, 3.0])]).html(),
            page("a", LastBatch::Tokens { step: 1, rows: vec![("a".into(), "a".into())] }).html(),
        ];
        for html in &pages {
            prop_assert_eq!(unbalanced(html), Vec::<String>::new());
            prop_assert!(!html.contains("<script") && !html.contains("<img") && !html.contains("href=\"javascript:"));
        }
        // Nothing of a name is markup: as many tags as with a harmless one.
        all.problems.clear();
        prop_assert_eq!(all.html().matches('<').count(), plain[0].matches('<').count());
        prop_assert_eq!(pages[1].matches('<').count(), {
            let harmless = LastBatch::Tokens { step: 1, rows: vec![("a".into(), "a".into())] };
            page("a", harmless).html().matches('<').count()
        });
    }
}

/// Names that try to be markup.
fn hostile() -> impl Strategy<Value = String> {
    const BITS: [&str; 11] = [
        "<script>",
        "</p>",
        "\"",
        "'",
        "&",
        "-->",
        "<img src=x onerror=a>",
        "javascript:",
        "\u{202e}",
        "x",
        "]]>",
    ];
    prop_oneof![
        any::<String>(),
        proptest::collection::vec(proptest::sample::select(&BITS[..]), 1..8).prop_map(|b| b.concat())
    ]
}
