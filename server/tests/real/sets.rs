//! What is learnt: sets of groups, ways of setting their weights, and runs of one on the other.

use crate::{
    feed::{Here, Log},
    text::{Group, ROW, Row},
    train::train,
};
use mixfeed_client::ngram::NGram;
use mixfeed_server::{
    args::Args,
    estimate::{Setup, Vectors, by_name, post, reduce},
    keeper::{Barrier, Learner, Rules},
    mixture::{ONE, Weights},
};
use std::{collections::BTreeMap, time::Duration};

/// Rows of a step.
pub const BATCH: u64 = 32;

/// A job's groups and objective.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    pub name: &'static str,
    pub groups: &'static [&'static str],
    /// Groups whose held-out loss counts, all alike.
    pub tasks: &'static [usize],
    pub steps: u64,
    /// Shares that the job begins with.
    pub initial: &'static [f64],
}

/// A method of the registry with its arguments.
#[derive(Clone, Debug)]
pub struct Way {
    pub method: &'static str,
    pub numbers: Vec<(&'static str, f64)>,
    pub words: Vec<(&'static str, &'static str)>,
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Mean over tasks of the loss on their test sets, nats per byte.
    pub loss: f64,
    /// Mean over tasks of e^loss.
    pub perplexity: f64,
    /// First step and integer weights of each entry of the log.
    pub log: Log,
}

/// Runs `way` on `set`, whose groups are `groups`, with one seed.
pub fn run(set: &Set, groups: &[&Group], way: &Way, seed: u64) -> Outcome {
    let (model, log) = trained(set, groups, way, seed);
    let losses: Vec<f64> = set.tasks.iter().map(|t| model.loss::<Row>(&groups[*t].test)).collect();
    let mean = |of: &dyn Fn(f64) -> f64| losses.iter().map(|l| of(*l)).sum::<f64>() / losses.len() as f64;
    Outcome { loss: mean(&|l| l), perplexity: mean(&f64::exp), log }
}

/// As [`run`]: the model and the log.
pub fn trained(set: &Set, groups: &[&Group], way: &Way, seed: u64) -> (NGram, Log) {
    let rows: Vec<usize> = groups.iter().map(|g| g.train.len()).collect();
    let mut feed = Here::new(rules(way, set.initial, set.tasks, &rows, set.steps, seed), &rows);
    let mut model = NGram::new();
    train(&mut feed, groups, set.tasks, &mut model);
    (model, feed.log())
}

/// The rules of a job over groups of `rows` rows that learns as `way` says, bounded by nothing.
pub fn rules(way: &Way, initial: &[f64], tasks: &[usize], rows: &[usize], steps: u64, seed: u64) -> Rules {
    let m = initial.len();
    let shares = Weights::normalise(initial).unwrap();
    let setup = Setup {
        groups: m,
        tasks: tasks.len(),
        own_task: (0..m).map(|g| tasks.iter().position(|t| *t == g)).collect(),
        objective: vec![1.0 / tasks.len() as f64; tasks.len()],
        perplexity: false,
        initial: shares.shares().iter().map(|w| *w as f64 / ONE as f64).collect(),
        sizes: rows.iter().map(|rows| (rows * ROW) as f64).collect(),
        batch: BATCH,
        max_steps: steps,
        seed,
        log_vocabulary: Some(256f64.ln()),
    };
    let method = by_name(way.method).unwrap_or_else(|| panic!("no method `{}`", way.method));
    let numbers: BTreeMap<String, f64> = way.numbers.iter().map(|(k, v)| ((*k).into(), *v)).collect();
    let words: BTreeMap<String, String> = way.words.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let args = Args::resolve(&method.declared(), &numbers, &words).unwrap();
    let names = |of: &[usize]| of.iter().map(|g| format!("text/{g}")).collect::<Vec<_>>();
    Rules {
        groups: names(&(0..m).collect::<Vec<_>>()),
        active: (0..m).collect(),
        tasks: names(tasks),
        initial: shares,
        setup,
        learner: Some(Learner { name: way.method.into(), method, args, vectors: Vectors::new() }),
        shadows: Vec::new(),
        barrier: Barrier::Strict,
        late_after: Duration::from_secs(600),
        reporters: 1,
        reduce: reduce::Rule::Mean,
        faulty: None,
        post: post::Rules { paper_faithful: true, ..post::Rules::new(m) },
        max_epochs: 0.0,
        epoch_rows: rows.iter().map(|rows| *rows as f64).collect(),
        eval_digest: vec![0; 32],
    }
}

/// The job's shares to the end.
pub fn given() -> Way {
    Way { method: "given", numbers: Vec::new(), words: Vec::new() }
}

/// Aioli by the paper's rule: two sweeps of probes of four steps, unless `numbers` say otherwise.
pub fn aioli(numbers: &[(&'static str, f64)]) -> Way {
    let mut all = vec![("sweeps", 2.0), ("probe_steps", 4.0)];
    all.retain(|(name, _)| !numbers.iter().any(|(other, _)| other == name));
    all.extend(numbers);
    Way { method: "aioli", numbers: all, words: vec![("variant", "paper_eg")] }
}

/// TiKMiX-D with sketches of gradients, four stages.
pub fn tikmix() -> Way {
    Way { method: "tikmix_d", numbers: vec![("stages", 4.0)], words: vec![("evidence", "sketch")] }
}

/// Outcomes for each of `seeds`, in order, on two threads.
pub fn runs(set: &Set, groups: &[&Group], way: &Way, seeds: std::ops::Range<u64>) -> Vec<Outcome> {
    let of = |odd: u64| {
        let seeds = seeds.clone().filter(move |seed| seed % 2 == odd);
        seeds.map(|seed| (seed, run(set, groups, way, seed))).collect::<Vec<_>>()
    };
    let mut all = std::thread::scope(|scope| {
        let other = scope.spawn(|| of(1));
        let mut all = of(0);
        all.extend(other.join().unwrap());
        all
    });
    all.sort_by_key(|(seed, _)| *seed);
    all.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Differences of losses, seed by seed.
#[derive(Clone, Copy, Debug)]
pub struct Paired {
    pub mean: f64,
    /// Standard deviation over seeds.
    pub sd: f64,
    /// Seeds on which the first one is better.
    pub wins: usize,
    pub seeds: usize,
}

impl Paired {
    /// Losses of `these` less those of `those`.
    pub fn of(these: &[Outcome], those: &[Outcome]) -> Paired {
        let d: Vec<f64> = these.iter().zip(those).map(|(a, b)| a.loss - b.loss).collect();
        let mean = d.iter().sum::<f64>() / d.len() as f64;
        let square = d.iter().map(|d| (d - mean).powi(2)).sum::<f64>();
        let sd = (square / (d.len() as f64 - 1.0)).sqrt();
        Paired { mean, sd, wins: d.iter().filter(|d| **d < 0.0).count(), seeds: d.len() }
    }
}

impl std::fmt::Display for Paired {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:+.4} ± {:.4}, {}/{} better", self.mean, self.sd, self.wins, self.seeds)
    }
}

const EVEN2: &[f64] = &[0.5, 0.5];
const EVEN3: &[f64] = &[1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0];

/// The sets of the specification's section 9.4.
pub const V1: Set =
    Set { name: "V1", groups: &["rust", "man_ja"], tasks: &[0, 1], steps: 600, initial: EVEN2 };
pub const V2: Set =
    Set { name: "V2", groups: &["man_de", "rust", "b64"], tasks: &[0, 1, 2], steps: 600, initial: EVEN3 };
pub const V5: Set = Set {
    name: "V5",
    groups: &["man_de", "rust", "hash", "pem", "html"],
    tasks: &[0, 1],
    steps: 400,
    initial: &[0.2; 5],
};
pub const V6: Set = Set { name: "V6", initial: &[0.1, 0.9], ..V1 };
pub const CONTROL: Set =
    Set { name: "control", groups: &["python", "man_en"], tasks: &[0, 1], steps: 600, initial: EVEN2 };
pub const NEGATIVE: Set = Set {
    name: "negative",
    groups: &["man_de", "rust", "pem"],
    tasks: &[0, 1, 2],
    steps: 600,
    initial: EVEN3,
};
