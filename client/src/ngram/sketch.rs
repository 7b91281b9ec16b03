//! Linear sketches of the model's gradients: what TiKMiX needs of a group and of a task.
//!
//! ```text
//! influence of rows on held-out text = <gradient of its log-probability by counts, counts of the rows>
//! ```
//! That is [`NGram::slope`], which is linear in the counts of the rows; their order of magnitude is that of a context's
//! count T, so both sides are scaled by the square root of T + smoothing (the preconditioner D^-1/2 of both gradients).
//! Each coordinate, a string with "seen" or "followed", falls with a sign into one cell (count sketch, Charikar, Chen and
//! Farach-Colton 2002): inner products of sketches are those of the vectors on average, with variance
//! (|a|^2 |b|^2 + <a, b>^2) / cells.
//!
//! What is added to a cell is a multiple of 2^-40. Sums are therefore exact while they stay below 2^13: sketches of parts
//! of the rows add up to the sketch of all, bit for bit, in whatever order and on however many ranks.

use super::{LONGEST, NGram};

/// Cells of the sketches that [`NGramTrainer`](super::NGramTrainer) reports.
pub const SKETCH: usize = 4096;

/// Cells hold multiples of this.
const GRAIN: f64 = 1.0 / (1u64 << 40) as f64;

/// Which count of a string a coordinate is.
#[derive(Clone, Copy)]
enum Count {
    Seen,
    Followed,
}

impl NGram {
    /// Adds `scale` times the counts of `rows`, scaled, to the cells of `sketch` (at least one): a group's gradient.
    /// With `scale` = 1 / bytes it is a mean, in which the number of rows does not show.
    pub fn sketch_counts<R: AsRef<[u8]>>(&self, rows: &[R], scale: f64, sketch: &mut [f64]) {
        for row in rows.iter().map(AsRef::as_ref) {
            self.walk(row, |i, _, contexts| {
                for k in 0..self.longest.min(i + 1) {
                    let part = scale / (f64::from(contexts[k]) + self.smoothing).sqrt();
                    add(sketch, Count::Seen, &row[i - k..=i], part);
                    add(sketch, Count::Followed, &row[i - k..i], part);
                }
            });
        }
    }

    /// Adds `scale` times the gradient by counts of the log-probability of `rows`, scaled, to the cells of `sketch` (at
    /// least one): a task's held-out gradient, its sign such that a positive product helps. Smoothing must be above 0.
    pub fn sketch_gains<R: AsRef<[u8]>>(&self, rows: &[R], scale: f64, sketch: &mut [f64]) {
        for row in rows.iter().map(AsRef::as_ref) {
            self.walk(row, |i, pairs, contexts| {
                let orders = self.longest.min(i + 1);
                let total = |k: usize| f64::from(contexts[k]) + self.smoothing;
                let (mut last, mut p) = (1.0 / 256.0, [0.0; LONGEST]);
                for k in 0..orders {
                    last = (f64::from(pairs[k]) + self.smoothing * last) / total(k);
                    p[k] = last;
                }
                // The longest context is first in line, shorter ones are heard through the smoothing.
                let mut share = scale / last;
                for k in (0..orders).rev() {
                    let part = share / total(k).sqrt();
                    add(sketch, Count::Seen, &row[i - k..=i], part);
                    add(sketch, Count::Followed, &row[i - k..i], -p[k] * part);
                    share *= self.smoothing / total(k);
                }
            });
        }
    }
}

/// Adds to the cell of a coordinate.
fn add(sketch: &mut [f64], count: Count, string: &[u8], value: f64) {
    let bytes = string.iter().fold(0, |key, byte| key << 8 | u64::from(*byte));
    let hash = mixed(bytes | (string.len() as u64) << 56 | (count as u64) << 63);
    let cell = ((hash >> 32) * sketch.len() as u64) >> 32;
    let sign = if hash & 1 == 0 { 1.0 } else { -1.0 };
    sketch[cell as usize] += sign * (value / GRAIN).round() * GRAIN;
}

/// A bijection that spreads nearby numbers (the finaliser of splitmix64).
fn mixed(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEARNT: &[u8] = b"the cat sat on the mat, the rat ate the cat's hat, and that was that";
    const HELD: [&[u8]; 3] = [b"a rat sat at the hat", b"the bat", b"on the mat it sat"];
    const ROWS: [&[u8]; 4] = [b"the fat cat", b"a gnat sat", b"xyzzy", b"that rat"];

    fn model() -> NGram {
        let mut model = NGram::new();
        model.learn(&LEARNT.chunks(32).collect::<Vec<_>>());
        model
    }

    fn counts(rows: &[&[u8]], cells: usize) -> Vec<f64> {
        let mut sketch = vec![0.0; cells];
        model().sketch_counts(rows, 1.0, &mut sketch);
        sketch
    }

    fn gains(rows: &[&[u8]], cells: usize) -> Vec<f64> {
        let (mut sketch, bytes) = (vec![0.0; cells], rows.iter().map(|r| r.len()).sum::<usize>());
        model().sketch_gains(rows, 1.0 / bytes as f64, &mut sketch);
        sketch
    }

    fn product(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn products_are_the_slope_when_no_two_strings_share_a_cell() {
        let wide = 1 << 22;
        for rows in [&ROWS[..], &ROWS[..1], &ROWS[2..3]] {
            let (want, got) = (model().slope(rows, &HELD), product(&gains(&HELD, wide), &counts(rows, wide)));
            assert!((want - got).abs() < 1e-6 * want.abs(), "{got}, want {want}");
        }
        // A row that has nothing in common with the held-out text does harm.
        assert!(product(&gains(&HELD, wide), &counts(&ROWS[2..3], wide)) < 0.0);
    }

    #[test]
    fn products_of_narrow_sketches_are_off_by_no_more_than_their_variance_says() {
        let wide = 1 << 22;
        let (a, b) = (gains(&HELD, wide), counts(&ROWS, wide));
        let exact = product(&a, &b);
        for cells in [256, 1024, SKETCH] {
            let error = (product(&gains(&HELD, cells), &counts(&ROWS, cells)) - exact).abs();
            let sd = ((product(&a, &a) * product(&b, &b) + exact * exact) / cells as f64).sqrt();
            assert!(error < 3.0 * sd, "{cells} cells: {error} off {exact}, standard deviation {sd}");
        }
    }

    #[test]
    fn parts_add_up_to_the_whole_bit_for_bit() {
        for of in [counts, gains_of_sum] {
            let whole = of(&ROWS, SKETCH);
            let (odd, even) = (of(&[ROWS[3], ROWS[1]], SKETCH), of(&[ROWS[0], ROWS[2]], SKETCH));
            let sum: Vec<f64> = odd.iter().zip(&even).map(|(a, b)| a + b).collect();
            assert!(whole.iter().any(|v| *v != 0.0));
            assert_eq!(sum, whole);
        }
    }

    fn gains_of_sum(rows: &[&[u8]], cells: usize) -> Vec<f64> {
        let mut sketch = vec![0.0; cells];
        model().sketch_gains(rows, 1.0 / 96.0, &mut sketch);
        sketch
    }
}
