//! Records that come from stores: each source is asked for all of its records of a block at once, and no thread waits.

use super::{AssembleError, Encoded, max_bytes};
use crate::batch::SampleId;
use crate::decode::DecodeError;
use crate::job::Feed;
use crate::metrics;
use crate::source::{Fetching, Source};
use futures_util::future::try_join_all;
use std::{collections::HashMap, sync::Arc};

/// What one source was asked for: slots of the block, and their bytes on the way.
struct Asked {
    slots: Vec<usize>,
    bytes: Fetching,
}

/// What was begun of a block.
pub(super) struct Begun {
    asked: Vec<Asked>,
    /// Slots whose record is over the job's limit.
    refused: Vec<(usize, Encoded)>,
}

/// Begins to fetch what of `ids` comes from stores; returns it, and the positions in `ids` of all others.
pub(super) fn begin(feed: &Feed, ids: &[SampleId]) -> (Begun, Vec<usize>) {
    let mut sources: Vec<(&Arc<dyn Source>, Vec<usize>)> = Vec::new();
    let mut known: HashMap<*const (), usize> = HashMap::new();
    for (slot, id) in ids.iter().enumerate() {
        let source = &feed.groups[id.group as usize].source;
        let at = *known.entry(Arc::as_ptr(source).cast()).or_insert_with(|| {
            sources.push((source, Vec::new()));
            sources.len() - 1
        });
        sources[at].1.push(slot);
    }
    let (mut begun, mut rest) = (Begun { asked: Vec::new(), refused: Vec::new() }, Vec::new());
    let limit = max_bytes(feed);
    for (source, slots) in sources {
        let (small, large): (Vec<usize>, Vec<usize>) =
            slots.iter().partition(|slot| feed.size(ids[**slot]) <= limit);
        let number = |slot: &usize| feed.groups[ids[*slot].group as usize].record(ids[*slot].index);
        let numbers: Vec<u32> = small.iter().map(number).collect();
        match source.fetch(&numbers) {
            Some(bytes) => {
                begun.asked.push(Asked { slots: small, bytes });
                let what = "encoded size in bytes";
                let refuse =
                    |slot| (slot, Err(DecodeError::Limit { what, value: feed.size(ids[slot]), limit }));
                begun.refused.extend(large.into_iter().map(refuse));
            }
            None => rest.extend(slots),
        }
    }
    (begun, rest)
}

/// Waits for all that was begun: slots and their records.
pub(super) async fn end(begun: Begun) -> Result<Vec<(usize, Encoded)>, AssembleError> {
    let Begun { asked, refused } = begun;
    let each = asked.into_iter().map(|Asked { slots, bytes }| async move {
        let records = bytes.await.inspect_err(|_| metrics::reads(slots.len() as u64, 0, false))?;
        metrics::reads(slots.len() as u64, records.iter().map(|r| r.len() as u64).sum(), true);
        Ok::<_, AssembleError>(slots.into_iter().zip(records.into_iter().map(Ok)).collect::<Vec<_>>())
    });
    Ok(try_join_all(each).await?.into_iter().flatten().chain(refused).collect())
}
