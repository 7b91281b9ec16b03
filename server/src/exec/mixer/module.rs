//! A mixer on libtorch.

use super::golden::{Golden, first_line};
use super::manifest::{Entry, Lambda, Manifest, Output, Upsample};
use super::{Answer, Ask, MixerError, Place};
use crate::batch::{CHANNELS, Layout, Raster};
use crate::exec::device::Device;
use crate::exec::torch::threads::alone;
use rayon::prelude::*;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use tch::{CModule, Kind, TchError, Tensor};

/// Pictures or pairs that a network on a device sees at once.
const CUDA_BATCH: usize = 64;
/// Largest difference from the golden output.
const GOLDEN_MOST: f32 = 1e-4;
/// By how much an interval may leave 0..=1: what a softmax in f32 rounds.
const ROUNDING: f32 = 1e-5;

/// See [`super::Mixer`].
#[derive(Debug)]
pub(super) struct Module {
    manifest: Manifest,
    digest: [u8; 32],
    /// On the server's device first, on the processor last; one when they are the same.
    places: Vec<Networks>,
}

/// The networks in one place.
#[derive(Debug)]
struct Networks {
    device: tch::Device,
    stem: Option<CModule>,
    mixer: CModule,
    /// Held by whoever uses a device: one block at a time, so that what it needs is bounded.
    turn: Mutex<()>,
}

impl Module {
    /// See [`super::Mixer::open`].
    pub(super) fn open(name: &str, file: &Path, device: Device) -> Result<Module, MixerError> {
        let (manifest, bytes) = Manifest::read(name, file)?;
        let place = match device {
            Device::Cpu | Device::Torch => tch::Device::Cpu,
            Device::Cuda(index) => tch::Device::Cuda(index),
            Device::Auto => tch::Device::cuda_if_available(),
        };
        let mut wanted = vec![place];
        if place != tch::Device::Cpu {
            wanted.push(tch::Device::Cpu);
        }
        let mut places = Vec::new();
        for device in wanted {
            let stem = manifest.stem.as_ref();
            let stem = stem.map(|entry| network(name, file, entry, device)).transpose()?;
            let mixer = network(name, file, &manifest.mixer, device)?;
            places.push(Networks { device, stem, mixer, turn: Mutex::new(()) });
        }
        let golden = Golden::read(name, file, &manifest.golden, &manifest)?;
        let module = Module { manifest, digest: *blake3::hash(&bytes).as_bytes(), places };
        module.places.iter().try_for_each(|networks| module.prove(name, networks, &golden))?;
        Ok(module)
    }

    /// Digest of the manifest, which holds those of the other files.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    pub(super) fn is_interval(&self) -> bool {
        self.manifest.output == Output::Interval
    }

    /// What becomes of `asks`, in order; `clean` are the rows of their block.
    pub(super) fn answer(
        &self,
        name: &str,
        asks: &[Ask],
        clean: &[u8],
        raster: &Raster,
        place: Place,
    ) -> Result<Vec<Answer>, MixerError> {
        let networks = match place {
            Place::Device => self.places.first(),
            Place::Cpu => self.places.last(),
        };
        let networks = networks.expect("a module is opened in one place at least");
        self.each(name, networks, asks, (clean, raster), |asks, out| {
            let told = |error| device_error(name, error);
            match self.manifest.output {
                Output::PartnerSigmoid | Output::Softmax => {
                    let masks = self.masks(out, raster).map_err(told)?;
                    self::checked(name, asks, masks, raster.height * raster.width)
                }
                Output::Interval => intervals(name, asks, &floats(out).map_err(told)?),
            }
        })
    }

    /// Two runs on the golden pairs have the golden output, and the same bits.
    fn prove(&self, name: &str, networks: &Networks, golden: &Golden) -> Result<(), MixerError> {
        let pairs = golden.lambda.len() as u32;
        let asks: Vec<Ask> = (0..pairs)
            .zip(&golden.lambda)
            .map(|(i, lambda)| Ask { base: i, partner: pairs + i, lambda: *lambda })
            .collect();
        let raster = Raster::new(self.manifest.height as usize, self.manifest.width as usize, Layout::Nchw);
        let run = || {
            self.each(name, networks, &asks, (&golden.clean, &raster), |_, out| {
                floats(out).map_err(|error| device_error(name, error))
            })
        };
        let first = run()?;
        let off = first.iter().zip(&golden.out).map(|(a, b)| (a - b).abs());
        // A NaN stays: no difference is larger than it.
        let difference = off.fold(0.0, |most: f32, d| if d > most || d.is_nan() { d } else { most });
        if first.len() != golden.out.len() || difference.is_nan() || difference > GOLDEN_MOST {
            return Err(MixerError::Golden { name: name.into(), difference });
        }
        let again = run()?;
        let same = first.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits());
        if same { Ok(()) } else { Err(MixerError::Unsteady { name: name.into() }) }
    }

    /// Runs the networks on the pairs of `asks`: the stem once a row, whatever number of pairs it is in. `finish` gets a
    /// few pairs with their output, of the manifest's shape.
    fn each<T: Send>(
        &self,
        name: &str,
        networks: &Networks,
        asks: &[Ask],
        (clean, raster): (&[u8], &Raster),
        finish: impl Fn(&[Ask], &Tensor) -> Result<Vec<T>, MixerError> + Sync,
    ) -> Result<Vec<T>, MixerError> {
        let told = |error| device_error(name, error);
        let mut rows: Vec<u32> = asks.iter().flat_map(|ask| [ask.base, ask.partner]).collect();
        rows.sort_unstable();
        rows.dedup();
        let features = networks.run(&rows, |rows| {
            let features = self.features(networks, rows, clean, raster).map_err(told)?;
            Ok(features.f_split(1, 0).map_err(told)?.into_iter().map(Mutex::new).collect())
        })?;
        let of = |row: u32| {
            let at = rows.binary_search(&row).expect("the row was listed above");
            features[at].lock().unwrap_or_else(PoisonError::into_inner).shallow_clone()
        };
        networks.run(asks, |asks| {
            let side = |which: fn(&Ask) -> u32| {
                Tensor::f_cat(&asks.iter().map(|ask| of(which(ask))).collect::<Vec<_>>(), 0)
            };
            let lambda = asks.iter().map(|ask| match self.manifest.lambda {
                Lambda::Base => ask.lambda,
                Lambda::Partner => 1.0 - ask.lambda,
            });
            let lambda = Tensor::f_from_slice(&lambda.collect::<Vec<_>>()).map_err(told)?;
            let lambda = lambda.f_to_device(networks.device).map_err(told)?;
            let pair = [side(|ask| ask.base).map_err(told)?, side(|ask| ask.partner).map_err(told)?, lambda];
            let out = networks.mixer.forward_ts(&pair).map_err(told)?;
            let (found, wanted) = (out.size(), self.manifest.shape(asks.len()));
            if found != wanted {
                return Err(MixerError::Shape { name: name.into(), found, wanted });
            }
            finish(asks, &out.f_to_kind(Kind::Float).map_err(told)?)
        })
    }

    /// Features of `rows`, or the pictures that a mixer without stem sees.
    fn features(
        &self,
        networks: &Networks,
        rows: &[u32],
        clean: &[u8],
        raster: &Raster,
    ) -> Result<Tensor, TchError> {
        let Manifest { height, width, mean, std, .. } = &self.manifest;
        let row = |row: &u32| &clean[*row as usize * raster.len()..][..raster.len()];
        let bytes: Vec<u8> = rows.iter().flat_map(row).copied().collect();
        let sizes = |n: usize| n as i64;
        let (n, channels) = (sizes(rows.len()), sizes(CHANNELS));
        let (h, w) = (sizes(raster.height), sizes(raster.width));
        let pictures = Tensor::f_from_slice(&bytes)?.f_to_device(networks.device)?;
        let mut pictures = match raster.step {
            1 => pictures.f_view([n, channels, h, w])?.f_to_kind(Kind::Float)?,
            _ => {
                let last = pictures.f_view([n, h, w, channels])?.f_permute([0, 3, 1, 2])?;
                last.f_to_kind(Kind::Float)?.f_contiguous()?
            }
        };
        let size = [i64::from(*height), i64::from(*width)];
        if size != [h, w] {
            pictures = pictures.f_internal_upsample_bilinear2d_aa(size, false, None::<f64>, None::<f64>)?;
        }
        let channel = |values: &[f32; 3]| {
            Tensor::f_from_slice(values)?.f_view([1, channels, 1, 1])?.f_to_device(networks.device)
        };
        let pictures = pictures.f_div_scalar(255.0)?.f_sub(&channel(mean)?)?.f_div(&channel(std)?)?;
        match &networks.stem {
            Some(stem) => stem.forward_ts(&[pictures]),
            None => Ok(pictures),
        }
    }

    /// Weights of the bases at every pixel of `raster`, from logits: those grow first.
    fn masks(&self, logits: &Tensor, raster: &Raster) -> Result<Vec<f32>, TchError> {
        let size = [raster.height as i64, raster.width as i64];
        let none = None::<f64>;
        let logits = match self.manifest.upsample() {
            Upsample::Nearest => logits.f_upsample_nearest2d(size, none, none)?,
            Upsample::Bilinear => logits.f_upsample_bilinear2d(size, false, none, none)?,
        };
        floats(&match self.manifest.output {
            Output::PartnerSigmoid => logits.f_sigmoid()?.f_rsub_scalar(1.0)?,
            Output::Softmax | Output::Interval => logits.f_softmax(1, Kind::Float)?.f_narrow(1, 0, 1)?,
        })
    }
}

impl Networks {
    /// Carries out `work` on all `items` in order: one at a time and on many threads on the processor, otherwise many at a
    /// time on this one.
    fn run<T: Sync, R: Send>(
        &self,
        items: &[T],
        work: impl Fn(&[T]) -> Result<Vec<R>, MixerError> + Sync,
    ) -> Result<Vec<R>, MixerError> {
        let work = |items: &[T]| {
            steady();
            let _no_grad = tch::no_grad_guard();
            work(items)
        };
        let made: Vec<Vec<R>> = if self.device.is_cuda() {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            items.chunks(CUDA_BATCH).map(work).collect::<Result<_, _>>()?
        } else {
            items.par_chunks(1).map(work).collect::<Result<_, _>>()?
        };
        Ok(made.into_iter().flatten().collect())
    }
}

/// Lets libtorch do what it does for this thread on this thread alone and as the module says: what the optimiser of
/// TorchScript makes of a graph after its first runs changes bits, too. Threads already hold one picture or pair each.
fn steady() {
    alone();
    tch::jit::set_graph_executor_optimize(false);
}

/// Masks of `asks`, checked.
fn checked(name: &str, asks: &[Ask], masks: Vec<f32>, pixels: usize) -> Result<Vec<Answer>, MixerError> {
    let one = |(ask, mask): (&Ask, &[f32])| {
        // NaN is in no range.
        match mask.iter().find(|weight| !(0.0..=1.0).contains(*weight)) {
            None => Ok(Answer::Mask(mask.into())),
            Some(weight) => Err(values(name, ask, format!("a mask with {weight}, want 0..=1"))),
        }
    };
    asks.iter().zip(masks.chunks_exact(pixels)).map(one).collect()
}

/// Intervals of `asks`, checked.
fn intervals(name: &str, asks: &[Ask], out: &[f32]) -> Result<Vec<Answer>, MixerError> {
    let one = |(ask, ends): (&Ask, &[f32])| {
        let (low, length) = (ends[0], ends[1]);
        let fits = low >= -ROUNDING && length >= -ROUNDING && low + length <= 1.0 + ROUNDING;
        match fits {
            true => Ok(Answer::Interval(low, length)),
            false => {
                let why = format!("the interval from {low} of length {length}, want it within 0..=1");
                Err(values(name, ask, why))
            }
        }
    };
    asks.iter().zip(out.chunks_exact(2)).map(one).collect()
}

fn values(name: &str, ask: &Ask, why: String) -> MixerError {
    MixerError::Values { name: name.into(), base: ask.base, partner: ask.partner, why }
}

/// All numbers, on the host.
fn floats(tensor: &Tensor) -> Result<Vec<f32>, TchError> {
    Vec::try_from(tensor.f_reshape([-1])?.f_to_device(tch::Device::Cpu)?)
}

/// Loads a module whose bytes the manifest names.
fn network(name: &str, manifest: &Path, entry: &Entry, device: tch::Device) -> Result<CModule, MixerError> {
    let (file, bytes) = entry.read(name, manifest)?;
    CModule::load_data_on_device(&mut &bytes[..], device).map_err(|error| MixerError::Load {
        name: name.into(),
        file,
        why: first_line(&error.to_string()),
    })
}

fn device_error(name: &str, error: TchError) -> MixerError {
    MixerError::Device { name: name.into(), error: error.into() }
}
