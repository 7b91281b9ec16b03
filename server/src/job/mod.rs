//! A job: everything that a batch is a function of, resolved once from its spec and the sources' indexes.

mod check;
mod eval;
mod groups;
mod mix;
mod order;
mod registry;
mod resolve;

pub use check::Violation;
pub use order::{Order, Place};
pub use registry::Jobs;
pub use resolve::{MAX_BATCH, resolve};

use crate::batch::{Raster, SampleId};
use crate::decode::Limits;
use crate::exec::Format;
use crate::plan::{block::MixRule, fields::Bank, view::ViewRule};
use crate::rng::Stream;
use crate::source::Source;
use mixfeed_proto as v1;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::watch;

/// The numerics of this build: rules of decoder, resampler and executor. Raised by hand when golden digests change.
pub const NUMERICS: &str = "cpu-1";

/// A job that cannot be opened or served as asked.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Fields of the spec that don't fit.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Violation>),
    /// A source or group that the operator did not declare.
    #[error("{what} `{name}` is not known, want one of {known}")]
    Unknown {
        /// "source", "group" or "job".
        what: &'static str,
        /// Name asked for.
        name: String,
        /// Names there are.
        known: String,
    },
    /// Numerics that this server lacks.
    #[error("numerics `{asked}` is not offered, this server has `{NUMERICS}`")]
    Numerics {
        /// Numerics asked for.
        asked: String,
    },
    /// Legal, but not in this build.
    #[error("{0} is not in this build")]
    Unsupported(String),
    /// The name is taken by another spec.
    #[error("job `{name}` is open with digest {open}, the given spec has {given}")]
    OtherDigest {
        /// Job.
        name: String,
        /// Digest of the open job, hex.
        open: String,
        /// Digest of the given spec, hex.
        given: String,
    },
    /// The caller expects another job: other spec, other data or a cursor of another job.
    #[error("{what} has digest {found}, job `{name}` has {expected}")]
    Expected {
        /// Job.
        name: String,
        /// "cursor", "expected_digest" or "receipt".
        what: &'static str,
        /// Digest of the job, hex.
        expected: String,
        /// Digest that came, hex.
        found: String,
    },
    /// A position that cannot be served.
    #[error("{0}")]
    Position(String),
    /// No room for another job.
    #[error("{open} jobs are open, want at most {limit}")]
    TooMany {
        /// Open jobs.
        open: usize,
        /// Limit of the server.
        limit: usize,
    },
}

/// Names that an error lists.
const NAMES_LISTED: usize = 20;

/// The first names, for errors.
fn known_names<'a>(mut names: impl Iterator<Item = &'a str>) -> String {
    let mut text = names.by_ref().take(NAMES_LISTED).collect::<Vec<_>>().join(", ");
    let more = names.count();
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}

/// Digest in hex.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// One group of a job.
#[derive(Debug)]
pub struct JobGroup {
    /// "SOURCE/GROUP".
    pub name: String,
    /// Where its records are.
    pub source: Arc<dyn Source>,
    /// Index of the group in the source.
    pub group: usize,
    /// Job's class of each class of the source.
    pub classes: Arc<[i32]>,
    /// Share out of 2^32.
    pub weight: u64,
}

impl JobGroup {
    /// Record number in the source of the group's `index`-th record.
    pub fn record(&self, index: u64) -> u32 {
        self.source.index().groups[self.group].records[index as usize]
    }

    /// Records in the group.
    pub fn len(&self) -> u64 {
        self.source.index().groups[self.group].records.len() as u64
    }

    /// True when it has no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Job's label of a record of the source; -1 when it has none.
    pub fn label(&self, record: u32) -> i32 {
        let own = self.source.index().records[record as usize].label;
        usize::try_from(own).ok().and_then(|own| self.classes.get(own)).copied().unwrap_or(-1)
    }
}

/// How labels are delivered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelRule {
    /// As (n, classes) instead of pairs.
    pub dense: bool,
    /// Label smoothing.
    pub smoothing: f64,
}

/// A batch sequence: what is shown, in which order, how it is mixed and what it looks like.
#[derive(Debug)]
pub struct Feed {
    /// Groups.
    pub groups: Vec<JobGroup>,
    /// Class names.
    pub classes: Vec<String>,
    /// Which record stands where.
    pub order: Order,
    /// Slots of a pairing block.
    pub mix_block: u64,
    /// One picture.
    pub view: ViewRule,
    /// Mixing.
    pub mix: MixRule,
    /// Output.
    pub format: Format,
    /// Labels.
    pub labels: LabelRule,
    /// Limits of one record.
    pub limits: Limits,
    /// Share of bad records above which the feed fails.
    pub max_bad_fraction: f64,
    /// Draws of mixing.
    pub mix_stream: Stream,
    /// Draws of views.
    pub view_stream: Stream,
    /// Random fields.
    pub fields: Bank,
    /// Encoded size of a record in bytes, on average.
    pub mean_record_bytes: u64,
    /// Records decoded and refused so far, for `max_bad_fraction`.
    pub tally: Tally,
}

/// Counts of decoded and refused records.
#[derive(Debug, Default)]
pub struct Tally {
    seen: AtomicU64,
    bad: AtomicU64,
}

/// Records after which the share of bad ones means something; a limit of 0 needs none.
const TALLY_MIN: u64 = 200;

impl Tally {
    /// Counts records; returns (seen, bad) when more than `limit` of them were bad.
    pub fn add(&self, seen: u64, bad: u64, limit: f64) -> Result<(), (u64, u64)> {
        let seen = self.seen.fetch_add(seen, Ordering::Relaxed) + seen;
        let bad = self.bad.fetch_add(bad, Ordering::Relaxed) + bad;
        let counts = limit == 0.0 || seen >= TALLY_MIN;
        if counts && bad as f64 > limit * seen as f64 { Err((seen, bad)) } else { Ok(()) }
    }
}

impl Feed {
    /// Pairing blocks of a full step.
    pub fn blocks(&self) -> u64 {
        self.order.batch().div_ceil(self.mix_block)
    }

    /// Numbers of ranks that can share a step, ascending.
    pub fn world_sizes(&self) -> Vec<u32> {
        let blocks = self.blocks();
        (1..=blocks).filter(|r| blocks.is_multiple_of(*r)).map(|r| r as u32).collect()
    }

    /// Encoded size of a record in bytes, as indexed.
    pub fn size(&self, id: SampleId) -> u64 {
        let group = &self.groups[id.group as usize];
        group.source.index().records[group.record(id.index) as usize].size
    }

    /// Group and name of a record, for people.
    pub fn record_name(&self, id: SampleId) -> String {
        let group = &self.groups[id.group as usize];
        format!("{}: {}", group.name, group.source.index().records[group.record(id.index) as usize].name)
    }

    /// Output rows of a block of `slots`.
    pub fn rows_of(&self, slots: usize) -> usize {
        self.mix.rows_of(slots)
    }

    /// Output rows of `slots` consecutive slots that begin with a block.
    pub fn rows_of_slots(&self, slots: u64) -> u64 {
        let block = |first: u64| self.rows_of(self.mix_block.min(slots - first) as usize) as u64;
        (0..slots).step_by(self.mix_block as usize).map(block).sum()
    }

    /// Bytes of one output image.
    pub fn image_bytes(&self) -> usize {
        self.format.raster.len() * self.format.dtype.size()
    }

    /// Shape of one image on the wire.
    pub fn image_shape(&self) -> [u64; 3] {
        let Raster { height, width, planes, step } = self.format.raster;
        let (h, w) = (height as u64, width as u64);
        if planes == 1 { [h, w, step as u64] } else { [planes as u64, h, w] }
    }
}

/// An open job.
#[derive(Debug)]
pub struct Job {
    /// Name.
    pub name: String,
    /// Spec with every default filled in.
    pub spec: v1::JobSpec,
    /// Digest of the resolved spec and the index digests.
    pub digest: [u8; 32],
    /// Its training batches.
    pub feed: Arc<Feed>,
    /// Turns true when the job is closed.
    pub closed: watch::Sender<bool>,
}

impl Job {
    /// Cursor to `next_step`.
    pub fn cursor(&self, next_step: u64) -> v1::Cursor {
        let mut cursor = v1::Cursor {
            job: self.name.clone(),
            digest: self.digest.to_vec().into(),
            branch: 0,
            next_step,
            mixture_seq: 1,
            crc: 0,
        };
        cursor.crc = crc32c::crc32c(&prost::Message::encode_to_vec(&cursor));
        cursor
    }

    /// Step that a cursor points to.
    ///
    /// # Errors
    /// [`JobError::Position`] for a damaged cursor, [`JobError::Expected`] for one of another job.
    pub fn seek(&self, cursor: &v1::Cursor) -> Result<u64, JobError> {
        let crc = crc32c::crc32c(&prost::Message::encode_to_vec(&v1::Cursor { crc: 0, ..cursor.clone() }));
        if crc != cursor.crc {
            return Err(JobError::Position("cursor is damaged: its checksum does not fit".into()));
        }
        if cursor.digest != self.digest[..] {
            return Err(JobError::Expected {
                name: self.name.clone(),
                what: "cursor",
                expected: hex(&self.digest),
                found: hex(&cursor.digest),
            });
        }
        if cursor.branch != 0 {
            return Err(JobError::Position(format!("cursor is of branch {}, this job has 0", cursor.branch)));
        }
        Ok(cursor.next_step)
    }

    /// The feed of an eval set: `group` ("SOURCE" or "SOURCE/GROUP" of this job) in order, once, unmixed.
    ///
    /// # Errors
    /// [`JobError::Unknown`] when the job has no such group, [`JobError::Invalid`] for an illegal batch.
    pub fn eval(&self, group: &str, batch: u32, pad: bool) -> Result<Feed, JobError> {
        eval::feed(self, group, batch, pad)
    }
}
