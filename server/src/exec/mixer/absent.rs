//! In the place of mixers, in builds without libtorch: there is no value of [`Module`].

use super::{Answer, Ask, MixerError, Place};
use crate::batch::Raster;
use crate::exec::device::Device;
use std::{convert::Infallible, path::Path};

/// What [`super::Mixer`] would hold.
#[derive(Debug)]
pub(super) struct Module(Infallible);

impl Module {
    /// Refuses.
    pub(super) fn open(name: &str, _: &Path, _: Device) -> Result<Module, MixerError> {
        Err(MixerError::NotBuilt { name: name.into() })
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        match self.0 {}
    }

    pub(super) fn is_interval(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn answer(
        &self,
        _: &str,
        _: &[Ask],
        _: &[u8],
        _: &Raster,
        _: Place,
    ) -> Result<Vec<Answer>, MixerError> {
        match self.0 {}
    }
}
