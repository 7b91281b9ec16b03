//! The page of one job.

use super::format::{Count, Many, Percent, Rate};
use super::html::Html;
use super::overview::{drift, percent};
use super::{Group, JobPage, LastBatch, Mixture, Trainer, Verdict, View, parts, quoted};

/// Streams that are listed.
const MOST_STREAMS: usize = 64;
/// Ranks that are listed.
const MOST_TRAINERS: usize = 64;
/// Groups that are listed: those with the largest shares where there are more.
const MOST_GROUPS: usize = 64;
/// Width and height of a group's plot in units of its own.
const PLOT: (f64, f64) = (120.0, 30.0);

/// Shares of a stretch of steps: asked for, served.
type At = (f64, Option<f64>);

impl JobPage {
    /// As HTML.
    pub fn html(&self) -> String {
        let mut html = Html::default();
        let job = &self.job;
        let path = format!("/jobs/{}", quoted(&job.name));
        parts::head(&mut html, &format!("{} - mixfeed", job.name), &path, &self.server);
        html.put("<h1><bdi>").text(&job.name).put("</bdi></h1><p class=\"kind\">").text(&job.kind);
        html.put(" · batch ").text(Count(job.batch));
        if !job.policies.is_empty() {
            html.put(" · ").text(job.policies.join(", "));
        }
        html.put("</p>");
        parts::verdict(&mut html, &Verdict::of(job, &self.server));
        html.put("<section aria-label=\"speed\">");
        if let Some(shares) = job.lately.shares() {
            html.put("<h2>What streams waited for, last ")
                .text(format_args!("{:.0} s", job.lately.seconds))
                .put("</h2>");
            parts::shares(&mut html, shares);
        }
        parts::numbers(&mut html, job);
        parts::trace(&mut html, &job.trace);
        html.put("</section><section><h2>Streams</h2>");
        match job.streams.is_empty() {
            true => drop(html.put("<p class=\"none\">Nobody reads.</p>")),
            false => {
                let streams: Vec<&View> = job.streams.iter().collect();
                parts::streams(&mut html, &streams, false, MOST_STREAMS);
            }
        }
        html.put("</section>");
        trainers(&mut html, &job.trainers);
        match &job.mixture {
            Ok(mixture) => self::mixture(&mut html, mixture, &path),
            Err(why) => drop(html.put("<section><h2>Mixture</h2><p>").text(why).put("</p></section>")),
        }
        last(&mut html, &self.last, &path);
        parts::problems(&mut html, &self.problems);
        parts::foot(&mut html);
        html.finish()
    }
}

fn trainers(html: &mut Html, trainers: &[Trainer]) {
    html.put("<section><h2>What trainers report of themselves</h2>");
    if trainers.is_empty() {
        html.put("<p class=\"none\">Nothing: what they wait is known to their clients only.</p></section>");
        return;
    }
    html.put(
        "<table><thead><tr><th scope=\"col\">rank</th><th scope=\"col\">waits for batches, last minute</th>",
    );
    html.put("<th scope=\"col\" class=\"num\">in all</th><th scope=\"col\" class=\"num\">steps</th></tr></thead><tbody>");
    for trainer in trainers.iter().take(MOST_TRAINERS) {
        html.put("<tr><th scope=\"row\">").text(trainer.rank).put("</th><td class=\"spent\">");
        let lately = trainer.lately.map_or("no report".into(), |share| Percent(share).to_string());
        parts::meter(html, trainer.lately.unwrap_or(0.0), "making", &lately);
        html.put("<small>")
            .text(&lately)
            .put("</small></td><td class=\"num\">")
            .text(Percent(trainer.waited));
        html.put("</td><td class=\"num\">").text(Count(trainer.steps)).put("</td></tr>");
    }
    html.put("</tbody></table>");
    if trainers.len() > MOST_TRAINERS {
        html.put("<p class=\"more\">and ")
            .text(Many(trainers.len() - MOST_TRAINERS, "more rank"))
            .put("</p>");
    }
    html.put("</section>");
}

fn mixture(html: &mut Html, mixture: &Mixture, path: &str) {
    html.put("<section><h2>Mixture</h2>");
    drift(html, mixture);
    html.put("<p class=\"kind\">");
    let Mixture { version, horizon, attempt, rows, .. } = mixture;
    html.text(format_args!(
        "log at entry {} · horizon {} · attempt {attempt} · ",
        Count(*version),
        Count(*horizon)
    ));
    html.text(Many(*rows as usize, "row")).put(" · <a").attr("href", format_args!("{path}/mixture.svg"));
    html.put(">plot with losses and probes</a></p>");
    if !mixture.reports.is_empty() {
        let reports: Vec<String> =
            mixture.reports.iter().map(|(o, n)| format!("{} {o}", Count(*n))).collect();
        html.put("<p class=\"kind\">reports: ").text(reports.join(", ")).put("</p>");
    }
    html.put("<table class=\"groups\" role=\"table\"><thead><tr><th scope=\"col\">group</th>");
    html.put(
        "<th scope=\"col\" class=\"num\">asked now</th><th scope=\"col\" class=\"num\">asked so far</th>",
    );
    html.put("<th scope=\"col\" class=\"num\">delivered</th><th scope=\"col\" class=\"num\">epochs</th>");
    let losses = mixture.groups.iter().any(|g| g.loss.is_some());
    if losses {
        html.put("<th scope=\"col\" class=\"num\">loss</th>");
    }
    html.put("<th scope=\"col\">over steps</th></tr></thead><tbody>");
    let mut groups: Vec<&Group> = mixture.groups.iter().collect();
    if groups.len() > MOST_GROUPS {
        groups.sort_by(|a, b| b.asked.total_cmp(&a.asked));
    }
    let most = groups.iter().flat_map(|g| &g.track).map(|(a, s)| a.max(s.unwrap_or(0.0))).fold(0.0, f64::max);
    for group in groups.iter().take(MOST_GROUPS) {
        self::group(html, group, most, losses);
    }
    html.put("</tbody></table><p class=\"keys\"><span><span class=\"line-key\" aria-hidden=\"true\"></span> asked</span> ");
    html.put(
        "<span><span class=\"area-key\" aria-hidden=\"true\"></span> delivered</span> <span>from step 0 to ",
    );
    html.text(Count(mixture.horizon)).put(", up to ").text(Percent(most)).put("</span></p>");
    if groups.len() > MOST_GROUPS {
        html.put("<p class=\"more\">and ").text(Many(groups.len() - MOST_GROUPS, "more group")).put("</p>");
    }
    html.put("</section>");
}

fn group(html: &mut Html, group: &Group, most: f64, losses: bool) {
    // Roles: the narrow page lays these out in a grid, after which browsers no longer take them for a table.
    html.put("<tr role=\"row\"><th scope=\"row\" role=\"rowheader\"><bdi>")
        .text(&group.name)
        .put("</bdi></th>");
    let served = group.served.map_or("–".into(), percent);
    let cells = [
        ("asked now", percent(group.now)),
        ("asked so far", percent(group.asked)),
        ("delivered", served),
        ("epochs", Rate(group.epochs).to_string()),
        ("loss", group.loss.map_or("–".into(), |loss| format!("{loss:.3}"))),
    ];
    for (name, value) in cells.iter().take(if losses { 5 } else { 4 }) {
        html.put("<td role=\"cell\" class=\"num\"").attr("data-name", name).put(">").text(value).put("</td>");
    }
    html.put("<td role=\"cell\" class=\"over\">");
    plot(html, group, most);
    html.put("</td></tr>");
}

/// What was asked for as a line over what was delivered as an area.
fn plot(html: &mut Html, group: &Group, most: f64) {
    let ((width, height), track) = (PLOT, &group.track);
    let Some((first, last)) = track.first().zip(track.last()) else { return };
    html.put("<svg class=\"plot\" preserveAspectRatio=\"none\" role=\"img\"")
        .attr("viewBox", format_args!("0 0 {width} {height}"));
    let from_to = format!("asked for {} at first and {} at last", percent(first.0), percent(last.0));
    html.attr("aria-label", from_to).put(">");
    let x = |i: usize| width * i as f64 / track.len() as f64;
    let y = |share: f64| height - 1.0 - if most > 0.0 { share / most } else { 0.0 } * (height - 2.0);
    let steps = |of: &dyn Fn(&At) -> f64| {
        let point = |(i, at): (usize, &At)| {
            let y = y(of(at));
            format!("{:.1},{y:.1} {:.1},{y:.1}", x(i), x(i + 1))
        };
        track.iter().enumerate().map(point).collect::<Vec<_>>().join(" ")
    };
    if track.iter().any(|(_, served)| served.is_some()) {
        let served = steps(&|at| at.1.unwrap_or(0.0));
        html.put("<polygon class=\"area\"")
            .attr("points", format_args!("0,{height} {served} {width},{height}"))
            .put("/>");
    }
    html.put("<polyline class=\"line\"").attr("points", steps(&|at| at.0)).put("/></svg>");
}

fn last(html: &mut Html, last: &LastBatch, path: &str) {
    html.put("<section><h2>Last batch</h2>");
    match last {
        LastBatch::Message(why) => drop(html.put("<p class=\"none\">").text(why).put("</p>")),
        LastBatch::Pictures { step, columns, size, captions } => {
            html.put("<p class=\"kind\">first rows of rank 0, step ")
                .text(Count(*step))
                .put("</p><ul class=\"thumbs\">");
            let lines = captions.len().div_ceil((*columns).max(1));
            let ((height, width), columns) = ((size.0 as usize, size.1 as usize), (*columns).max(1));
            for (i, caption) in captions.iter().enumerate() {
                let (left, top) = (i % columns * width, i / columns * height);
                html.put("<li><svg role=\"img\"")
                    .attr("viewBox", format_args!("{left} {top} {width} {height}"));
                html.attr("aria-label", caption).put("><image");
                html.attr("href", format_args!("{path}/batch.png?step={step}"));
                html.attr("width", columns * width).attr("height", lines * height).put("/></svg><p><bdi>");
                html.text(caption).put("</bdi></p></li>");
            }
            html.put("</ul>");
        }
        LastBatch::Tokens { step, rows } => {
            html.put("<p class=\"kind\">first rows of rank 0, step ")
                .text(Count(*step))
                .put("</p><ol class=\"texts\">");
            for (group, excerpt) in rows {
                html.put("<li><b><bdi>")
                    .text(group)
                    .put("</bdi></b> <q><bdi>")
                    .text(excerpt)
                    .put("</bdi></q></li>");
            }
            html.put("</ol>");
        }
    }
    html.put("</section>");
}
