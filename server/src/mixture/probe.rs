//! What a probe serves when groups leave.
//!
//! A group that has left, or that leaves within the probe, gets what it still may get. What it can't take goes to the
//! other groups of the probe in proportion to their counts (Hamilton rounding, ties to the lowest index), and when none
//! of those is left, to the groups of the main mixture in proportion to its weights (before there was one, of those that
//! the sequence starts with). All of it is fixed when the probe begins and then spread over its steps.

/// `counts` with what exceeds `room` (items a group may still get) shared out. Sums to less only when nobody of the
/// probe or of the `main` mixture can take the rest.
pub fn feasible(counts: &[u64], room: &[Option<u64>], main: &[u64]) -> Vec<u64> {
    let mut out = counts.to_vec();
    loop {
        let mut excess = 0;
        for (own, room) in out.iter_mut().zip(room) {
            let over = room.map_or(0, |room| own.saturating_sub(room));
            *own -= over;
            excess += over;
        }
        if excess == 0 {
            return out;
        }
        let open = |j: usize| room[j].is_none_or(|room| out[j] < room);
        let keys = |shares: &[u64]| -> Vec<u64> {
            shares.iter().enumerate().map(|(j, w)| if open(j) { *w } else { 0 }).collect()
        };
        let named = keys(counts);
        let keys = if named.iter().any(|w| *w > 0) { named } else { keys(main) };
        if keys.iter().all(|w| *w == 0) {
            return out;
        }
        out.iter_mut().zip(hamilton(excess, &keys)).for_each(|(own, more)| *own += more);
    }
}

/// `items` in proportion to `keys`, not all zero: largest remainders first, ties to the lowest index.
fn hamilton(items: u64, keys: &[u64]) -> Vec<u64> {
    let sum: u128 = keys.iter().map(|k| u128::from(*k)).sum();
    let exact = |j: usize| u128::from(items) * u128::from(keys[j]);
    let mut parts: Vec<u64> = (0..keys.len()).map(|j| (exact(j) / sum) as u64).collect();
    let mut order: Vec<usize> = (0..keys.len()).filter(|&j| keys[j] > 0).collect();
    order.sort_by_key(|&j| (std::cmp::Reverse(exact(j) % sum), j));
    let rest = items - parts.iter().sum::<u64>();
    order.into_iter().take(rest as usize).for_each(|j| parts[j] += 1);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_group_cannot_take_goes_to_the_others_of_the_probe() {
        let counts = [10, 20, 30, 0];
        assert_eq!(feasible(&counts, &[None; 4], &[1; 4]), counts);
        // 10 items at 2 : 3, the group outside of the probe stays there.
        assert_eq!(feasible(&counts, &[Some(0), None, None, None], &[1; 4]), [0, 24, 36, 0]);
        // The second group takes 2 of its 4, the third the rest.
        assert_eq!(feasible(&counts, &[Some(0), Some(22), None, None], &[1; 4]), [0, 22, 38, 0]);
    }

    #[test]
    fn the_main_mixture_steps_in_when_nobody_of_the_probe_is_left() {
        let none_left = [Some(0), Some(3), None, None];
        assert_eq!(feasible(&[5, 5, 0, 0], &none_left, &[4, 4, 1, 3]), [0, 3, 2, 5]);
        assert_eq!(feasible(&[5, 5, 0, 0], &none_left, &[1, 1, 1, 1]), [0, 3, 4, 3]);
        assert_eq!(feasible(&[5, 5, 0, 0], &none_left, &[4, 4, 0, 0]), [0, 3, 0, 0]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nobody_gets_too_much(
            groups in prop::collection::vec((0u64..100, prop::option::of(0u64..60), 0u64..5), 1..9)) {
            let counts: Vec<u64> = groups.iter().map(|g| g.0).collect();
            let room: Vec<Option<u64>> = groups.iter().map(|g| g.1).collect();
            let main: Vec<u64> = groups.iter().map(|g| g.2).collect();
            let out = feasible(&counts, &room, &main);
            for ((own, room), (count, _, main)) in out.iter().zip(&room).zip(&groups) {
                prop_assert!(room.is_none_or(|room| *own <= room));
                prop_assert!(*own == 0 || *count > 0 || *main > 0);
            }
            let short = out.iter().sum::<u64>() < counts.iter().sum();
            let open = |j: usize| (counts[j] > 0 || main[j] > 0) && room[j].is_none_or(|room| out[j] < room);
            prop_assert!(!short || !(0..out.len()).any(open), "{:?} of {:?} in {:?}", out, counts, room);
        }
    }
}
