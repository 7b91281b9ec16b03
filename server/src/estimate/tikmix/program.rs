//! The convex program of TiKMiX-D, by Newton's method along a barrier.
//!
//! ```text
//! minimise  alpha |B w| - c.w + gamma sum w ln w    over shares w with G w >= b
//! ```
//! |B w| is the weighted standard deviation (ddof 0) of the normalised benefits P_i, c.w is beta times their sum, and
//! G w >= b are the Pareto constraints. |B w| has a kink at 0, often the optimum: it is smoothed by a length that goes to
//! 0 with the barrier. For any |y| <= 1 and lambda >= 0 a dual value bounds the optimum from below, so that
//! [`Solved::gap`] is proof.

use super::super::cholesky::Cholesky;
use super::super::eg::{logs, softmax};
use super::super::simplex::blended;
use super::super::solve::Lu;

/// How far a task's benefit may fall.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) enum Pareto {
    /// Not below that of the prior.
    Hard,
    /// Not below it by more than this part of it.
    Slack(f64),
    /// Anything goes.
    Off,
}

/// Influence and weights.
#[derive(Clone, Debug)]
pub(in super::super) struct Program<'a> {
    /// (tasks, groups), row-major: benefit of group j for task i.
    pub influence: &'a [f64],
    /// Weight of each task, summing to 1.
    pub tasks: &'a [f64],
    /// Shares to compare with.
    pub prior: &'a [f64],
    /// Weight of the standard deviation.
    pub alpha: f64,
    /// Weight of the sum.
    pub beta: f64,
    /// Weight of the entropy, > 0.
    pub gamma: f64,
    /// Constraint.
    pub pareto: Pareto,
}

/// The optimum.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Solved {
    /// Shares.
    pub shares: Vec<f64>,
    /// Objective here less a lower bound of the optimum.
    pub gap: f64,
    /// Tasks that no group helps: not in the objective.
    pub dropped: Vec<bool>,
    /// Newton steps.
    pub steps: usize,
}

/// Smallest barrier parameter, which is also the length of smoothing.
const LEAST: f64 = 1e-11;
/// Gap at which the barrier is lowered, in units of what it costs.
const CENTRED: f64 = 10.0;
/// How far a constraint may be broken, in the same units.
const BROKEN: f64 = 1e-7;
/// Gap that is small enough to stand, where rounding allows no smaller one.
const PROVEN: f64 = 1e-7;
/// Uniform part of the shares to begin with.
const BLEND: f64 = 0.001;
/// Newton steps at most.
const STEPS: usize = 400;
/// Halvings of a step at most.
const HALVINGS: usize = 40;
/// Prices of a broken constraint that are tried.
const PRICES: [f64; 3] = [1e3, 1e5, 1e7];
/// Slack that a constraint gets in any case, in units of its row's largest entry.
const ROOM: f64 = 1e-9;
impl Program<'_> {
    /// Solves it. `None` when numbers are not finite or the method did not get there.
    pub fn solve(&self) -> Option<Solved> {
        let groups = self.prior.len();
        if groups == 0 || self.influence.iter().any(|s| !s.is_finite()) {
            return None;
        }
        let form = Form::new(self)?;
        PRICES.iter().find_map(|price| form.solve(*price))
    }

    /// Whether a hard constraint leaves only the prior: all multipliers of Sᵀ l = 1 have one sign. `None` when there are
    /// not as many tasks as groups, or S is singular: it cannot be told this way.
    pub fn singleton(&self) -> Option<bool> {
        let m = self.prior.len();
        if self.pareto != Pareto::Hard {
            return Some(m == 1);
        }
        if m * m != self.influence.len() {
            return None;
        }
        let transposed: Vec<f64> = (0..m * m).map(|k| self.influence[(k % m) * m + k / m]).collect();
        let multipliers = Lu::new(&transposed, m)?.solve(&vec![1.0; m]);
        Some(multipliers.iter().all(|l| *l > 0.0) || multipliers.iter().all(|l| *l < 0.0))
    }
}

/// The program in matrices.
struct Form {
    groups: usize,
    alpha: f64,
    gamma: f64,
    /// B, (tasks, groups).
    spread: Vec<f64>,
    /// Bᵀ B, lower triangle.
    square: Vec<f64>,
    /// c.
    gain: Vec<f64>,
    /// G, a row per constraint.
    rows: Vec<f64>,
    /// b.
    least: Vec<f64>,
    dropped: Vec<bool>,
    /// Logarithms of the shares to begin with: nearly those of the prior, which breaks no constraint.
    begin: Vec<f64>,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// A x for a row-major matrix.
fn times(a: &[f64], x: &[f64]) -> Vec<f64> {
    a.chunks_exact(x.len()).map(|row| dot(row, x)).collect()
}

/// Aᵀ y for a row-major matrix with `width` columns.
fn back(a: &[f64], width: usize, y: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; width];
    for (row, y) in a.chunks_exact(width).zip(y) {
        sum.iter_mut().zip(row).for_each(|(s, x)| *s += x * y);
    }
    sum
}

/// Adds the lower triangle of sum_i weight_i row_i row_iᵀ.
fn add_squares(to: &mut [f64], rows: &[f64], width: usize, weights: impl Iterator<Item = f64>) {
    for (row, weight) in rows.chunks_exact(width).zip(weights) {
        for (j, x) in row.iter().enumerate() {
            let scaled = weight * x;
            to[j * width..=j * width + j].iter_mut().zip(row).for_each(|(t, r)| *t += scaled * r);
        }
    }
}

impl Form {
    fn new(program: &Program<'_>) -> Option<Self> {
        let groups = program.prior.len();
        let rows: Vec<&[f64]> = program.influence.chunks_exact(groups).collect();
        // Scaled by the largest entry first: nothing below depends on the unit, and nothing overflows.
        let unit = program.influence.iter().fold(0.0, |m: f64, s| m.max(s.abs()));
        let mean =
            program.influence.iter().map(|s| (s / unit).abs()).sum::<f64>() / program.influence.len() as f64;
        let top = |row: &[f64]| row.iter().fold(f64::NEG_INFINITY, |m: f64, s| m.max(s / unit));
        let dropped: Vec<bool> = rows.iter().map(|row| top(row).is_nan() || top(row) <= 0.0).collect();
        let live: f64 = program.tasks.iter().zip(&dropped).filter(|(_, d)| !**d).map(|(q, _)| q).sum();
        let kept = dropped.iter().filter(|d| !**d).count() as f64;
        let (mut spread, mut weights) = (Vec::new(), Vec::new());
        for (i, row) in rows.iter().enumerate().filter(|(i, _)| !dropped[*i] && live > 0.0) {
            let scale = unit * top(row).max(0.01 * mean);
            spread.extend(row.iter().map(|s| s / scale));
            weights.push(program.tasks[i] / live);
        }
        let centre = back(&spread, groups, &weights);
        for (row, weight) in spread.chunks_exact_mut(groups).zip(&weights) {
            let root = libm::sqrt(*weight);
            row.iter_mut().zip(&centre).for_each(|(x, c)| *x = root * (*x - c));
        }
        let mut square = vec![0.0; groups * groups];
        add_squares(&mut square, &spread, groups, std::iter::repeat(1.0));
        let gain = centre.iter().map(|c| program.beta * kept * c).collect();
        let (rows, least) = constraints(program, &rows);
        let begin = logs(&blended(program.prior, BLEND));
        let (alpha, gamma) = (program.alpha, program.gamma);
        let form = Form { groups, alpha, gamma, spread, square, gain, rows, least, dropped, begin };
        let finite = form.square.iter().chain(&form.gain).chain(&form.least).all(|x: &f64| x.is_finite());
        finite.then_some(form)
    }

    /// Follows the optimum for a barrier that goes to 0. The best proven shares where rounding ends it early.
    fn solve(&self, price: f64) -> Option<Solved> {
        let mut t = 0.1;
        let mut point = Point::new(self, self.begin.clone(), price, t);
        let mut best: Option<Solved> = None;
        for steps in 1..=STEPS {
            let Some(step) = point.newton(self) else { break };
            let Some((next, length)) = self.lower(&point, &step, price, t) else { break };
            let dual = point.follow(self, &step, length);
            point = next;
            let gap = self.gap(&point, &dual);
            let kept = point.holds.iter().all(|h| h.slack - h.give >= -BROKEN);
            if kept && gap <= best.as_ref().map_or(PROVEN, |b| b.gap) {
                let (shares, dropped) = (point.shares.clone(), self.dropped.clone());
                best = Some(Solved { shares, gap, dropped, steps });
            }
            // On the path it is 2 t per constraint and at most alpha t for the smoothed kink.
            if gap > CENTRED * t * (1.0 + self.alpha + 2.0 * self.least.len() as f64) {
                continue;
            }
            if t <= LEAST {
                break;
            }
            t = (t * 0.1).max(LEAST);
            point = Point::new(self, point.logs, price, t);
        }
        best
    }

    /// The first of the steps 1, 1/2, ... that lowers the cost, and its length.
    fn lower(&self, from: &Point, step: &[f64], price: f64, t: f64) -> Option<(Point, f64)> {
        // Rounding of the cost must not stop the last steps.
        let most = from.cost + 1e-13 * (1.0 + from.cost.abs());
        let lengths = std::iter::successors(Some(1.0), |l| Some(l * 0.5)).take(HALVINGS);
        let mut tried = lengths.map(|length| (Point::new(self, from.moved(step, length), price, t), length));
        tried.find(|(point, _)| point.cost <= most)
    }

    /// G w - b.
    fn rooms(&self, w: &[f64]) -> Vec<f64> {
        times(&self.rows, w).iter().zip(&self.least).map(|(g, b)| g - b).collect()
    }

    /// Objective at the point, broken constraints at their price, less the dual value of `dual`.
    fn gap(&self, point: &Point, dual: &Dual) -> f64 {
        let w = &point.shares;
        let bent = times(&self.spread, w);
        let entropy = dot(w, &point.logs);
        let here = self.alpha * libm::sqrt(dot(&bent, &bent)) - dot(&self.gain, w) + self.gamma * entropy;
        let pull = self.pull(dual);
        let top = pull.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = pull.iter().map(|p| libm::exp((p - top) / self.gamma)).sum();
        let broken: f64 =
            point.holds.iter().map(|h| (h.give - h.slack).max(0.0) * (h.multiplier + h.rest)).sum();
        here + broken - dot(&self.least, &dual.multipliers) + top + self.gamma * libm::log(sum)
    }

    /// c - alpha Bᵀ y + Gᵀ lambda: shares are its softmax over gamma at the optimum.
    fn pull(&self, dual: &Dual) -> Vec<f64> {
        let bent = back(&self.spread, self.groups, &dual.direction);
        let held = back(&self.rows, self.groups, &dual.multipliers);
        let sum = |((c, b), h): ((&f64, f64), f64)| c - self.alpha * b + h;
        self.gain.iter().zip(bent).zip(held).map(sum).collect()
    }
}

/// Rows and right sides of the Pareto constraints, each scaled to entries of at most 1.
fn constraints(program: &Program<'_>, rows: &[&[f64]]) -> (Vec<f64>, Vec<f64>) {
    let slack = match program.pareto {
        Pareto::Off => return (Vec::new(), Vec::new()),
        Pareto::Hard => 0.0,
        Pareto::Slack(part) => part,
    };
    let (mut matrix, mut least) = (Vec::new(), Vec::new());
    for row in rows {
        let scale = row.iter().fold(0.0, |m: f64, s| m.max(s.abs()));
        if scale > 0.0 {
            let scaled: Vec<f64> = row.iter().map(|s| s / scale).collect();
            let now = dot(&scaled, program.prior);
            least.push(now - slack * now.abs() - ROOM);
            matrix.extend(scaled);
        }
    }
    (matrix, least)
}

/// One constraint, elastic: g.w - b + give = slack, at a price per give; a set without inside is no trouble then, and the
/// multiplier has a bound. Slack and give are the cheapest ones for a barrier.
#[derive(Clone, Copy, Debug)]
struct Hold {
    slack: f64,
    give: f64,
    multiplier: f64,
    rest: f64,
}

impl Hold {
    /// Where slack * multiplier = t = give * (price - multiplier).
    fn new(room: f64, price: f64, t: f64) -> Self {
        let size = room.abs() * price;
        let small = 2.0 * t * price / (size + 2.0 * t + libm::sqrt(size * size + 4.0 * t * t));
        let (multiplier, rest) = if room >= 0.0 { (small, price - small) } else { (price - small, small) };
        Hold { slack: t / multiplier, give: t / rest, multiplier, rest }
    }
    /// Price of the give, and the barriers.
    fn cost(&self, t: f64) -> f64 {
        (self.multiplier + self.rest) * self.give - t * (libm::log(self.give) + libm::log(self.slack))
    }
    /// How fast the multiplier falls with the room.
    fn stiffness(&self) -> f64 {
        1.0 / (self.slack / self.multiplier + self.give / self.rest)
    }
}

/// y and lambda.
struct Dual {
    /// y = B w / size.
    direction: Vec<f64>,
    multipliers: Vec<f64>,
}

/// Shares with all that follows from them for barrier `t`.
struct Point {
    /// Logarithms of the shares.
    logs: Vec<f64>,
    shares: Vec<f64>,
    /// |B w|, smoothed.
    size: f64,
    dual: Dual,
    holds: Vec<Hold>,
    /// What is minimised.
    cost: f64,
}

impl Point {
    fn new(form: &Form, logs: Vec<f64>, price: f64, t: f64) -> Self {
        let shares = softmax(&logs);
        let bent = times(&form.spread, &shares);
        let size = libm::sqrt(dot(&bent, &bent) + t * t);
        let holds: Vec<Hold> = form.rooms(&shares).iter().map(|r| Hold::new(*r, price, t)).collect();
        let held: f64 = holds.iter().map(|h| h.cost(t)).sum();
        let entropy = dot(&shares, &logs);
        let cost = form.alpha * size - dot(&form.gain, &shares) + form.gamma * entropy + held;
        let direction = bent.iter().map(|b| b / size).collect();
        let multipliers = holds.iter().map(|h| h.multiplier).collect();
        Point { logs, shares, size, dual: Dual { direction, multipliers }, holds, cost }
    }

    /// The step of Newton's method over shares that sum to 1.
    fn newton(&self, form: &Form) -> Option<Vec<f64>> {
        let m = form.groups;
        let pull = form.pull(&self.dual);
        let slope: Vec<f64> = (0..m).map(|j| pull[j] - form.gamma * (self.logs[j] + 1.0)).collect();
        // A common part changes no shares; left in, it would cancel below and leave its rounding.
        let common = dot(&slope, &self.shares);
        let right: Vec<f64> = slope.iter().map(|s| s - common).collect();
        let k = Cholesky::new(self.matrix(form), m)?;
        let (free, ones) = (k.solve(&right), k.solve(&vec![1.0; m]));
        let level = free.iter().sum::<f64>() / ones.iter().sum::<f64>();
        Some(free.iter().zip(&ones).map(|(f, o)| f - level * o).collect())
    }

    /// Hessian: gamma / w + alpha / size (BᵀB - cᵀc) + Gᵀ stiffness G with c = Bᵀy; lower triangle.
    fn matrix(&self, form: &Form) -> Vec<f64> {
        let m = form.groups;
        let factor = form.alpha / self.size;
        let mut matrix: Vec<f64> = form.square.iter().map(|x| factor * x).collect();
        let c = back(&form.spread, m, &self.dual.direction);
        for j in 0..m {
            let scaled = factor * c[j];
            let row = &mut matrix[j * m..=j * m + j];
            row.iter_mut().zip(&c).for_each(|(k, c)| *k -= scaled * c);
            row[j] += form.gamma / self.shares[j].max(1e-300);
        }
        add_squares(&mut matrix, &form.rows, m, self.holds.iter().map(Hold::stiffness));
        matrix
    }

    /// Logarithms after part `length` of a step: as far as it says while shares stay positive, by powers beyond.
    fn moved(&self, step: &[f64], length: f64) -> Vec<f64> {
        let to = |j: usize| {
            let part = length * step[j] / self.shares[j].max(1e-300);
            let by = if part > -0.99 { libm::log(1.0 + part.min(20.0)) } else { part.clamp(-20.0, -4.6) };
            self.logs[j] + by
        };
        let free: Vec<f64> = (0..step.len()).map(to).collect();
        let top = free.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = free.iter().map(|l| libm::exp(l - top)).sum();
        free.iter().map(|l| (l - top - libm::log(sum)).max(-680.0)).collect()
    }

    /// Direction and multipliers after part `length` of a step, to first order: near the end those of the new shares are
    /// a barrier over a tiny room, all rounding.
    fn follow(&self, form: &Form, step: &[f64], length: f64) -> Dual {
        let (bend, tilt) = (times(&form.spread, step), times(&form.rows, step));
        let Dual { direction, multipliers } = &self.dual;
        let along = dot(direction, &bend);
        let turned: Vec<f64> =
            direction.iter().zip(&bend).map(|(y, b)| y + length * (b - y * along) / self.size).collect();
        let norm = libm::sqrt(dot(&turned, &turned)).max(1.0);
        let eased = |((l, h), t): ((&f64, &Hold), &f64)| {
            (l - length * h.stiffness() * t).clamp(0.01 * l, l + 0.99 * h.rest)
        };
        Dual {
            direction: turned.iter().map(|y| y / norm).collect(),
            multipliers: multipliers.iter().zip(&self.holds).zip(&tilt).map(eased).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
