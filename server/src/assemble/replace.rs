//! What becomes of a bad record: the next ones of its group are tried, and everybody is told.

use super::{AssembleError, BlockAt, Encoded, max_bytes, read};
use crate::batch::{SampleId, flags};
use crate::cloud::CloudError;
use crate::decode::DecodeError;
use crate::job::{Feed, Place, Tally};
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

/// A slot on its way to its record.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// The record that is tried next.
    pub id: SampleId,
    /// Its bytes, once they were read.
    pub encoded: Option<Encoded>,
    /// Why the slot's own record is bad.
    refused: Option<Refusal>,
    /// Records tried in its place.
    probes: u64,
    /// Whether a replacement was logged.
    told: bool,
}

/// The slots of a block that is made step by step: where a bad record's successor is in a store, it is asked for and
/// the block is begun again, so that no thread of the CPU pool waits for a store.
#[derive(Clone, Debug)]
pub struct Slots(pub(super) Vec<Slot>);

impl Slots {
    /// Nothing is read yet.
    pub fn new(at: &BlockAt) -> Slots {
        let slot = |id| Slot { id, encoded: None, refused: None, probes: 0, told: false };
        Slots(at.places.iter().map(|place| slot(place.id)).collect())
    }

    /// Reads what is not read yet; blocks.
    pub(super) fn read(&mut self, feed: &Feed) -> Result<(), AssembleError> {
        for slot in self.0.iter_mut().filter(|slot| slot.encoded.is_none()) {
            slot.encoded = Some(read(feed, slot.id, max_bytes(feed))?);
        }
        Ok(())
    }
}

/// Whether a record is in a store.
pub(super) fn far(feed: &Feed, id: SampleId) -> bool {
    feed.groups[id.group as usize].source.far()
}

/// What `make` makes of the slot's record, or of another one of its group when that is bad. `None` when the one to try
/// next is in a store and not read yet.
pub(super) fn settle<T>(
    feed: &Feed,
    place: &Place,
    slot: &mut Slot,
    mut make: impl FnMut(SampleId, &Encoded) -> Result<T, Refusal>,
) -> Result<Option<(T, Sample)>, AssembleError> {
    loop {
        let encoded = match slot.encoded.take() {
            Some(encoded) => encoded,
            None if far(feed, slot.id) => return Ok(None),
            None => read(feed, slot.id, max_bytes(feed))?,
        };
        let reason = match make(slot.id, &encoded) {
            Ok(made) => {
                slot.encoded = Some(encoded); // another slot may have the block begun again
                return Ok(Some((made, sample(feed, place, slot))));
            }
            Err(reason) => reason,
        };
        let reason = slot.refused.get_or_insert(reason);
        let next = feed.order.probe(place, slot.probes).filter(|_| slot.probes < PROBES);
        let Some(id) = next else {
            let (record, reason) = (feed.record_name(place.id), reason.clone());
            return Err(AssembleError::NoReplacement { record, reason, probes: slot.probes });
        };
        (slot.id, slot.probes) = (id, slot.probes + 1);
    }
}

/// What is told of a slot whose record is good.
fn sample(feed: &Feed, place: &Place, slot: &mut Slot) -> Sample {
    let padded = if place.padded { flags::PADDED } else { 0 };
    let group = &feed.groups[slot.id.group as usize];
    let label = group.label(group.record(slot.id.index));
    let Some(reason) = slot.refused.clone() else {
        return Sample { id: slot.id, label, flags: padded, replaced: None };
    };
    let record = feed.record_name(place.id);
    if !std::mem::replace(&mut slot.told, true) {
        tracing::warn!(%record, %reason, "bad record replaced");
    }
    let replaced = Some(Replaced { record, reason, probes: slot.probes });
    Sample { id: slot.id, label, flags: padded | flags::REPLACED, replaced }
}

/// Counts the records of a block; fails when more of the feed's were bad than `limit` allows.
pub(super) fn tally<'a>(
    tally: &Tally,
    limit: f64,
    samples: impl ExactSizeIterator<Item = &'a Sample>,
) -> Result<(), AssembleError> {
    let seen = samples.len() as u64;
    let bad: Vec<&Replaced> = samples.filter_map(|s| s.replaced.as_ref()).collect();
    match (tally.add(seen, bad.len() as u64, limit), bad.last()) {
        (Err((seen, bad)), Some(Replaced { record, reason, .. })) => {
            let (record, reason) = (record.clone(), reason.to_string());
            Err(AssembleError::TooManyBad { bad, seen, limit, record, reason })
        }
        _ => Ok(()),
    }
}
