//! Bodies of calls: what comes in is bounded in bytes and time, what goes out says whose turn it is.

use super::guest::{Charge, Open};
use super::status;
use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tonic::Status;

/// Largest body of a request: a job spec with its policies, and its prefix.
pub const MAX_BODY: usize = super::MAX_REQUEST + 5;

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
    if body.len() < 5 {
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

/// A body of a call whose messages go both ways: given up at a deadline.
#[derive(Debug)]
pub struct Timed<B> {
    body: B,
    late: Pin<Box<tokio::time::Sleep>>,
    within: Duration,
}

impl<B> Timed<B> {
    /// `body`, at most `within` long.
    pub fn new(body: B, within: Duration) -> Timed<B> {
        Timed { body, late: Box::pin(tokio::time::sleep(within)), within }
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
        Pin::new(&mut self.body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }
}

/// The body of an answer.
#[derive(Debug)]
pub struct Answer {
    body: tonic::body::Body,
    call: Open,
    /// Counts what a client has not taken; batches have budgets of their own.
    charge: Option<Charge>,
    ended: bool,
}

impl Answer {
    /// `body` as the answer to `call`.
    pub fn new(body: tonic::body::Body, call: Open, charge: Option<Charge>) -> Answer {
        Answer { body, call, charge, ended: false }
    }

    /// Counts a frame instead of the last one, which was taken.
    fn count(&mut self, bytes: usize) -> bool {
        self.charge.as_mut().is_none_or(|charge| {
            charge.clear();
            charge.grow(bytes)
        })
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
        self.call.waiting();
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.call.ready();
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => 0,
        };
        if self.count(bytes) {
            return Poll::Ready(frame);
        }
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        if crowded().add_header(&mut trailers).is_err() {
            trailers.insert("grpc-status", http::HeaderValue::from_static("8"));
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::limits::{House, Peer, tests::limits};
    use http_body_util::StreamBody;
    use std::convert::Infallible;

    fn body(frames: &[usize]) -> impl Body<Data = Bytes, Error = Infallible> + use<> {
        let frames: Vec<_> = frames.iter().map(|n| Ok(Frame::data(Bytes::from(vec![7; *n])))).collect();
        StreamBody::new(futures_util::stream::iter(frames))
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_bounded_in_bytes_and_time() {
        let house = House::new(crate::service::Limits { request_memory: 4 << 20, ..limits() });
        let stay = house.admit(Peer::Local).unwrap();
        let mut charge = stay.guest().charge(0).unwrap();
        let within = Duration::from_secs(20);
        for frames in [vec![], vec![5], vec![3, 4, 5], vec![0, 3, 0, 4]] {
            let all = gather(body(&frames), &mut charge, within).await.unwrap();
            assert_eq!(all, vec![7; frames.iter().sum()]);
            assert_eq!(house.request_bytes(), all.len());
            charge.clear();
        }
        let large = gather(body(&[MAX_BODY, 1]), &mut charge, within).await.unwrap_err();
        assert_eq!(large.code(), tonic::Code::ResourceExhausted);
        charge.clear();
        let others = stay.guest().charge(2 << 20).unwrap();
        let crowd = gather(body(&[1]), &mut charge, within).await.unwrap_err();
        assert!(crowd.message().contains("all the memory"), "{crowd}");
        drop(others);
        let endless = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let late = gather(endless, &mut charge, within).await.unwrap_err();
        assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_is_counted_and_ends_when_there_is_no_room() {
        let house = House::new(limits());
        let stay = house.admit(Peer::Local).unwrap();
        let answer = |frames: &[usize]| {
            let charge = stay.guest().charge(0).unwrap();
            Answer::new(tonic::body::Body::new(body(frames)), stay.guest().call(), Some(charge))
        };
        let mut first = answer(&[300, 200]);
        for bytes in [300, 200] {
            let frame = first.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap().len(), bytes);
            assert_eq!(house.request_bytes(), bytes);
        }
        let refused = answer(&[301]).frame().await.unwrap().unwrap();
        assert_eq!(refused.trailers_ref().unwrap()["grpc-status"], "8");
        assert!(first.frame().await.is_none());
        assert_eq!(house.request_bytes(), 0);
    }
}
