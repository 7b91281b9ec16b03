//! What becomes of a bad record: the next ones of its group are tried, and everybody is told.

use super::{AssembleError, Encoded, max_bytes, read};
use crate::batch::{SampleId, flags};
use crate::cloud::CloudError;
use crate::decode::DecodeError;
use crate::job::{Feed, Place, Tally};
use crate::metrics;
use crate::plan::scene::SceneError;

/// Records tried in the place of a bad one.
const PROBES: u64 = 16;

/// Why a record is bad. A property of the record and the job, never of chance.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A picture that cannot be decoded, or a record over a limit.
    #[error(transparent)]
    Picture(#[from] DecodeError),
    /// A file that is no scene.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// A scene that cannot be transformed as asked.
    #[error(transparent)]
    Scene(#[from] SceneError),
    /// An attribute that the job uses.
    #[error("has no {0}, want it, or a value in `points.fill`")]
    Missing(&'static str),
    /// A class that the job does not map.
    #[error("point {point} has class {class}, which the job does not map")]
    Class {
        /// Number of the point.
        point: usize,
        /// As stored.
        class: i32,
    },
    /// An instance whose number leaves no room for those of other scenes.
    #[error("point {point} is of instance {id}, want at most {limit}")]
    Instance {
        /// Number of the point.
        point: usize,
        /// As stored.
        id: i32,
        /// Limit.
        limit: i32,
    },
    /// Voxels too small to be counted.
    #[error("has coordinates up to {value} after its transforms, too far for voxels of {size}")]
    Fine {
        /// Largest absolute value.
        value: f32,
        /// Side of a voxel.
        size: f32,
    },
    /// Coordinates that lose their millimetres.
    #[error("has coordinates up to {value}, want at most {limit} without `points.center`")]
    Far {
        /// Largest absolute value.
        value: f64,
        /// Limit.
        limit: f64,
    },
}

/// The record in a slot.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Which one.
    pub id: SampleId,
    /// Job's class; -1 when it has none.
    pub label: i32,
    /// [`flags::PADDED`] and [`flags::REPLACED`].
    pub flags: u32,
    /// The bad record that it replaces.
    pub replaced: Option<Replaced>,
}

/// A bad record.
#[derive(Clone, Debug, PartialEq)]
pub struct Replaced {
    /// Source and record.
    pub record: String,
    /// Why it was refused.
    pub reason: Refusal,
    /// Records tried until a good one was found, 1..=16.
    pub probes: u64,
}

/// What `make` makes of the slot's record, or of another one of its group when that is bad.
pub(super) fn settle<T>(
    feed: &Feed,
    place: &Place,
    encoded: &Encoded,
    mut make: impl FnMut(SampleId, &Encoded) -> Result<T, Refusal>,
) -> Result<(T, Sample), AssembleError> {
    let padded = if place.padded { flags::PADDED } else { 0 };
    let of = |id: SampleId, flags, replaced| {
        let group = &feed.groups[id.group as usize];
        Sample { id, label: group.label(group.record(id.index)), flags, replaced }
    };
    let reason = match make(place.id, encoded) {
        Ok(made) => return Ok((made, of(place.id, padded, None))),
        Err(reason) => reason,
    };
    let record = feed.record_name(place.id);
    let mut probes = 0;
    while let Some(id) = feed.order.probe(place, probes).filter(|_| probes < PROBES) {
        probes += 1;
        if let Ok(made) = make(id, &read(feed, id, max_bytes(feed))?) {
            tracing::warn!(%record, %reason, "bad record replaced");
            let replaced = Replaced { record, reason, probes };
            return Ok((made, of(id, padded | flags::REPLACED, Some(replaced))));
        }
    }
    Err(AssembleError::NoReplacement { record, reason, probes })
}

/// Counts the records of a block; fails when more of the feed's were bad than `limit` allows.
pub(super) fn tally<'a>(
    job: &str,
    tally: &Tally,
    limit: f64,
    samples: impl ExactSizeIterator<Item = &'a Sample>,
) -> Result<(), AssembleError> {
    let seen = samples.len() as u64;
    let bad: Vec<&Replaced> = samples.filter_map(|s| s.replaced.as_ref()).collect();
    metrics::replaced(job, bad.len() as u64);
    match (tally.add(seen, bad.len() as u64, limit), bad.last()) {
        (Err((seen, bad)), Some(Replaced { record, reason, .. })) => {
            let (record, reason) = (record.clone(), reason.to_string());
            Err(AssembleError::TooManyBad { bad, seen, limit, record, reason })
        }
        _ => Ok(()),
    }
}
