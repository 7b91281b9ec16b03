//! Linear sketches of the model's gradients: what TiKMiX needs of a group and of a task.
//!
//! ```text
//! G(h c) = n(h c) - n(h) P(c | h)          gradient of the log-probability of some rows by the logit of c after h
//! D(h c) = (P(c | h) + 1/256) (N(h) + a)   curvature, damped: a rare byte's own would drown everything else
//! S      = <D^-1/2 G of a task, D^-1/2 G of a group> > 0 where the group's rows help the task
//! ```
//! n counts the rows, N and P are the model's, cut to contexts h of one byte: whole counts are too many and too rare to be
//! sketched. Without damping and smoothing S is the influence formula of [`NGram::slope`]. Rows that the model has learnt
//! already say little, and less the more they are: forget them first.
//!
//! The 2^16 numbers fall with a sign each into fewer cells (count sketch, Charikar, Chen and Farach-Colton 2002): inner
//! products stay the same on average, with variance (|a|^2 |b|^2 + <a, b>^2) / cells. What a byte adds to a cell is a
//! multiple of 2^-40, so that sums are exact while they stay below 2^13: sketches of parts of the rows add up to the
//! sketch of all of them bit for bit, on however many ranks.

use super::NGram;

/// Cells of the sketches that [`NGramTrainer`](super::NGramTrainer) reports.
pub const SKETCH: usize = 4096;

/// Cells hold multiples of this.
const GRAIN: f64 = 1.0 / (1u64 << 40) as f64;
/// Added to every probability in the curvature.
const DAMPING: f64 = 1.0 / 256.0;
/// Values of a byte.
const BYTES: usize = 256;

impl NGram {
    /// Adds `scale` times the scaled gradient of `rows` to the cells of `sketch`, at least one. With `scale` = 1 / bytes
    /// the number of rows does not show. Smoothing must be above 0.
    pub fn sketch<R: AsRef<[u8]>>(&self, rows: &[R], scale: f64, sketch: &mut [f64]) {
        let mut pairs = vec![0u32; BYTES * BYTES];
        for pair in rows.iter().flat_map(|row| row.as_ref().windows(2)) {
            pairs[usize::from(pair[0]) * BYTES + usize::from(pair[1])] += 1;
        }
        for (h, counts) in (0..=u8::MAX).zip(pairs.chunks_exact(BYTES)) {
            let all = f64::from(counts.iter().sum::<u32>());
            if all == 0.0 {
                continue;
            }
            for (c, count) in (0..=u8::MAX).zip(counts) {
                let (p, total) = self.after(h, c);
                let unit = scale / ((p + DAMPING) * total).sqrt();
                let value = f64::from(*count) * whole(unit) - all * whole(p * unit);
                let hash = mixed(u64::from(h) << 8 | u64::from(c));
                let cell = ((hash >> 32) * sketch.len() as u64) >> 32;
                sketch[cell as usize] += if hash & 1 == 0 { value } else { -value };
            }
        }
    }

    /// Takes back what [`NGram::learn`] did with the same rows.
    pub fn forget<R: AsRef<[u8]>>(&mut self, rows: &[R]) {
        rows.iter().for_each(|row| self.count(row.as_ref(), |count| *count -= 1));
    }

    /// P(c | h) of the model cut to contexts of one byte, and N(h) with the smoothing.
    fn after(&self, h: u8, c: u8) -> (f64, f64) {
        let (mut p, mut total) = (1.0 / 256.0, 0.0);
        self.walk(&[h, c], |i, pairs, contexts| {
            for k in 0..self.longest.min(2 * i) {
                total = f64::from(contexts[k]) + self.smoothing;
                p = (f64::from(pairs[k]) + self.smoothing * p) / total;
            }
        });
        (p, total)
    }
}

/// The nearest multiple of the grain.
fn whole(value: f64) -> f64 {
    (value / GRAIN).round() * GRAIN
}

/// A bijection that spreads nearby numbers (the finaliser of splitmix64).
fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEARNT: [&[u8]; 2] =
        [b"the cat sat on the mat, the rat ate", b"the cat's hat, and that was that; 0102 0110"];
    const HELD: [&[u8]; 3] = [b"a rat sat at the hat", b"the bat", b"on the mat it sat"];
    const ROWS: [&[u8]; 4] = [b"the fat cat", b"a gnat sat", b"the hat", b"that rat"];
    const OTHER: [&[u8]; 2] = [b"0101 0011 0110", b"0010 1011"];
    /// Hardly two of 2^16 numbers share one of these.
    const WIDE: usize = 1 << 22;

    fn model() -> NGram {
        let mut model = NGram::new();
        model.learn(&LEARNT);
        model
    }

    fn sketch(rows: &[&[u8]], scale: f64, cells: usize) -> Vec<f64> {
        let mut sketch = vec![0.0; cells];
        model().sketch(rows, scale, &mut sketch);
        sketch
    }

    fn product(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    /// The formula, from the probabilities and counts of a model that has contexts of one byte only.
    fn influence(held: &[&[u8]], rows: &[&[u8]]) -> f64 {
        let mut model = NGram::with(2, 3.0);
        model.learn(&LEARNT);
        let count = |rows: &[&[u8]], what: &dyn Fn(&[u8]) -> bool| {
            rows.iter().flat_map(|row| row.windows(2)).filter(|pair| what(pair)).count() as f64
        };
        let mut sum = 0.0;
        for h in 0..=255u8 {
            let total = count(&LEARNT, &|pair| pair[0] == h) + 3.0;
            for c in 0..=255u8 {
                let p = (model.nll(&[h]) - model.nll(&[h, c])).exp();
                let gradient =
                    |rows| count(rows, &|pair| pair == [h, c]) - count(rows, &|pair| pair[0] == h) * p;
                sum += gradient(held) * gradient(rows) / ((p + 1.0 / 256.0) * total);
            }
        }
        sum
    }

    #[test]
    fn products_are_the_influence_formula_and_their_sign_says_who_helps() {
        let held = sketch(&HELD, 1.0, WIDE);
        for (rows, helps) in [(&ROWS[..], true), (&OTHER[..], false)] {
            let (want, got) = (influence(&HELD, rows), product(&held, &sketch(rows, 1.0, WIDE)));
            assert!((want - got).abs() < 1e-2 * want.abs(), "{got}, want {want}");
            assert_eq!(got > 0.0, helps, "{got}");
        }
    }

    #[test]
    fn products_of_narrow_sketches_are_off_by_no_more_than_their_variance_says() {
        let wide = |rows: &[&[u8]]| sketch(rows, 1.0, WIDE);
        let (a, b) = (wide(&HELD), wide(&ROWS));
        let exact = product(&a, &b);
        for cells in [256, 1024, SKETCH] {
            let error = (product(&sketch(&HELD, 1.0, cells), &sketch(&ROWS, 1.0, cells)) - exact).abs();
            let sd = ((product(&a, &a) * product(&b, &b) + exact * exact) / cells as f64).sqrt();
            assert!(error < 3.0 * sd, "{cells} cells: {error} off {exact}, standard deviation {sd}");
        }
    }

    #[test]
    fn parts_add_up_to_the_whole_bit_for_bit() {
        let of = |rows: &[&[u8]]| sketch(rows, 1.0 / 37.0, SKETCH);
        let (odd, even) = (of(&[ROWS[3], ROWS[1]]), of(&[ROWS[0], ROWS[2]]));
        let sum: Vec<f64> = odd.iter().zip(&even).map(|(a, b)| a + b).collect();
        assert!(sum.iter().any(|v| *v != 0.0));
        assert_eq!(sum, of(&ROWS));
    }

    #[test]
    fn forgetting_is_never_having_learnt() {
        let mut model = model();
        model.learn(&ROWS);
        assert_ne!(model.loss(&HELD).to_bits(), self::model().loss(&HELD).to_bits());
        model.forget(&ROWS);
        assert_eq!(model.loss(&HELD).to_bits(), self::model().loss(&HELD).to_bits());
    }
}
