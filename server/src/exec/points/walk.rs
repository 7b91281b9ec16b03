//! Walks over triples, coordinates or colours: as many steps as nothing has to be known between, and a measure of what
//! they leave, while a block of points lies in the first-level cache.
//!
//! A block is taken apart into its three axes, so that every loop is over whole registers. Steps work on each number by
//! itself and sums are added in the stated order, so the bits are those of one step after the other at any width.

use super::lanes;
use crate::exec::simd::Level;

/// Points of a block; a multiple of the four lanes of sums.
pub(super) const BLOCK: usize = 256;

/// The numbers of a block, axis by axis.
type Axes = [[f32; BLOCK]; 3];

/// What is done to every triple; arithmetic in f32 in the order written.
#[derive(Clone, Copy, Debug)]
pub(in crate::exec) enum Step<'a> {
    /// `(c - by) as f32` in f64.
    Less([f64; 3]),
    /// `c + by`.
    Add([f32; 3]),
    /// `c * by`.
    Scale([f32; 3]),
    /// `from + sign * c`.
    Mirror { sign: [f32; 3], from: [f32; 3] },
    /// `((m0 * dx + m1 * dy) + m2 * dz) + about` with `d = c - about`.
    Turn { matrix: [[f32; 3]; 3], about: [f32; 3] },
    /// `c + offset`, one for each point.
    Offsets(&'a [[f32; 3]]),
    /// `clip(clip(gain * v + offset) + shift)`.
    Tint { gain: f32, offset: f32, shift: [f32; 3] },
    /// `clip(v + offset)`, one for each point.
    ClippedOffsets(&'a [[f32; 3]]),
}

/// Where the triples of a walk come from.
#[derive(Clone, Copy, Debug)]
pub(in crate::exec) enum Input<'a> {
    /// They are where they are to be.
    Place,
    /// Coordinates as stored, less this in f64.
    Stored(&'a [[f64; 3]], [f64; 3]),
}

/// What a walk is to learn of the triples that it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Nothing,
    Bounds,
    Sums,
    Both,
}

/// What a walk learnt.
#[derive(Clone, Copy, Debug)]
pub(in crate::exec) struct Notes {
    measure: Measure,
    bounds: [lanes::Bounds; 3],
    sums: lanes::Sums,
}

/// Smallest and largest number per axis.
pub(super) type Extent = ([f32; 3], [f32; 3]);

/// Steps that still have to be carried out on `values`.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    values: Vec<[f32; 3]>,
    from: Input<'a>,
    steps: Vec<Step<'a>>,
    /// That of the values after all steps, where it is known.
    extent: Option<Extent>,
    level: Level,
}

impl<'a> Walk<'a> {
    /// Over what `from` gives, whose extent may be known; `values` has as many entries, with anything in them.
    pub fn new(values: Vec<[f32; 3]>, from: Input<'a>, extent: Option<Extent>) -> Self {
        Walk { values, from, steps: Vec::new(), extent, level: Level::best() }
    }

    #[cfg(test)]
    fn at(self, level: Level) -> Self {
        Walk { level, ..self }
    }

    /// Adds a step.
    ///
    /// # Panics
    /// When it has offsets for another number of points: a fault of the plan.
    pub fn push(&mut self, step: Step<'a>) {
        if let Step::Offsets(offsets) | Step::ClippedOffsets(offsets) = step {
            assert_eq!(offsets.len(), self.values.len(), "offsets of another number of points");
        }
        self.extent = self.extent.filter(|_| step.is_monotone()).map(|extent| step.moved(extent));
        self.steps.push(step);
    }

    /// Smallest and largest number per axis after all steps; without points neither is a number.
    pub fn bounds(&mut self) -> Extent {
        self.extent.unwrap_or_else(|| self.go(Measure::Bounds).extent())
    }

    /// Mean per axis after all steps, as [`crate::plan::scene::SceneOp`] defines it; 0 without points.
    pub fn mean(&mut self) -> [f64; 3] {
        let measure = if self.extent.is_some() { Measure::Sums } else { Measure::Both };
        lanes::mean(&self.go(measure).sums, self.values.len())
    }

    /// The triples after all steps.
    pub fn values(&mut self) -> &mut Vec<[f32; 3]> {
        if !self.steps.is_empty() || !matches!(self.from, Input::Place) {
            self.go(Measure::Nothing);
        }
        // Who has them may move them.
        self.extent = None;
        &mut self.values
    }

    /// The triples after all steps.
    pub fn done(mut self) -> Vec<[f32; 3]> {
        std::mem::take(self.values())
    }

    fn go(&mut self, measure: Measure) -> Notes {
        let mut notes = Notes { measure, bounds: Default::default(), sums: Default::default() };
        self.level.walk(self.from, &mut self.values, &self.steps, &mut notes);
        self.from = Input::Place;
        self.steps.clear();
        match measure {
            Measure::Nothing | Measure::Sums => {}
            Measure::Bounds | Measure::Both => self.extent = Some(notes.extent()),
        }
        notes
    }
}

impl Notes {
    fn extent(&self) -> Extent {
        (self.bounds.map(lanes::Bounds::low), self.bounds.map(lanes::Bounds::high))
    }
}

impl Step<'_> {
    /// Whether every axis by itself keeps its order, or turns it round: then what becomes of its ends are the new ends.
    fn is_monotone(&self) -> bool {
        match self {
            Step::Less(_) | Step::Add(_) | Step::Scale(_) | Step::Mirror { .. } => true,
            Step::Turn { .. } | Step::Offsets(_) | Step::Tint { .. } | Step::ClippedOffsets(_) => false,
        }
    }

    /// What a monotone step makes of an extent.
    fn moved(&self, (low, high): Extent) -> Extent {
        let mut notes =
            Notes { measure: Measure::Bounds, bounds: Default::default(), sums: Default::default() };
        Level::Scalar.walk(Input::Place, &mut [low, high], &[*self], &mut notes);
        notes.extent()
    }
}

/// Carries out `steps` on what `from` gives and leaves it in `values`, measured.
#[inline(always)]
pub(in crate::exec) fn walk(from: Input<'_>, values: &mut [[f32; 3]], steps: &[Step<'_>], notes: &mut Notes) {
    let mut axes: Axes = [[0.0; BLOCK]; 3];
    let centre = match from {
        Input::Stored(_, by) => tiled(by),
        Input::Place => [0.0; 3 * BLOCK],
    };
    for (number, block) in values.chunks_mut(BLOCK).enumerate() {
        let range = number * BLOCK..number * BLOCK + block.len();
        match from {
            Input::Place => {}
            Input::Stored(stored, _) => {
                let stored = stored[range.clone()].as_flattened();
                for ((v, stored), by) in block.as_flattened_mut().iter_mut().zip(stored).zip(&centre) {
                    *v = (stored - by) as f32;
                }
            }
        }
        if steps.is_empty() && notes.measure == Measure::Nothing {
            continue;
        }
        apart(block, &mut axes);
        for step in steps {
            run(step, &mut axes, range.clone());
        }
        if !steps.is_empty() {
            join(&axes, block);
        }
        note(&axes, block, notes);
    }
}

/// `triple` for every point of a block: loops over single numbers fill registers of any width.
#[inline(always)]
fn tiled<T: Copy>(triple: [T; 3]) -> [T; 3 * BLOCK] {
    std::array::from_fn(|i| triple[i % 3])
}

#[inline(always)]
fn apart(block: &[[f32; 3]], [x, y, z]: &mut Axes) {
    for (((v, x), y), z) in block.iter().zip(x).zip(y).zip(z) {
        (*x, *y, *z) = (v[0], v[1], v[2]);
    }
}

#[inline(always)]
fn join([x, y, z]: &Axes, block: &mut [[f32; 3]]) {
    for (((v, x), y), z) in block.iter_mut().zip(x).zip(y).zip(z) {
        *v = [*x, *y, *z];
    }
}

/// One step on a whole block: beyond its last point it works on leftovers, which nobody reads.
#[inline(always)]
fn run(step: &Step<'_>, axes: &mut Axes, range: std::ops::Range<usize>) {
    match step {
        Step::Less(by) => each(axes, *by, |c, by| (f64::from(c) - by) as f32),
        Step::Add(by) => each(axes, *by, |c, by| c + by),
        Step::Scale(by) => each(axes, *by, |c, by| c * by),
        Step::Mirror { sign, from } => {
            let both = std::array::from_fn(|a| (sign[a], from[a]));
            each(axes, both, |c, (sign, from)| from + sign * c);
        }
        Step::Turn { matrix, about } => turn(axes, matrix, *about),
        Step::Offsets(offsets) => pairs(axes, &offsets[range], |c, offset| c + offset),
        Step::Tint { gain, offset, shift } => {
            let (gain, offset) = (*gain, *offset);
            each(axes, *shift, |v, shift| clip(clip(gain * v + offset) + shift));
        }
        Step::ClippedOffsets(offsets) => pairs(axes, &offsets[range], |v, offset| clip(v + offset)),
    }
}

#[inline(always)]
fn clip(v: f32) -> f32 {
    v.clamp(0.0, 255.0)
}

#[inline(always)]
fn each<A: Copy>(axes: &mut Axes, by: [A; 3], f: impl Fn(f32, A) -> f32) {
    for (axis, by) in axes.iter_mut().zip(by) {
        axis.iter_mut().for_each(|v| *v = f(*v, by));
    }
}

#[inline(always)]
fn pairs(axes: &mut Axes, others: &[[f32; 3]], f: impl Fn(f32, f32) -> f32) {
    for (a, axis) in axes.iter_mut().enumerate() {
        axis.iter_mut().zip(others).for_each(|(v, other)| *v = f(*v, other[a]));
    }
}

#[inline(always)]
fn turn([x, y, z]: &mut Axes, m: &[[f32; 3]; 3], about: [f32; 3]) {
    for ((x, y), z) in x.iter_mut().zip(y).zip(z) {
        let (dx, dy, dz) = (*x - about[0], *y - about[1], *z - about[2]);
        *x = ((m[0][0] * dx + m[0][1] * dy) + m[0][2] * dz) + about[0];
        *y = ((m[1][0] * dx + m[1][1] * dy) + m[1][2] * dz) + about[1];
        *z = ((m[2][0] * dx + m[2][1] * dy) + m[2][2] * dz) + about[2];
    }
}

#[inline(always)]
fn note(axes: &Axes, block: &[[f32; 3]], notes: &mut Notes) {
    if matches!(notes.measure, Measure::Bounds | Measure::Both) {
        for (bounds, axis) in notes.bounds.iter_mut().zip(axes) {
            *bounds = lanes::widened(*bounds, &axis[..block.len()]);
        }
    }
    if matches!(notes.measure, Measure::Sums | Measure::Both) {
        notes.sums = lanes::sums(notes.sums, block);
    }
}

#[cfg(test)]
mod tests;
