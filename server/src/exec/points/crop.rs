//! Which points stay.

/// Memory of [`nearest`].
pub(super) type Keys = [Vec<u64>; 2];

/// Numbers of the `most` points of `coord` nearest to point `floor(centre * points)`, ascending; `None` when there are
/// no more than that. See [`crate::plan::scene::SceneOp::Crop`] for nearness. Takes O(points).
pub fn nearest<T: Copy + Into<f64>>(coord: &[[T; 3]], centre: f64, most: usize) -> Option<Vec<u32>> {
    nearest_in(coord, centre, most, &mut Keys::default())
}

/// [`nearest`] in memory kept between calls.
pub(super) fn nearest_in<T: Copy + Into<f64>>(
    coord: &[[T; 3]],
    centre: f64,
    most: usize,
    [keys, order]: &mut Keys,
) -> Option<Vec<u32>> {
    if coord.len() <= most {
        return None;
    }
    let middle = ((centre * coord.len() as f64) as usize).min(coord.len() - 1);
    let middle: [f64; 3] = coord[middle].map(Into::into);
    // Bits of floats that are not negative order as the floats do; the number below them breaks ties.
    let key = |(i, p): (usize, &[T; 3])| {
        let [x, y, z]: [f64; 3] = std::array::from_fn(|a| p[a].into() - middle[a]);
        let square = ((x * x + y * y) + z * z) as f32;
        u64::from(square.to_bits()) << 32 | i as u64
    };
    keys.clear();
    keys.extend(coord.iter().enumerate().map(key));
    order.clone_from(keys);
    let Some(last) = most.checked_sub(1) else {
        return Some(Vec::new());
    };
    let farthest = *order.select_nth_unstable(last).1;
    let nearest = keys.iter().filter(|k| **k <= farthest).map(|k| *k as u32).collect();
    [keys, order].into_iter().for_each(super::trim);
    Some(nearest)
}

/// Keeps the entries `keep`, ascending, in place.
pub(super) fn keep<T: Copy>(values: &mut Vec<T>, keep: &[u32]) {
    assert!(keep.is_sorted_by(|a, b| a < b), "points to keep are not ascending");
    // Entry `to` is never read again: ascending numbers have keep[to] >= to.
    for (to, from) in keep.iter().enumerate() {
        values[to] = values[*from as usize];
    }
    values.truncate(keep.len());
}

/// [`keep`] where there is something.
pub(super) fn keep_some<T: Copy>(values: &mut Option<Vec<T>>, which: &[u32]) {
    if let Some(values) = values {
        keep(values, which);
    }
}
