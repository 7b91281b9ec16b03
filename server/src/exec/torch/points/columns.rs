//! What is sent of the chosen points, a tensor for each column.

use super::pack::Cloud;
use super::union::Chosen;
use super::voxel::Voxels;
use super::{DeviceError, axes};
use crate::exec::device::Scenes;
use crate::exec::points::columns::Feature;
use crate::exec::torch::{Torch, upload};
use tch::{Kind, Tensor};

/// The columns of a block in descriptor order; `places` are those of all chosen points.
pub(super) fn columns(
    torch: &Torch,
    block: &Scenes,
    cloud: &Cloud,
    chosen: &Chosen,
    places: &Tensor,
    voxels: Option<&Voxels>,
) -> Result<Vec<Tensor>, DeviceError> {
    let sent = Sent { torch, cloud, chosen, kept: voxels.map(|v| &v.kept) };
    let coord = sent.only(places)?;
    let points = sent.only(&chosen.points)?;
    let mut columns = Vec::with_capacity(9);
    if !block.features.is_empty() {
        let features = block.features.iter().map(|feature| sent.feature(*feature, &coord, &points));
        columns.push(Tensor::f_cat(&features.collect::<Result<Vec<_>, _>>()?, 1)?);
    }
    columns.insert(0, coord);
    let part = sent.only(&chosen.spans.of)?;
    columns.push(match voxels.and_then(|v| v.segment.as_ref()) {
        Some(segment) => segment.shallow_clone(),
        None => cloud.segment.f_index_select(0, &points)?,
    });
    columns.push(sent.instances(&points, &part)?);
    let numbers: Vec<u8> = chosen.rows.iter().flatten().map(|part| part.scene).collect();
    columns.push(upload::sent(torch.place.device, &numbers, &[-1])?.f_index_select(0, &part)?);
    if let (Some(wish), Some(voxels)) = (&block.voxels, voxels) {
        columns.push(voxels.grid.shallow_clone());
        if wish.count {
            columns.push(voxels.counts.f_to_kind(Kind::Int)?);
        }
        if let Some(inverse) = &voxels.inverse {
            columns.push(inverse.shallow_clone());
            columns.push(cloud.segment.f_index_select(0, &chosen.points)?);
        }
    }
    Ok(columns)
}

/// The points that are sent of the chosen ones.
struct Sent<'a> {
    torch: &'a Torch,
    cloud: &'a Cloud,
    chosen: &'a Chosen,
    /// Absent for all.
    kept: Option<&'a Tensor>,
}

impl Sent<'_> {
    /// Those of the values of chosen points.
    fn only(&self, values: &Tensor) -> Result<Tensor, DeviceError> {
        match self.kept {
            Some(kept) => Ok(values.f_index_select(0, kept)?),
            None => Ok(values.shallow_clone()),
        }
    }

    /// A feature of the sent points, which stand at `coord`: f32 (points, width).
    fn feature(&self, feature: Feature, coord: &Tensor, points: &Tensor) -> Result<Tensor, DeviceError> {
        let missing = || DeviceError::Failed("scenes lack what a column holds".into());
        let of = |values: &Option<Tensor>, points: &Tensor| -> Result<Tensor, DeviceError> {
            Ok(values.as_ref().ok_or_else(missing)?.f_index_select(0, points)?)
        };
        match feature {
            Feature::Coord => Ok(coord.shallow_clone()),
            Feature::Normal => self.only(&self.chosen.turned(&of(&self.cloud.normal, &self.chosen.points)?)?),
            Feature::Intensity => Ok(of(&self.cloud.intensity, points)?.f_unsqueeze(1)?),
            Feature::Distance => {
                let [x, y, z] = axes(coord)?;
                let square = x.f_mul(&x)?.f_add(&y.f_mul(&y)?)?.f_add(&z.f_mul(&z)?)?;
                // libtorch's root of f32 may be off by its last place. That of f64 is rounded to the right f32 even then.
                Ok(square.f_to_kind(Kind::Double)?.f_sqrt()?.f_to_kind(Kind::Float)?.f_unsqueeze(1)?)
            }
            Feature::Color(normal) => {
                let color = of(&self.cloud.color, points)?.f_div(&self.torch.full)?;
                let Some((mean, std)) = normal else { return Ok(color) };
                let triple = |values: &[f32; 3]| upload::floats(self.torch.place.device, values, &[1, 3]);
                Ok(color.f_sub(&triple(&mean)?)?.f_div(&triple(&std)?)?)
            }
        }
    }

    /// Ids of instances, unique in each row, of points of these parts.
    fn instances(&self, points: &Tensor, part: &Tensor) -> Result<Tensor, DeviceError> {
        let device = self.torch.place.device;
        let Some(ids) = &self.cloud.instance else {
            return Ok(Tensor::f_full([points.numel() as i64], -1, (Kind::Int, device))?);
        };
        let ids = ids.f_index_select(0, points)?;
        let first: Vec<i32> = self.chosen.rows.iter().flatten().map(|part| part.instance).collect();
        let first = upload::small(device, &first, &[-1])?.f_index_select(0, part)?;
        Ok(ids.f_add(&first)?.f_where_self(&ids.f_ge(0)?, &ids)?)
    }
}
