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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::limits::{House, Peer, tests::limits};
    use futures_util::StreamExt;
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
        let mut told = answer(&[301]).carried_out();
        assert_eq!(told.frame().await.unwrap().unwrap().into_data().unwrap().len(), 301);
        assert_eq!(house.request_bytes(), 501, "over what one address may hold");
        assert!(stay.guest().charge(1).is_none(), "what is new waits");
        drop(told);
        assert!(first.frame().await.is_none());
        assert_eq!(house.request_bytes(), 0);
    }

    #[tokio::test]
    async fn what_a_call_held_is_enough_for_an_answer_of_its_size() {
        let house = House::new(limits());
        let (stay, other) = (house.admit(Peer::Local).unwrap(), house.admit(Peer::V6([1; 4])).unwrap());
        let charge = stay.guest().charge(400).unwrap();
        let _others = (other.guest().charge(500).unwrap(), stay.guest().charge(100).unwrap());
        let body = tonic::body::Body::new(body(&[400, 300]));
        let mut answer = Answer::new(body, stay.guest().call(), Some(charge));
        for bytes in [400, 300] {
            assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap().len(), bytes);
            assert_eq!(house.request_bytes(), 600 + bytes);
        }
        drop(answer);
    }

    #[tokio::test]
    async fn an_answer_goes_out_in_pieces_and_is_counted_until_the_last_one_is_taken() {
        let house = House::new(crate::service::Limits { request_memory: 1 << 20, ..limits() });
        let stay = house.admit(Peer::Local).unwrap();
        let charge = stay.guest().charge(5).unwrap();
        let body = tonic::body::Body::new(body(&[3 * PIECE + 1]));
        let mut answer = Answer::new(body, stay.guest().call(), Some(charge));
        for bytes in [PIECE, PIECE, PIECE, 1] {
            assert!(!answer.is_end_stream());
            assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), vec![7; bytes]);
            assert_eq!(house.request_bytes(), 3 * PIECE + 1);
        }
        assert!(answer.frame().await.is_none());
        assert_eq!(house.request_bytes(), 0);
    }

    #[tokio::test]
    async fn messages_that_go_both_ways_are_counted() {
        let house = House::new(crate::service::Limits { request_memory: 1 << 20, ..limits() });
        let stay = house.admit(Peer::Local).unwrap();
        let charge = stay.guest().charge(0).unwrap();
        let mut timed = Timed::new(Box::pin(body(&[60_000, 5_000, 1_000])), charge, Duration::from_secs(20));
        for all in [60_000, 65_000] {
            timed.frame().await.unwrap().unwrap();
            assert_eq!(house.request_bytes(), all);
        }
        assert!(timed.frame().await.unwrap().unwrap_err().to_string().contains("65536"));
        drop(timed);
        assert_eq!(house.request_bytes(), 0);
    }

    #[tokio::test]
    async fn a_watcher_of_the_health_is_sent_home_after_the_last_word() {
        let word = |word: u8| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, word])));
        let words = futures_util::stream::iter([word(1), word(2)]).chain(futures_util::stream::pending());
        let mut watched = Watched::new(tonic::body::Body::new(StreamBody::new(words)));
        for last in [1, 2] {
            let frame = watched.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap().last(), Some(&last));
        }
        let end = watched.frame().await.unwrap().unwrap();
        assert_eq!(end.trailers_ref().unwrap()["grpc-status"], "14");
        assert!(watched.frame().await.is_none());
    }
}
