//! From scenes as they are stored to their points: an op of all scenes that have it next, at once.

use super::groups::Group;
use super::held::{Coord, Held};
use super::spans::Spans;
use super::steps::{self, Members};
use super::{DeviceError, elastic};
use crate::exec::torch::upload;
use crate::plan::scene::SceneOp;
use tch::{Device, Kind, Tensor};

/// Stored scenes, one after the other.
#[derive(Debug)]
pub(super) struct Stored {
    /// f64 (points, 3).
    pub coord: Tensor,
    /// u8 (points, 3).
    pub color: Option<Tensor>,
    /// f32 (points, 3).
    pub normal: Option<Tensor>,
    /// What is subtracted first, of each scene.
    pub centres: Vec<[f64; 3]>,
}

/// Points on their way, f32 (points, 3) each.
#[derive(Debug)]
pub(super) struct Moving {
    pub coord: Tensor,
    pub color: Option<Tensor>,
    pub normal: Option<Tensor>,
    spans: Spans,
}

/// The ops of a scene that are carried out here, after its first centring: those of colours if there are `colours`.
pub(super) fn list(ops: &[SceneOp], colours: bool) -> Vec<&SceneOp> {
    let first = usize::from(matches!(ops, [SceneOp::Centre, ..]));
    let changes = |op: &&SceneOp| match op {
        SceneOp::Elastic { magnitude, .. } => *magnitude != 0.0,
        SceneOp::Colour { .. } | SceneOp::ColourJitter { .. } | SceneOp::ChannelDrop { .. } => colours,
        SceneOp::Centre
        | SceneOp::Recentre
        | SceneOp::Shift { .. }
        | SceneOp::Flip { .. }
        | SceneOp::Scale { .. }
        | SceneOp::Rotate { .. }
        | SceneOp::Jitter { .. }
        | SceneOp::Keep { .. }
        | SceneOp::Crop { .. } => true,
    };
    ops[first..].iter().filter(changes).collect()
}

/// What is subtracted from a scene first; 0 is subtracted exactly.
pub(super) fn centre(scene: &Held<'_>) -> [f64; 3] {
    match scene.coord {
        Coord::Stored(_, measured, [SceneOp::Centre, ..]) => measured.mean,
        Coord::Stored(..) | Coord::Made(_) => [0.0; 3],
    }
}

/// Carries out `groups` on scenes of so many points; `drawn` is what the ops of each group hold of points or nodes.
pub(super) fn transform(
    device: Device,
    lens: Vec<i64>,
    input: Stored,
    groups: &[Group<'_>],
    drawn: &[Option<Tensor>],
) -> Result<Moving, DeviceError> {
    let spans = Spans::new(device, lens)?;
    let centres = upload::sent(device, input.centres.as_flattened(), &[-1, 3])?;
    let coord = input.coord.f_sub(&spans.spread(&centres)?)?.f_to_kind(Kind::Float)?;
    let color = input.color.map(|color| color.f_to_kind(Kind::Float)).transpose()?;
    let mut moving = Moving { coord, color, normal: input.normal, spans };
    for (group, drawn) in groups.iter().zip(drawn) {
        let members = Members::new(&moving.spans, group)?;
        run(&mut moving, &members, &group.ops, drawn.as_ref())?;
    }
    Ok(moving)
}

impl Moving {
    /// Largest absolute coordinate of each scene.
    pub(super) fn far(&self) -> Result<Tensor, DeviceError> {
        self.spans.each(&self.coord.f_abs()?, |run| Ok(run.f_max()?))
    }
}

fn run(
    moving: &mut Moving,
    members: &Members,
    ops: &[&SceneOp],
    drawn: Option<&Tensor>,
) -> Result<(), DeviceError> {
    let Moving { coord, color, normal, .. } = moving;
    let nothing = || DeviceError::Failed("nothing was drawn for an op".into());
    let drawn = || drawn.ok_or_else(nothing);
    let add = |values: &Tensor| Ok(values.f_add(&drawn()?.f_view([-1, 3])?)?);
    match ops.first() {
        None | Some(SceneOp::Keep { .. } | SceneOp::Crop { .. }) => Ok(()),
        Some(SceneOp::Centre | SceneOp::Recentre) => {
            members.change(coord, |coord| steps::centre(members, coord))
        }
        Some(SceneOp::Shift { .. }) => members.change(coord, |coord| steps::shift(members, coord, ops)),
        Some(SceneOp::Flip { .. }) => {
            members.change(coord, |coord| steps::flip(members, coord, ops))?;
            members.change_some(normal, |normal| steps::sign(members, normal, ops))
        }
        Some(SceneOp::Elastic { .. }) => {
            members.change(coord, |coord| elastic::distort(members, coord, ops, drawn()?))
        }
        Some(SceneOp::Scale { .. }) => members.change(coord, |coord| steps::scale(members, coord, ops)),
        Some(SceneOp::Rotate { .. }) => {
            members.change(coord, |coord| steps::rotate(members, coord, ops))?;
            members.change_some(normal, |normal| steps::turn(members, normal, ops, &normal.f_zeros_like()?))
        }
        Some(SceneOp::Jitter { .. }) => members.change(coord, add),
        Some(SceneOp::Colour { .. }) => members.change_some(color, |color| steps::tint(members, color, ops)),
        Some(SceneOp::ColourJitter { .. }) => members.change_some(color, |color| steps::clip(&add(color)?)),
        Some(SceneOp::ChannelDrop { .. }) => {
            members.change_some(color, |color| steps::drop_channels(members, color, ops))
        }
    }
}
