//! Random fields on the device: large, shared by many rows and steps, and never changed.

use super::{DeviceError, upload};
use crate::plan::fields::RankMap;
use std::sync::{Arc, Weak};
use tch::{Device, Tensor};

/// Bytes of fields that are kept; a bank of a job has at most as many.
const KEEP: usize = 256 << 20;

/// Fields that were sent to the device.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// A weak reference keeps an address from being used again, so that equal addresses are equal fields.
    kept: Vec<(Weak<RankMap>, Tensor)>,
    bytes: usize,
}

impl Fields {
    /// Ranks of `field` on the device, (height, width) i32.
    pub(super) fn get(&mut self, device: Device, field: &Arc<RankMap>) -> Result<Tensor, DeviceError> {
        let own = Arc::as_ptr(field);
        if let Some((_, tensor)) = self.kept.iter().find(|(weak, _)| weak.as_ptr() == own) {
            return Ok(tensor.shallow_clone());
        }
        let size = field.ranks.len() * 4;
        if self.bytes + size > KEEP {
            self.kept.clear();
            self.bytes = 0;
        }
        let ranks: Vec<i32> = field.ranks.iter().map(|rank| *rank as i32).collect();
        let tensor = upload::small(device, &ranks, &[i64::from(field.height), i64::from(field.width)])?;
        self.kept.push((Arc::downgrade(field), tensor.shallow_clone()));
        self.bytes += size;
        Ok(tensor)
    }
}
