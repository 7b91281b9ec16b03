//! One reader per place. Two trainers that both think they are rank 3 would each train on the same rows, and nobody would
//! notice: streams that carry a number find out. The highest number of a place is served, so that an old reader that
//! reconnects cannot push a new one out. Numbers are times, so that none holds a place for ever. Places are those of one
//! server process: readers of other servers are not known here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::sync::oneshot;

/// How far a reader's clock may be ahead of the server's.
const AHEAD: Duration = Duration::from_secs(3600);

/// Whether `number`, Unix time in nanoseconds, is at most an hour past `now`.
pub fn is_plausible(number: u64, now: SystemTime) -> bool {
    let most = (now + AHEAD).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u128::from(number) <= most.as_nanos()
}

/// Job, rank, world size, replica.
pub type Place = (String, u32, u32, u32);

/// Who reads where. Holds one entry per open stream with a number.
#[derive(Clone, Debug, Default)]
pub struct Fences(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    places: HashMap<Place, Reader>,
    /// Readers so far, to tell apart those of one number.
    readers: u64,
}

#[derive(Debug)]
struct Reader {
    number: u64,
    id: u64,
    /// Tells it that another one came.
    leave: oneshot::Sender<()>,
}

/// A place that is held until this is dropped, or until a newer reader takes it.
#[derive(Debug)]
pub struct Post {
    fences: Fences,
    place: Place,
    id: u64,
}

impl Fences {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, from an older reader if need be. The receiver is told when a newer one comes, and closed when the
    /// post is dropped. `None`: a reader with a higher number is there. A reader that reconnects has its old number.
    pub fn take(&self, place: Place, number: u64) -> Option<(Post, oneshot::Receiver<()>)> {
        let (leave, told) = oneshot::channel();
        let mut taken = self.lock();
        if taken.places.get(&place).is_some_and(|reader| reader.number > number) {
            return None;
        }
        taken.readers += 1;
        let id = taken.readers;
        if let Some(older) = taken.places.insert(place.clone(), Reader { number, id, leave }) {
            // It may be gone just now.
            let _ = older.leave.send(());
        }
        Some((Post { fences: self.clone(), place, id }, told))
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        let mut taken = self.fences.lock();
        if taken.places.get(&self.place).is_some_and(|reader| reader.id == self.id) {
            taken.places.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(rank: u32) -> Place {
        ("job".into(), rank, 8, 0)
    }

    #[test]
    fn no_number_is_from_a_far_future() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let hour = 3_600_000_000_000;
        for number in [1, 1_800_000_000_000_000_000, 1_800_000_000_000_000_000 + hour] {
            assert!(is_plausible(number, now), "{number}");
        }
        for number in [1_800_000_000_000_000_001 + hour, u64::MAX] {
            assert!(!is_plausible(number, now), "{number}");
        }
    }

    #[test]
    fn the_highest_number_of_a_place_is_served() {
        let fences = Fences::default();
        let (old, mut told) = fences.take(place(3), 10).expect("free");
        let (_other, mut other) = fences.take(place(4), 9).expect("another place");
        let (new, mut newest) = fences.take(place(3), 11).expect("newer");
        assert_eq!(told.try_recv(), Ok(()));
        assert!(fences.take(place(3), 10).is_none(), "an old reader that reconnects");
        drop(old);
        let (again, _) = fences.take(place(3), 11).expect("the same reader reconnects");
        assert_eq!(newest.try_recv(), Ok(()));
        drop(new);
        assert!(fences.take(place(3), 10).is_none(), "what was dropped did not hold the place any more");
        drop(again);
        assert!(fences.take(place(3), 1).is_some(), "everybody has left");
        assert!(other.try_recv().is_err());
    }
}
