//! What a stream waits for, and for how long.

use super::Wait;
use std::time::{Duration, Instant};

/// What the sending half of a stream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Waits for the next step or block to be begun: for whatever the making half waits for.
    Next,
    /// Waits for a block that was begun.
    Block,
    /// Waits for a place on the way to the connection.
    Sending,
}

/// Times since the stream was opened. They are told from the two halves of the stream: one makes ahead, one sends.
#[derive(Debug)]
pub(super) struct Clock {
    doing: Doing,
    /// What the making half waits for.
    ahead: Wait,
    /// Since when what [`Clock::wait`] says holds.
    since: Instant,
    /// Time in each of [`Wait::ALL`] before that.
    spent: [Duration; 3],
    /// Of all time, what [`Clock::take`] returned.
    taken: [Duration; 3],
}

impl Clock {
    pub fn new(now: Instant) -> Clock {
        let none = [Duration::ZERO; 3];
        Clock { doing: Doing::Next, ahead: Wait::Making, since: now, spent: none, taken: none }
    }

    /// What the stream waits for.
    pub fn wait(&self) -> Wait {
        match self.doing {
            Doing::Next => self.ahead,
            Doing::Block => Wait::Making,
            Doing::Sending => Wait::Sending,
        }
    }

    /// How long it waits for that.
    pub fn running(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// The sending half does something else.
    pub fn doing(&mut self, now: Instant, doing: Doing) {
        self.turn(now, |clock| clock.doing = doing);
    }

    /// The making half waits for something else.
    pub fn ahead(&mut self, now: Instant, wait: Wait) {
        self.turn(now, |clock| clock.ahead = wait);
    }

    fn turn(&mut self, now: Instant, change: impl FnOnce(&mut Clock)) {
        let (was, running) = (self.wait(), self.running(now));
        change(self);
        if self.wait() != was {
            self.spent[was as usize] += running;
            self.since = now;
        }
    }

    /// Time in each of [`Wait::ALL`].
    pub fn spent(&self, now: Instant) -> [Duration; 3] {
        let mut spent = self.spent;
        spent[self.wait() as usize] += self.running(now);
        spent
    }

    /// As [`Clock::spent`], since the last call.
    pub fn take(&mut self, now: Instant) -> [Duration; 3] {
        let spent = self.spent(now);
        let before = std::mem::replace(&mut self.taken, spent);
        std::array::from_fn(|i| self.taken[i].saturating_sub(before[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Wait::{Barrier, Making, Sending};

    /// A clock, and moments by seconds.
    fn clock() -> (Clock, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (Clock::new(start), move |second| start + Duration::from_secs(second))
    }

    fn seconds(spent: [Duration; 3]) -> [u64; 3] {
        spent.map(|time| time.as_secs())
    }

    #[test]
    fn a_stream_without_a_block_waits_for_what_its_maker_waits_for() {
        let (mut clock, at) = clock();
        assert_eq!(clock.wait(), Making);
        clock.ahead(at(1), Barrier);
        assert_eq!((clock.wait(), clock.running(at(3))), (Barrier, Duration::from_secs(2)));
        // The maker stands at a barrier, but the step before it is not sent yet.
        clock.doing(at(3), Doing::Block);
        assert_eq!(clock.wait(), Making);
        clock.doing(at(4), Doing::Sending);
        assert_eq!(clock.wait(), Sending);
        clock.doing(at(8), Doing::Next);
        clock.ahead(at(9), Sending);
        assert_eq!(seconds(clock.spent(at(11))), [2, 3, 6]);
    }

    #[test]
    fn the_same_wait_told_twice_is_one() {
        let (mut clock, at) = clock();
        clock.doing(at(1), Doing::Block);
        clock.ahead(at(2), Making);
        clock.doing(at(3), Doing::Next);
        assert_eq!((clock.wait(), clock.running(at(4))), (Making, Duration::from_secs(4)));
    }

    #[test]
    fn what_is_taken_adds_up_to_what_was_spent_also_while_it_waits() {
        let (mut clock, at) = clock();
        let mut sum = [0; 3];
        for second in 1..60 {
            match second % 7 {
                0 => clock.doing(at(second), Doing::Sending),
                2 => clock.doing(at(second), Doing::Next),
                3 => clock.ahead(at(second), if second % 2 == 0 { Barrier } else { Making }),
                _ => {
                    let more = seconds(clock.take(at(second)));
                    assert!(second < 8 || more.iter().sum::<u64>() <= 3);
                    (0..3).for_each(|i| sum[i] += more[i]);
                }
            }
            assert_eq!(clock.spent(at(second)).iter().sum::<Duration>(), Duration::from_secs(second));
        }
        let more = seconds(clock.take(at(60)));
        (0..3).for_each(|i| sum[i] += more[i]);
        assert_eq!(sum, seconds(clock.spent(at(60))));
        assert_eq!(seconds(clock.take(at(60))), [0; 3], "never counted twice");
        assert!(sum.iter().all(|s| *s > 0));
    }
}
