//! Colours of a scene. They are stored in bytes, and most transforms treat each number by itself: what becomes of the 256
//! of them is worked out once, and the points stay bytes until columns are written.

use super::walk::{Input, Step, Walk};
use super::{Scratch, crop};

/// What a byte of each channel became: red, green, blue by the number stored.
pub type Table = [[f32; 3]; 256];

/// Red, green, blue of each point in 0..=255, fractions allowed.
#[derive(Clone, Debug, PartialEq)]
pub enum Colors {
    /// One by one.
    Each(Vec<[f32; 3]>),
    /// As stored, and what became of that.
    Stored(Vec<[u8; 3]>, Box<Table>),
}

impl Colors {
    /// Points.
    pub fn len(&self) -> usize {
        match self {
            Colors::Each(colors) => colors.len(),
            Colors::Stored(bytes, _) => bytes.len(),
        }
    }

    /// True without points.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the points `keep`, ascending.
    pub(super) fn keep(&mut self, keep: &[u32]) {
        match self {
            Colors::Each(colors) => crop::keep(colors, keep),
            Colors::Stored(bytes, _) => crop::keep(bytes, keep),
        }
    }

    /// One by one.
    pub fn each(self) -> Vec<[f32; 3]> {
        match self {
            Colors::Each(colors) => colors,
            Colors::Stored(bytes, table) => bytes.iter().map(|byte| look(&table, *byte)).collect(),
        }
    }
}

/// What became of a stored colour.
#[inline(always)]
pub(super) fn look(table: &Table, [red, green, blue]: [u8; 3]) -> [f32; 3] {
    [table[red as usize][0], table[green as usize][1], table[blue as usize][2]]
}

/// Colours that still have steps before them.
#[derive(Debug)]
pub(super) enum Making<'a> {
    Each(Walk<'a>),
    /// The points, and a walk over what becomes of each number.
    Stored(Vec<[u8; 3]>, Walk<'a>),
}

impl<'a> Making<'a> {
    /// Of what is stored.
    pub fn new(bytes: Vec<[u8; 3]>) -> Making<'a> {
        let numbers = (0..=u8::MAX).map(|v| [f32::from(v); 3]).collect();
        Making::Stored(bytes, Walk::new(numbers, Input::Place, None))
    }

    /// Adds a step that treats each number of a channel alike.
    pub fn push(&mut self, step: Step<'a>) {
        match self {
            Making::Each(walk) | Making::Stored(_, walk) => walk.push(step),
        }
    }

    /// Adds `offsets`, one for each point.
    ///
    /// # Panics
    /// When they are of another number of points: a fault of the plan.
    pub fn jitter(&mut self, offsets: &'a [[f32; 3]], scratch: &mut Scratch) {
        if let Making::Stored(bytes, numbers) = self {
            let (mut colors, table) = (scratch.triples(bytes.len()), table(numbers));
            colors.iter_mut().zip(bytes.iter()).for_each(|(to, byte)| *to = look(&table, *byte));
            *self = Making::Each(Walk::new(colors, Input::Place, None));
        }
        self.push(Step::ClippedOffsets(offsets));
    }

    /// As [`Colors::keep`].
    pub fn keep(&mut self, keep: &[u32]) {
        match self {
            Making::Each(walk) => crop::keep(walk.values(), keep),
            Making::Stored(bytes, _) => crop::keep(bytes, keep),
        }
    }

    /// The colours after all steps.
    pub fn done(self) -> Colors {
        match self {
            Making::Each(walk) => Colors::Each(walk.done()),
            Making::Stored(bytes, mut numbers) => Colors::Stored(bytes, table(&mut numbers)),
        }
    }
}

fn table(numbers: &mut Walk<'_>) -> Box<Table> {
    let values = numbers.values().as_slice();
    Box::new(values.try_into().expect("there are 256 numbers in a byte"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_colours_become_what_each_by_itself_becomes() {
        let bytes: Vec<[u8; 3]> = (0..300).map(|i| [i as u8, (i * 7) as u8, 255 - i as u8]).collect();
        let offsets: Vec<[f32; 3]> = (0..300).map(|i| [i as f32 / 9.0 - 7.0, 3.5, -20.25]).collect();
        let steps = [
            Step::Tint { gain: 1.13, offset: -31.0, shift: [20.0, -3.0, 0.0] },
            Step::Scale([1.0, 0.0, 1.0]),
        ];
        for jittered in [false, true] {
            let (mut making, mut scratch) = (Making::new(bytes.clone()), Scratch::default());
            let begin = bytes.iter().map(|byte| byte.map(f32::from)).collect();
            let mut plain = Walk::new(begin, Input::Place, None);
            making.push(steps[0]);
            plain.push(steps[0]);
            if jittered {
                making.jitter(&offsets, &mut scratch);
                plain.push(Step::ClippedOffsets(&offsets));
            }
            making.push(steps[1]);
            plain.push(steps[1]);
            let keep: Vec<u32> = (0..300).step_by(7).collect();
            making.keep(&keep);
            crop::keep(plain.values(), &keep);
            let made = making.done();
            assert_eq!(matches!(made, Colors::Each(_)), jittered);
            assert_eq!((made.len(), made.is_empty()), (keep.len(), false));
            assert_eq!(made.each(), plain.done());
        }
    }
}
