//! Options of a client and of its streams.

use crate::Cursor;
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

/// Options of a [`Client`](crate::Client). The defaults suit batches of tens of megabytes on one host or in one rack.
#[derive(Clone)]
pub struct ClientOptions {
    pub(crate) connect_timeout: Duration,
    pub(crate) call_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) patience: Duration,
    pub(crate) backoff: (Duration, Duration),
    pub(crate) prefetch_bytes: u64,
    pub(crate) frame_bytes: u32,
    pub(crate) window_bytes: u32,
    pub(crate) max_batch_bytes: u64,
    pub(crate) tell_waits: Duration,
    pub(crate) name: String,
    pub(crate) token: Option<Token>,
    pub(crate) plaintext_token: bool,
    pub(crate) ca: Option<Arc<[u8]>>,
    pub(crate) identity: Option<Pair>,
    pub(crate) server_name: Option<String>,
    pub(crate) pages: Option<Arc<dyn Pages>>,
}

/// Is told about the memory that batches are received into, so that a device may copy from it directly. Memory is taken
/// rarely and used again for batch after batch.
pub trait Pages: fmt::Debug + Send + Sync {
    /// Memory was taken. It stays where it is until it is released. Called on the stream's thread.
    fn adopt(&self, memory: &mut [u8]);
    /// Memory is about to be given back to the system. Called on whichever thread lets go of it last.
    fn release(&self, memory: &mut [u8]);
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: Arc<[u8]>,
    pub(crate) key: Arc<[u8]>,
}

/// Where the token is.
#[derive(Clone)]
pub(crate) enum Token {
    Text(String),
    File(PathBuf),
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(300),
            keep_alive: Duration::from_secs(60),
            patience: Duration::from_secs(300),
            backoff: (Duration::from_millis(50), Duration::from_secs(5)),
            prefetch_bytes: 0,
            frame_bytes: 256 << 10,
            window_bytes: 16 << 20,
            max_batch_bytes: 4 << 30,
            tell_waits: Duration::from_secs(10),
            name: "mixfeed-client".into(),
            token: None,
            plaintext_token: false,
            ca: None,
            identity: None,
            server_name: None,
            pages: None,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ClientOptions")
            .field("name", &self.name)
            .field("patience", &self.patience)
            .field("prefetch_bytes", &self.prefetch_bytes)
            .field("frame_bytes", &self.frame_bytes)
            .field("window_bytes", &self.window_bytes)
            .field("max_batch_bytes", &self.max_batch_bytes)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("identity", &self.identity.as_ref().map(|_| "..."))
            .finish_non_exhaustive()
    }
}

impl ClientOptions {
    /// Whether a call that was denied may succeed when it is made again: somebody may replace the token's file.
    pub(crate) fn token_changes(&self) -> bool {
        matches!(self.token, Some(Token::File(_)))
    }

    /// Longest time for one connection to be made. Default 5 s.
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = time;
        self
    }

    /// Longest time for one answer to a control call; opening a job may index its data. Default 300 s.
    pub fn call_timeout(mut self, time: Duration) -> Self {
        self.call_timeout = time;
        self
    }

    /// Longest silence of a batch stream that is being waited for, before another connection is tried. Default 300 s.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.idle_timeout = time;
        self
    }

    /// Time between HTTP/2 pings on a silent connection. Default 60 s; servers may object to much less.
    pub fn keep_alive(mut self, time: Duration) -> Self {
        self.keep_alive = time;
        self
    }

    /// How long to retry, counted from the first failure since something last succeeded. Zero: fail at once.
    /// Default 300 s.
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = time;
        self
    }

    /// Wait before the first retry and the most that it grows to by doubling. Default 50 ms and 5 s.
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.backoff = (first, most.max(first));
        self
    }

    /// Bytes that the server may prepare ahead for each batch stream; 0, the default, leaves it to the server.
    pub fn prefetch_bytes(mut self, bytes: u64) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// Largest HTTP/2 frame that the client takes, 16 KiB to 16 MiB - 1. Default 256 KiB.
    pub fn frame_bytes(mut self, bytes: u32) -> Self {
        self.frame_bytes = bytes.clamp(16 << 10, (16 << 20) - 1);
        self
    }

    /// Bytes of a batch stream that may be in flight, 64 KiB to 512 MiB; the connection's window is twice that.
    /// Default 16 MiB.
    pub fn window_bytes(mut self, bytes: u32) -> Self {
        self.window_bytes = bytes.clamp(64 << 10, 512 << 20);
        self
    }

    /// Largest batch that is taken, in bytes over all tensors. Default 4 GiB.
    pub fn max_batch_bytes(mut self, bytes: u64) -> Self {
        self.max_batch_bytes = bytes;
        self
    }

    /// How often a batch stream tells the server how long the trainer waited for it, on the stream's connection and in the
    /// background; the server's dashboards and alerts show it. Zero turns it off. Default 10 s.
    pub fn tell_waits(mut self, every: Duration) -> Self {
        self.tell_waits = every;
        self
    }

    /// Name of this client in the server's logs. Visible ASCII.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Bearer token that is sent with every call. Visible ASCII. It is sent over TLS, over Unix sockets and to loopback
    /// addresses only, unless [`plaintext_token`](Self::plaintext_token) says otherwise.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Token::Text(token.into()));
        self
    }

    /// As [`token`](Self::token), read from a file at every call, so that another token can be put there while a job runs.
    /// White space around it is left out.
    pub fn token_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.token = Some(Token::File(file.into()));
        self
    }

    /// Lets the token travel over plaintext to other machines. Default false.
    pub fn plaintext_token(mut self, allow: bool) -> Self {
        self.plaintext_token = allow;
        self
    }

    /// Authorities, in PEM, one of which must have signed the certificates of `https://` endpoints. Default: those that the
    /// system trusts.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into().into());
        self
    }

    /// Certificate (with those between it and its authority) and private key of this client, in PEM, for servers that ask
    /// for one.
    pub fn identity_pem(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some(Pair { certificate: certificate.into().into(), key: key.into().into() });
        self
    }

    /// Who is told about the memory of batches. Default: nobody.
    pub fn pages(mut self, pages: Arc<dyn Pages>) -> Self {
        self.pages = Some(pages);
        self
    }

    /// Name that certificates must be for. Default: the host of the endpoint.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}

/// Where a stream starts.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// A step, from 0; at most 1,024 past the first one that no stream has begun.
    Step(u64),
    /// A position from a trainer's checkpoint, anywhere. It must belong to the job's spec.
    Cursor(Cursor),
}

/// What to do with a cursor of an older branch of the mixture log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// Fail, so that a person decides.
    #[default]
    Ask,
    /// Strike what came later and continue on a new branch.
    Rewind,
    /// Serve what was recorded until it has caught up.
    Replay,
}

/// What part of a job a stream carries.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamOptions {
    /// This trainer's rank, `0..world_size`.
    pub rank: u32,
    /// Ranks that share each step; one of the job's `world_sizes`.
    pub world_size: u32,
    /// Number of this reader among those that read the same rank; for logs and metrics only.
    pub replica: u32,
    /// First step.
    pub start: Start,
    /// What to do with a cursor of an older branch.
    pub resume: Resume,
    /// When this reader began, Unix time in nanoseconds. Of the streams of one job, rank, world size and replica that have a
    /// number here, the one with the highest is served; the others end with [`Error::Aborted`](crate::Error): two processes
    /// that think they are the same trainer find out, and the newer one wins. More than an hour ahead of the server's clock is
    /// [`Error::Invalid`](crate::Error). 0, the default, takes no part. Each server process compares its own streams only:
    /// readers of other servers are not found out.
    pub fence: u64,
}

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions {
            rank: 0,
            world_size: 1,
            replica: 0,
            start: Start::Step(0),
            resume: Resume::Ask,
            fence: 0,
        }
    }
}

/// What part of a pinned evaluation set a stream carries.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalOptions {
    /// `SOURCE` or `SOURCE/GROUP`.
    pub group: String,
    /// Rows of one step over all ranks, 1..=65536.
    pub batch: u32,
    /// This trainer's rank, `0..world_size`.
    pub rank: u32,
    /// Ranks that share each step.
    pub world_size: u32,
    /// `Partial` or `Pad`; nothing is dropped.
    pub last_batch: crate::spec::LastBatch,
    /// First step.
    pub from_step: u64,
    /// The group's held-out records instead of those that the job trains on.
    pub held_out: bool,
}

/// Which batch to make again.
#[derive(Clone, Debug, PartialEq)]
pub enum Replay {
    /// One that was received.
    Receipt(crate::spec::Receipt),
    /// One rank's rows of a step.
    Step {
        /// Step.
        step: u64,
        /// Rank, `0..world_size`.
        rank: u32,
        /// Ranks that share the step.
        world_size: u32,
    },
}
