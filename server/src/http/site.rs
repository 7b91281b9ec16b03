//! Gathers what pages show: from open jobs, the ledger of streams, samples and logs.

use super::mixed::Mixtures;
use super::page::{Job as Shown, JobPage, Mixture, Overview, Server, TRAINING};
use super::sample::{History, Look};
use super::sheet::Sheet;
use crate::assemble::Assembler;
use crate::job::{Job, Jobs, NUMERICS, Pipeline};
use crate::live::{Live, Problem, View};
use crate::metrics;
use crate::stream::Memory;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// Jobs of a server: its limit is not above this.
const JOBS: usize = 1_000;
/// Jobs whose mixture is looked at for one page.
const MIXTURES: usize = 40;

/// Says whether somebody with these credentials (the value of `Authorization`) may see the page.
#[derive(Clone)]
pub struct Access(Arc<Leave>);

type Leave = dyn Fn(Option<&str>) -> bool + Send + Sync;

impl Access {
    /// Asks `allows` each time.
    pub fn new(allows: impl Fn(Option<&str>) -> bool + Send + Sync + 'static) -> Access {
        Access(Arc::new(allows))
    }

    /// Whether they may.
    pub fn allows(&self, authorization: Option<&str>) -> bool {
        (self.0)(authorization)
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Access")
    }
}

/// What the pages look at.
#[derive(Debug)]
pub struct Sight {
    /// Open jobs.
    pub jobs: Arc<Jobs>,
    /// Open streams and problems.
    pub live: Arc<Live>,
    /// Memory of streams.
    pub memory: Memory,
    /// What makes blocks.
    pub assembler: Assembler,
    /// Turns true when the server is stopping.
    pub draining: watch::Receiver<bool>,
    /// Whether rows of batches are shown.
    pub pictures: bool,
    /// Who may look.
    pub access: Access,
}

/// The pages of a server.
#[derive(Debug)]
pub(super) struct Site {
    pub sight: Sight,
    pub mixtures: Mixtures,
    shown: super::shown::Shown,
    started: Instant,
    history: Mutex<History>,
}

impl Site {
    pub fn new(sight: Sight) -> Site {
        let shown = super::shown::Shown::new(sight.assembler.clone(), sight.memory.clone(), sight.pictures);
        let (mixtures, history) = (Mixtures::default(), Mutex::default());
        Site { sight, mixtures, shown, started: Instant::now(), history }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a sample.
    pub fn sample(&self) {
        let Sight { jobs, live, .. } = &self.sight;
        let open: BTreeMap<String, Arc<Job>> =
            jobs.list("", JOBS).into_iter().map(|job| (job.name.clone(), job)).collect();
        let rows = |view: View| {
            let rows = open.get(&view.who.job).map_or(0, |job| rows_of(job, view.who.world_size));
            (view, rows)
        };
        let streams = live.streams().into_iter().filter(|view| view.who.call == TRAINING).map(rows).collect();
        let reported = open.keys().map(|name| (name.clone(), live.reported(name))).collect();
        self.history().take(Look { at: Instant::now(), streams, reported, busy: metrics::busy() });
    }

    fn server(&self, follow: bool) -> Server {
        let Sight { memory, assembler, draining, .. } = &self.sight;
        let (stages, window) = self.history().stages();
        Server {
            version: env!("CARGO_PKG_VERSION"),
            numerics: NUMERICS,
            uptime: self.started.elapsed(),
            draining: *draining.borrow(),
            memory: (memory.promised() as u64, memory.limit() as u64),
            threads: assembler.threads(),
            window,
            stages,
            follow,
        }
    }

    /// The page of all jobs.
    pub async fn overview(&self, follow: bool) -> Overview {
        let jobs = self.sight.jobs.list("", JOBS);
        let mixtures = join_all(jobs.iter().take(MIXTURES).map(|job| self.mixtures.of(job))).await;
        let mut streams = self.streams();
        let unread = std::iter::repeat_with(|| Err("not looked at".to_owned()));
        let shown = jobs.iter().zip(mixtures.into_iter().chain(unread));
        let shown = shown.map(|(job, mixture)| self.job(job, mixture, streams.remove(&job.name)));
        Overview { jobs: shown.collect(), server: self.server(follow), problems: self.problems(|_| true) }
    }

    /// The page of one job.
    pub async fn page(&self, job: &Arc<Job>, follow: bool) -> JobPage {
        let (mixture, sheet) = tokio::join!(self.mixtures.of(job), self.last(job));
        let known = self.job(job, mixture, self.streams().remove(&job.name));
        let problems = self.problems(|problem| problem.subject == job.name);
        JobPage { server: self.server(follow), job: known, last: sheet.last.clone(), problems }
    }

    /// Rows of the last batch of a job.
    pub async fn last(&self, job: &Arc<Job>) -> Arc<Sheet> {
        let streams = self.streams().remove(&job.name).unwrap_or_default();
        let sent = streams.iter().filter(|view| view.who.call == TRAINING && view.batches > 0);
        let sent = sent.filter_map(|view| view.step.checked_sub(1)).max();
        let begun = || {
            // A finite job may have been asked for more than it has.
            let horizon = job.keeper.horizon();
            let view = job.keeper.view();
            view.sequence.end_by(horizon).map_or(horizon, |end| end.steps.min(horizon)).checked_sub(1)
        };
        self.shown.look(job, sent.or_else(begun)).await
    }

    /// The pictures of `step`, or of the last batch.
    pub async fn pictures(&self, job: &Arc<Job>, step: Option<u64>) -> Arc<Sheet> {
        match step.and_then(|step| self.shown.kept(job, step)) {
            Some(kept) => kept,
            None => self.last(job).await,
        }
    }

    /// Open streams by job.
    fn streams(&self) -> BTreeMap<String, Vec<View>> {
        let mut all: BTreeMap<String, Vec<View>> = BTreeMap::new();
        for view in self.sight.live.streams() {
            all.entry(view.who.job.clone()).or_default().push(view);
        }
        all
    }

    fn problems(&self, of: impl Fn(&Problem) -> bool) -> Vec<(Duration, Problem)> {
        let now = SystemTime::now();
        let problems = self.sight.live.problems().into_iter().filter(of);
        problems.map(|p| (now.duration_since(p.at).unwrap_or_default(), p)).collect()
    }

    fn job(&self, job: &Job, mixture: Result<Mixture, String>, streams: Option<Vec<View>>) -> Shown {
        let (feed, streams) = (&job.feed, streams.unwrap_or_default());
        let training = || streams.iter().filter(|view| view.who.call == TRAINING);
        let horizon = Some(job.keeper.horizon()).filter(|horizon| *horizon > 0);
        let step = training().map(|view| view.step).max().or(horizon);
        let (trace, lately, trainers) = {
            let history = self.history();
            let (trace, lately) = history.trace(&job.name);
            (trace, lately, history.trainers(&job.name))
        };
        let policies = feed.mix().map_or(Vec::new(), |mix| {
            mix.members.iter().map(|member| member.policy.name().to_owned()).collect()
        });
        Shown {
            name: job.name.clone(),
            kind: kind(job),
            batch: feed.order.batch(),
            policies,
            step,
            steps: feed.order.steps(),
            epoch: step.map_or(0.0, |step| feed.order.epoch(step)),
            streams,
            trace,
            lately,
            trainers,
            mixture,
        }
    }
}

/// Rows of one batch of one of `world` ranks.
fn rows_of(job: &Job, world: u32) -> u64 {
    let feed = &job.feed;
    let slots = feed.blocks() / u64::from(world.max(1)) * feed.mix_block;
    feed.rows_of_slots(slots.min(feed.order.batch()))
}

/// What its rows are.
fn kind(job: &Job) -> String {
    match &job.feed.pipeline {
        Pipeline::Image(image) => format!("pictures {} × {}", image.view.height, image.view.width),
        Pipeline::Tokens(tokens) if tokens.ragged() => format!("documents up to {} tokens", tokens.seq_len),
        Pipeline::Tokens(tokens) => format!("rows of {} tokens", tokens.seq_len),
        Pipeline::Points(points) => format!("scenes, {} points a step", points.max_points),
    }
}
