//! From values to places, and ticks at round numbers.

/// A range of values on a stretch of the page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    /// Where `low` and `high` are, in pixels.
    from: f64,
    to: f64,
    /// Distance of ticks when the ends are rounded to it.
    step: Option<f64>,
}

impl Axis {
    /// `low` at `from`, `high` at `to`. Equal or unusable ends become a range of 1.
    pub fn new(low: f64, high: f64, from: f64, to: f64) -> Axis {
        let good = low.is_finite() && high.is_finite() && high > low && (high - low).is_finite();
        let (low, high) = if good { (low, high) } else { around(low) };
        Axis { low, high, from, to, step: None }
    }

    /// An axis over `low..=high` whose ends are ticks themselves.
    pub fn rounded(low: f64, high: f64, from: f64, to: f64, most: usize) -> Axis {
        let raw = Axis::new(low, high, from, to);
        let step = step(raw.high - raw.low, most);
        let (low, high) = ((raw.low / step).floor() * step, (raw.high / step).ceil() * step);
        Axis { step: Some(step), ..Axis::new(low, high, from, to) }
    }

    /// Place of a value.
    pub fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Value at a place.
    pub fn value(&self, place: f64) -> f64 {
        self.low + (place - self.from) / (self.to - self.from) * (self.high - self.low)
    }

    /// At most `most` (>= 2; 2 more on a rounded axis) round values with their texts, ascending, all with the same number
    /// of decimals. With `whole` only whole numbers.
    pub fn ticks(&self, most: usize, whole: bool) -> Vec<(f64, String)> {
        let mut step = self.step.unwrap_or_else(|| step(self.high - self.low, most));
        if whole {
            step = step.max(1.0);
        }
        let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
        // The ends count although they are not hit exactly.
        let slack = 1e-9 * (self.high - self.low) / step;
        let first = (self.low / step - slack).ceil();
        let last = (self.high / step + slack).floor();
        let count = (last - first).clamp(-1.0, 1000.0) as i64;
        (0..=count)
            .map(|i| {
                // + 0.0: a negative zero would be written with its sign.
                let value = (first + i as f64) * step + 0.0;
                (value, format!("{value:.decimals$}"))
            })
            .collect()
    }
}

fn around(value: f64) -> (f64, f64) {
    let middle = if value.is_finite() && value.abs() < 1e15 { value } else { 0.0 };
    (middle - 0.5, middle + 0.5)
}

/// The smallest of 1, 2, 5 times a power of ten that cuts `span` into fewer than `most` parts.
fn step(span: f64, most: usize) -> f64 {
    let least = span / (most.max(2) - 1) as f64;
    let power = 10f64.powf(least.log10().floor());
    let good =
        [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).find(|step| *step >= least * (1.0 - 1e-9));
    good.unwrap_or(10.0 * power)
}
