//! Who may come in, and how much of the server one address may hold.
//!
//! A good client never meets these limits. When the house is full, those who have not asked for anything go first, and
//! nobody is locked out while another address holds more.

#[cfg(test)]
pub(super) mod tests;

use super::guest::{Guest, Stay};
use crate::metrics;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Limits of the edge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Connections of all listeners together, at least 1.
    pub connections: usize,
    /// Connections of one address.
    pub connections_per_peer: usize,
    /// Calls of one connection at a time.
    pub streams: u32,
    /// Bytes of a request's headers.
    pub header_bytes: u32,
    /// Bytes that requests and unread answers of control calls may hold, all together; one address gets at most half.
    pub request_memory: usize,
    /// A connection without a call by then is closed; a TLS handshake is part of it.
    pub first_request: Duration,
    /// A request that is not complete by then is given up.
    pub request_timeout: Duration,
    /// A control call that is not answered by then is given up.
    pub call_timeout: Duration,
    /// A connection without calls and pings is closed after so long.
    pub idle_timeout: Duration,
    /// A connection of which a reader took nothing that was ready for so long is cut.
    pub stall_timeout: Duration,
    /// Frames a second that carry nothing (pings, settings, resets, window updates); ten seconds' worth may come at once,
    /// and every KiB that was sent allows one more.
    pub control_frames: u32,
}

/// Whom connections are counted for: an IPv4 address, an IPv6 network of 64 bits, or everybody on Unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// One address.
    V4(Ipv4Addr),
    /// One network: an IPv6 host has 2^64 addresses to come from.
    V6([u16; 4]),
    /// This machine, by a Unix socket.
    Local,
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => Peer::V4(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Peer::V6([a, b, c, d])
            }
        }
    }
}

/// Why a connection was not taken, or was ended by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// All places are taken, and no address holds more of them than this one.
    Full,
    /// The address has all the connections that one may have.
    Peer,
    /// It had to make room for another one.
    Evicted,
    /// No call came in time.
    Slow,
    /// Nothing was asked for long.
    Idle,
    /// A reader took nothing for long.
    Stalled,
    /// Too many frames that carry nothing.
    Flood,
    /// It does not speak HTTP/2, or broke its rules.
    Protocol,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 8] = [
        Refusal::Full,
        Refusal::Peer,
        Refusal::Evicted,
        Refusal::Slow,
        Refusal::Idle,
        Refusal::Stalled,
        Refusal::Flood,
        Refusal::Protocol,
    ];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Full => "full",
            Refusal::Peer => "peer",
            Refusal::Evicted => "evicted",
            Refusal::Slow => "slow",
            Refusal::Idle => "idle",
            Refusal::Stalled => "stalled",
            Refusal::Flood => "flood",
            Refusal::Protocol => "protocol",
        }
    }

    /// Counts it.
    pub fn count(self) {
        metrics::connection_refused(self.name());
    }
}

/// All connections of a server.
#[derive(Clone, Debug)]
pub struct House(Arc<State>);

#[derive(Debug)]
struct State {
    limits: RwLock<Limits>,
    rooms: Mutex<Rooms>,
}

#[derive(Debug, Default)]
struct Rooms {
    next: u64,
    guests: usize,
    /// Bytes of requests.
    bytes: usize,
    peers: BTreeMap<Peer, Held>,
    /// Connections that have not asked for anything, the oldest first.
    silent: BTreeMap<u64, Peer>,
}

/// What one address holds.
#[derive(Debug, Default)]
struct Held {
    guests: BTreeMap<u64, Arc<Guest>>,
    bytes: usize,
}

impl House {
    /// An empty one.
    pub fn new(limits: Limits) -> House {
        metrics::connections(0);
        metrics::refusals(&Refusal::ALL.map(Refusal::name));
        House(Arc::new(State { limits: RwLock::new(limits), rooms: Mutex::default() }))
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        *self.0.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other limits from now on. Connections that are open keep what they agreed on: streams and sizes of headers.
    pub fn set_limits(&self, limits: Limits) {
        *self.0.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
        let rooms = self.rooms();
        rooms.peers.values().flat_map(|held| held.guests.values()).for_each(|guest| guest.look_again());
    }

    /// Connections at the moment.
    pub fn guests(&self) -> usize {
        self.rooms().guests
    }

    /// Bytes that requests hold at the moment.
    pub fn request_bytes(&self) -> usize {
        self.rooms().bytes
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection.
    ///
    /// # Errors
    /// [`Refusal::Full`] or [`Refusal::Peer`], counted.
    pub fn admit(&self, peer: Peer) -> Result<Stay, Refusal> {
        let (limits, mut rooms) = (self.limits(), self.rooms());
        if let Err(refusal) = rooms.make_room(peer, &limits) {
            refusal.count();
            return Err(refusal);
        }
        rooms.next += 1;
        rooms.guests += 1;
        let id = rooms.next;
        let guest = Arc::new(Guest::new(id, peer, self.clone(), Instant::now()));
        rooms.peers.entry(peer).or_default().guests.insert(id, guest.clone());
        rooms.silent.insert(id, peer);
        metrics::connections(rooms.guests);
        Ok(Stay::new(guest))
    }

    /// A connection has asked for something.
    pub(super) fn asked(&self, id: u64) {
        self.rooms().silent.remove(&id);
    }

    /// A connection has ended.
    pub(super) fn leave(&self, peer: Peer, id: u64) {
        let mut rooms = self.rooms();
        rooms.remove(peer, id);
        metrics::connections(rooms.guests);
    }

    /// Bytes for requests of `peer`; `false` when they do not fit.
    pub(super) fn take(&self, peer: Peer, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let (limit, mut rooms) = (self.limits().request_memory, self.rooms());
        let held = rooms.peers.get(&peer).map_or(0, |held| held.bytes);
        if rooms.bytes.saturating_add(bytes) > limit || held.saturating_add(bytes) > limit.div_ceil(2) {
            return false;
        }
        rooms.count(peer, bytes);
        true
    }

    /// Bytes of an answer that must be given, whether they fit or not.
    pub(super) fn count(&self, peer: Peer, bytes: usize) {
        self.rooms().count(peer, bytes);
    }

    /// Bytes of requests that are gone.
    pub(super) fn give_back(&self, peer: Peer, bytes: usize) {
        let mut rooms = self.rooms();
        rooms.bytes -= bytes;
        if let Some(held) = rooms.peers.get_mut(&peer) {
            held.bytes -= bytes;
        }
        rooms.forget(peer);
    }
}

impl Rooms {
    /// Finds room for one more of `peer`, at the cost of others if need be.
    fn make_room(&mut self, peer: Peer, limits: &Limits) -> Result<(), Refusal> {
        let held = self.held(peer);
        if held >= limits.connections_per_peer {
            return if self.evict(peer, true) { Ok(()) } else { Err(Refusal::Peer) };
        }
        if self.guests < limits.connections {
            return Ok(());
        }
        let largest = self.peers.iter().max_by_key(|(_, held)| held.guests.len()).map(|(peer, _)| *peer);
        let Some(largest) = largest else { return Err(Refusal::Full) };
        let unfair = self.held(largest) > held + 1;
        // Whoever holds most pays first, and nobody who works pays for one who is silent.
        let silent = self.evict(largest, true) || self.evict(peer, true) || self.evict_oldest_silent();
        if silent || (unfair && self.evict(largest, false)) { Ok(()) } else { Err(Refusal::Full) }
    }

    fn count(&mut self, peer: Peer, bytes: usize) {
        self.bytes += bytes;
        self.peers.entry(peer).or_default().bytes += bytes;
    }

    fn held(&self, peer: Peer) -> usize {
        self.peers.get(&peer).map_or(0, |held| held.guests.len())
    }

    /// Ends a connection of `peer`: the oldest that has not asked for anything, or, unless `silent` only, the newest
    /// without a call or the newest of all.
    fn evict(&mut self, peer: Peer, silent: bool) -> bool {
        let Some(held) = self.peers.get(&peer) else { return false };
        let mut found = held.guests.keys().find(|id| self.silent.contains_key(id)).copied();
        if !silent {
            let mut newest = held.guests.iter().rev();
            let idle = newest.clone().find(|(_, guest)| !guest.is_busy());
            found = found.or_else(|| idle.or_else(|| newest.next()).map(|(id, _)| *id));
        }
        let Some(id) = found else { return false };
        self.end(peer, id);
        true
    }

    /// Ends the oldest connection of all that have not asked for anything.
    fn evict_oldest_silent(&mut self) -> bool {
        let Some((id, peer)) = self.silent.first_key_value().map(|(id, peer)| (*id, *peer)) else {
            return false;
        };
        self.end(peer, id);
        true
    }

    fn end(&mut self, peer: Peer, id: u64) {
        if let Some(guest) = self.remove(peer, id) {
            guest.cut(Refusal::Evicted);
        }
    }

    fn remove(&mut self, peer: Peer, id: u64) -> Option<Arc<Guest>> {
        let guest = self.peers.get_mut(&peer)?.guests.remove(&id)?;
        self.guests -= 1;
        self.silent.remove(&id);
        self.forget(peer);
        Some(guest)
    }

    fn forget(&mut self, peer: Peer) {
        if self.peers.get(&peer).is_some_and(|held| held.guests.is_empty() && held.bytes == 0) {
            self.peers.remove(&peer);
        }
    }
}
