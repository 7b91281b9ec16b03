//! Follows the mixture log.

use crate::{
    Error,
    client::Inner,
    connection::{self, Reply},
    learn::MixtureEntry,
    mixture::learn,
    retry::Retry,
};
use bytes::{Buf, BytesMut};
use futures_util::{Stream, stream};
use mixfeed_proto as v1;
use prost::Message;
use std::sync::Arc;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;

/// Largest message of a watch.
const MAX_MESSAGE: usize = 4 << 20;

/// Entries of a mixture log in order, each once; see [`Client::watch`](crate::Client::watch). Ends only with an error.
#[derive(Debug)]
pub struct Watch {
    inner: Arc<Inner>,
    job: String,
    next_seq: u64,
    connection: Option<Connection>,
    retry: Retry,
    endpoint: usize,
    /// The server was told the job since the last entry.
    told: bool,
    /// A watch that was open ended as denied, and nothing came since.
    denied: bool,
    failed: bool,
}

#[derive(Debug)]
struct Connection {
    reply: Reply,
    /// Bytes of messages that have not been read yet.
    input: BytesMut,
    since: Instant,
    /// Keeps the connection open.
    _channel: Channel,
}

impl Watch {
    pub(crate) fn new(inner: Arc<Inner>, job: String, next_seq: u64) -> Self {
        let retry = Retry::new(&inner.options);
        Watch {
            inner,
            job,
            next_seq,
            connection: None,
            retry,
            endpoint: 0,
            told: false,
            denied: false,
            failed: false,
        }
    }

    /// Sequence number of the entry that comes next: where another watch would go on.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The next entry, when there is one. Dropping the future loses nothing.
    pub async fn next_entry(&mut self) -> Result<MixtureEntry, Error> {
        loop {
            match self.advance().await {
                Ok(entry) => {
                    self.next_seq = entry.seq + 1;
                    self.retry.reset();
                    (self.told, self.denied) = (false, false);
                    return Ok(entry);
                }
                Err(error @ Error::NotFound { .. }) if !self.told => {
                    self.connection = None;
                    self.told = true;
                    self.inner.tell(&self.job, error).await?;
                }
                Err(error) => {
                    // A log may be silent for hours: a connection that held for a while was a success.
                    let held = self.connection.take().map(|connection| connection.since.elapsed());
                    let begun = held.is_some();
                    if held.is_some_and(|held| held > self.inner.options.backoff.1) {
                        self.retry.reset();
                        self.denied = false;
                    }
                    let changes = begun && !self.denied && self.inner.options.token_changes();
                    if matches!(error, Error::Denied { .. }) && changes {
                        self.denied = true;
                        continue;
                    }
                    self.endpoint = self.endpoint.wrapping_add(1);
                    self.retry.wait(error).await?;
                }
            }
        }
    }

    /// The same entries as a stream, which ends after one error.
    pub fn entries(self) -> impl Stream<Item = Result<MixtureEntry, Error>> {
        stream::unfold(self, |mut watch| async move {
            if watch.failed {
                return None;
            }
            let entry = watch.next_entry().await;
            watch.failed = entry.is_err();
            Some((entry, watch))
        })
    }

    async fn advance(&mut self) -> Result<MixtureEntry, Error> {
        if self.connection.is_none() {
            self.connection = Some(self.connect().await?);
        }
        let connection = self.connection.as_mut().expect("was just made");
        loop {
            if let Some(message) = message(&mut connection.input)? {
                let seq = message.entry.as_ref().map(|entry| entry.seq);
                return match message.entry.filter(|entry| entry.seq == self.next_seq) {
                    Some(entry) => Ok(entry),
                    None => {
                        let wanted = self.next_seq;
                        Err(Error::Protocol(format!("entry {seq:?} of the log arrived, expected {wanted}")))
                    }
                };
            }
            match connection.reply.frame().await? {
                Some(frame) => connection.input.extend_from_slice(&frame),
                None => return Err(Error::unavailable("watch ended")),
            }
        }
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let (options, endpoints) = (&self.inner.options, &self.inner.endpoints);
        let channel = connection::dial(&endpoints[self.endpoint % endpoints.len()], options).await?;
        let request = v1::WatchMixtureRequest { job: self.job.clone(), from_seq: self.next_seq };
        // A server may answer with the first entry only, so the wait for its head has no limit but that of the calls.
        let reply = connection::send(channel.clone(), learn!("WatchMixture"), &request, options);
        let late = |_| Error::Timeout { what: "the start of the watch".into(), after: options.call_timeout };
        let reply = timeout(options.call_timeout, reply).await.map_err(late)??;
        Ok(Connection { reply, input: BytesMut::new(), since: Instant::now(), _channel: channel })
    }
}

/// Takes the first message off `input` when all of it is there.
fn message(input: &mut BytesMut) -> Result<Option<v1::WatchMixtureResponse>, Error> {
    let Some([flag, length @ ..]) = input.first_chunk::<5>().copied() else { return Ok(None) };
    let length = u32::from_be_bytes(length) as usize;
    if flag != 0 || length > MAX_MESSAGE {
        return Err(Error::Protocol(format!("message of a watch with flag {flag} and {length} bytes")));
    }
    if input.len() < 5 + length {
        return Ok(None);
    }
    input.advance(5);
    let message = input.split_to(length).freeze();
    v1::WatchMixtureResponse::decode(message)
        .map(Some)
        .map_err(|error| Error::Protocol(format!("message of a watch: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_wherever_frames_end() {
        let entry = |seq| v1::MixtureEntry { seq, receipt: "x".repeat(seq as usize), ..Default::default() };
        let sent: Vec<_> = (0..40).map(|seq| v1::WatchMixtureResponse { entry: Some(entry(seq)) }).collect();
        let mut bytes = Vec::new();
        for message in &sent {
            bytes.push(0);
            bytes.extend((message.encoded_len() as u32).to_be_bytes());
            bytes.extend(message.encode_to_vec());
        }
        for frame in [1, 4, 7, 64, bytes.len()] {
            let (mut input, mut found) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(frame) {
                input.extend_from_slice(piece);
                while let Some(message) = message(&mut input).expect("good") {
                    found.push(message);
                }
            }
            assert!(found == sent && input.is_empty(), "frames of {frame}");
        }
        assert!(message(&mut BytesMut::from(&[1, 0, 0, 0, 0][..])).is_err(), "compressed");
        assert!(message(&mut BytesMut::from(&[0, 255, 0, 0, 0][..])).is_err(), "too long");
    }
}
