//! Elastic distortion; see [`Lattice`] for its definition.

use crate::plan::scene::Lattice;

/// The three fields at one node; the fourth lane fills a register.
type Node = [f32; 4];

/// Memory of two grids.
pub(super) type Nodes = [Vec<Node>; 2];

/// Points whose cells are found together.
const BLOCK: usize = 64;

/// Moves every point by `magnitude` times the smoothed field there; `min` and `max` are the bounds of `coord`.
///
/// # Panics
/// When `lattice` holds fewer values than it has nodes, or fewer than three nodes along an axis.
pub(super) fn distort(
    coord: &mut [[f32; 3]],
    (min, max): ([f32; 3], [f32; 3]),
    (granularity, magnitude): (f32, f32),
    lattice: &Lattice,
    nodes: &mut Nodes,
) {
    if magnitude == 0.0 || coord.is_empty() {
        return;
    }
    let needs = |a: usize| (((max[a] - min[a]) / granularity) as u32).saturating_add(3);
    let dims = std::array::from_fn(|a| lattice.dims[a].min(needs(a)) as usize);
    let [field, other] = nodes;
    gather(lattice, dims, field);
    smooth(field, other, dims);
    let grid = Grid { dims, min, granularity };
    let mut cells = Cells::default();
    for block in coord.chunks_mut(BLOCK) {
        cells.find(block, &grid);
        let by = cells.interpolate(block.len(), field, dims);
        for (c, by) in block.iter_mut().zip(by) {
            *c = std::array::from_fn(|a| c[a] + magnitude * by[a]);
        }
    }
    [field, other].into_iter().for_each(super::trim);
}

/// The first `dims` nodes of each axis, fields side by side.
fn gather(lattice: &Lattice, dims: [usize; 3], nodes: &mut Vec<Node>) {
    let [_, high, deep] = lattice.dims.map(|d| d as usize);
    let all = lattice.dims.iter().map(|d| *d as usize).product();
    let (first, rest) = lattice.noise.split_at(all);
    let (second, third) = rest.split_at(all);
    nodes.clear();
    nodes.reserve(dims.iter().product());
    for (x, y) in (0..dims[0]).flat_map(|x| (0..dims[1]).map(move |y| (x, y))) {
        let row = (x * high + y) * deep..(x * high + y) * deep + dims[2];
        let (a, b, c) = (&first[row.clone()], &second[row.clone()], &third[row]);
        nodes.extend(a.iter().zip(b).zip(c).map(|((a, b), c)| [*a, *b, *c, 0.0]));
    }
}

/// Two rounds of box filters along x, y and z.
fn smooth(nodes: &mut Vec<Node>, other: &mut Vec<Node>, dims: [usize; 3]) {
    other.resize(nodes.len(), [0.0; 4]);
    for _ in 0..2 {
        for (step, along) in [(dims[1] * dims[2], dims[0]), (dims[2], dims[1]), (1, dims[2])] {
            let lines = nodes.chunks_exact(step * along).zip(other.chunks_exact_mut(step * along));
            lines.for_each(|(from, to)| box_filter(from, to, step));
            std::mem::swap(nodes, other);
        }
    }
}

/// `to[i] = ((from[i - step] + from[i]) + from[i + step]) * (1 / 3)`, 0 outside.
fn box_filter(from: &[Node], to: &mut [Node], step: usize) {
    let (from, to) = (from.as_flattened(), to.as_flattened_mut());
    let (step, len) = (4 * step, from.len());
    let third = 1.0f32 / 3.0;
    let two = |to: &mut [f32], a: &[f32], b: &[f32]| {
        to.iter_mut().zip(a).zip(b).for_each(|((to, a), b)| *to = (a + b) * third);
    };
    two(&mut to[..step], &from[..step], &from[step..]);
    let inner = to[step..len - step].iter_mut().zip(from).zip(&from[step..]).zip(&from[2 * step..]);
    inner.for_each(|(((to, a), b), c)| *to = ((a + b) + c) * third);
    two(&mut to[len - step..], &from[len - 2 * step..], &from[len - step..]);
}

struct Grid {
    dims: [usize; 3],
    min: [f32; 3],
    granularity: f32,
}

/// Where the points of a block lie.
struct Cells {
    /// Number of the node at the low corner; `u32::MAX` outside.
    node: [u32; BLOCK],
    /// Position in the cell per axis, 0..1.
    fraction: [[f32; BLOCK]; 3],
    /// The field there. All four lanes are stored, or the compiler works on them one by one.
    field: [Node; BLOCK],
}

impl Default for Cells {
    fn default() -> Self {
        Cells { node: [0; BLOCK], fraction: [[0.0; BLOCK]; 3], field: [[0.0; 4]; BLOCK] }
    }
}

impl Cells {
    /// Lanes beyond the end of `block` hold anything.
    fn find(&mut self, block: &[[f32; 3]], grid: &Grid) {
        let mut cells = [[0u32; BLOCK]; 3];
        for a in 0..3 {
            let along = &mut self.fraction[a];
            along.iter_mut().zip(block).for_each(|(to, c)| *to = c[a]);
            for (fraction, cell) in along.iter_mut().zip(&mut cells[a]) {
                (*cell, *fraction) = split((*fraction - grid.min[a]) / grid.granularity);
            }
        }
        // Node 0 lies one cell before the first point, so a cell needs two nodes after that of its number.
        let [over_x, over_y, over_z] = grid.dims.map(|d| (d as u32).saturating_sub(2));
        let (high, deep) = (grid.dims[1] as u32, grid.dims[2] as u32);
        for (i, node) in self.node.iter_mut().enumerate() {
            let (x, y, z) = (cells[0][i], cells[1][i], cells[2][i]);
            let row = x.wrapping_add(1).wrapping_mul(high).wrapping_add(y).wrapping_add(1);
            let number = row.wrapping_mul(deep).wrapping_add(z).wrapping_add(1);
            *node = if (x < over_x) & (y < over_y) & (z < over_z) { number } else { u32::MAX };
        }
    }

    /// The field at the first `count` points.
    fn interpolate(&mut self, count: usize, nodes: &[Node], dims: [usize; 3]) -> &[Node] {
        let (plane, row) = (dims[1] * dims[2], dims[2]);
        let [x, y, z] = &self.fraction;
        for i in 0..count {
            self.field[i] = match nodes.get(self.node[i] as usize..) {
                None => [0.0; 4],
                Some(corner) => {
                    let edge = |at: usize| {
                        let ends = &corner[at..at + 2];
                        mix(&ends[0], &ends[1], z[i])
                    };
                    let low = mix(&edge(0), &edge(row), y[i]);
                    let high = mix(&edge(plane), &edge(plane + row), y[i]);
                    mix(&low, &high, x[i])
                }
            };
        }
        &self.field[..count]
    }
}

/// `at >= 0` as a whole number and the rest, 0..1. From 2^22 on, more cells than any grid has, the number is 2^22.
/// A cast would do, but one that saturates is not vectorised.
#[inline(always)]
fn split(at: f32) -> (u32, f32) {
    const LAST: f32 = (1u32 << 22) as f32;
    /// Sums with it are whole numbers, in their low bits.
    const WHOLE: f32 = (1u32 << 23) as f32;
    let at = if at < LAST { at } else { LAST };
    let near = (at + WHOLE) - WHOLE;
    let floor = if near > at { near - 1.0 } else { near };
    ((floor + WHOLE).to_bits() & ((1 << 23) - 1), at - floor)
}

#[inline(always)]
fn mix(a: &Node, b: &Node, fraction: f32) -> Node {
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * fraction)
}
