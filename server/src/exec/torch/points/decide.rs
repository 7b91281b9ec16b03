//! Which points pass the tests of a part: sectors of azimuth, bands of inclination, classes.

use super::pack::Cloud;
use super::spans::Spans;
use super::union::{Draft, turned};
use super::{DeviceError, wide_axes};
use crate::exec::points::union::Part;
use crate::exec::torch::upload;
use std::f64::consts::TAU;
use tch::{Kind, Tensor};

/// What a point of a part has to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Test<'a> {
    /// Whether its azimuth is in `from..to` is `inside`.
    Sector { from: f32, to: f32, inside: bool },
    /// Whether its band of inclination leaves is `inside`.
    Bands { edges: &'a [f32], odd: bool, inside: bool },
    /// Its class is one of these, ascending.
    Classes(&'a [i32]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kinds {
    Sector,
    Bands,
    Classes,
}

impl Test<'_> {
    fn kind(&self) -> Kinds {
        match self {
            Test::Sector { .. } => Kinds::Sector,
            Test::Bands { .. } => Kinds::Bands,
            Test::Classes(_) => Kinds::Classes,
        }
    }
}

/// Whether each of `points` passes all tests of its part: the first test of all parts, then the second.
pub(super) fn pass(
    drafts: &[Draft<'_>],
    spans: &Spans,
    points: &Tensor,
    cloud: &Cloud,
) -> Result<Tensor, DeviceError> {
    let mut chosen = Tensor::f_ones([spans.total], (Kind::Bool, points.device()))?;
    let rounds = drafts.iter().map(|draft| draft.tests.len()).max().unwrap_or(0);
    for round in 0..rounds {
        for kind in [Kinds::Sector, Kinds::Bands, Kinds::Classes] {
            let tested = |draft: &&Draft<'_>| draft.tests.get(round).is_some_and(|test| test.kind() == kind);
            let (mut parts, mut tests, mut starts) = (Vec::new(), Vec::new(), Vec::new());
            for (draft, start) in drafts.iter().zip(&spans.starts).filter(|(draft, _)| tested(draft)) {
                parts.push(&draft.part);
                tests.push(draft.tests[round]);
                starts.push(*start);
            }
            if parts.is_empty() {
                continue;
            }
            let lens = parts.iter().map(|part| part.len() as i64).collect();
            let own = Spans::new(points.device(), lens)?;
            let rows = own.places(&starts)?;
            let points = points.f_index_select(0, &rows)?;
            let passed = match kind {
                Kinds::Sector => sectors(&own, &tests, &placed(&own, &parts, &points, cloud)?)?,
                Kinds::Bands => bands(&own, &tests, &placed(&own, &parts, &points, cloud)?)?,
                Kinds::Classes => classes(&own, &tests, &cloud.segment.f_index_select(0, &points)?)?,
            };
            let passed = passed.f_logical_and(&chosen.f_index_select(0, &rows)?)?;
            let _ = chosen.f_index_copy_(0, &rows, &passed)?;
        }
    }
    Ok(chosen)
}

/// Places of points, turned with their parts, as f64 per axis.
fn placed(
    spans: &Spans,
    parts: &[&Part],
    points: &Tensor,
    cloud: &Cloud,
) -> Result<[Tensor; 3], DeviceError> {
    wide_axes(&turned(spans, parts, &cloud.coord.f_index_select(0, points)?)?)
}

/// For each point what its test asks for.
fn wanted(spans: &Spans, tests: &[Test<'_>]) -> Result<Tensor, DeviceError> {
    let inside = |test: &Test<'_>| match test {
        Test::Sector { inside, .. } | Test::Bands { inside, .. } => *inside,
        Test::Classes(_) => true,
    };
    let inside: Vec<bool> = tests.iter().map(inside).collect();
    spans.spread(&upload::truths(spans.of.device(), &inside, &[-1])?)
}

/// The words of [`crate::plan::Op::Sectors`].
fn sectors(spans: &Spans, tests: &[Test<'_>], [x, y, _]: &[Tensor; 3]) -> Result<Tensor, DeviceError> {
    let ends = |of: fn(f32, f32) -> f32| -> Result<Tensor, DeviceError> {
        let end = |test: &Test<'_>| match test {
            Test::Sector { from, to, .. } => f64::from(of(*from, *to)),
            Test::Bands { .. } | Test::Classes(_) => 0.0,
        };
        let ends: Vec<f64> = tests.iter().map(end).collect();
        spans.spread(&upload::sent(x.device(), &ends, &[-1])?)
    };
    let (from, to) = (ends(|from, _| from)?, ends(|_, to| to)?);
    let azimuth = y.f_atan2(x)?;
    let inside = |azimuth: &Tensor| -> Result<Tensor, DeviceError> {
        Ok(from.f_le_tensor(azimuth)?.f_logical_and(&azimuth.f_lt_tensor(&to)?)?)
    };
    let turned = inside(&azimuth.f_add_scalar(TAU)?)?.f_logical_or(&inside(&azimuth.f_sub_scalar(TAU)?)?)?;
    Ok(inside(&azimuth)?.f_logical_or(&turned)?.f_eq_tensor(&wanted(spans, tests)?)?)
}

/// The words of [`crate::plan::Op::Bands`].
fn bands(spans: &Spans, tests: &[Test<'_>], [x, y, z]: &[Tensor; 3]) -> Result<Tensor, DeviceError> {
    let device = z.device();
    let lists = tests.iter().map(|test| match test {
        Test::Bands { edges, odd, .. } => (*edges, *odd),
        Test::Sector { .. } | Test::Classes(_) => (&[][..], false),
    });
    let lists: Vec<(&[f32], bool)> = lists.collect();
    let most = lists.iter().map(|(edges, _)| edges.len()).max().unwrap_or(0);
    let inclination = z.f_atan2(&x.f_mul(x)?.f_add(&y.f_mul(y)?)?.f_sqrt()?)?;
    let odd: Vec<bool> = lists.iter().map(|(_, odd)| *odd).collect();
    // Every edge at or below a point takes it to the next band, from odd to even and back.
    let mut leaves = spans.spread(&upload::truths(device, &odd, &[-1])?)?;
    for edge in 0..most {
        // No point lies above the edges that a list lacks.
        let edges = lists.iter().map(|(edges, _)| edges.get(edge).copied().map_or(f64::INFINITY, f64::from));
        let edges = upload::sent(device, &edges.collect::<Vec<f64>>(), &[-1])?;
        leaves = leaves.f_logical_xor(&spans.spread(&edges)?.f_le_tensor(&inclination)?)?;
    }
    Ok(leaves.f_eq_tensor(&wanted(spans, tests)?)?)
}

/// Whether classes are those of the tests.
fn classes(spans: &Spans, tests: &[Test<'_>], classes: &Tensor) -> Result<Tensor, DeviceError> {
    /// Keys of one list: every class has one, whichever sign.
    const APART: i64 = 1 << 33;
    let lists = tests.iter().enumerate().flat_map(|(list, test)| {
        let classes = match test {
            Test::Classes(classes) => *classes,
            Test::Sector { .. } | Test::Bands { .. } => &[],
        };
        classes.iter().map(move |class| list as i64 * APART + i64::from(*class))
    });
    let lists: Vec<i64> = lists.collect();
    if lists.is_empty() {
        return Ok(Tensor::f_zeros([spans.total], (Kind::Bool, classes.device()))?);
    }
    let keys = spans.of.f_mul_scalar(APART)?.f_add(&classes.f_to_kind(Kind::Int64)?)?;
    let known = upload::places(classes.device(), &lists, &[-1])?;
    let at = keys.f_bucketize(&known, false, false)?.f_clamp_max(lists.len() as i64 - 1)?;
    Ok(known.f_index_select(0, &at)?.f_eq_tensor(&keys)?)
}
