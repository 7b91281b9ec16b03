//! One object, pinned: ranges of the state that was found, or an error.

use super::{RECEIVED_KIB, Remote, address::shown, fault::Fault, retry::GaveUp};
use crate::{metrics, source::SourceError};
use bytes::Bytes;
use futures_util::StreamExt;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, path::Path};
use std::{cell::RefCell, sync::Arc, time::Duration};

/// What an answer may take on the whole, as a multiple of its timeout, and bytes a second beyond that: one that drips is
/// no answer.
const DRIPPING: u32 = 10;
const SLOWEST: u64 = 16 << 10;

thread_local! {
    /// The error of this thread's last failed read whose caller understands I/O errors only. By thread, since several of
    /// them read one object: each is to be told its own.
    static FAILED: RefCell<Option<SourceError>> = const { RefCell::new(None) };
}

/// An object of a store.
#[derive(Debug)]
pub(in crate::source) struct Object {
    pub(super) remote: Arc<Remote>,
    store: Arc<dyn ObjectStore>,
    meta: ObjectMeta,
    /// URL without a query.
    pub shown: String,
}

/// Where an object would be.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub store: Arc<dyn ObjectStore>,
    pub path: Path,
    /// URL, maybe with a query.
    pub url: String,
}

impl Object {
    /// An object in the state that `meta` says.
    pub(super) fn new(remote: &Arc<Remote>, place: Place, meta: ObjectMeta) -> Result<Object, SourceError> {
        let shown = shown(&place.url);
        // A server without dates gives the beginning of time.
        if meta.e_tag.is_none() && meta.last_modified.timestamp() == 0 {
            return Err(SourceError::format(
                shown,
                "has neither ETag nor Last-Modified, want one: a change would not be noticed",
            ));
        }
        Ok(Object { remote: remote.clone(), store: place.store, meta, shown })
    }

    /// Asks for an object's state; by a range of a byte, which shows that ranges are served and needs no other right.
    pub(super) async fn probe(remote: &Arc<Remote>, place: Place) -> Result<Object, SourceError> {
        let ask = |range: Option<GetRange>| {
            let options = GetOptions { head: range.is_none(), range, ..GetOptions::default() };
            let (store, path) = (&place.store, &place.path);
            async move {
                let _one = remote.requests.acquire().await.expect("never closed");
                let got = tokio::time::timeout(remote.timeout, store.get_opts(path, options)).await;
                let got = got.map_err(|_| Fault::Again("no answer in time".into()))?;
                got.map(|got: GetResult| got.meta).map_err(|error| Fault::of(&error))
            }
        };
        let first = remote.patience.retried(|| ask(Some(GetRange::Bounded(0..1)))).await;
        let meta = match first {
            Err(GaveUp { fault: Fault::Beyond, .. }) => remote.patience.retried(|| ask(None)).await, // it is empty
            other => other,
        };
        match meta {
            Ok(meta) => Object::new(remote, place, meta),
            Err(gave_up) => Err(remote.error(&shown(&place.url), None, gave_up)),
        }
    }

    /// Keeps the error of a read whose caller understands I/O errors only, for this thread.
    pub(super) fn failed(error: SourceError) {
        FAILED.set(Some(error));
    }

    /// Takes the error that this thread kept last.
    pub fn failure() -> Option<SourceError> {
        FAILED.take()
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.meta.size
    }

    /// What tells this state from another one, as text: for kept indexes and records.
    pub fn state(&self) -> String {
        let changed = self.meta.last_modified.timestamp();
        match &self.meta.e_tag {
            Some(tag) => format!("{} {} {tag}", self.shown, self.meta.size),
            None => format!("{} {} changed {changed}", self.shown, self.meta.size),
        }
    }

    /// `length` bytes from `from`, whatever it takes.
    ///
    /// # Errors
    /// [`SourceError::Changed`] when it is another object now, [`SourceError::Unavailable`] when patience ended.
    pub async fn range(&self, from: u64, length: u64) -> Result<Bytes, SourceError> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        if from.checked_add(length).is_none_or(|end| end > self.size()) {
            let why = format!("bytes {from}..{from}+{length} of an object of {}", self.size());
            let error = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, why);
            return Err(SourceError::io(self.shown.as_str(), error));
        }
        let done = self.remote.patience.retried(|| self.attempt(from, length)).await;
        done.map_err(|gave_up| self.remote.error(&self.shown, Some((from, length)), gave_up))
    }

    async fn attempt(&self, from: u64, length: u64) -> Result<Bytes, Fault> {
        let remote = &self.remote;
        let kib = length.div_ceil(1024).min(u64::from(RECEIVED_KIB)) as u32;
        let _bytes = remote.received.acquire_many(kib).await.expect("never closed");
        let _one = remote.requests.acquire().await.expect("never closed");
        metrics::range();
        let limit = remote.timeout * DRIPPING + Duration::from_secs(length / SLOWEST);
        let received = tokio::time::timeout(limit, self.receive(from, length)).await;
        received.unwrap_or_else(|_| Err(Fault::Again("no answer in time".into())))
    }

    async fn receive(&self, from: u64, length: u64) -> Result<Bytes, Fault> {
        let tag = self.meta.e_tag.clone();
        let options = GetOptions {
            range: Some(GetRange::Bounded(from..from + length)),
            // A weak tag never matches, and times are kept more finely by some servers than they are told. What is
            // answered is compared below in any case.
            if_match: tag.filter(|tag| !tag.starts_with("W/")),
            ..GetOptions::default()
        };
        let silent = |_| Fault::Again("no answer in time".into());
        let timeout = self.remote.timeout;
        let got = tokio::time::timeout(timeout, self.store.get_opts(&self.meta.location, options)).await;
        let got = got.map_err(silent)?.map_err(|error| Fault::of(&error))?;
        if let Some(what) = self.differs(&got.meta) {
            return Err(Fault::Changed(what));
        }
        let (mut parts, mut have, mut stream) = (Vec::new(), 0u64, got.into_stream());
        while let Some(part) = tokio::time::timeout(timeout, stream.next()).await.map_err(silent)? {
            let part = part.map_err(|error| Fault::of(&error))?;
            have += part.len() as u64;
            if have > length {
                return Err(Fault::Again(format!("more than the {length} bytes that were asked for came")));
            }
            parts.push(part);
        }
        if have < length {
            return Err(Fault::Again(format!("only {have} of {length} bytes came")));
        }
        Ok(match <[Bytes; 1]>::try_from(parts) {
            Ok([whole]) => whole,
            Err(parts) => parts.concat().into(),
        })
    }

    fn differs(&self, now: &ObjectMeta) -> Option<String> {
        let was = &self.meta;
        if now.size != was.size {
            return Some(format!("it has {} bytes, had {}", now.size, was.size));
        }
        match (&was.e_tag, &now.e_tag) {
            (Some(was), Some(now)) if was == now => None,
            (None, _) if was.last_modified.timestamp() == now.last_modified.timestamp() => None,
            (Some(was), Some(now)) => Some(format!("its ETag is {now:.80}, was {was:.80}")),
            (Some(was), None) => Some(format!("it has no ETag, had {was:.80}")),
            (None, _) => Some(format!("it changed at {}", now.last_modified)),
        }
    }
}

impl Remote {
    /// The error of an object, or of what is named instead, after the last attempt.
    pub(super) fn error(&self, object: &str, range: Option<(u64, u64)>, gave_up: GaveUp) -> SourceError {
        let GaveUp { fault, tries } = gave_up;
        let what = match &fault {
            Fault::Changed(what) => what,
            Fault::Beyond => fault.why(),
            Fault::Again(why) | Fault::Denied(why) | Fault::Never(why) => {
                let range = range.map(|(from, length)| format!(", bytes {from}..{}", from + length));
                let file = format!("source `{}`: {object}{}", self.source, range.unwrap_or_default());
                let why = if tries > 1 { format!("{why}, tried {tries} times") } else { why.clone() };
                return SourceError::Unavailable { file, why };
            }
        };
        SourceError::changed(object, what)
    }
}
