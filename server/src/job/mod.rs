//! A job: everything that a batch is a function of, resolved once from its spec and the sources' indexes.

mod check;
mod chosen;
mod eval;
mod groups;
mod held;
mod learn;
mod mix;
mod numerics;
mod order;
mod pictures;
mod points;
mod registry;
mod resolve;
mod tokens;

pub use check::Violation;
pub use chosen::{Executors, Measure, Took};
pub use held::{EvalSet, Held};
pub use numerics::{MadeBy, NUMERICS, Numerics, TORCH, with_device};
pub use order::{Order, Place, places};
pub use pictures::{Image, LabelRule, Tally};
pub use points::{Attribute, Labels, Points, VoxelPick, VoxelRule};
pub use registry::Jobs;
pub use resolve::{Draft, MAX_BATCH, resolve, resolve_with};
pub use tokens::Tokens;

use crate::batch::SampleId;
use crate::keeper::{Keeper, KeeperError};
use crate::mixture::Slot;
use crate::pack::Rule;
use crate::plan::block::MixRule;
use crate::source::Source;
use mixfeed_proto as v1;
use std::sync::Arc;
use tokio::sync::watch;

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
    #[error("numerics `{asked}` is not offered, want `{NUMERICS}`, `{TORCH}` or `tolerant`")]
    Numerics {
        /// Numerics asked for.
        asked: String,
    },
    /// Numerics of a device, on a server without one.
    #[error(
        "numerics `{TORCH}` needs a device, and this server {}; use `{NUMERICS}` or `tolerant`, or ask a server with one",
        if *built { "runs with `server.device` = \"cpu\"" } else { "was built without the feature `libtorch`" }
    )]
    NoDevice {
        /// Whether the build has the executor.
        built: bool,
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
    /// Its mixture cannot be kept.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
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
#[derive(Clone, Debug)]
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
    /// Positions in the source's group that this one has, ascending; `None` means every one.
    pub chosen: Option<Arc<[u32]>>,
    /// Packed rows; `None` when each record is a row.
    pub rows: Option<u64>,
}

impl JobGroup {
    /// Number in the source of the group's `index`-th record or document, `index` < [`JobGroup::records`].
    pub fn record(&self, index: u64) -> u32 {
        let position = self.chosen.as_ref().map_or(index as usize, |chosen| chosen[index as usize] as usize);
        self.at(position as u32)
    }

    /// Number in the source of the record or document at `position` of the source's group.
    pub fn at(&self, position: u32) -> u32 {
        self.source.index().groups[self.group].records[position as usize]
    }

    /// Positions in the source's group, ascending.
    pub fn positions(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.records() as u32).map(|i| self.chosen.as_ref().map_or(i, |chosen| chosen[i as usize]))
    }

    /// Records or documents in the group.
    pub fn records(&self) -> u64 {
        let all = self.source.index().groups[self.group].records.len();
        self.chosen.as_ref().map_or(all, |chosen| chosen.len()) as u64
    }

    /// Rows of an epoch: records, or packed rows.
    pub fn len(&self) -> u64 {
        self.rows.unwrap_or_else(|| self.records())
    }

    /// True when it has no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Job's label of a record of the source; -1 when it has none.
    pub fn label(&self, record: u32) -> i32 {
        let own = self.source.index().records[record as usize].label;
        usize::try_from(own).ok().and_then(|own| self.classes.get(own)).copied().unwrap_or(-1)
    }
}

/// What becomes of a slot's record.
#[derive(Debug)]
pub enum Pipeline {
    /// Pictures.
    Image(Box<Image>),
    /// Packed rows of token ids.
    Tokens(Tokens),
    /// Scenes of points.
    Points(Box<Points>),
}

impl Pipeline {
    /// Size of group `g` among the others, for weights that nobody gave: rows, or tokens where rows differ.
    fn size(&self, g: usize, group: &JobGroup) -> u64 {
        match self {
            Pipeline::Tokens(tokens) if tokens.ragged() => tokens.tables[g].tokens(),
            Pipeline::Tokens(_) | Pipeline::Image(_) | Pipeline::Points(_) => group.len(),
        }
    }
}

impl Pipeline {
    /// Tokens of an epoch of group `g`; records of a job without tokens.
    fn epoch(&self, g: usize, group: &JobGroup) -> u64 {
        match self {
            Pipeline::Tokens(tokens) => tokens.tables[g].tokens(),
            Pipeline::Image(_) | Pipeline::Points(_) => group.len(),
        }
    }
}

/// A batch sequence: what is shown, in which order, how it is mixed and what it looks like.
#[derive(Debug)]
pub struct Feed {
    /// Name of its job.
    pub job: String,
    /// Groups.
    pub groups: Vec<JobGroup>,
    /// Class names.
    pub classes: Vec<String>,
    /// Which record stands where.
    pub order: Order,
    /// Slots of a pairing block.
    pub mix_block: u64,
    /// What becomes of records.
    pub pipeline: Pipeline,
}

/// Bytes of ids that are made at once: per block there are checksums to join, tasks to start and frames to fill.
const UNIT_BYTES: u64 = 1 << 20;
/// Bytes of an id as it is sent.
const ID_BYTES: u64 = 4;

impl Feed {
    /// Rules that its rows are made by.
    pub fn numerics(&self) -> Numerics {
        match &self.pipeline {
            Pipeline::Image(image) => image.numerics,
            Pipeline::Points(points) => points.numerics,
            Pipeline::Tokens(_) => Numerics::Cpu,
        }
    }

    /// How pictures become rows; `None` for jobs without pictures.
    pub fn image(&self) -> Option<&Image> {
        match &self.pipeline {
            Pipeline::Image(image) => Some(image),
            Pipeline::Tokens(_) | Pipeline::Points(_) => None,
        }
    }

    /// How documents become rows; `None` for jobs without documents.
    pub fn tokens(&self) -> Option<&Tokens> {
        match &self.pipeline {
            Pipeline::Image(_) | Pipeline::Points(_) => None,
            Pipeline::Tokens(tokens) => Some(tokens),
        }
    }

    /// How scenes become rows; `None` for jobs without scenes.
    pub fn points(&self) -> Option<&Points> {
        match &self.pipeline {
            Pipeline::Image(_) | Pipeline::Tokens(_) => None,
            Pipeline::Points(points) => Some(points),
        }
    }

    /// How rows are mixed; `None` where they are not.
    pub fn mix(&self) -> Option<&MixRule> {
        match &self.pipeline {
            Pipeline::Image(image) => Some(&image.mix),
            Pipeline::Points(points) => Some(&points.mix),
            Pipeline::Tokens(_) => None,
        }
    }

    /// Pairing blocks of a full step.
    pub fn blocks(&self) -> u64 {
        self.order.batch().div_ceil(self.mix_block)
    }

    /// Slots that are made at once: a pairing block; of rows of tokens, which nothing pairs, so many blocks as fill
    /// [`UNIT_BYTES`]. What is sent is the same either way.
    pub fn unit(&self) -> u64 {
        let blocks = self.tokens().map_or(1, |tokens| {
            let block = self.mix_block * u64::from(tokens.seq_len) * ID_BYTES;
            UNIT_BYTES.div_ceil(block.max(1))
        });
        self.mix_block * blocks
    }

    /// Numbers of ranks that can share a step, ascending.
    pub fn world_sizes(&self) -> Vec<u32> {
        let blocks = self.blocks();
        (1..=blocks).filter(|r| blocks.is_multiple_of(*r)).map(|r| r as u32).collect()
    }

    /// Tokens of the first `rows` rows ever served from group `group`; 0 for pictures. Looks at each row of the last,
    /// unfinished epoch when rows differ.
    pub fn tokens_served(&self, group: usize, rows: u64) -> u64 {
        let (Some(tokens), Order::Train(live)) = (self.tokens(), &self.order) else { return 0 };
        let (epoch, sequence) = (self.groups[group].len(), live.now());
        let of = |k| u64::from(tokens.row_tokens(sequence.record(Slot { group: group as u32, k })));
        let whole = rows / epoch;
        let rest = rows % epoch;
        let rest = match tokens.rule {
            Rule::Concat => rest * u64::from(tokens.seq_len),
            Rule::BestFit | Rule::Document => (whole * epoch..rows).map(of).sum(),
        };
        whole * tokens.tables[group].tokens() + rest
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
        self.mix().map_or(slots, |mix| mix.rows_of(slots))
    }

    /// Output rows of `slots` consecutive slots that begin with a block.
    pub fn rows_of_slots(&self, slots: u64) -> u64 {
        let block = |first: u64| self.rows_of(self.mix_block.min(slots - first) as usize) as u64;
        (0..slots).step_by(self.mix_block as usize).map(block).sum()
    }

    /// Label smoothing that is left to the trainer.
    pub fn smoothing(&self) -> f64 {
        self.image().map_or(0.0, |image| if image.labels.dense { 0.0 } else { image.labels.smoothing })
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
    /// Its mixture.
    pub keeper: Arc<Keeper>,
    /// What is held out of them; `None` when nothing is.
    pub held: Option<Held>,
    /// Turns true when the job is closed.
    pub closed: watch::Sender<bool>,
}

impl Job {
    /// Cursor to `next_step`, after a step that entry `seq` of `branch` governed.
    pub fn cursor(&self, next_step: u64, branch: u64, seq: u64) -> v1::Cursor {
        let mut cursor = v1::Cursor {
            job: self.name.clone(),
            digest: self.digest.to_vec().into(),
            branch,
            next_step,
            mixture_seq: seq,
            crc: 0,
        };
        cursor.crc = crc32c::crc32c(&prost::Message::encode_to_vec(&cursor));
        cursor
    }

    /// Step that a cursor points to.
    ///
    /// # Errors
    /// [`JobError::Position`] for a damaged cursor, or one whose steps were struck from the log; [`JobError::Expected`]
    /// for one of another job.
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
        let (step, branch) = (cursor.next_step, cursor.branch);
        match self.keeper.with(|course| course.common(branch))? {
            None => {
                Err(JobError::Position(format!("cursor is of branch {branch}, which this job does not have")))
            }
            Some(common) if step > common => Err(JobError::Position(format!(
                "cursor is of branch {branch}, whose steps from {common} on were taken back; it points to step {step}"
            ))),
            Some(_) => Ok(step),
        }
    }

    /// The feed of an eval set: `group` ("SOURCE" or "SOURCE/GROUP" of this job) in order, once, unmixed; its held-out
    /// records with `held_out`, otherwise those that it trains on.
    ///
    /// # Errors
    /// [`JobError::Unknown`] when the job has no such group, [`JobError::Invalid`] for an illegal batch or when nothing is
    /// held out.
    pub fn eval(&self, group: &str, batch: u32, pad: bool, held_out: bool) -> Result<Feed, JobError> {
        eval::feed(self, group, batch, pad, held_out)
    }
}
