use super::*;
use mixfeed_client::spec::JobInfo;
use mixfeed_proto as v1;
use v1::MixtureKind::{Main, Probe, Strike};

fn entry(seq: u64, steps: (u64, u64), kind: v1::MixtureKind, weights: &[u64]) -> v1::MixtureEntry {
    v1::MixtureEntry {
        seq,
        from_step: steps.0,
        until_step: steps.1,
        kind: kind.into(),
        weights: weights.to_vec(),
        mixture_id: seq,
        author: "estimator:aioli".into(),
        ..Default::default()
    }
}

fn mixture() -> v1::GetMixtureResponse {
    v1::GetMixtureResponse {
        entry: Some(entry(6, (40, 0), Main, &[1 << 30, 3 << 30])),
        horizon: 60,
        version: 6,
        groups: vec!["s/a".into(), "s/b".into()],
        tasks: vec!["s/b".into()],
        losses: vec![2.5],
        reports: vec![
            v1::OutcomeCount { outcome: v1::ReportOutcome::Accepted.into(), reason: 0, reports: 12 },
            v1::OutcomeCount {
                outcome: v1::ReportOutcome::Rejected.into(),
                reason: v1::ReportReason::NotFinite.into(),
                reports: 1,
            },
        ],
        ..Default::default()
    }
}

fn accounting() -> v1::GetAccountingResponse {
    let group = |name: &str, rows, share| v1::GroupAccount {
        group: name.into(),
        rows,
        tokens: 0,
        epochs: 0.5,
        share_wanted: share,
        share_served: share,
    };
    let account = |mixture_id, from_step, rows: [u64; 2]| v1::MixtureAccount {
        mixture_id,
        from_step,
        steps: 10,
        rows: rows.to_vec(),
    };
    v1::GetAccountingResponse {
        until_step: 55,
        groups: vec![group("s/a", 100, 0.25), group("s/b", 300, 0.75)],
        mixtures: vec![account(1, 0, [5, 5]), account(2, 10, [10, 0]), account(6, 40, [2, 8])],
    }
}

#[test]
fn the_plot_shows_what_holds() {
    let shadow = |shares: [f64; 2]| v1::ShadowMixture { estimator: "odm".into(), shares: shares.to_vec() };
    let mut log = vec![
        entry(1, (0, 10), Main, &[1 << 31, 1 << 31]),
        entry(2, (10, 20), Probe, &[1 << 32, 0]),
        entry(3, (20, 40), Main, &[1 << 30, 3 << 30]),
        entry(4, (30, 0), Main, &[0, 1 << 32]),
        entry(5, (30, 0), Strike, &[]),
        entry(6, (40, 0), Main, &[3 << 30, 1 << 30]),
    ];
    log[0].losses = vec![4.0];
    log[2].losses = vec![3.0];
    log[2].shadows = vec![shadow([0.4, 0.6])];
    let plot = History::new(&log).plot(&JobInfo::default(), &mixture(), &accounting());
    assert_eq!(plot.steps, (0.0, 60.0));
    let [weights, losses, realised] = &plot.panels[..] else { panic!("three panels") };
    let a = vec![(0.0, 0.5), (20.0, 0.25), (40.0, 0.75), (60.0, 0.75)];
    assert_eq!((&weights.curves[0].name, &weights.curves[0].points), (&"a".to_owned(), &a));
    assert_eq!(weights.shades, [(10.0, 20.0)]);
    let dashed: Vec<_> = weights.curves.iter().filter(|curve| curve.dash == 1).collect();
    assert_eq!((dashed.len(), &dashed[1].points), (2, &vec![(20.0, 0.6), (60.0, 0.6)]));
    assert_eq!(weights.dashes, [(1, "shadow odm".to_owned())]);
    // The only task is the second group: it has that group's colour.
    assert_eq!((losses.curves[0].hue, &losses.curves[0].points), (1, &vec![(0.0, 4.0), (20.0, 3.0)]));
    assert_eq!(realised.curves[1].points, [(0.0, 0.5), (40.0, 0.8), (55.0, 0.8)]);
}

#[test]
fn tables_say_it_in_lines() {
    let lines = table::groups(&mixture(), &accounting());
    assert_eq!(lines[0], "group      now   served          rows           tokens    epochs      loss");
    assert_eq!(lines[1], "s/a     0.2500   0.2500           100                -      0.50         -");
    assert_eq!(lines[2], "s/b     0.7500   0.7500           300                -      0.50    2.5000");
    let summary = table::summary(&JobInfo { job: "lm".into(), ..Default::default() }, &mixture());
    assert_eq!(summary[0], "job        lm, log at entry 6, horizon 60");
    assert_eq!(summary[2], "reports    12 accepted, 1 rejected (not_finite)");
    let mut hostile = entry(7, (60, 70), Probe, &[]);
    hostile.counts = vec![3, 1];
    hostile.author = "operator:\u{1b}[2J".into();
    let line = table::entry(&hostile);
    assert_eq!(line, "     7  60..70             probe    operator:?[2J            0.750 0.250");
}

#[test]
fn every_group_gets_one_weight() {
    let groups = ["s/a".to_owned(), "s/b".to_owned(), "t/b".to_owned()];
    let set = |text: &str| {
        let given: Vec<String> = text.split(',').map(str::to_owned).collect();
        weights(&given, &groups).map_err(|error| error.to_string())
    };
    assert_eq!(set("a=1,t/b=0,s/b=2.5"), Ok(vec![1.0, 2.5, 0.0]));
    for (text, why) in [
        ("a=1,b=2", "several groups are called `b`"),
        ("a=1,s/b=2", "lacks t/b"),
        ("a=1,s/a=2", "`s/a` twice"),
        ("c=1", "no group `c`"),
        ("a=-1", "finite weight >= 0"),
        ("a=inf", "finite weight >= 0"),
        ("a", "want GROUP=WEIGHT"),
        ("a=x", "want a number"),
    ] {
        let found = set(text).expect_err(text);
        assert!(found.contains(why), "`{text}`: {found}");
    }
}

#[test]
fn only_pictures_are_drawn_into() {
    assert!(picture("a.svg").is_ok() && picture("dir/a.png").is_ok());
    assert!(picture("a.txt").is_err() && picture("svg").is_err());
}
