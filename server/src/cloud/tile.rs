//! Cuts a survey into overlapping square blocks over x and y.

use super::{CloudError, Scene};

/// Blocks that a grid may have, kept or not.
const MOST_BLOCKS: f64 = 4_194_304.0;
/// Blocks along an axis that a point may lie in.
const MOST_OVERLAP: f64 = 16.0;

/// How a scene is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tiling {
    /// Side of a block, > 0, in the file's unit.
    pub block: f64,
    /// From one block to the next, > 0, at most `block` and at least a sixteenth of it.
    pub stride: f64,
    /// Blocks with fewer points are left out; a block always needs one.
    pub min_points: u64,
}

/// One block that is kept: x in `min[0] .. min[0] + block`, y likewise, the upper ends excluded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tile {
    /// Number along x from 0.
    pub i: u32,
    /// Number along y from 0.
    pub j: u32,
    /// Its lower corner.
    pub min: [f64; 2],
    begin: usize,
    end: usize,
}

/// The blocks of a scene.
#[derive(Clone, Debug, PartialEq)]
pub struct Tiles {
    tiles: Vec<Tile>,
    numbers: Vec<u32>,
    left_out: u64,
}

impl Tiles {
    /// Blocks that are kept, in the order of (j, i).
    pub fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    /// Ascending numbers of the points of a block.
    ///
    /// # Panics
    /// With a tile of another scene.
    pub fn points(&self, tile: &Tile) -> &[u32] {
        &self.numbers[tile.begin..tile.end]
    }

    /// Blocks that have points, but fewer than `min_points`.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

/// Cuts `scene`: block (i, j) has the points with `origin + i * stride <= x < origin + i * stride + block`, and y
/// likewise with j, where `origin = floor(min / stride) * stride`. Time and memory are those of the points, each once
/// per block that it lies in, and of the grid.
///
/// # Errors
/// [`CloudError::Format`] of "tiles" for a tiling that is none or is too fine for the scene; [`CloudError::Empty`].
pub fn cut(scene: &Scene, tiling: &Tiling) -> Result<Tiles, CloudError> {
    let axes = [Axis::new(scene, 0, tiling)?, Axis::new(scene, 1, tiling)?];
    let cells = axes[0].blocks as f64 * axes[1].blocks as f64;
    if cells > MOST_BLOCKS {
        return Err(wrong(format!(
            "{} x {} blocks, want at most {MOST_BLOCKS}: is a point far away?",
            axes[0].blocks, axes[1].blocks
        )));
    }
    if u32::try_from(scene.len()).is_err() {
        let (value, limit) = (scene.len() as u64, u64::from(u32::MAX));
        return Err(CloudError::Limit { what: "points", value, limit });
    }
    let mut counts = vec![0_u64; axes[0].blocks * axes[1].blocks];
    let width = axes[0].blocks;
    each(scene, &axes, |cell, _| counts[cell] += 1);
    let (mut tiles, mut next, mut left_out, mut sum) = (Vec::new(), vec![usize::MAX; counts.len()], 0, 0);
    for (cell, &count) in counts.iter().enumerate() {
        if count < tiling.min_points.max(1) {
            left_out += u64::from(count > 0);
            continue;
        }
        let (i, j) = (cell % width, cell / width);
        let (begin, end) = (sum, sum + count as usize);
        let min = [axes[0].lower(i), axes[1].lower(j)];
        tiles.push(Tile { i: i as u32, j: j as u32, min, begin, end });
        next[cell] = begin;
        sum = end;
    }
    let mut numbers = vec![0; sum];
    each(scene, &axes, |cell, point| {
        if next[cell] != usize::MAX {
            numbers[next[cell]] = point;
            next[cell] += 1;
        }
    });
    Ok(Tiles { tiles, numbers, left_out })
}

/// Calls `visit` with the grid cell of every block that a point lies in, and the point.
fn each(scene: &Scene, axes: &[Axis; 2], mut visit: impl FnMut(usize, u32)) {
    for (point, c) in scene.coord.iter().enumerate() {
        let (first, last) = axes[0].of(c[0]);
        let (low, high) = axes[1].of(c[1]);
        for j in low..=high {
            for i in first..=last {
                visit(j * axes[0].blocks + i, point as u32);
            }
        }
    }
}

/// Blocks along one axis.
#[derive(Clone, Copy, Debug)]
struct Axis {
    origin: f64,
    stride: f64,
    block: f64,
    blocks: usize,
}

impl Axis {
    fn new(scene: &Scene, axis: usize, tiling: &Tiling) -> Result<Self, CloudError> {
        let Tiling { block, stride, .. } = *tiling;
        if !(stride > 0.0 && stride <= block && block <= MOST_OVERLAP * stride && block.is_finite()) {
            return Err(wrong(format!(
                "block {block} and stride {stride}, want 0 < stride <= block <= 16 strides"
            )));
        }
        let values = || scene.coord.iter().map(|c| c[axis]);
        let (min, max) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        if scene.is_empty() {
            return Err(CloudError::Empty);
        }
        let origin = (min / stride).floor() * stride;
        let blocks = ((max - origin) / stride).floor() + 1.0;
        // Beyond 2^40 strides from 0 the ends of blocks are no longer exact enough to differ.
        let fine = min.abs().max(max.abs()) / stride <= f64::powi(2.0, 40);
        if !(blocks <= MOST_BLOCKS && fine) {
            return Err(wrong(format!("stride {stride} is too fine for coordinates from {min} to {max}")));
        }
        let mut grid = Axis { origin, stride, block, blocks: blocks as usize + 1 };
        grid.blocks = grid.of(max).1 + 1;
        Ok(grid)
    }

    fn lower(&self, block: usize) -> f64 {
        self.origin + block as f64 * self.stride
    }

    /// Where a block is so many strides, exactly the lower end of a later one: rounding leaves no gap and no overlap.
    fn upper(&self, block: usize) -> f64 {
        let strides = self.block / self.stride;
        if strides.fract() == 0.0 {
            self.lower(block + strides as usize)
        } else {
            self.lower(block) + self.block
        }
    }

    /// The first and last block that a value of the scene lies in. Division guesses, the definition decides.
    fn of(&self, value: f64) -> (usize, usize) {
        let guess = ((value - self.origin) / self.stride) as usize;
        let mut last = guess.min(self.blocks - 1);
        while last > 0 && self.lower(last) > value {
            last -= 1;
        }
        while last + 1 < self.blocks && self.lower(last + 1) <= value {
            last += 1;
        }
        let mut first = last;
        while first > 0 && value < self.upper(first - 1) {
            first -= 1;
        }
        (first, last)
    }
}

fn wrong(why: String) -> CloudError {
    CloudError::Format { format: "tiles", why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scene(xy: &[(f64, f64)]) -> Scene {
        Scene { coord: xy.iter().map(|&(x, y)| [x, y, 0.0]).collect(), ..Scene::default() }
    }

    fn named(tiles: &Tiles) -> Vec<(u32, u32, Vec<u32>)> {
        tiles.tiles().iter().map(|t| (t.i, t.j, tiles.points(t).to_vec())).collect()
    }

    #[test]
    fn blocks_overlap_and_small_ones_are_counted() {
        let scene = scene(&[(10.5, 0.0), (11.0, 0.0), (12.9, 0.5), (11.9, 1.0)]);
        let tiles = cut(&scene, &Tiling { block: 2.0, stride: 1.0, min_points: 2 }).unwrap();
        // Of row j = 1 only point 3 is there, in blocks i = 0 and 1; block (2, 0) has point 2 alone.
        assert_eq!(named(&tiles), [(0, 0, vec![0, 1, 3]), (1, 0, vec![1, 2, 3])]);
        assert_eq!(tiles.left_out(), 3);
        assert_eq!(tiles.tiles()[1].min, [11.0, 0.0]);
    }

    #[test]
    fn equal_block_and_stride_part_the_points() {
        // 0.1 is no binary fraction: ends of blocks are rounded.
        let line: Vec<(f64, f64)> = (0..1000).map(|k| (f64::from(k) * 0.1, 500_000.3)).collect();
        let tiles = cut(&scene(&line), &Tiling { block: 0.1, stride: 0.1, min_points: 0 }).unwrap();
        let mut all: Vec<u32> = named(&tiles).into_iter().flat_map(|(_, _, points)| points).collect();
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<u32>>());
    }

    #[test]
    fn tilings_that_are_none_are_refused() {
        let far = scene(&[(0.0, 0.0), (1e12, 0.0)]);
        let cut = |block, stride| cut(&far, &Tiling { block, stride, min_points: 1 }).map(|_| ());
        for (block, stride) in [(1.0, 0.0), (1.0, 2.0), (f64::NAN, 1.0), (17.0, 1.0), (f64::INFINITY, 1.0)] {
            assert!(
                cut(block, stride).unwrap_err().to_string().contains("want 0 < stride"),
                "{block} {stride}"
            );
        }
        assert!(cut(1.0, 1.0).unwrap_err().to_string().contains("too fine"));
        assert!(cut(1e6, 1e5).unwrap_err().to_string().contains("too fine"));
        assert_eq!(cut(1e9, 1e9), Ok(()));
        let none = Tiling { block: 1.0, stride: 1.0, min_points: 1 };
        assert_eq!(super::cut(&Scene::default(), &none), Err(CloudError::Empty));
    }

    proptest! {
        #[test]
        fn every_block_has_what_its_definition_says(
            xy in prop::collection::vec((-40i32..40, -40i32..40), 1..40),
            stride in 1u8..20, more in 0u8..40, min_points in 0u64..4,
        ) {
            // Quarters: everything is exact, so that the definition can be evaluated as it stands.
            let points: Vec<_> = xy.iter().map(|&(x, y)| (f64::from(x) / 4.0, f64::from(y) / 4.0)).collect();
            let stride = f64::from(stride) / 4.0;
            let block = (stride + f64::from(more) / 4.0).min(16.0 * stride);
            let scene = scene(&points);
            let tiles = cut(&scene, &Tiling { block, stride, min_points }).unwrap();
            let low = |axis: usize| scene.coord.iter().map(|c| c[axis]).fold(f64::INFINITY, f64::min);
            let origin = [0, 1].map(|axis| (low(axis) / stride).floor() * stride);
            let (mut want, mut left_out) = (Vec::new(), 0);
            for (j, i) in (0..200).flat_map(|j| (0..200).map(move |i| (j, i))) {
                let min = [origin[0] + f64::from(i) * stride, origin[1] + f64::from(j) * stride];
                let inside = |c: &[f64; 3]| (0..2).all(|a| min[a] <= c[a] && c[a] < min[a] + block);
                let numbers: Vec<u32> = (0..).zip(&scene.coord).filter(|(_, c)| inside(c)).map(|(n, _)| n).collect();
                if numbers.len() as u64 >= min_points.max(1) {
                    want.push((i, j, numbers));
                } else {
                    left_out += u64::from(!numbers.is_empty());
                }
            }
            prop_assert_eq!(named(&tiles), want);
            prop_assert_eq!(tiles.left_out(), left_out);
        }
    }
}
