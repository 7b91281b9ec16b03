//! The sequence over a log: what every log must keep, whatever its entries.

use super::*;
use crate::rng::{Draw, Rng, Stream};
use proptest::prelude::*;
use std::time::Instant;

const REPEAT: Exhaustion = Exhaustion::Repeat;

fn empty(groups: &[(u64, Exhaustion)], batch: u64, last: LastBatch) -> Sequence {
    let rule =
        |(records, exhaustion): &(u64, Exhaustion)| GroupRule { records: *records, exhaustion: *exhaustion };
    Sequence::new(9, groups.iter().map(rule).collect(), Costs::Equal, batch, last, 0)
}

fn main(from_step: u64, until_step: Option<u64>, raw: &[f64]) -> Entry {
    let weights = Weights::normalise(raw).unwrap();
    Entry {
        seq: from_step.saturating_add(1),
        from_step,
        until_step,
        kind: EntryKind::Main,
        weights,
        mixture_id: 1,
    }
}

fn probe(from_step: u64, until: u64, counts: &[u64]) -> Entry {
    let weights = Weights::normalise(&counts.iter().map(|c| *c as f64).collect::<Vec<_>>()).unwrap();
    let kind = EntryKind::Probe { counts: counts.to_vec() };
    Entry {
        seq: from_step.saturating_add(1),
        from_step,
        until_step: Some(until),
        kind,
        weights,
        mixture_id: 2,
    }
}

fn steps(s: &Sequence, steps: std::ops::Range<u64>) -> Vec<Vec<Slot>> {
    steps.map(|step| s.step(step)).collect()
}

/// A random entry that may follow `s`.
fn draw(rng: &mut Rng, s: &Sequence, groups: usize, last: Option<&Entry>) -> Entry {
    let earliest = last.map_or(0, |last| match last.kind {
        EntryKind::Main => last.from_step,
        EntryKind::Probe { .. } => last.until_step.unwrap(),
    });
    let from = rng.between(earliest, s.covered().unwrap_or(earliest + 12));
    let until = from + rng.between(1, 9);
    if rng.chance(0.4) {
        let mut counts = vec![0; groups];
        // Few groups, as probes do.
        for _ in 0..(until - from) * s.batch() {
            counts[rng.below(groups as u64) as usize % 3.min(groups)] += 1;
        }
        return probe(from, until, &counts);
    }
    let mut raw: Vec<f64> =
        (0..groups).map(|_| if rng.chance(0.3) { 0.0 } else { rng.range(0.01, 1.0) }).collect();
    raw[rng.below(groups as u64) as usize] += 0.01;
    main(from, rng.chance(0.5).then_some(until), &raw)
}

/// A random log with the snapshot after each entry. Entries that are refused, because the job has ended or everybody
/// they name has left, are left out.
fn random(seed: u64, groups: &[(u64, Exhaustion)], batch: u64, n: usize) -> Vec<(Entry, Sequence)> {
    let mut rng = Stream::new(seed, "log").at(Draw::Order, 0, 0);
    let mut now = empty(groups, batch, LastBatch::Partial);
    let mut log: Vec<(Entry, Sequence)> = Vec::new();
    for _ in 0..n {
        let entry = draw(&mut rng, &now, groups.len(), log.last().map(|l| &l.0));
        match now.append(entry.clone()) {
            Ok(next) => {
                now = next.clone();
                log.push((entry, next));
            }
            Err(EntryError::Ended { .. } | EntryError::AllLeft { .. }) => {}
            Err(other) => panic!("{other} for {entry:?}"),
        }
    }
    log
}

fn exhaustion() -> impl Strategy<Value = Exhaustion> {
    prop_oneof![
        4 => Just(REPEAT),
        1 => Just(Exhaustion::StopFirst),
        1 => Just(Exhaustion::StopLast),
        2 => (1u64..90).prop_map(|after| Exhaustion::Leave { after }),
    ]
}

fn any_groups() -> impl Strategy<Value = Vec<(u64, Exhaustion)>> {
    prop::collection::vec((5u64..80, exhaustion()), 1..7)
}

/// The last step worth looking at: beyond every entry.
fn horizon(log: &[(Entry, Sequence)]) -> u64 {
    log.iter().map(|(e, _)| e.until_step.unwrap_or(e.from_step)).max().unwrap_or(0) + 20
}

proptest! {
    #[test]
    fn an_entry_changes_no_step_before_it(groups in any_groups(), seed: u64, batch in 1u64..9) {
        let log = random(seed, &groups, batch, 12);
        for pair in log.windows(2) {
            let from = pair[1].0.from_step;
            prop_assert_eq!(steps(&pair[0].1, 0..from), steps(&pair[1].1, 0..from));
            prop_assert_eq!(pair[0].1.rows_before(from), pair[1].1.rows_before(from));
        }
    }

    #[test]
    fn items_follow_each_other_without_a_gap(groups in any_groups(), seed: u64, batch in 1u64..9) {
        let log = random(seed, &groups, batch, 12);
        prop_assume!(!log.is_empty());
        let s = &log.last().unwrap().1;
        let mut seen = vec![0u64; groups.len()];
        let mut ended = false;
        for step in 0..horizon(&log) {
            prop_assert_eq!(&s.rows_before(step), &seen, "before step {}", step);
            let slots = s.step(step);
            prop_assert_eq!(slots.len() as u64, s.rows(step));
            prop_assert!(!ended || slots.is_empty(), "step {} after the end", step);
            ended |= s.entry(step).is_none() || slots.len() < batch as usize;
            let mut ks: Vec<Vec<u64>> = vec![Vec::new(); groups.len()];
            slots.iter().for_each(|x| ks[x.group as usize].push(x.k));
            for (g, mut ks) in ks.into_iter().enumerate() {
                ks.sort_unstable();
                prop_assert!(ks.iter().copied().eq(seen[g]..seen[g] + ks.len() as u64));
                seen[g] += ks.len() as u64;
            }
            for (g, (records, rule)) in groups.iter().enumerate() {
                match rule {
                    Exhaustion::Leave { after } => prop_assert!(seen[g] <= *after, "group {} came back", g),
                    Exhaustion::StopFirst => prop_assert!(seen[g] <= *records, "group {} repeats", g),
                    Exhaustion::Repeat | Exhaustion::StopLast => {}
                }
            }
        }
        if let Some(end) = s.end() {
            prop_assert_eq!(s.rows(end.steps), 0);
            prop_assert!(end.steps == 0 || s.rows(end.steps - 1) == end.last_rows);
            prop_assert!(end.last_rows == batch || s.covered().is_none_or(|c| end.steps <= c));
        }
    }

    #[test]
    fn a_log_is_the_same_whatever_way_it_was_built(groups in any_groups(), seed: u64, at in 0usize..12) {
        let log = random(seed, &groups, 4, 12);
        prop_assume!(log.len() > at);
        let (whole, far) = (&log.last().unwrap().1, horizon(&log));
        // Asked before it was built on, cut where an entry begins, built on again.
        let mut again = whole.cut(log[at].0.from_step);
        prop_assert_eq!(again.covered(), Some(log[at].0.from_step));
        for (entry, _) in &log[at..] {
            again = again.append(entry.clone()).unwrap();
        }
        prop_assert_eq!(steps(&again, 0..far), steps(whole, 0..far));
        prop_assert_eq!(again.end(), whole.end());
        // One by one from nothing, never asked before.
        let mut fresh = empty(&groups, 4, LastBatch::Partial);
        for (entry, _) in &log {
            fresh = fresh.append(entry.clone()).unwrap();
        }
        prop_assert_eq!(fresh.step(far - 20), whole.step(far - 20));
        prop_assert_eq!(steps(&fresh, 0..far), steps(whole, 0..far));
    }

    #[test]
    fn a_cut_keeps_what_was(groups in any_groups(), seed: u64, at in 0u64..60) {
        let log = random(seed, &groups, 3, 12);
        prop_assume!(!log.is_empty());
        let whole = &log.last().unwrap().1;
        let cut = whole.cut(at);
        prop_assert_eq!(steps(&cut, 0..at), steps(whole, 0..at));
        prop_assert!(cut.covered().is_some_and(|c| c <= at));
        prop_assert_eq!(steps(&cut, at..at + 3), vec![vec![]; 3]);
        prop_assert_eq!(cut.entry(at), None);
        // What follows a cut inside of a probe begins where it was cut.
        let from = cut.covered().unwrap();
        if let Ok(on) = cut.append(main(from, None, &vec![1.0; groups.len()])) {
            prop_assert_eq!(steps(&on, 0..from), steps(whole, 0..from));
            prop_assert_eq!(on.entry(from).map(|e| e.from_step), Some(from));
        }
    }

    #[test]
    fn probes_are_exact_and_cost_the_main_mixture_nothing(seed: u64, raw in prop::collection::vec(0.05..1.0f64, 4)) {
        let groups = [(30, REPEAT), (40, REPEAT), (50, REPEAT), (60, REPEAT)];
        let log = random(seed, &groups, 5, 14);
        let s = &log.last().unwrap().1;
        for (entry, _) in &log {
            if let EntryKind::Probe { counts } = &entry.kind {
                let (a, b) = (s.rows_before(entry.from_step), s.rows_before(entry.until_step.unwrap()));
                let served: Vec<u64> = b.iter().zip(&a).map(|(b, a)| b - a).collect();
                prop_assert_eq!(&served, counts);
            }
        }
        // Two main runs with a probe between serve together what one run serves.
        let base = empty(&groups, 5, LastBatch::Drop);
        let one = base.append(main(0, None, &raw)).unwrap();
        let two = base.append(main(0, Some(7), &raw)).unwrap();
        let two = two.append(probe(7, 10, &[15, 0, 0, 0])).unwrap().append(main(10, None, &raw)).unwrap();
        let (a, b) = (one.rows_before(40), two.rows_before(43));
        for g in 0..4 {
            prop_assert!(a[g].abs_diff(b[g] - if g == 0 { 15 } else { 0 }) <= 2, "{:?} {:?}", a, b);
        }
    }
}

#[test]
fn ten_thousand_hostile_entries_stay_within_the_bound() {
    let groups = 60;
    let mut rng = Stream::new(12, "hostile").at(Draw::Order, 0, 0);
    let mut s = empty(&vec![(1_000, REPEAT); groups], 1, LastBatch::Drop);
    let (mut wanted, mut worst, mut probed, mut from) = (vec![0u128; groups], 0.0f64, vec![0u64; groups], 0);
    let started = Instant::now();
    for n in 0..10_000 {
        let until = from + rng.between(1, 64);
        let corner = rng.below(groups as u64) as usize;
        if n % 5 == 4 {
            let mut counts = vec![0; groups];
            counts[corner] = until - from;
            probed[corner] += until - from;
            s = s.append(probe(from, until, &counts)).unwrap();
        } else {
            // A corner of 94 % that jumps at every change.
            let mut raw = vec![0.06 / (groups - 1) as f64; groups];
            raw[corner] = 0.94;
            let entry = main(from, Some(until), &raw);
            let shares = entry.weights.shares().iter();
            wanted
                .iter_mut()
                .zip(shares)
                .for_each(|(sum, w)| *sum += u128::from(until - from) * u128::from(*w));
            s = s.append(entry).unwrap();
        }
        from = until;
        for ((served, wanted), probed) in s.rows_before(from).iter().zip(&wanted).zip(&probed) {
            worst = worst.max((*served as f64 - *probed as f64 - *wanted as f64 / ONE as f64).abs());
        }
    }
    println!("10,000 entries in {:?}; worst distance from the wanted count {worst:.2}", started.elapsed());
    assert!(worst < 2.0 + groups as f64 / 4.0, "{worst}");
}

#[test]
fn a_far_step_of_a_long_log_is_found_without_walking() {
    let (groups, batch) = (64, 256);
    let mut rng = Stream::new(13, "far").at(Draw::Order, 0, 0);
    let mut s = empty(&vec![(10_000, REPEAT); groups], batch, LastBatch::Drop);
    let started = Instant::now();
    for n in 0..10_000 {
        let raw: Vec<f64> = (0..groups).map(|_| rng.range(0.01, 1.0)).collect();
        s = s.append(main(n * 1_000, None, &raw)).unwrap();
    }
    let built = started.elapsed();
    let slots = s.step(10_000_000);
    println!("a log of 10,000 entries in {built:?}, then step 10^7 in {:?}", started.elapsed() - built);
    assert_eq!(slots.len() as u64, batch);
    assert_eq!(s.rows_before(10_000_000).iter().sum::<u64>(), 10_000_000 * batch);
}

#[test]
fn what_cannot_follow_is_refused() {
    let base = empty(&[(30, REPEAT), (40, REPEAT)], 4, LastBatch::Drop);
    let refused = |s: &Sequence, entry: Entry| s.append(entry).err().unwrap();
    let even = [1.0, 1.0];
    assert_eq!(refused(&base, main(1, None, &even)), EntryError::Gap { from: 1, covered: 0 });
    assert_eq!(
        refused(&base, main(0, None, &[1.0])),
        EntryError::Groups { field: "weights", found: 1, expected: 2 }
    );
    assert_eq!(refused(&base, main(0, Some(0), &even)), EntryError::Empty { from: 0, until: 0 });
    assert_eq!(refused(&base, main(u64::MAX, None, &even)), EntryError::Far { from: u64::MAX });
    assert_eq!(refused(&base, probe(0, 2, &[4, 3])), EntryError::Counts { found: 7, expected: 8 });
    let short = Entry { kind: EntryKind::Probe { counts: vec![8] }, ..main(0, Some(2), &even) };
    assert_eq!(refused(&base, short), EntryError::Groups { field: "counts", found: 1, expected: 2 });
    let long = probe(0, 1 << 60, &[1 << 61, 1 << 61]);
    assert_eq!(refused(&base, long), EntryError::TooLong { items: 1 << 62 });
    let endless = Entry { until_step: None, ..probe(0, 2, &[4, 4]) };
    assert_eq!(refused(&base, endless), EntryError::Endless);

    let log = base.append(main(0, None, &even)).unwrap().append(probe(5, 7, &[8, 0])).unwrap();
    assert_eq!(log.covered(), Some(7));
    assert_eq!(refused(&log, main(4, None, &even)), EntryError::Before { from: 4, last: 5 });
    assert_eq!(refused(&log, main(6, None, &even)), EntryError::InsideProbe { from: 6, start: 5, until: 7 });
    assert_eq!(refused(&log, main(8, None, &even)), EntryError::Gap { from: 8, covered: 7 });
    assert_eq!(log.append(main(7, None, &even)).unwrap().covered(), None);
    // What a cut has freed may be planned again.
    assert_eq!(log.cut(6).append(main(6, None, &even)).unwrap().entry(5).unwrap().seq, 6);
}

#[test]
fn nothing_follows_an_end() {
    let base = empty(&[(10, Exhaustion::StopFirst), (90, REPEAT)], 4, LastBatch::Partial);
    let log = base.append(main(0, Some(4), &[1.0, 1.0])).unwrap();
    assert_eq!(log.end(), None, "the 11th item of the first group is the 21st of the job");
    let ended = base.append(main(0, None, &[1.0, 1.0])).unwrap();
    assert_eq!(ended.end().map(|end| end.steps), Some(5));
    assert_eq!(
        ended.append(main(6, None, &[0.0, 1.0])).err(),
        Some(EntryError::Ended { from: 6, items: 20 })
    );
    let moved = ended.append(main(4, None, &[0.0, 1.0])).unwrap();
    assert_eq!(moved.end(), None, "the group that would stop gets nothing from now on");
    // A probe of the other group never repeats the first one; one of the first does.
    let longer = log.append(probe(4, 8, &[0, 16])).unwrap();
    assert_eq!((longer.end(), longer.rows(7)), (None, 4));
    let over = log.append(probe(4, 8, &[16, 0])).unwrap();
    assert_eq!(over.end().map(|end| (end.steps, end.last_rows)), Some((5, 2)));
    assert_eq!(over.rows_before(8), [10, 8]);
}

#[test]
fn a_group_that_left_stays_away() {
    let leave = Exhaustion::Leave { after: 6 };
    let base = empty(&[(6, leave), (50, REPEAT), (50, REPEAT)], 4, LastBatch::Drop);
    let log = base.append(main(0, Some(2), &[1.0, 1.0, 0.0])).unwrap();
    // It leaves inside of a probe: its other 14 items go to the others at 3 : 1, 10.5 and 3.5 rounded ties low.
    let log = log.append(probe(2, 10, &[16, 12, 4])).unwrap();
    assert_eq!(log.rows_before(10), [6, 4 + 12 + 11, 4 + 3]);
    let log = log.append(probe(10, 12, &[8, 0, 0])).unwrap();
    assert_eq!(
        log.rows_before(12),
        [6, 35, 7],
        "nobody of the probe is left: the main mixture's other group"
    );
    let log = log.append(main(12, Some(20), &[0.8, 0.1, 0.1])).unwrap();
    assert_eq!(log.rows_before(20), [6, 51, 23]);
    assert_eq!(log.append(main(20, None, &[1.0, 0.0, 0.0])).err(), Some(EntryError::AllLeft { from: 20 }));
}

#[test]
fn a_probe_with_whose_last_item_everybody_leaves_ends_the_job() {
    let leave = |after| Exhaustion::Leave { after };
    for last in [LastBatch::Drop, LastBatch::Partial, LastBatch::Pad] {
        // The third group has records but no weight: it holds up no end.
        let groups = [(10, leave(10)), (6, leave(6)), (50, leave(50))];
        let start = empty(&groups, 4, last).starting(&Weights::normalise(&[1.0, 1.0, 0.0]).unwrap());
        let log = start.append(probe(0, 4, &[10, 6, 0])).unwrap();
        let end = Some(End { steps: 4, last_rows: 4, dropped: 0, padded: 0 });
        assert_eq!((log.end(), log.end_by(4), log.end_by(3)), (end, end, end));
        assert_eq!(log.rows_before(9), [10, 6, 0]);
        // One that stays keeps the job going, and takes what a longer probe asks of the others.
        let open = empty(&groups, 4, last);
        let log = open.append(probe(0, 5, &[12, 8, 0])).unwrap();
        assert_eq!((log.end(), log.rows_before(5)), (None, vec![10, 6, 4]));
    }
}

#[test]
fn a_probe_of_a_used_up_group_does_not_end_a_job_that_waits_for_others() {
    let base = empty(&[(4, Exhaustion::StopLast), (6, Exhaustion::StopLast)], 2, LastBatch::Drop);
    // Before any main entry the job waits for all.
    let log = base.append(probe(0, 4, &[8, 0])).unwrap();
    assert_eq!((log.end(), log.rows(3)), (None, 2));
    let log = log.append(main(4, None, &[1.0, 1.0])).unwrap();
    assert_eq!(log.end().map(|end| end.steps), Some(10), "6 items of the second group, alternating");
    let without = log.append(main(5, None, &[1.0, 0.0])).unwrap();
    assert_eq!(without.end().map(|end| end.steps), Some(5), "a group that gets nothing is not waited for");
}

#[test]
fn absurd_steps_are_answered() {
    let s = empty(&[(10, REPEAT), (20, Exhaustion::Leave { after: u64::MAX })], 256, LastBatch::Drop);
    let s = s.append(main(0, None, &[1.0, 3.0])).unwrap();
    assert_eq!(s.end(), None);
    assert_eq!(s.step(u64::MAX), []);
    assert_eq!(s.step(1 << 54).len(), 256);
    assert_eq!(s.rows_before(u64::MAX).iter().map(|c| u128::from(*c)).sum::<u128>(), u128::from(u64::MAX));
}
