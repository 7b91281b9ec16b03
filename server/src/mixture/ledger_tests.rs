//! Shares of cost instead of items.

use super::*;
use std::time::Instant;

/// Costs by group and record.
#[derive(Debug)]
struct Tokens(fn(u32, u64) -> u64);

impl ItemCost for Tokens {
    fn cost(&self, group: u32, index: u64) -> u64 {
        self.0(group, index)
    }
}

fn sequence(groups: &[(u64, Exhaustion)], batch: u64, cost: fn(u32, u64) -> u64) -> Sequence {
    let rules =
        groups.iter().map(|(records, exhaustion)| GroupRule { records: *records, exhaustion: *exhaustion });
    let costs = Costs::Varying(Arc::new(Tokens(cost)));
    Sequence::new(9, rules.collect(), costs, batch, LastBatch::Partial, 0)
}

fn main(from_step: u64, raw: &[f64]) -> Entry {
    let weights = Weights::normalise(raw).unwrap();
    Entry { seq: 1, from_step, until_step: None, kind: EntryKind::Main, weights, mixture_id: 1 }
}

const REPEAT: Exhaustion = Exhaustion::Repeat;
const SPEC: [f64; 3] = [0.5, 0.3, 0.2];

/// Costs of about 100, 400 and 4,000 tokens.
fn documents(group: u32, index: u64) -> u64 {
    let mean = [100, 400, 4_000][group as usize];
    mean / 2 + (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) % mean
}

/// Tokens of each group in steps `from..to`.
fn tokens(s: &Sequence, from: u64, to: u64, cost: fn(u32, u64) -> u64) -> [u64; 3] {
    let mut sums = [0; 3];
    for slot in (from..to).flat_map(|step| s.step(step)) {
        sums[slot.group as usize] += cost(slot.group, s.record(slot).index);
    }
    sums
}

#[test]
fn items_of_cost_one_follow_the_reference_order() {
    let s = sequence(&[(100, REPEAT), (100, REPEAT), (100, REPEAT)], 1, |_, _| 1);
    let s = s.append(main(0, &SPEC)).unwrap();
    let order: Vec<u32> = (0..1_000).map(|step| s.step(step)[0].group).collect();
    assert!(order.chunks(10).all(|ten| *ten == [0, 1, 2, 0, 0, 1, 0, 2, 1, 0]), "{order:?}");
}

#[test]
fn shares_of_tokens_hold_and_a_change_keeps_what_is_owed() {
    let s = sequence(&[(5_000, REPEAT), (5_000, REPEAT), (5_000, REPEAT)], 8, documents);
    let first = s.append(main(0, &SPEC)).unwrap();
    let check = |sums: [u64; 3], wanted: &[f64]| {
        let all: u64 = sums.iter().sum();
        for (sum, share) in sums.iter().zip(wanted) {
            let off = (*sum as f64 - share * all as f64).abs();
            assert!(off < 8_000.0, "{sums:?}: {off} tokens off, two of the longest records");
        }
    };
    check(tokens(&first, 0, 400, documents), &SPEC);
    // 99 changes back and forth: deficits do not add up.
    let mut log = s;
    let other = [0.1, 0.1, 0.8];
    for n in 0..100 {
        log = log.append(main(n * 7, if n % 2 == 0 { &SPEC } else { &other })).unwrap();
    }
    let mut owed = [0.0; 3];
    for n in 0..100 {
        let sums = tokens(&log, n * 7, n * 7 + 7, documents);
        let all: u64 = sums.iter().sum();
        for g in 0..3 {
            owed[g] += (if n % 2 == 0 { SPEC[g] } else { other[g] }) * all as f64 - sums[g] as f64;
        }
    }
    assert!(owed.iter().all(|o| o.abs() < 8_000.0), "{owed:?}");
}

#[test]
fn a_group_without_weight_gets_nothing_and_owes_nothing() {
    let s = sequence(&[(500, REPEAT), (500, REPEAT), (500, REPEAT)], 8, documents);
    let log = s.append(main(0, &SPEC)).unwrap().append(main(50, &[0.6, 0.4, 0.0])).unwrap();
    let sums = tokens(&log, 50, 150, documents);
    assert_eq!(sums[2], 0);
    let all = (sums[0] + sums[1]) as f64;
    // What the third group was owed or had too much of, one of its records, is now the others'.
    assert!((sums[0] as f64 - 0.6 * all).abs() < 8_000.0, "{sums:?}");
}

#[test]
fn any_step_is_the_same_in_any_order_of_asking() {
    let leave = Exhaustion::Leave { after: 700 };
    let groups = [(300, leave), (200, REPEAT), (100, REPEAT)];
    let make = || sequence(&groups, 2, documents).append(main(0, &[0.2, 0.5, 0.3])).unwrap();
    let (forward, backward) = (make(), make());
    let started = Instant::now();
    let far = 5_000;
    let last = backward.step(far);
    println!("5,000 steps of 2 walked in {:?}", started.elapsed());
    let seen: Vec<Vec<Slot>> = (0..=far).map(|step| forward.step(step)).collect();
    assert_eq!(seen[far as usize], last);
    for step in (0..far).rev().step_by(37) {
        assert_eq!(backward.step(step), seen[step as usize], "step {step}");
        assert_eq!(backward.rows_before(step), forward.rows_before(step));
    }
    assert_eq!(forward.rows_before(far)[0], 700, "it has left");
    // Threads that ask at once agree.
    let shared = make();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (shared, seen) = (&shared, &seen);
            scope.spawn(move || {
                for step in (thread..far).step_by(211) {
                    assert_eq!(shared.step(step), seen[step as usize]);
                }
            });
        }
    });
}

#[test]
fn ends_are_where_the_items_say() {
    let stop = |rule| sequence(&[(9, rule), (500, REPEAT), (500, REPEAT)], 4, |g, _| [1, 1, 2][g as usize]);
    let first = stop(Exhaustion::StopFirst).append(main(0, &SPEC)).unwrap();
    // Only walking could tell, so it is told when it is near.
    assert_eq!(first.end(), None);
    let near = (0..100).find_map(|step| first.end_by(step)).unwrap();
    let total: Vec<u64> = first.rows_before(100);
    assert_eq!(total[0], 9);
    assert_eq!(total.iter().sum::<u64>(), (near.steps - 1) * 4 + near.last_rows);
    assert_eq!(first.step(near.steps), []);
    assert_eq!(
        first.append(main(near.steps + 1, &SPEC)).err().map(|e| matches!(e, EntryError::Ended { .. })),
        Some(true)
    );
    // Within what is covered the end is told.
    let bounded = Entry { until_step: Some(90), ..main(0, &SPEC) };
    assert_eq!(stop(Exhaustion::StopFirst).append(bounded).unwrap().end(), Some(near));
    let last = stop(Exhaustion::StopLast).append(main(0, &SPEC)).unwrap();
    assert_eq!(last.rows_before(100)[0], 9);
    let alone =
        sequence(&[(9, Exhaustion::Leave { after: 9 })], 4, |_, _| 3).append(main(0, &[1.0])).unwrap();
    assert_eq!(alone.rows_before(100), [9]);
}

#[test]
fn probes_of_costly_items_count_items() {
    let s = sequence(&[(50, REPEAT), (50, REPEAT), (50, REPEAT)], 4, documents);
    let kind = EntryKind::Probe { counts: vec![0, 7, 5] };
    let probe = Entry { kind, until_step: Some(13), ..main(10, &SPEC) };
    let log = s.append(main(0, &SPEC)).unwrap().append(probe).unwrap();
    let (a, b) = (log.rows_before(10), log.rows_before(13));
    assert_eq!((b[0] - a[0], b[1] - a[1], b[2] - a[2]), (0, 7, 5));
}
