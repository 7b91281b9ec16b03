//! Which points make a row: parts of scenes, by number. Nothing of a scene is copied.

use super::Points;
use crate::plan::{Op, Plan, Row};
use std::f64::consts::TAU;

/// Points of a scene that a part takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// All of them; how many there are.
    All(u32),
    /// These, ascending.
    Some(Vec<u32>),
}

/// Points of one scene in a row, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Row of the block that the scene belongs to.
    pub slot: u32,
    /// Number of the scene in the row, by its first points: 0 is the base, unless all of its points left.
    pub scene: u8,
    /// Its points, at least one.
    pub chosen: Chosen,
    /// Turned about z by this angle, radians, counter-clockwise.
    pub angle: f32,
    /// Added to every instance id that is not negative.
    pub instance: i32,
}

/// A row that can't be made of its scenes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnionError {
    /// The plan chooses points by class.
    #[error("scene of slot {slot} has no classes, which policy `polarmix` needs to find objects")]
    NoClasses {
        /// Row of the block.
        slot: u32,
    },
    /// The ids of all parts together.
    #[error("instance ids of the scenes up to slot {slot} add up to {value}, want at most 2147483647")]
    Instances {
        /// Row of the block.
        slot: u32,
        /// Largest id, made unique.
        value: i64,
    },
}

impl Part {
    /// Points.
    pub fn len(&self) -> usize {
        match &self.chosen {
            Chosen::All(n) => *n as usize,
            Chosen::Some(points) => points.len(),
        }
    }

    /// True without points; no part of a finished row is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number in the scene of the part's point `at`.
    pub fn number(&self, at: usize) -> u32 {
        match &self.chosen {
            Chosen::All(_) => at as u32,
            Chosen::Some(points) => points[at],
        }
    }

    /// Numbers in the scene of all its points.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        let (all, some) = match &self.chosen {
            Chosen::All(n) => (0..*n, &[][..]),
            Chosen::Some(points) => (0..0, points.as_slice()),
        };
        all.chain(some.iter().copied())
    }

    /// All points of a scene with these coordinates, if the part is the first of them, one after the other.
    pub fn whole<'a>(&self, coord: &'a [[f32; 3]]) -> Option<&'a [[f32; 3]]> {
        match &self.chosen {
            Chosen::All(n) => coord.get(..*n as usize),
            Chosen::Some(_) => None,
        }
    }

    /// The turn of its points.
    pub fn turn(&self) -> Turn {
        let angle = f64::from(self.angle);
        match self.angle == 0.0 {
            true => Turn::NONE,
            false => Turn(Some((libm::cos(angle) as f32, libm::sin(angle) as f32))),
        }
    }
}

/// A turn about z.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn(Option<(f32, f32)>);

impl Turn {
    /// By nothing.
    pub const NONE: Turn = Turn(None);

    /// Cosine and sine of its angle, if it turns.
    pub fn cos_sin(self) -> Option<(f32, f32)> {
        self.0
    }

    /// `(x cos - y sin, x sin + y cos, z)` in f32; points that don't turn keep their bits.
    pub fn of(self, [x, y, z]: [f32; 3]) -> [f32; 3] {
        match self.0 {
            None => [x, y, z],
            Some((cos, sin)) => [x * cos - y * sin, x * sin + y * cos, z],
        }
    }
}

/// Points of a row.
pub fn len(row: &[Part]) -> usize {
    row.iter().map(Part::len).sum()
}

/// Slots whose scenes are in a row, by number of the scene, with their points; each once.
pub fn scenes(row: &[Part]) -> Vec<(u32, u64)> {
    let mut scenes: Vec<(u32, u64)> = Vec::new();
    for part in row {
        match scenes.iter_mut().find(|(slot, _)| *slot == part.slot) {
            Some((_, points)) => *points += part.len() as u64,
            None => scenes.push((part.slot, part.len() as u64)),
        }
    }
    scenes
}

/// The parts of every row of `plan`; `scenes` are those of the block's slots.
///
/// # Errors
/// As [`row`].
///
/// # Panics
/// As [`row`].
pub fn rows(plan: &Plan, scenes: &[Points]) -> Result<Vec<Vec<Part>>, UnionError> {
    plan.rows.iter().map(|planned| row(planned, scenes)).collect()
}

/// The parts of one row, in order: what is left of the base, then what came. Parts without points are left out; a row
/// of which nothing would be left is its base, since no trainer can use an empty scene.
///
/// # Errors
/// [`UnionError`].
///
/// # Panics
/// When the plan names a slot that `scenes` lacks or more than 256 scenes: faults of the caller, never of data.
pub fn row(planned: &Row, scenes: &[Points]) -> Result<Vec<Part>, UnionError> {
    let mut mix = Mixing { scenes, parts: Vec::new() };
    mix.add_whole(planned.base);
    for op in &planned.ops {
        match op {
            Op::Union { scenes } => scenes.iter().for_each(|slot| mix.add_whole(*slot)),
            Op::Sectors { src, from, to } => {
                let sector = Sector::new(*from, *to);
                mix.exchange(*src, |p| sector.holds(p));
            }
            Op::Instances { src, classes, angles } => mix.paste(*src, classes, angles)?,
            Op::Bands { src, edges, odd } => {
                let bands = Bands::new(edges);
                mix.exchange(*src, |p| (bands.of(p) % 2 == 1) != *odd);
            }
            // Only policies of pictures emit these, and a feed of points takes its policies from `plan::points`.
            Op::Blend { .. } | Op::Paste { .. } | Op::MaskBlend { .. } => {}
        }
    }
    mix.parts.retain(|part| !part.is_empty());
    if mix.parts.is_empty() {
        mix.add_whole(planned.base);
    }
    number_scenes(&mut mix.parts);
    let largest: Vec<i32> = mix.parts.iter().map(|part| largest(part, scenes)).collect();
    number_instances(&mut mix.parts, &largest)?;
    Ok(mix.parts)
}

/// A row in the making.
struct Mixing<'a> {
    scenes: &'a [Points],
    /// Scenes and instances are numbered when all parts are there.
    parts: Vec<Part>,
}

impl<'a> Mixing<'a> {
    fn scene(&self, slot: u32) -> &'a Points {
        &self.scenes[slot as usize]
    }

    fn add(&mut self, slot: u32, chosen: Chosen, angle: f32) {
        self.parts.push(Part { slot, scene: 0, chosen, angle, instance: 0 });
    }

    fn add_whole(&mut self, slot: u32) {
        let points = self.scene(slot).coord.len() as u32;
        self.add(slot, Chosen::All(points), 0.0);
    }

    /// Points of what is there leave where `moves`, and those of `src` come.
    fn exchange(&mut self, src: u32, moves: impl Fn([f32; 3]) -> bool) {
        for part in &mut self.parts {
            let (coord, turn) = (&self.scenes[part.slot as usize].coord, part.turn());
            let stay = part.numbers().filter(|n| !moves(turn.of(coord[*n as usize]))).collect();
            part.chosen = Chosen::Some(stay);
        }
        let coord = &self.scene(src).coord;
        let come = (0..coord.len() as u32).filter(|n| moves(coord[*n as usize])).collect();
        self.add(src, Chosen::Some(come), 0.0);
    }

    /// Points of `src` of these classes come once per angle.
    fn paste(&mut self, src: u32, classes: &[i32], angles: &[f32]) -> Result<(), UnionError> {
        let segment = self.scene(src).segment.as_ref().ok_or(UnionError::NoClasses { slot: src })?;
        let objects = segment.iter().enumerate().filter(|(_, class)| classes.binary_search(class).is_ok());
        let objects: Vec<u32> = objects.map(|(n, _)| n as u32).collect();
        angles.iter().for_each(|angle| self.add(src, Chosen::Some(objects.clone()), *angle));
        Ok(())
    }
}

/// Numbers the scenes of a row as they come: those without points are none of its scenes.
pub(in crate::exec) fn number_scenes(parts: &mut [Part]) {
    let mut slots: Vec<u32> = Vec::new();
    for part in parts {
        let known = slots.iter().position(|slot| *slot == part.slot);
        let number = known.unwrap_or_else(|| {
            slots.push(part.slot);
            slots.len() - 1
        });
        part.scene = u8::try_from(number).expect("a row has at most 256 scenes");
    }
}

/// The largest instance id of a part, negative without any.
fn largest(part: &Part, scenes: &[Points]) -> i32 {
    let ids = scenes[part.slot as usize].instance.as_deref();
    ids.and_then(|ids| part.numbers().map(|n| ids[n as usize]).max()).unwrap_or(-1)
}

/// Makes ids unique, of which these are the `largest` of each part: those of a part begin after the largest of the parts
/// before it.
pub(in crate::exec) fn number_instances(parts: &mut [Part], largest: &[i32]) -> Result<(), UnionError> {
    let mut next = 0i64;
    for (part, largest) in parts.iter_mut().zip(largest) {
        // A part without ids leaves the count alone; nothing will be added to it.
        if *largest >= 0 {
            let value = next + i64::from(*largest);
            if value > i64::from(i32::MAX) {
                return Err(UnionError::Instances { slot: part.slot, value });
            }
            part.instance = next as i32;
            next = value + 1;
        }
    }
    Ok(())
}

/// A sector of azimuth.
pub(super) struct Sector {
    from: f64,
    to: f64,
    /// Unit vectors at both ends.
    ends: [[f64; 2]; 2],
}

/// Sine of the angle to an end of a sector below which its side is left to the azimuth itself: far above the rounding
/// of the sine, and few points are that near.
const NEAR: f64 = 1e-9;

impl Sector {
    pub(super) fn new(from: f32, to: f32) -> Self {
        let (from, to) = (f64::from(from), f64::from(to));
        Sector { from, to, ends: [from, to].map(|a| [libm::cos(a), libm::sin(a)]) }
    }

    /// The words of [`Op::Sectors`].
    pub(super) fn has_azimuth_of(&self, x: f32, y: f32) -> bool {
        let azimuth = libm::atan2(y.into(), x.into());
        let inside = |a: f64| self.from <= a && a < self.to;
        inside(azimuth) || inside(azimuth + TAU) || inside(azimuth - TAU)
    }

    /// The same by the sides of both ends that the point is on, which takes a quarter of the time.
    pub(super) fn holds(&self, [x, y, _]: [f32; 3]) -> bool {
        let (wide_x, wide_y) = (f64::from(x), f64::from(y));
        let [first, last] = self.ends.map(|[cos, sin]| cos * wide_y - sin * wide_x);
        let width = self.to - self.from;
        // Ends of a whole turn are a rounding apart, so there the sides say nothing.
        if width > TAU || first.abs().min(last.abs()) <= NEAR * (wide_x.abs() + wide_y.abs()) {
            return self.has_azimuth_of(x, y);
        }
        if width <= TAU / 2.0 { first > 0.0 && last < 0.0 } else { first > 0.0 || last < 0.0 }
    }
}

/// Bands of inclination.
struct Bands<'a> {
    edges: &'a [f32],
}

impl<'a> Bands<'a> {
    fn new(edges: &'a [f32]) -> Self {
        Bands { edges }
    }

    /// Band of a point: the edges at or below it.
    fn of(&self, [x, y, z]: [f32; 3]) -> usize {
        let (x, y) = (f64::from(x), f64::from(y));
        let inclination = libm::atan2(z.into(), libm::sqrt(x * x + y * y));
        self.edges.iter().take_while(|edge| f64::from(**edge) <= inclination).count()
    }
}
