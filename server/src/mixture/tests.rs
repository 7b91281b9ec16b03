use super::*;
use crate::batch::SampleId;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn sequence(records: &[(u64, Exhaustion, f64)], batch: u64, last: LastBatch) -> Sequence {
    let groups = records
        .iter()
        .map(|(records, exhaustion, _)| GroupRule { records: *records, exhaustion: *exhaustion });
    let raw: Vec<f64> = records.iter().map(|r| r.2).collect();
    let empty = Sequence::new(9, groups.collect(), Costs::Equal, batch, last, 0);
    let (kind, weights) = (EntryKind::Main, Weights::normalise(&raw).unwrap());
    empty.append(Entry { seq: 1, from_step: 0, until_step: None, kind, weights, mixture_id: 1 }).unwrap()
}

/// Every sample id of the first `steps` steps with how often it came.
fn served(s: &Sequence, steps: u64) -> BTreeMap<SampleId, u32> {
    let mut seen = BTreeMap::new();
    for slot in (0..steps).flat_map(|step| s.step(step)) {
        *seen.entry(s.record(slot)).or_insert(0) += 1;
    }
    seen
}

#[test]
fn one_epoch_serves_every_record_once() {
    let s = sequence(&[(35, Exhaustion::Repeat, 35.0), (14, Exhaustion::Repeat, 14.0)], 7, LastBatch::Drop);
    let seen = served(&s, 7);
    assert_eq!(seen.len(), 49);
    assert!(seen.values().all(|c| *c == 1));
    let again = served(&s, 14);
    assert!(again.values().all(|c| *c == 2), "the second epoch is another permutation of the same records");
    assert_ne!(
        (0..7).flat_map(|i| s.step(i)).map(|x| s.record(x)).collect::<Vec<_>>(),
        (7..14).flat_map(|i| s.step(i)).map(|x| s.record(x)).collect::<Vec<_>>()
    );
}

#[test]
fn stop_first_ends_before_a_record_comes_twice() {
    for (last, steps, rows) in [(LastBatch::Drop, 2, 8), (LastBatch::Partial, 3, 4), (LastBatch::Pad, 3, 4)] {
        // Equal weights: the 11th item of the first group would be item 21 of the job.
        let s = sequence(&[(10, Exhaustion::StopFirst, 1.0), (90, Exhaustion::Repeat, 1.0)], 8, last);
        let end = s.end().unwrap();
        assert_eq!((end.steps, end.last_rows), (steps, rows), "{last:?} {end:?}");
        let first: Vec<_> = served(&s, end.steps).into_iter().filter(|(id, _)| id.group == 0).collect();
        assert!(first.iter().all(|(_, count)| *count == 1));
        assert_eq!(s.step(end.steps), []);
        assert_eq!(s.step(u64::MAX), []);
    }
}

#[test]
fn stop_last_ends_when_every_group_was_used_up() {
    let s = sequence(&[(10, Exhaustion::StopLast, 1.0), (30, Exhaustion::StopLast, 1.0)], 1, LastBatch::Drop);
    let end = s.end().unwrap();
    let seen = served(&s, end.steps);
    assert_eq!(seen.len(), 40);
    let almost = served(&s, end.steps - 1);
    assert_eq!(almost.len(), 39, "one item earlier a record is still missing");
}

#[test]
fn a_dropped_group_leaves_the_rest_to_the_others() {
    let leave = |after| Exhaustion::Leave { after };
    let s =
        sequence(&[(10, leave(10), 1.0), (30, leave(45), 1.0), (5, leave(5), 0.0)], 4, LastBatch::Partial);
    let end = s.end().unwrap();
    assert_eq!(end.steps * 4 - (4 - end.last_rows), 55, "10 of the first and 1.5 epochs of the second group");
    let seen = served(&s, end.steps);
    let of = |g: u32| seen.iter().filter(|(id, _)| id.group == g).map(|(_, c)| c).sum::<u32>();
    assert_eq!((of(0), of(1), of(2)), (10, 45, 0));
}

#[test]
fn a_replaced_slot_probes_every_other_record_of_its_group() {
    let s = sequence(&[(6, Exhaustion::Repeat, 1.0), (3, Exhaustion::Repeat, 1.0)], 4, LastBatch::Drop);
    let slot = Slot { group: 1, k: 17 };
    let mut probes: Vec<u64> = (0..3).map(|i| s.probe(slot, i).unwrap().index).collect();
    probes.sort_unstable();
    assert_eq!(probes, [0, 1, 2]);
    assert_eq!(s.probe(slot, 3), None);
}

proptest! {
    #[test]
    fn a_step_is_the_same_whoever_asks(step in 0u64..1_000_000, batch in 1u64..70) {
        let s = sequence(&[(35, Exhaustion::Repeat, 3.0), (14, Exhaustion::Repeat, 1.0)], batch, LastBatch::Drop);
        let slots = s.step(step);
        prop_assert_eq!(slots.len() as u64, batch);
        prop_assert_eq!(&slots, &s.step(step));
        // Neighbouring steps continue each group exactly where this one stopped.
        let next = s.step(step + 1);
        for g in 0..2 {
            let top = slots.iter().filter(|x| x.group == g).map(|x| x.k).max();
            let low = next.iter().filter(|x| x.group == g).map(|x| x.k).min();
            if let (Some(top), Some(low)) = (top, low) {
                prop_assert_eq!(top + 1, low);
            }
        }
    }
}
