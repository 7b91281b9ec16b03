//! Bodies of calls: what comes in is bounded in bytes and time, what goes out says whose turn it is.

#[cfg(test)]
mod tests;

use super::guest::{Charge, Open};
use super::status;
use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tonic::Status;

/// What h2 may hold of an answer at a time. It takes a whole piece for a window of one byte, and what it took is out of
/// sight: neither counted nor seen to stall.
const PIECE: usize = 1 << 10;
/// Most that the messages of a call that goes both ways may hold, all together.
const MAX_TALK: usize = 64 << 10;
/// What a watcher of the health gets from a server that stops: a message with its prefix.
const NOT_SERVING: [u8; 7] = [0, 0, 0, 0, 2, 8, 2];

/// What stands before a message: whether it is compressed, and its length.
pub const PREFIX: usize = 5;
/// Largest body of a request: a job spec with its policies, and its prefix.
pub const MAX_BODY: usize = super::MAX_REQUEST + PREFIX;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The whole body of a request, counted in `charge`.
///
/// # Errors
/// DEADLINE_EXCEEDED when it is not complete after `within`, RESOURCE_EXHAUSTED when it or all requests are too large.
pub async fn gather<B>(body: B, charge: &mut Charge, within: Duration) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    tokio::time::timeout(within, frames(body, charge)).await.unwrap_or_else(|_| Err(late(within)))
}

fn late(within: Duration) -> Status {
    Status::deadline_exceeded(format!("the request took longer than {within:?}"))
}

async fn frames<B>(body: B, charge: &mut Charge) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Status::cancelled(format!("request: {}", e.into())))?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + first.len() + data.len() > MAX_BODY {
            return Err(Status::resource_exhausted(format!("the request is larger than {MAX_BODY} bytes")));
        }
        if !charge.grow(data.len()) {
            return Err(crowded());
        }
        // Nearly every request is one frame: it is not copied then.
        match (first.is_empty(), all.is_empty()) {
            (true, true) => first = data,
            (false, _) => {
                all.extend_from_slice(&std::mem::take(&mut first));
                all.extend_from_slice(&data);
            }
            (true, false) => all.extend_from_slice(&data),
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// Whether a body is one message that is not compressed.
///
/// # Errors
/// INVALID_ARGUMENT, or UNIMPLEMENTED when it is compressed.
pub fn one_message(mut body: &[u8]) -> Result<(), Status> {
    if body.len() < PREFIX {
        return Err(Status::invalid_argument("request holds no message"));
    }
    if body.get_u8() != 0 {
        return Err(Status::unimplemented("compressed requests are not supported"));
    }
    match body.get_u32() as usize {
        len if len == body.len() => Ok(()),
        len => {
            Err(Status::invalid_argument(format!("request: {} bytes follow a length of {len}", body.len())))
        }
    }
}

/// A message that is no Protocol Buffers encoding of what the call takes.
pub fn undecodable() -> Status {
    Status::invalid_argument("request: it is no encoding of what this call takes")
}

/// Requests hold all the memory that they may.
pub fn crowded() -> Status {
    status::exhausted("REQUESTS", "requests and unread answers hold all the memory that they may")
}

/// A body of a call whose messages go both ways: bounded in bytes, given up at a deadline.
#[derive(Debug)]
pub struct Timed<B> {
    body: B,
    charge: Charge,
    bytes: usize,
    late: Pin<Box<tokio::time::Sleep>>,
    within: Duration,
}

impl<B> Timed<B> {
    /// `body`, at most `within` long, counted in `charge`.
    pub fn new(body: B, charge: Charge, within: Duration) -> Timed<B> {
        Timed { body, charge, bytes: 0, late: Box::pin(tokio::time::sleep(within)), within }
    }

    fn count(&mut self, bytes: usize) -> Result<(), Status> {
        self.bytes += bytes;
        if self.bytes > MAX_TALK {
            return Err(Status::resource_exhausted(format!("the requests are larger than {MAX_TALK} bytes")));
        }
        if self.charge.grow(bytes) { Ok(()) } else { Err(crowded()) }
    }
}

impl<B> Body for Timed<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.late.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(late(self.within).into())));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(Into::into)?;
            self.count(frame.data_ref().map_or(0, Bytes::len))?;
            Ok(frame)
        }))
    }
}

/// The answer to a watcher of the health: it ends after NOT_SERVING, which only a server that stops says.
#[derive(Debug)]
pub struct Watched {
    body: tonic::body::Body,
    stops: bool,
    ended: bool,
}

impl Watched {
    /// Ends `body` in time.
    pub fn new(body: tonic::body::Body) -> Watched {
        Watched { body, stops: false, ended: false }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.stops {
            self.ended = true;
            return Poll::Ready(Some(Ok(trailers(&status::draining()))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.stops = frame.data_ref().is_some_and(|data| data.ends_with(&NOT_SERVING));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (!self.stops && self.body.is_end_stream())
    }
}

fn trailers(status: &Status) -> Frame<Bytes> {
    let mut trailers = http::HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", (status.code() as i32).into());
    }
    Frame::trailers(trailers)
}

/// The body of an answer.
#[derive(Debug)]
pub struct Answer {
    body: tonic::body::Body,
    call: Open,
    /// Counts what a client has not taken; batches have budgets of their own.
    charge: Option<Charge>,
    /// What the call did lasts, so its answer is not refused.
    done: bool,
    /// What is left of a frame that is counted.
    rest: Bytes,
    ended: bool,
}

impl Answer {
    /// `body` as the answer to `call`.
    pub fn new(body: tonic::body::Body, call: Open, charge: Option<Charge>) -> Answer {
        Answer { body, call, charge, done: false, rest: Bytes::new(), ended: false }
    }

    /// Of a call that was carried out: it is told, whatever others hold.
    pub fn carried_out(self) -> Answer {
        Answer { done: true, ..self }
    }

    /// Counts a frame instead of the last one, which was taken, or instead of the request.
    fn count(&mut self, bytes: usize) -> bool {
        let done = self.done;
        self.charge.as_mut().is_none_or(|charge| {
            let fits = charge.set(bytes);
            if !fits && done {
                charge.force(bytes);
            }
            fits || done
        })
    }

    /// The next piece: a copy, because a part of the frame would keep all of it.
    fn piece(&mut self) -> Frame<Bytes> {
        let len = self.rest.len().min(PIECE);
        Frame::data(Bytes::copy_from_slice(&self.rest.split_to(len)))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if !self.rest.is_empty() {
            self.call.ready();
            return Poll::Ready(Some(Ok(self.piece())));
        }
        self.call.waiting();
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.call.ready();
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => 0,
        };
        if !self.count(bytes) {
            self.ended = true;
            self.charge = None;
            return Poll::Ready(Some(Ok(trailers(&crowded()))));
        }
        let frame = match frame {
            Some(Ok(frame)) if bytes > 0 && self.charge.is_some() => frame,
            frame => return Poll::Ready(frame),
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => {
                self.rest = data;
                self.piece()
            }
            Err(frame) => frame,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.rest.is_empty() && self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest.len() {
            0 => self.body.size_hint(),
            // Only a lower bound: what comes after it is not known here.
            rest => {
                let mut hint = SizeHint::new();
                hint.set_lower(rest as u64);
                hint
            }
        }
    }
}
