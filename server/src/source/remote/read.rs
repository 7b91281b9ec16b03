//! Many records at once: from the disk's cache, or in as few requests as their neighbourhood allows.

use super::{
    Object,
    cache::{Cache, Key},
    started, wait,
};
use crate::source::{Fetching, SourceError};
use bytes::Bytes;
use futures_util::future::try_join_all;
use std::{ops::Range, sync::Arc};

/// Bytes between two records of an object that are read along rather than asked for around.
const GAP: u64 = 64 << 10;
/// Bytes of a request for several records.
const JOINED: u64 = 4 << 20;

/// A record to read.
#[derive(Clone, Debug)]
pub(in crate::source) struct Span {
    /// Object that holds it.
    pub object: Arc<Object>,
    /// First byte.
    pub from: u64,
    /// Bytes.
    pub length: u64,
    /// Hash of its bytes, when they are to be compared with it.
    pub hash: Option<[u8; 32]>,
    /// Its name in errors.
    pub name: String,
}

impl Span {
    fn end(&self) -> u64 {
        self.from.saturating_add(self.length)
    }

    fn key(&self) -> Key {
        Key::new(&self.object.state(), self.from, self.length)
    }

    /// Compares bytes with what was indexed.
    fn compared(&self, bytes: Bytes) -> Result<Bytes, SourceError> {
        match self.hash {
            Some(hash) if blake3::hash(&bytes) != hash => {
                Err(SourceError::changed(self.name.as_str(), "its content has another hash"))
            }
            Some(_) | None => Ok(bytes),
        }
    }
}

/// Begins to read `wants`; the bytes come in their order.
pub(in crate::source) fn fetch(wants: Result<Vec<Span>, SourceError>) -> Fetching {
    Box::pin(started(async move { all(wants?).await }))
}

/// Reads one record; blocks.
pub(in crate::source) fn one(want: Span) -> Result<Bytes, SourceError> {
    let bytes = wait(async move { all(vec![want]).await })?;
    Ok(bytes.into_iter().next().unwrap_or_default())
}

/// Hash of all bytes of an object; blocks.
pub(in crate::source) fn hash(object: &Arc<Object>) -> Result<[u8; 32], SourceError> {
    let mut hasher = blake3::Hasher::new();
    for from in (0..object.size()).step_by(JOINED as usize) {
        let (object, length) = (object.clone(), JOINED.min(object.size() - from));
        hasher.update(&wait(async move { object.range(from, length).await })?);
    }
    Ok(*hasher.finalize().as_bytes())
}

/// The bytes of `wants`, in their order; the first error of any of them ends it.
async fn all(wants: Vec<Span>) -> Result<Vec<Bytes>, SourceError> {
    let mut found = kept(&wants).await;
    let mut missing: Vec<usize> = (0..wants.len()).filter(|i| found[*i].is_none()).collect();
    missing.sort_by_key(|i| (Arc::as_ptr(&wants[*i].object), wants[*i].from));
    let (wants, missing) = (&wants, &missing);
    let fetched = runs(wants, missing).into_iter().map(|run| async move {
        let run = &missing[run];
        let first = &wants[run[0]];
        let end = run.iter().map(|i| wants[*i].end()).max().unwrap_or(first.from);
        let bytes = first.object.range(first.from, end - first.from).await?;
        let single = run.len() == 1;
        let one = |i: &usize| {
            let want = &wants[*i];
            let start = (want.from - first.from) as usize;
            let part = bytes.slice(start..start + want.length as usize);
            // A slice would keep all of its neighbours in memory as long as itself.
            let part = if single { part } else { Bytes::copy_from_slice(&part) };
            let part = want.compared(part)?;
            keep(want, &part);
            Ok((*i, part))
        };
        run.iter().map(one).collect::<Result<Vec<_>, SourceError>>()
    });
    for (i, bytes) in try_join_all(fetched).await?.into_iter().flatten() {
        found[i] = Some(bytes);
    }
    Ok(found.into_iter().flatten().collect())
}

/// What the cache has of them.
async fn kept(wants: &[Span]) -> Vec<Option<Bytes>> {
    let Some(cache) = wants.first().and_then(|want| want.object.remote.cache.clone()) else {
        return vec![None; wants.len()];
    };
    let keys: Vec<(Key, u64)> = wants.iter().map(|want| (want.key(), want.length)).collect();
    let many = keys.len();
    let looked = move || keys.iter().map(|(key, length)| cache.get(key, *length)).collect();
    let found: Vec<Option<Bytes>> =
        tokio::task::spawn_blocking(looked).await.unwrap_or_else(|_| vec![None; many]);
    // Kept bytes were compared before; should they differ from what is wanted now, they are fetched anew.
    found.into_iter().zip(wants).map(|(bytes, want)| bytes.and_then(|b| want.compared(b).ok())).collect()
}

/// Keeps a record on disk, when there is a cache and it is not too busy.
fn keep(want: &Span, bytes: &Bytes) {
    if let Some(cache) = &want.object.remote.cache {
        Cache::put(cache, want.key(), bytes.clone());
    }
}

/// Cuts `order`, numbers of `wants` by object and place, into runs that one request each reads.
fn runs(wants: &[Span], order: &[usize]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let (mut first, mut end) = (0, 0);
    for (at, i) in order.iter().enumerate() {
        let want = &wants[*i];
        let joins = runs.last().is_some_and(|run| {
            let before = &wants[order[run.start]];
            Arc::ptr_eq(&before.object, &want.object)
                && want.from <= end + GAP
                && want.end().max(end) - first <= JOINED
        });
        match runs.last_mut().filter(|_| joins) {
            Some(run) => (run.end, end) = (at + 1, end.max(want.end())),
            None => {
                (first, end) = (want.from, want.end());
                runs.push(at..at + 1);
            }
        }
    }
    runs
}
