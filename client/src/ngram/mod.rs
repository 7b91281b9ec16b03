//! A model small enough to read, for examples, demos and tests: an interpolated byte n-gram.
//!
//! ```text
//! P_k(c | h_k) = (N(h_k c) + a P_{k-1}(c | h_{k-1})) / (N(h_k .) + a),   P_{-1} = 1 / 256
//! ```
//! h_k is the k bytes before c, a the smoothing; N counts strings. Learning is counting, so the order of rows does not
//! matter, every run on a machine gives the same bits, and a million bytes take about a tenth of a second. Counts
//! are exact: tables that strings share by their hash alone are no probabilities (they sum to more than 1, and to more
//! the fuller they are, so that whatever fills them seems to teach everything).
//!
//! Rows are runs of bytes; contexts do not reach before a row's start.

mod sketch;
mod trainer;

pub use sketch::SKETCH;
pub use trainer::{NGramTrainer, rows};

/// Longest strings that are counted: contexts of 0 to 4 bytes.
const LONGEST: usize = 5;
/// Weight of the shorter context, in counts.
const SMOOTHING: f64 = 3.0;
/// Bytes whose probabilities are multiplied before one logarithm is taken. A probability falls at most by the factor
/// smoothing / counts per order, so 8 of them stay in the range of f64.
const RUN: usize = 8;

/// A string and how often it was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// Its bytes, the last one lowest, and its length above them; 0 is no string.
    key: u64,
    /// Times it was seen.
    seen: u32,
    /// Times it was seen before another byte of its row.
    followed: u32,
}

/// The model.
#[derive(Clone, Debug)]
pub struct NGram {
    /// An open-addressed table of a power of two cells, at most half of them in use.
    cells: Vec<Cell>,
    used: usize,
    /// Bytes learnt.
    bytes: u32,
    longest: usize,
    smoothing: f64,
}

impl Default for NGram {
    fn default() -> Self {
        NGram::new()
    }
}

impl NGram {
    /// A model that has seen nothing: contexts of 0 to 4 bytes, smoothing 3.
    pub fn new() -> Self {
        NGram::with(LONGEST, SMOOTHING)
    }

    /// A model that counts strings of 1 to `longest` (1..=5) bytes, with `smoothing` >= 0.
    pub fn with(longest: usize, smoothing: f64) -> Self {
        let longest = longest.clamp(1, LONGEST);
        NGram { cells: vec![Cell::default(); 1 << 10], used: 0, bytes: 0, longest, smoothing }
    }

    /// Negative logarithm of the probability of `row`, nats: the sum over its bytes in order.
    pub fn nll(&self, row: &[u8]) -> f64 {
        let (mut sum, mut product) = (0.0, 1.0);
        self.walk(row, |i, pairs, contexts| {
            let mut p = 1.0 / 256.0;
            for k in 0..self.longest.min(i + 1) {
                p = (f64::from(pairs[k]) + self.smoothing * p) / (f64::from(contexts[k]) + self.smoothing);
            }
            product *= p;
            if i % RUN == RUN - 1 {
                sum -= product.ln();
                product = 1.0;
            }
        });
        sum - product.ln()
    }

    /// [`NGram::nll`] per byte over `rows`; NaN when there is no byte.
    pub fn loss<R: AsRef<[u8]>>(&self, rows: &[R]) -> f64 {
        let bytes: usize = rows.iter().map(|r| r.as_ref().len()).sum();
        rows.iter().fold(0.0, |sum, row| sum + self.nll(row.as_ref())) / bytes as f64
    }

    /// Counts `rows`, at most 2^32 bytes in all.
    pub fn learn<R: AsRef<[u8]>>(&mut self, rows: &[R]) {
        rows.iter().for_each(|row| self.count(row.as_ref(), |count| *count += 1));
    }

    /// How much [`NGram::loss`] of each of `held_out` falls when `rows` are learnt: the exact influence of a batch,
    /// positive when it helps. The model is afterwards what it was.
    pub fn influence<R: AsRef<[u8]>>(&mut self, rows: &[R], held_out: &[&[R]]) -> Vec<f64> {
        let before: Vec<f64> = held_out.iter().map(|set| self.loss(set)).collect();
        self.learn(rows);
        let gains = before.iter().zip(held_out).map(|(before, set)| before - self.loss(set)).collect();
        self.forget(rows);
        gains
    }

    /// Derivative of minus [`NGram::loss`] of `held_out` by the number of copies of `rows`, at none. Counts minimise
    /// the empirical risk, so this is the influence formula g H^-1 G, positive when the rows help (Koh and Liang
    /// 2017; TiKMiX 2025). It overstates a real batch by far, since a first copy teaches more than a second one: decide
    /// by [`NGram::influence`].
    pub fn slope<R: AsRef<[u8]>>(&self, rows: &[R], held_out: &[R]) -> f64 {
        let mut batch = NGram::with(self.longest, self.smoothing);
        batch.learn(rows);
        let (mut sum, mut bytes) = (0.0, 0usize);
        for row in held_out {
            let mut new = Vec::new();
            batch.walk(row.as_ref(), |_, pairs, contexts| new.push((*pairs, *contexts)));
            self.walk(row.as_ref(), |i, pairs, contexts| {
                let (mut p, mut dp) = (1.0 / 256.0, 0.0);
                for k in 0..self.longest.min(i + 1) {
                    let total = f64::from(contexts[k]) + self.smoothing;
                    p = (f64::from(pairs[k]) + self.smoothing * p) / total;
                    let gained = f64::from(new[i].0[k]) - p * f64::from(new[i].1[k]);
                    dp = (gained + self.smoothing * dp) / total;
                }
                sum += dp / p;
                bytes += 1;
            });
        }
        sum / bytes as f64
    }

    /// Calls `each` for every byte c of `row` with its position and, by k, with N(h_k c) and N(h_k .).
    fn walk(&self, row: &[u8], mut each: impl FnMut(usize, &[u32; LONGEST], &[u32; LONGEST])) {
        let (mut past, mut contexts) = (0, [0; LONGEST]);
        contexts[0] = self.bytes;
        for (i, byte) in row.iter().enumerate() {
            past = past << 8 | u64::from(*byte);
            let (mut pairs, mut next) = ([0; LONGEST], contexts);
            next[1..].fill(0);
            for k in 0..self.longest.min(i + 1) {
                let cell = &self.cells[self.at(key(past, k + 1))];
                // Whoever was never seen was never seen as the end of something longer.
                if cell.key == 0 {
                    break;
                }
                pairs[k] = cell.seen;
                if k + 1 < LONGEST {
                    next[k + 1] = cell.followed;
                }
            }
            each(i, &pairs, &contexts);
            contexts = next;
        }
    }

    /// Applies `change` to the counts of every string that ends in `row`, and of those before them.
    fn count(&mut self, row: &[u8], change: impl Fn(&mut u32)) {
        self.reserve(row.len() * self.longest);
        let mut past = 0;
        for (i, byte) in row.iter().enumerate() {
            past = past << 8 | u64::from(*byte);
            change(&mut self.bytes);
            for length in 1..=self.longest.min(i + 1) {
                let key = key(past, length);
                let at = self.at(key);
                let cell = &mut self.cells[at];
                self.used += usize::from(cell.key == 0);
                cell.key = key;
                change(&mut cell.seen);
                if i + 1 < row.len() {
                    change(&mut cell.followed);
                }
            }
        }
    }

    /// Cell of a string, or the free one where it belongs.
    fn at(&self, key: u64) -> usize {
        let mask = self.cells.len() - 1;
        let mut at = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        while self.cells[at].key != key && self.cells[at].key != 0 {
            at = (at + 1) & mask;
        }
        at
    }

    /// Makes room for `more` strings.
    fn reserve(&mut self, more: usize) {
        let wanted = (2 * (self.used + more)).next_power_of_two();
        if wanted > self.cells.len() {
            let old = std::mem::replace(&mut self.cells, vec![Cell::default(); wanted]);
            for cell in old.into_iter().filter(|cell| cell.key != 0) {
                let at = self.at(cell.key);
                self.cells[at] = cell;
            }
        }
    }
}

/// The last `length` (1..=5) bytes of `past` as a key.
fn key(past: u64, length: usize) -> u64 {
    (past & (u64::MAX >> (64 - 8 * length))) | (length as u64) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"the cat sat on the mat, the rat ate the cat's hat, and that was that; \
        a bat spat at the fat cat and a gnat sat on a hat that the rat had sat at";

    fn rows() -> Vec<&'static [u8]> {
        TEXT.chunks(32).collect()
    }

    #[test]
    fn probabilities_sum_to_one_after_any_context() {
        let mut model = NGram::new();
        for _ in 0..3 {
            model.learn(&rows());
        }
        for context in ["", "t", "the ", "never ", "at th"] {
            let of = |byte: u8| {
                let row = [context.as_bytes(), &[byte]].concat();
                (model.nll(context.as_bytes()) - model.nll(&row)).exp()
            };
            let sum: f64 = (0..=255).map(of).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{context:?}: {sum}");
        }
    }

    #[test]
    fn a_fresh_model_guesses_evenly_and_one_that_has_read_does_not() {
        let mut model = NGram::new();
        assert!((model.loss(&rows()) - 256f64.ln()).abs() < 1e-12);
        model.learn(&rows());
        assert!(model.loss(&rows()) < 2.0, "{}", model.loss(&rows()));
        assert!(model.loss(&[[7u8, 8, 9].as_slice()]) > 5.0);
    }

    #[test]
    fn counts_are_those_of_the_formula() {
        let mut model = NGram::with(2, 3.0);
        model.learn(&["ab".as_bytes(), b"ab", b"ac"]);
        // N(a) = 3 of 6; N(a b) = 2 of 3 times a was followed.
        let a = (3.0 + 3.0 / 256.0) / 9.0;
        let b = (2.0 + 3.0 * ((2.0 + 3.0 / 256.0) / 9.0)) / 6.0;
        let (want, got) = (-f64::ln(a * b), model.nll(b"ab"));
        assert!((want - got).abs() < 1e-12, "{got}, want {want}");
    }

    #[test]
    fn nothing_depends_on_the_order_of_rows_and_influence_leaves_no_trace() {
        let (mut one, mut other) = (NGram::new(), NGram::new());
        one.learn(&rows());
        other.learn(&rows().into_iter().rev().collect::<Vec<_>>());
        let gain = other.influence(&[b"a new rat".as_slice()], &[&rows()]);
        assert_ne!(gain[0], 0.0);
        assert_eq!(one.loss(&rows()).to_bits(), other.loss(&rows()).to_bits());
    }

    #[test]
    fn long_rows_of_surprises_stay_finite() {
        let mut model = NGram::new();
        model.learn(&vec![[b'x'; 4096]; 500]);
        let nll = model.nll(&[b"xxxxxxx".as_slice(), &[1; 64]].concat());
        assert!(nll.is_finite() && nll > 64.0, "{nll}");
    }

    #[test]
    fn without_context_and_smoothing_slope_is_the_influence_formula() {
        // sum_c (v_c - p_c)(n_c - n p_c) / (p_c N): held-out shares v, model's p of N counts, batch n_c of n.
        let (learnt, batch, held): (&[u8], &[u8], &[u8]) = (b"aaaabbbccd", b"aabbbbdd", b"abbbcddddd");
        let mut model = NGram::with(1, 0.0);
        model.learn(&[learnt]);
        let count = |text: &[u8], c: u8| text.iter().filter(|b| **b == c).count() as f64;
        let (total, n) = (learnt.len() as f64, batch.len() as f64);
        let term = |c: u8| {
            let (p, v) = (count(learnt, c) / total, count(held, c) / held.len() as f64);
            (v - p) * (count(batch, c) - n * p) / (p * total)
        };
        let want: f64 = (b'a'..=b'd').map(term).sum();
        let got = model.slope(&[batch], &[held]);
        assert!((want - got).abs() < 1e-12, "{got}, want {want}");
        assert!(got > 0.0 && model.slope(&[b"ccc".as_slice()], &[b"dd".as_slice()]) < 0.0);
    }

    #[test]
    fn influence_tends_to_slope_as_the_batch_becomes_small_against_the_counts() {
        // One batch against C copies of the counts with C times the smoothing is 1 / C copies against one.
        let (batch, held) = ([b"the hat sat".as_slice()], [b"a rat sat at the hat".as_slice(), b"the bat"]);
        let error = |copies: usize| {
            let mut model = NGram::with(5, 3.0 * copies as f64);
            (0..copies).for_each(|_| model.learn(&rows()));
            let exact = model.influence(&batch, &[&held])[0] * copies as f64;
            let mut one = NGram::new();
            one.learn(&rows());
            (exact - one.slope(&batch, &held)).abs() / exact.abs()
        };
        let (coarse, fine) = (error(128), error(4096));
        assert!(fine < 0.01, "{fine}");
        assert!((25.0..40.0).contains(&(coarse / fine)), "{coarse} {fine}: want an error of first order");
    }
}
