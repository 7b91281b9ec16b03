//! The point budget: the largest parts of a block are cut to a common size, none is dropped.

use super::Points;
use super::union::{Chosen, Part};

/// Points that each part keeps of `sizes`, so that all keep at most `share`: `min(size, cap)` with the largest cap that
/// fits, and what is left over goes, one each, to the first parts that are cut. Every part keeps a point if `share` is
/// at least as large as the number of parts.
pub fn kept(sizes: &[usize], share: usize) -> Vec<usize> {
    let mut ascending = sizes.to_vec();
    ascending.sort_unstable();
    let (mut left, mut over) = (share, sizes.len());
    for size in &ascending {
        if *size > left / over {
            break;
        }
        left -= size;
        over -= 1;
    }
    if over == 0 {
        return sizes.to_vec();
    }
    let (cap, mut more) = (left / over, left % over);
    let keep = |size: usize| {
        let one = usize::from(size > cap && more > 0);
        more -= one;
        size.min(cap + one)
    };
    sizes.iter().copied().map(keep).collect()
}

/// Cuts the parts of a block's rows until they have at most `share` points. A part that is cut keeps the points nearest
/// to its point `floor(u * size)`, where `u` in `[0, 1)` is that of its scene in `centres`: squared distances in f64, rounded
/// to f32, ties to the lower number, in point order, as a scene's crop. Instance ids stay as they were numbered.
///
/// # Panics
/// When a part is of a slot that `scenes` or `centres` lacks, or `share` is less than the parts of the block: faults of
/// the caller, who makes the budget of a job at least as large as its parts.
pub fn thin(rows: &mut [Vec<Part>], scenes: &[Points], share: usize, centres: &[f64]) {
    let sizes: Vec<usize> = rows.iter().flatten().map(Part::len).collect();
    assert!(share >= sizes.len(), "a share of {share} points for {} parts", sizes.len());
    for (part, keep) in rows.iter_mut().flatten().zip(kept(&sizes, share)) {
        if keep < part.len() {
            let coord = &scenes[part.slot as usize].coord;
            let centre = (centres[part.slot as usize] * part.len() as f64) as usize;
            part.chosen = Chosen::Some(nearest(part, coord, centre.min(part.len() - 1), keep));
        }
    }
}

/// The `keep` points of `part` nearest to its point `centre`. Its turn changes no distance, so it is left out.
fn nearest(part: &Part, coord: &[[f32; 3]], centre: usize, keep: usize) -> Vec<u32> {
    let centre = coord[part.number(centre) as usize].map(f64::from);
    // Bits of floats that are not negative sort like the floats; the number below them settles ties.
    let key = |number: u32| {
        let point = coord[number as usize];
        let [x, y, z]: [f64; 3] = std::array::from_fn(|axis| f64::from(point[axis]) - centre[axis]);
        let square = (x * x + y * y + z * z) as f32;
        u64::from(square.to_bits()) << 32 | u64::from(number)
    };
    let mut keys: Vec<u64> = part.numbers().map(key).collect();
    let last = *keys.select_nth_unstable(keep - 1).1;
    part.numbers().filter(|number| key(*number) <= last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_budget() {
        assert_eq!(kept(&[8, 6, 6], 20), [8, 6, 6]);
        assert_eq!(kept(&[8, 6, 6], 19), [7, 6, 6]);
        assert_eq!(kept(&[8, 6, 6], 17), [6, 6, 5], "the first of the largest get what is left over");
        assert_eq!(kept(&[1, 100, 1, 50], 20), [1, 9, 1, 9]);
        assert_eq!(kept(&[5, 5, 5], 3), [1, 1, 1]);
        assert_eq!(kept(&[], 0), [0; 0]);
        let scene = Points { coord: (0..9).map(|x| [x as f32, 0.0, 0.0]).collect(), ..Points::default() };
        let part = Part { slot: 0, scene: 0, chosen: Chosen::All(9), angle: 0.0, instance: 4 };
        let cut = |chosen: Chosen, share, u| {
            let mut rows = [vec![Part { chosen, ..part.clone() }]];
            thin(&mut rows, std::slice::from_ref(&scene), share, &[u]);
            assert_eq!(rows[0][0].instance, 4);
            rows[0][0].numbers().collect::<Vec<_>>()
        };
        assert_eq!(cut(Chosen::All(9), 3, 0.5), [3, 4, 5]);
        assert_eq!(cut(Chosen::All(9), 2, 0.5), [3, 4], "a tie goes to the lower number");
        assert_eq!(cut(Chosen::All(9), 4, 0.0), [0, 1, 2, 3]);
        assert_eq!(cut(Chosen::Some(vec![1, 2, 7, 8]), 2, 0.5), [7, 8], "the centre is a point of the part");
        assert_eq!(cut(Chosen::All(9), 9, 0.5).len(), 9);
    }

    proptest! {
        #[test]
        fn a_budget_is_used_up_and_never_exceeded(
            sizes in proptest::collection::vec(1usize..40, 1..12), extra in 0usize..300,
        ) {
            let share = sizes.len() + extra;
            let kept = kept(&sizes, share);
            let sum: usize = sizes.iter().sum();
            prop_assert_eq!(kept.iter().sum::<usize>(), share.min(sum));
            prop_assert!(kept.iter().zip(&sizes).all(|(k, n)| (1..=*n).contains(k)));
            // Who is cut has at most one point less than anyone keeps, and the ones with one more come first.
            let cut: Vec<usize> = kept.iter().zip(&sizes).filter(|(k, n)| k < n).map(|(k, _)| *k).collect();
            let cap = kept.iter().max().copied().unwrap_or(0);
            prop_assert!(cut.iter().all(|k| k + 1 >= cap));
            prop_assert!(cut.is_sorted_by(|a, b| a >= b));
        }
    }
}
