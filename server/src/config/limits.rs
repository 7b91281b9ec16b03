//! `[server.limits]`.

use super::Size;
use serde::Deserialize;

/// `[server.limits]`: what clients may hold. Good clients do not meet these.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections of all addresses, 1..=1000000; a trainer has two.
    pub connections: usize,
    /// Connections of one IPv4 address, of one IPv6 network of 64 bits, or of all Unix sockets, 1..=1000000.
    pub connections_per_peer: usize,
    /// Calls of one connection at a time, 1..=100000.
    pub streams_per_connection: u32,
    /// Bytes of a request's headers, 1 KiB to 1 MiB.
    pub header_bytes: Size,
    /// Bytes that requests and unread answers of control calls may hold, 4 MiB to 1 TiB.
    pub request_memory: Size,
    /// Seconds until the first call of a connection, 1..=86400.
    pub first_request: u64,
    /// Seconds until a request is complete, 1..=86400.
    pub request_timeout: u64,
    /// Seconds until a control call is answered, 1..=86400.
    pub call_timeout: u64,
    /// Seconds that a connection without calls and pings is kept, 1..=31536000.
    pub idle_timeout: u64,
    /// Seconds that a reader may leave what is ready, 1..=31536000.
    pub stall_timeout: u64,
    /// Frames a second that carry nothing (pings, settings, resets, window updates), 10..=1000000.
    pub control_frames: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 4096,
            connections_per_peer: 2500,
            streams_per_connection: 256,
            header_bytes: Size(16 << 10),
            request_memory: Size(256 << 20),
            first_request: 30,
            request_timeout: 20,
            call_timeout: 600,
            idle_timeout: 600,
            stall_timeout: 3600,
            control_frames: 1000,
        }
    }
}

impl Limits {
    /// The first value out of its range: (key, what is there and what is wanted).
    pub(super) fn misfit(&self) -> Option<(&'static str, String)> {
        const DAY: u64 = 86_400;
        const YEAR: u64 = 365 * DAY;
        const MANY: u64 = 1_000_000;
        let ranges: [(&str, u64, std::ops::RangeInclusive<u64>); 11] = [
            ("limits.connections", self.connections as u64, 1..=MANY),
            ("limits.connections_per_peer", self.connections_per_peer as u64, 1..=MANY),
            ("limits.streams_per_connection", self.streams_per_connection.into(), 1..=100_000),
            ("limits.header_bytes", self.header_bytes.0 as u64, 1 << 10..=1 << 20),
            ("limits.request_memory", self.request_memory.0 as u64, 4 << 20..=1 << 40),
            ("limits.first_request", self.first_request, 1..=DAY),
            ("limits.request_timeout", self.request_timeout, 1..=DAY),
            ("limits.call_timeout", self.call_timeout, 1..=DAY),
            ("limits.idle_timeout", self.idle_timeout, 1..=YEAR),
            ("limits.stall_timeout", self.stall_timeout, 1..=YEAR),
            ("limits.control_frames", self.control_frames.into(), 10..=MANY),
        ];
        let wrong = ranges.into_iter().find(|(_, value, range)| !range.contains(value));
        wrong
            .map(|(key, value, range)| (key, format!("is {value}, want {}..={}", range.start(), range.end())))
    }
}
