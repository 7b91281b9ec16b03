//! Colour changes of many rows at once, by the formulas of the scalar executor: each operation of its own, in its order,
//! so that every value has its bits. Rows are (row, channel, y, x), u8.

use super::{DeviceError, Place, upload};
use crate::plan::view::Colour;
use tch::{Kind, Tensor};

/// Rows of a chunk and the factor or shift of each.
#[derive(Default)]
struct List {
    at: Vec<i64>,
    by: Vec<f32>,
}

impl List {
    fn push(&mut self, at: usize, by: f32) {
        self.at.push(at as i64);
        self.by.push(by);
    }
}

/// Applies the `changes` of each row in their order: the first ones of all rows, then the second ones.
pub(super) fn apply(place: &Place, changes: &[&[Colour]], rows: &mut Tensor) -> Result<(), DeviceError> {
    let most = changes.iter().map(|changes| changes.len()).max().unwrap_or(0);
    for number in 0..most {
        let [mut bright, mut contrast, mut saturated, mut turned] = <[List; 4]>::default();
        for (at, changes) in changes.iter().enumerate() {
            match changes.get(number) {
                Some(Colour::Brightness(factor)) => bright.push(at, *factor),
                Some(Colour::Contrast(factor)) => contrast.push(at, *factor),
                Some(Colour::Saturation(factor)) => saturated.push(at, *factor),
                Some(Colour::Hue(shift)) => turned.push(at, *shift),
                None => {}
            }
        }
        change(place, rows, &bright, |mut x, by| Ok(x.f_mul_(by)?))?;
        change(place, rows, &contrast, |mut x, by| {
            let pixels = (x.size()[2] * x.size()[3]) as f64;
            let sum = grey(&x)?.f_sum_dim_intlist([1, 2, 3].as_slice(), true, Kind::Double)?;
            let pixels = upload::sent(place.device, &[pixels], &[1])?;
            let mean = sum.f_div(&pixels)?.f_to_kind(Kind::Float)?;
            Ok(x.f_mul_(by)?.f_add_(&mean.f_mul(&rest(place, &contrast)?)?)?)
        })?;
        change(place, rows, &saturated, |mut x, by| {
            let greys = grey(&x)?.f_mul_(&rest(place, &saturated)?)?;
            Ok(x.f_mul_(by)?.f_add_(&greys)?)
        })?;
        change(place, rows, &turned, turn)?;
    }
    Ok(())
}

/// Puts what `to` makes of the rows of `list` (f32) and of its numbers back, cut to 0..=255 and truncated.
fn change(
    place: &Place,
    rows: &mut Tensor,
    list: &List,
    to: impl FnOnce(Tensor, &Tensor) -> Result<Tensor, DeviceError>,
) -> Result<(), DeviceError> {
    if list.at.is_empty() {
        return Ok(());
    }
    let by = upload::floats(place.device, &list.by, &[list.by.len() as i64, 1, 1, 1])?;
    if list.at.len() as i64 == rows.size()[0] {
        let mut made = to(rows.f_to_kind(Kind::Float)?, &by)?;
        // Copying floats to bytes truncates them.
        return Ok(rows.f_copy_(&made.f_clamp_(0.0, 255.0)?)?);
    }
    let places = upload::places(place.device, &list.at, &[list.at.len() as i64])?;
    let mut made = to(rows.f_index_select(0, &places)?.f_to_kind(Kind::Float)?, &by)?;
    let _ = rows.f_index_copy_(0, &places, &made.f_clamp_(0.0, 255.0)?.f_to_kind(Kind::Uint8)?)?;
    Ok(())
}

/// 1 minus each factor, rounded once.
fn rest(place: &Place, list: &List) -> Result<Tensor, DeviceError> {
    let rest: Vec<f32> = list.by.iter().map(|factor| (1.0 - f64::from(*factor)) as f32).collect();
    upload::floats(place.device, &rest, &[rest.len() as i64, 1, 1, 1])
}

/// Red, green and blue of `x`, each (row, 1, y, x).
fn channels(x: &Tensor) -> Result<[Tensor; 3], DeviceError> {
    Ok([x.f_narrow(1, 0, 1)?, x.f_narrow(1, 1, 1)?, x.f_narrow(1, 2, 1)?])
}

/// Luma: floor of the weighted sum.
fn grey(x: &Tensor) -> Result<Tensor, DeviceError> {
    let [r, g, b] = channels(x)?;
    let by = |channel: &Tensor, weight: f32| channel.f_mul_scalar(f64::from(weight));
    Ok(by(&r, 0.2989)?.f_add_(&by(&g, 0.587)?)?.f_add_(&by(&b, 0.114)?)?.f_floor_()?)
}

/// Turns hues: to HSV, add, back.
fn turn(mut x: Tensor, shift: &Tensor) -> Result<Tensor, DeviceError> {
    let [r, g, b] = channels(&x.f_mul_scalar_(f64::from(1.0f32 / 255.0))?)?;
    let max = r.f_maximum(&g)?.f_maximum(&b)?;
    let min = r.f_minimum(&g)?.f_minimum(&b)?;
    let range = max.f_sub(&min)?;
    // A grey pixel has no hue; dividing by one instead of zero leaves it 0.
    let flat = max.f_eq_tensor(&min)?;
    let s = range.f_div(&max.f_masked_fill(&flat, 1.0)?)?;
    let d = range.f_masked_fill(&flat, 1.0)?;
    let (red, green) = (max.f_eq_tensor(&r)?, max.f_eq_tensor(&g)?);
    let other = b.f_sub(&r)?.f_where_self(&green, &r.f_sub(&g)?)?;
    let apart = g.f_sub(&b)?.f_where_self(&red, &other)?;
    // 6, 8 or 10: where red, green or blue is largest.
    let sixths = max.f_full_like(10.0)?.f_masked_fill(&green, 8.0)?.f_masked_fill(&red, 6.0)?;
    let h = apart.f_div(&d)?.f_add_(&sixths)?.f_mul_scalar_(f64::from(1.0f32 / 6.0))?;
    let h = h.f_sub(&h.f_floor()?)?.f_add_(shift)?;
    let h = h.f_sub(&h.f_floor()?)?.f_mul_scalar_(6.0)?;
    let i = h.f_floor()?;
    let sf = s.f_mul(&h.f_sub(&i)?)?;
    let dull = s.f_rsub_scalar(1.0)?;
    let p = dull.f_mul(&max)?;
    let q = sf.f_rsub_scalar(1.0)?.f_mul_(&max)?;
    let t = sf.f_add(&dull)?.f_mul_(&max)?;
    let odd = i.f_remainder(2.0)?.f_eq(1.0)?;
    let ramp = q.f_where_self(&odd, &t)?;
    // Which of the three each channel shows in the sixths 0..=5; 6 is 0 again.
    let in_any = |sixths: [f64; 2]| -> Result<Tensor, DeviceError> {
        Ok(i.f_eq(sixths[0])?.f_logical_or(&i.f_eq(sixths[1])?)?)
    };
    let round = |full: Tensor, ramps: Tensor| -> Result<Tensor, DeviceError> {
        Ok(max.f_where_self(&full, &ramp.f_where_self(&ramps, &p)?)?)
    };
    let again = i.f_eq(6.0)?;
    let x = round(in_any([0.0, 5.0])?.f_logical_or(&again)?, in_any([1.0, 4.0])?)?;
    let y = round(in_any([1.0, 2.0])?, in_any([0.0, 3.0])?.f_logical_or(&again)?)?;
    let z = round(in_any([3.0, 4.0])?, in_any([2.0, 5.0])?)?;
    Ok(Tensor::f_cat(&[x, y, z], 1)?.f_clamp_(0.0, 1.0)?.f_mul_scalar_(f64::from(255.999f32))?)
}
