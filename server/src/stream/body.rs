//! The response body of a batch stream: ready frames, then trailers. Nothing is copied.

use bytes::Bytes;
use http_body::Frame;
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::sync::mpsc;
use tonic::Status;

/// What the sender hands over.
#[derive(Debug)]
pub(super) enum Out {
    /// Bytes as they are.
    Data(Bytes),
    /// The last thing.
    End(Status),
}

/// A body of ready-made frames.
#[derive(Debug)]
pub struct Body {
    frames: mpsc::Receiver<Out>,
    ended: bool,
}

impl Body {
    pub(super) fn new(frames: mpsc::Receiver<Out>) -> Body {
        Body { frames, ended: false }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let status = match ready!(self.frames.poll_recv(cx)) {
            Some(Out::Data(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Out::End(status)) => status,
            None => Status::internal("the stream's task is gone"),
        };
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            trailers.insert("grpc-status", http::HeaderValue::from_static("13"));
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
