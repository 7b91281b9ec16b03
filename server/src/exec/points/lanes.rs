//! Loops over triples, four at a time: their twelve numbers fill registers of any width evenly.

/// `triple` for four points.
fn tile<T: Copy>(triple: [T; 3]) -> [T; 12] {
    std::array::from_fn(|i| triple[i % 3])
}

/// `v = f(v, a)` for every number, `a` being that of its axis.
#[inline(always)]
pub(super) fn map<A: Copy>(values: &mut [[f32; 3]], a: [A; 3], f: impl Fn(f32, A) -> f32) {
    let tiled = tile(a);
    let (fours, rest) = values.as_chunks_mut::<4>();
    for four in fours {
        for (v, a) in four.as_flattened_mut().iter_mut().zip(&tiled) {
            *v = f(*v, *a);
        }
    }
    for (v, a) in rest.as_flattened_mut().iter_mut().zip(&tiled) {
        *v = f(*v, *a);
    }
}

/// `v = f(v, a)` for every number with the number at its place.
#[inline(always)]
pub(super) fn zip(values: &mut [[f32; 3]], others: &[[f32; 3]], f: impl Fn(f32, f32) -> f32) {
    assert_eq!(values.len(), others.len(), "offsets of another number of points");
    for (v, a) in values.as_flattened_mut().iter_mut().zip(others.as_flattened()) {
        *v = f(*v, *a);
    }
}

/// `out = (values - by) as f32` in f64.
pub(super) fn less(values: &[[f64; 3]], by: [f64; 3], out: &mut [[f32; 3]]) {
    let by = tile(by);
    let line = |out: &mut [f32], values: &[f64]| {
        for ((o, v), by) in out.iter_mut().zip(values).zip(&by) {
            *o = (v - by) as f32;
        }
    };
    let (out_fours, out_rest) = out.as_chunks_mut::<4>();
    let (fours, rest) = values.as_chunks::<4>();
    for (o, v) in out_fours.iter_mut().zip(fours) {
        line(o.as_flattened_mut(), v.as_flattened());
    }
    line(out_rest.as_flattened_mut(), rest.as_flattened());
}

#[inline(always)]
fn add<T: Copy + Into<f64>>(sums: &mut [f64; 12], values: &[T]) {
    for (sum, v) in sums.iter_mut().zip(values) {
        *sum += (*v).into();
    }
}

/// Mean per axis as [`crate::plan::scene::SceneOp`] defines it. 0 without points.
pub(super) fn mean<T: Copy + Into<f64>>(coord: &[[T; 3]]) -> [f64; 3] {
    let (fours, rest) = coord.as_chunks::<4>();
    let mut sums = [0.0f64; 12];
    fours.iter().for_each(|four| add(&mut sums, four.as_flattened()));
    add(&mut sums, rest.as_flattened());
    let count = coord.len().max(1) as f64;
    std::array::from_fn(|a| ((sums[a] + sums[a + 3]) + (sums[a + 6] + sums[a + 9])) / count)
}

#[inline(always)]
fn widen(low: &mut [f32; 12], high: &mut [f32; 12], values: &[f32]) {
    for ((v, low), high) in values.iter().zip(low).zip(high) {
        *low = if *v < *low { *v } else { *low };
        *high = if *v > *high { *v } else { *high };
    }
}

/// Smallest and largest number per axis; (inf, -inf) without points.
pub(super) fn bounds(coord: &[[f32; 3]]) -> ([f32; 3], [f32; 3]) {
    let (fours, rest) = coord.as_chunks::<4>();
    let (mut low, mut high) = ([f32::INFINITY; 12], [f32::NEG_INFINITY; 12]);
    fours.iter().for_each(|four| widen(&mut low, &mut high, four.as_flattened()));
    widen(&mut low, &mut high, rest.as_flattened());
    let fold = |v: [f32; 12], f: fn(f32, f32) -> f32| {
        std::array::from_fn(|a| f(f(v[a], v[a + 3]), f(v[a + 6], v[a + 9])))
    };
    (fold(low, f32::min), fold(high, f32::max))
}
