//! Counts the frames that a client sends. HTTP/2 lets a client send any number of frames that carry nothing; answering or
//! reading them costs it little and the server much.

use super::guest::Guest;
use super::limits::Refusal;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a client says first.
const PREFACE: usize = 24;
const HEAD: usize = 9;
/// Seconds of control frames that may come at once.
const BURST: f64 = 10.0;
/// Bytes sent that allow one frame more.
const BYTES_PER_FRAME: f64 = 1024.0;
/// Data frames at least this long carry something.
const DATA: u32 = 64;

const FRAME_DATA: u8 = 0;
const FRAME_HEADERS: u8 = 1;
const FRAME_PING: u8 = 6;
const FLAG_ACK_OR_END: u8 = 1;
const FLAG_END_HEADERS: u8 = 4;

/// A socket whose frames are counted.
#[derive(Debug)]
pub struct Meter<S> {
    socket: S,
    guest: Arc<Guest>,
    frames: Frames,
}

impl<S> Meter<S> {
    /// Counts for `guest`.
    pub fn new(socket: S, guest: Arc<Guest>) -> Meter<S> {
        let frames = Frames::new(guest.limits().control_frames, Instant::now());
        Meter { socket, guest, frames }
    }

    /// Who cannot be written to has left: it did not break a rule.
    fn checked<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(done, Poll::Ready(Err(_))) {
            self.guest.left();
        }
        done
    }

    fn written(&mut self, done: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let written = ready!(self.checked(done))?;
        self.frames.written(written);
        self.guest.took();
        Poll::Ready(Ok(written))
    }
}

/// Where in the stream of frames the client is, and how many more it may send.
#[derive(Debug)]
struct Frames {
    /// Bytes of preface or payload that come before the next head.
    skip: usize,
    head: [u8; HEAD],
    filled: usize,
    rate: f64,
    left: f64,
    refilled: Instant,
}

/// What the bytes that were read hold.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    ping: bool,
    flood: bool,
}

impl Frames {
    fn new(rate: u32, now: Instant) -> Frames {
        let rate = f64::from(rate);
        Frames { skip: PREFACE, head: [0; HEAD], filled: 0, rate, left: rate * BURST, refilled: now }
    }

    /// Another rate from now on.
    fn set_rate(&mut self, rate: u32) {
        self.rate = f64::from(rate);
        self.left = self.left.min(self.rate * BURST);
    }

    /// Reads on; `now` is asked for when there is nothing left to spend.
    fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Seen {
        let mut seen = Seen::default();
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let more = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + more].copy_from_slice(&bytes[..more]);
            self.filled += more;
            bytes = &bytes[more..];
            if self.filled == HEAD {
                self.filled = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                let len = u32::from_be_bytes([0, a, b, c]);
                self.skip = len as usize;
                seen.ping |= kind == FRAME_PING && flags & FLAG_ACK_OR_END == 0;
                seen.flood |= !carries(kind, flags, len) && !self.spend(&now);
            }
        }
        seen
    }

    /// Takes one of what is left.
    fn spend(&mut self, now: impl Fn() -> Instant) -> bool {
        if self.left < 1.0 {
            let now = now();
            let earned = now.saturating_duration_since(self.refilled).as_secs_f64() * self.rate;
            (self.left, self.refilled) = ((self.left + earned).min(self.rate * BURST), now);
        }
        self.left -= 1.0;
        self.left >= 0.0
    }

    /// Readers answer what they get: window updates, pings that measure the bandwidth.
    fn written(&mut self, bytes: usize) {
        self.left = (self.left + bytes as f64 / BYTES_PER_FRAME).min(self.rate * BURST);
    }
}

/// Whether a frame is part of a request, so that calls pay for it.
fn carries(kind: u8, flags: u8, len: u32) -> bool {
    match kind {
        FRAME_DATA => len >= DATA || flags & FLAG_ACK_OR_END != 0,
        FRAME_HEADERS => flags & FLAG_END_HEADERS != 0,
        _ => false,
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Meter<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut this.socket).poll_read(cx, buf));
        if read.is_err() || (buf.filled().len() == before && buf.remaining() > 0) {
            this.guest.left();
        }
        read?;
        this.frames.set_rate(this.guest.limits().control_frames);
        let seen = this.frames.read(&buf.filled()[before..], Instant::now);
        if seen.ping {
            this.guest.pinged();
        }
        if seen.flood {
            this.guest.cut(Refusal::Flood);
            return Poll::Ready(Err(io::Error::other("too many frames that carry nothing")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Meter<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(cx, buf);
        this.written(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write_vectored(cx, bufs);
        this.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.socket).poll_flush(cx);
        this.checked(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.socket).poll_shutdown(cx);
        this.checked(shut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let [_, a, b, c] = (payload as u32).to_be_bytes();
        let mut bytes = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        bytes.resize(HEAD + payload, 0xff);
        bytes
    }

    /// What `frames` see in `bytes` while no time passes.
    fn read(frames: &mut Frames, bytes: &[u8]) -> Seen {
        let now = frames.refilled;
        frames.read(bytes, || now)
    }

    fn said(frames: &[Vec<u8>]) -> Vec<u8> {
        [vec![b'P'; PREFACE], frames.concat()].concat()
    }

    #[test]
    fn only_frames_that_carry_nothing_are_paid_for() {
        let mut frames = Frames::new(1, Instant::now());
        let calls = [frame(FRAME_HEADERS, 5, 30), frame(FRAME_DATA, 1, 0), frame(FRAME_DATA, 0, 64)].concat();
        assert_eq!(read(&mut frames, &said(&vec![calls; 100])), Seen::default());
        assert_eq!(frames.left, 10.0);
        let ping = frame(FRAME_PING, 0, 8);
        assert_eq!(read(&mut frames, &ping.repeat(9)), Seen { ping: true, flood: false });
        frames.written(5 * 1024);
        assert_eq!(read(&mut frames, &ping.repeat(6)), Seen { ping: true, flood: false });
        assert!(read(&mut frames, &frame(4, 0, 0).repeat(10)).flood, "settings");
        let mut slow = Frames::new(1, Instant::now());
        assert_eq!(
            read(&mut slow, &said(&[frame(FRAME_PING, 1, 8)])),
            Seen::default(),
            "an answer to our ping"
        );
        assert!(read(&mut slow, &frame(FRAME_DATA, 0, 1).repeat(11)).flood, "data in crumbs");
        let mut strict = Frames::new(100, Instant::now());
        strict.set_rate(1);
        assert!(read(&mut strict, &said(&[ping.repeat(11)])).flood, "other limits");
        let later = strict.refilled + Duration::from_secs(3);
        assert_eq!(
            strict.read(&ping.repeat(2), || later),
            Seen { ping: true, flood: false },
            "time earns them"
        );
        assert!(strict.read(&ping, || later).flood);
    }

    #[tokio::test]
    async fn who_closes_the_socket_has_left_whatever_is_done_with_it_next() {
        use crate::service::limits::{House, Peer, tests::limits};
        use tokio::io::AsyncWriteExt;
        let house = House::new(limits());
        let stay = house.admit(Peer::Local).unwrap();
        let (here, there) = tokio::io::duplex(64);
        drop(there);
        let mut meter = Meter::new(here, stay.guest().clone());
        meter.write_all(b"x").await.unwrap_err();
        assert!(stay.guest().has_left());
    }

    proptest! {
        #[test]
        fn frames_are_counted_however_they_are_cut(
            frames in prop::collection::vec((0u8..12, any::<u8>(), 0usize..300), 0..40),
            cut in 1usize..50,
        ) {
            let bytes = said(&frames.iter().map(|(k, f, n)| frame(*k, *f, *n)).collect::<Vec<_>>());
            let (mut whole, mut pieces) = (Frames::new(2, Instant::now()), Frames::new(2, Instant::now()));
            let empty = frames.iter().filter(|(k, f, n)| !carries(*k, *f, *n as u32)).count();
            let seen = read(&mut whole, &bytes);
            let parts: Vec<Seen> = bytes.chunks(cut).map(|part| read(&mut pieces, part)).collect();
            prop_assert_eq!(seen.flood, parts.iter().any(|seen| seen.flood));
            prop_assert_eq!(seen.ping, parts.iter().any(|seen| seen.ping));
            prop_assert!(empty > 20 || !seen.flood);
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            Frames::new(1000, Instant::now()).read(&bytes, Instant::now);
        }
    }
}
