//! The page of all jobs.

use super::format::{Bytes, Count, Many, Percent};
use super::html::Html;
use super::{Drift, Job, Mixture, Overview, Server, Verdict, View, parts};

/// Jobs that get a card; the others are links.
const MOST_CARDS: usize = 40;
/// Streams that are listed.
const MOST_STREAMS: usize = 64;

impl Overview {
    /// As HTML.
    pub fn html(&self) -> String {
        let mut html = Html::default();
        parts::head(&mut html, "mixfeed", "/", &self.server);
        let verdicts: Vec<Verdict> = self.jobs.iter().map(|job| Verdict::of(job, &self.server)).collect();
        html.put("<h1>").text(sentence(&verdicts)).put("</h1>");
        self.cards(&mut html, &verdicts);
        server(&mut html, &self.server);
        let mut streams: Vec<&View> = self.jobs.iter().flat_map(|job| &job.streams).collect();
        streams.sort_by_key(|view| view.id);
        html.put("<section><h2>Streams, and what each waits for</h2>");
        match streams.is_empty() {
            true => drop(html.put("<p class=\"none\">Nobody reads.</p>")),
            false => parts::streams(&mut html, &streams, true, MOST_STREAMS),
        }
        html.put("</section>");
        parts::problems(&mut html, &self.problems);
        parts::foot(&mut html);
        html.finish()
    }

    fn cards(&self, html: &mut Html, verdicts: &[Verdict]) {
        html.put("<section aria-label=\"jobs\"><ul class=\"cards\">");
        for (job, verdict) in self.jobs.iter().zip(verdicts).take(MOST_CARDS) {
            card(html, job, verdict);
        }
        html.put("</ul>");
        let more = self.jobs.get(MOST_CARDS..).unwrap_or_default();
        if !more.is_empty() {
            html.put("<p class=\"more\">and ");
            for job in more {
                link(html, &job.name);
                html.put(" ");
            }
            html.put("</p>");
        }
        html.put("</section>");
    }
}

/// All jobs in a sentence.
fn sentence(verdicts: &[Verdict]) -> String {
    let count = |of: fn(&Verdict) -> bool| verdicts.iter().filter(|v| of(v)).count();
    let troubled = count(Verdict::troubles);
    let held = count(|v| matches!(v, Verdict::Barrier(_)));
    let read = count(|v| *v != Verdict::Idle);
    let jobs = Many(read, "job");
    match (verdicts, troubled, held) {
        ([], _, _) => "No job is open".into(),
        (all, _, _) if read == 0 => format!("{}, nobody reads", Many(all.len(), "job")),
        ([one], 1, _) => format!("The trainer is {}", one.word().to_lowercase()),
        ([_], _, 1) => "The trainer is at a barrier".into(),
        ([_], _, _) => "The trainer is not starved".into(),
        (_, 0, 0) => format!("No trainer is starved: {jobs} read"),
        (_, 0, held) => format!("No trainer is starved, {held} of {jobs} at a barrier"),
        (_, troubled, _) => format!("{troubled} of {jobs} starved or stuck"),
    }
}

fn link(html: &mut Html, job: &str) {
    html.put("<a").attr("href", format_args!("/jobs/{}", super::quoted(job))).put("><bdi>");
    html.text(job).put("</bdi></a>");
}

fn card(html: &mut Html, job: &Job, verdict: &Verdict) {
    html.put("<li").attr("class", format_args!("card {}", verdict.mark().1)).put("><h2>");
    link(html, &job.name);
    html.put("</h2><p class=\"kind\">").text(&job.kind).put(" · batch ").text(Count(job.batch));
    if let Ok(mixture) = &job.mixture {
        html.text(format_args!(" · {}", Many(mixture.groups.len(), "group")));
    }
    html.put("</p>");
    parts::verdict(html, verdict);
    if let Some(shares) = job.lately.shares() {
        parts::shares(html, shares);
    }
    parts::numbers(html, job);
    parts::trace(html, &job.trace);
    match &job.mixture {
        Ok(mixture) => drift(html, mixture),
        Err(why) => drop(html.put("<p class=\"mix\">Mixture: ").text(why).put("</p>")),
    }
    html.put("</li>");
}

/// Whether the mixture is what was asked for.
pub(super) fn drift(html: &mut Html, mixture: &Mixture) {
    let drift = Drift::of(mixture);
    let (mark, class) = match (&drift, drift.is_far()) {
        (Drift::Unknown(_), _) => ("○", "mix calm"),
        (Drift::Known { .. }, false) => ("✓", "mix good"),
        (Drift::Known { .. }, true) => ("▲", "mix bad"),
    };
    html.put("<p").attr("class", class).put("><span class=\"mark\" aria-hidden=\"true\">").text(mark);
    html.put("</span> <span><strong>");
    match &drift {
        Drift::Unknown(why) => {
            html.put("Mixture</strong> ").text(why);
        }
        Drift::Known { group, asked, served } => {
            html.put(if drift.is_far() { "Mixture off</strong> " } else { "Mixture as asked</strong> " });
            html.put("furthest off: <bdi>").text(group).put("</bdi>, asked ").text(percent(*asked));
            html.put(", got ").text(percent(*served));
        }
    }
    let learning = if mixture.estimator.is_empty() { "weights" } else { &mixture.estimator };
    html.put(" <small>").text(format_args!("{learning}, {}", mixture.status)).put("</small></span></p>");
}

/// A share with the digits that a difference needs.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Memory and threads.
fn server(html: &mut Html, server: &Server) {
    html.put("<section><h2>Server</h2><div class=\"pair\"><div><h3>Memory promised to streams</h3>");
    let (promised, limit) = server.memory;
    let share = if limit > 0 { promised as f64 / limit as f64 } else { 0.0 };
    let (promised, limit) = (Bytes(promised as f64), Bytes(limit as f64));
    let text = format!("{promised} of {limit}, {}", Percent(share));
    parts::meter(html, share, if share > 0.9 { "full" } else { "part" }, &text);
    html.put("<p>").text(&text);
    if share > 0.9 {
        html.put(": <strong>the next stream may be refused</strong>");
    }
    html.put("</p></div><div><h3>Blocks in each stage at a time</h3><ul class=\"stages\">");
    let most = server.stages.iter().map(|(_, blocks)| *blocks).fold(server.threads as f64, f64::max);
    for (stage, blocks) in &server.stages {
        html.put("<li><span>").text(stage).put("</span>");
        parts::meter(html, blocks / most.max(1.0), "part", stage);
        html.put("<b>").text(format_args!("{blocks:.2}")).put("</b></li>");
    }
    html.put("</ul><p><small>").text(Many(server.threads, "CPU thread"));
    html.text(format_args!("; reading does not need one · last {:.0} s", server.window));
    html.put("</small></p></div></div></section>");
}
