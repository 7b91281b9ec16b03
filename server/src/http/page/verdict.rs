//! What the numbers mean: whether a trainer starves, by what, and whether the mixture is what was asked for.

use super::format::{Percent, Time};
use super::{Job, Mixture, Server, TRAINING, Wait};
use std::time::Duration;

/// Share of its time that a fed trainer waits at most.
const FED: f64 = 0.05;
/// Seconds without a change after which a stream counts as stuck.
const STUCK: Duration = Duration::from_secs(60);
/// Difference of shares that is a matter of whole rows and not of the mixture.
const CLOSE: f64 = 0.02;
/// Rows below which shares are a matter of chance.
const ROWS: u64 = 1_000;

/// How the trainer of a job is.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nobody reads.
    Idle,
    /// Not measured yet.
    New,
    /// It gets what it takes.
    Fed(String),
    /// It waits for the server or the network; why.
    Starved(String),
    /// It stands at a barrier; why.
    Barrier(String),
    /// It takes nothing; since when.
    Stuck(String),
}

impl Verdict {
    /// Of a job on a server.
    pub fn of(job: &Job, server: &Server) -> Verdict {
        let training = || job.streams.iter().filter(|view| view.who.call == TRAINING);
        if training().next().is_none() {
            return Verdict::Idle;
        }
        let longest = |wait: Wait| {
            let held = training().filter(|s| s.wait.0 == wait && s.wait.1 >= STUCK);
            held.max_by_key(|s| s.wait.1).map(|s| (s.who.rank, Time(s.wait.1)))
        };
        if let Some((_, time)) = longest(Wait::Barrier) {
            return Verdict::Barrier(format!("waits for reports since {time}"));
        }
        if let Some((rank, time)) = longest(Wait::Sending) {
            return Verdict::Stuck(format!("rank {rank} has taken nothing for {time}"));
        }
        let Some([making, barrier, _]) = job.lately.shares() else { return Verdict::New };
        let told = job.trainers.iter().filter_map(|t| t.lately).reduce(f64::max);
        let waits = told.unwrap_or(making + barrier);
        let who = if told.is_some() { "the trainer waits" } else { "streams wait" };
        let share = Percent(waits);
        if waits < FED {
            return Verdict::Fed(format!("{who} {share} of the time; the trainer sets the pace"));
        }
        if barrier > making {
            return Verdict::Barrier(format!("{who} {share} of the time, mostly for reports"));
        }
        if told.is_some_and(|told| making < told / 2.0) {
            return Verdict::Starved(format!(
                "{who} {share} of the time, but batches lie ready: network or client"
            ));
        }
        Verdict::Starved(format!("{who} {share} of the time for batches in the making{}", busiest(server)))
    }

    /// A word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Idle => "Nobody reads",
            Verdict::New => "Begins",
            Verdict::Fed(_) => "Fed",
            Verdict::Starved(_) => "Starved",
            Verdict::Barrier(_) => "At a barrier",
            Verdict::Stuck(_) => "Stuck",
        }
    }

    /// The rest of the sentence.
    pub fn why(&self) -> &str {
        match self {
            Verdict::Idle => "no stream of its batches is open",
            Verdict::New => "no sample yet",
            Verdict::Fed(why) | Verdict::Starved(why) | Verdict::Barrier(why) | Verdict::Stuck(why) => why,
        }
    }

    /// A shape for it, told apart without colours, and its class of colours.
    pub fn mark(&self) -> (&'static str, &'static str) {
        match self {
            Verdict::Idle => ("○", "calm"),
            Verdict::New => ("◌", "calm"),
            Verdict::Fed(_) => ("✓", "good"),
            Verdict::Starved(_) => ("▲", "bad"),
            Verdict::Barrier(_) => ("◆", "wait"),
            Verdict::Stuck(_) => ("■", "bad"),
        }
    }

    /// Whether somebody should look.
    pub fn troubles(&self) -> bool {
        matches!(self, Verdict::Starved(_) | Verdict::Stuck(_))
    }
}

/// The stage that most blocks are in.
fn busiest(server: &Server) -> String {
    let all: f64 = server.stages.iter().map(|(_, blocks)| blocks).sum();
    let most = server.stages.iter().max_by(|a, b| a.1.total_cmp(&b.1));
    most.filter(|_| all > 0.0)
        .map(|(stage, blocks)| format!(", {} of it {stage}", Percent(blocks / all)))
        .unwrap_or_default()
}

/// How far the mixture is from what was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Drift {
    /// Not told: by tokens, or too few rows.
    Unknown(&'static str),
    /// The group that is furthest off, what it was asked for and what was served of it.
    Known {
        /// Its name.
        group: String,
        /// Share asked for, 0 to 1.
        asked: f64,
        /// Share served.
        served: f64,
    },
}

impl Drift {
    /// Of a mixture.
    pub fn of(mixture: &Mixture) -> Drift {
        if mixture.by_tokens {
            return Drift::Unknown("rows are charged by tokens, so their shares differ from the weights");
        }
        if mixture.rows < ROWS {
            return Drift::Unknown("too few rows to compare");
        }
        let known = mixture.groups.iter().filter_map(|g| Some((g, g.asked, g.served?)));
        let far = known.max_by(|a, b| (a.1 - a.2).abs().total_cmp(&(b.1 - b.2).abs()));
        match far {
            Some((group, asked, served)) => Drift::Known { group: group.name.clone(), asked, served },
            None => Drift::Unknown("nothing was served yet"),
        }
    }

    /// Whether the difference is more than a matter of rounding.
    pub fn is_far(&self) -> bool {
        matches!(self, Drift::Known { asked, served, .. } if (asked - served).abs() > CLOSE)
    }
}
