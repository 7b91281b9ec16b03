//! What several pages have: head, verdicts, bars, small plots, streams, problems.

use super::format::{Bytes, Count, Many, Percent, Rate, Time};
use super::html::Html;
use super::{Job, Moment, REFRESH, Server, TRAINING, Verdict, View, Wait};
use crate::live::Problem;
use std::time::Duration;

/// Words for each of [`Wait::ALL`]: as metrics call it, and who is waited for.
pub(super) const WAITS: [(&str, &str); 3] =
    [("making", "for the server"), ("barrier", "for reports"), ("sending", "for the trainer")];
/// Class of colour and pattern of each of them.
const FILLS: [&str; 3] = ["making", "barrier", "sending"];

/// Width and height of a trace in units of its own; it is as wide as its place on the page.
const TRACE: (f64, f64) = (300.0, 56.0);

/// The begin of a page, up to its first section.
pub(super) fn head(html: &mut Html, title: &str, path: &str, server: &Server) {
    html.put("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.put("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    html.put(
        "<meta name=\"color-scheme\" content=\"light dark\"><meta name=\"referrer\" content=\"no-referrer\">",
    );
    if server.follow {
        html.put("<meta http-equiv=\"refresh\"").attr("content", REFRESH).put(">");
    }
    html.put("<title>").text(title).put("</title><link rel=\"icon\" href=\"/icon.svg\">");
    html.put("<link rel=\"stylesheet\"").attr("href", format_args!("/page.css?{}", server.version));
    html.put("></head><body><header><p class=\"brand\"><a href=\"/\">mixfeed</a></p><p class=\"about\">");
    let Server { version, numerics, uptime, .. } = server;
    html.text(format_args!("{version} · {numerics} · up {}", Time(*uptime)));
    if server.draining {
        html.put(" · <strong>stopping</strong>");
    }
    html.put("</p><p class=\"follow\">");
    match server.follow {
        true => {
            html.text(format_args!("every {REFRESH} s ")).put("<a");
            html.attr("href", format_args!("{path}?still")).put(">hold</a>");
        }
        false => {
            html.put("held <a").attr("href", path).put(">follow</a>");
        }
    }
    html.put("</p></header><main>\n");
}

/// The end of a page.
pub(super) fn foot(html: &mut Html) {
    html.put("</main><footer><a href=\"/metrics\">metrics</a> <a href=\"/healthz\">health</a></footer>");
    // Patterns of the three waits, so that no bar needs its colour.
    html.put("<svg width=\"0\" height=\"0\" aria-hidden=\"true\" focusable=\"false\"><defs>");
    html.put("<pattern id=\"p-making\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">");
    html.put("<rect width=\"6\" height=\"6\" class=\"making\"/><rect width=\"2\" height=\"6\" class=\"veil\"/></pattern>");
    html.put("<pattern id=\"p-barrier\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\">");
    html.put("<rect width=\"5\" height=\"5\" class=\"barrier\"/><circle cx=\"2.5\" cy=\"2.5\" r=\"1.1\" class=\"veil\"/></pattern>");
    html.put("</defs></svg></body></html>\n");
}

/// A verdict in one line.
pub(super) fn verdict(html: &mut Html, verdict: &Verdict) {
    let (mark, class) = verdict.mark();
    html.put("<p")
        .attr("class", format_args!("verdict {class}"))
        .put("><span class=\"mark\" aria-hidden=\"true\">");
    html.text(mark).put("</span> <span><strong>").text(verdict.word()).put("</strong> ");
    html.text(verdict.why()).put("</span></p>");
}

/// A bar of the shares of [`Wait::ALL`], with their numbers below.
pub(super) fn shares(html: &mut Html, shares: [f64; 3]) {
    bar(html, shares);
    html.put("<ul class=\"legend\">");
    for ((share, (name, whom)), fill) in shares.into_iter().zip(WAITS).zip(FILLS) {
        html.put("<li>").put(
            "<svg class=\"key\" viewBox=\"0 0 12 12\" aria-hidden=\"true\"><rect width=\"12\" height=\"12\"",
        );
        html.attr("class", format_args!("fill-{fill}")).put("/></svg>");
        html.text(name).put(" <small>").text(whom).put("</small> <b>").text(Percent(share)).put("</b></li>");
    }
    html.put("</ul>");
}

/// The bar alone; what it says is in its label.
pub(super) fn bar(html: &mut Html, shares: [f64; 3]) {
    let [making, barrier, sending] = shares.map(Percent);
    html.put("<svg class=\"bar\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" role=\"img\"");
    html.attr("aria-label", format_args!("making {making}, barrier {barrier}, sending {sending}")).put(">");
    let mut x = 0.0;
    for (share, fill) in shares.into_iter().zip(FILLS) {
        let width = (share * 100.0).clamp(0.0, 100.0 - x);
        html.put("<rect height=\"10\"")
            .attr("x", format_args!("{x:.2}"))
            .attr("width", format_args!("{width:.2}"));
        html.attr("class", format_args!("fill-{fill}")).put("/>");
        x += width;
    }
    html.put("</svg>");
}

/// A line over the trace with its heading and its last and largest value.
pub(super) fn trace(html: &mut Html, trace: &[Moment]) {
    let (width, height) = TRACE;
    let rates: Vec<f64> = trace.iter().map(|m| rate(m.batches, m.seconds)).collect();
    let most = rates.iter().copied().fold(0.0, f64::max);
    let span: f64 = trace.iter().map(|m| m.seconds).sum();
    if rates.len() < 2 {
        return;
    }
    let x = |i: usize| width * i as f64 / (rates.len() - 1) as f64;
    let y = |share: f64| height - 2.0 - share * (height - 4.0);
    html.put("<figure class=\"trace\"><figcaption>").text(format_args!("last {}: ", span_of(span)));
    html.put("<span class=\"line-key\" aria-hidden=\"true\"></span> batches/s, at most ").text(Rate(most));
    html.put(" · <span class=\"area-key\" aria-hidden=\"true\"></span> share that streams wait</figcaption>");
    html.put("<svg class=\"plot\" preserveAspectRatio=\"none\" role=\"img\"");
    html.attr("viewBox", format_args!("0 0 {width} {height}"));
    let last = rates.last().copied().unwrap_or_default();
    html.attr("aria-label", format_args!("batches per second, now {}, at most {}", Rate(last), Rate(most)))
        .put(">");
    let waits: Vec<f64> =
        trace.iter().map(|m| m.shares().map_or(0.0, |[making, barrier, _]| making + barrier)).collect();
    let top: Vec<String> =
        waits.iter().enumerate().map(|(i, wait)| format!("{:.1},{:.1}", x(i), y(*wait))).collect();
    html.put("<polygon class=\"area\"");
    html.attr("points", format_args!("0,{height} {} {width},{height}", top.join(" "))).put("/>");
    let line = |(i, rate): (usize, &f64)| {
        format!("{:.1},{:.1}", x(i), y(if most > 0.0 { rate / most } else { 0.0 }))
    };
    let line: Vec<String> = rates.iter().enumerate().map(line).collect();
    html.put("<polyline class=\"line\"").attr("points", line.join(" ")).put("/></svg></figure>");
}

fn span_of(seconds: f64) -> Time {
    // Whole seconds: a trace is no measurement of its own length.
    Time(Duration::from_secs(seconds.max(1.0).round().min(1e9) as u64))
}

/// Per second; 0 for no time.
pub(super) fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// The numbers of a job.
pub(super) fn numbers(html: &mut Html, job: &Job) {
    let lately = &job.lately;
    let per = |count| Rate(rate(count, lately.seconds)).to_string();
    let step = job.step.map_or("–".into(), |step| Count(step).to_string());
    let step = job.steps.map_or(step.clone(), |steps| format!("{step} of {}", Count(steps)));
    let worlds = worlds(&job.streams);
    let numbers = [
        ("step", step),
        ("epoch", format!("{:.2}", job.epoch)),
        ("batches/s", per(lately.batches)),
        ("rows/s", per(lately.rows)),
        ("bytes/s", Bytes(rate(lately.bytes, lately.seconds)).to_string()),
        ("ranks", worlds),
    ];
    html.put("<dl class=\"numbers\">");
    for (name, value) in numbers {
        html.put("<div><dt>").text(name).put("</dt><dd>").text(value).put("</dd></div>");
    }
    html.put("</dl>");
}

/// "2 of 4": ranks that read, and how many there are; several where several worlds read.
fn worlds(streams: &[View]) -> String {
    let mut worlds: Vec<u32> = streams.iter().map(|s| s.who.world_size).collect();
    worlds.sort_unstable();
    worlds.dedup();
    let read = |world: &u32| {
        let mut ranks: Vec<u32> =
            streams.iter().filter(|s| s.who.world_size == *world).map(|s| s.who.rank).collect();
        ranks.sort_unstable();
        ranks.dedup();
        format!("{} of {world}", ranks.len())
    };
    match worlds.len() {
        0 => "0".into(),
        1..=3 => worlds.iter().map(read).collect::<Vec<_>>().join(", "),
        more => format!("{} worlds", Count(more as u64)),
    }
}

/// Streams and what each waits for. `named`: with their jobs.
pub(super) fn streams(html: &mut Html, streams: &[&View], named: bool, most: usize) {
    html.put("<table class=\"streams\" role=\"table\"><thead><tr><th scope=\"col\">stream</th><th scope=\"col\">waits</th>");
    html.put("<th scope=\"col\">share of its time</th><th scope=\"col\" class=\"num\">step</th></tr></thead><tbody>");
    for view in streams.iter().take(most) {
        stream(html, view, named);
    }
    html.put("</tbody></table>");
    if streams.len() > most {
        html.put("<p class=\"more\">and ").text(Many(streams.len() - most, "more stream")).put("</p>");
    }
}

fn stream(html: &mut Html, view: &View, named: bool) {
    let who = &view.who;
    // Roles: the narrow page lays these out in a grid, after which browsers no longer take them for a table.
    html.put("<tr role=\"row\"><th scope=\"row\" role=\"rowheader\">");
    if named {
        html.put("<a").attr("href", format_args!("/jobs/{}", super::quoted(&who.job))).put(">");
        html.text(&who.job).put("</a> ");
    }
    html.text(format_args!("rank {}/{}", who.rank, who.world_size)).put("<small>");
    if who.call != TRAINING {
        html.text(who.call).put(" ");
    }
    if !["", "0"].contains(&&*who.replica) {
        html.put("replica <bdi>").text(&who.replica).put("</bdi> ");
    }
    html.text(format_args!("{}, {}", Many(view.batches as usize, "batch"), Time(view.age)));
    html.put("</small></th>");
    let (wait, since) = view.wait;
    let (name, whom) = WAITS[wait as usize];
    html.put("<td role=\"cell\" class=\"waits\">")
        .text(whom)
        .put("<small>")
        .text(format_args!("{name} {}", Time(since)));
    html.put("</small></td><td role=\"cell\" class=\"spent\">");
    let all: f64 = view.seconds.iter().sum();
    let shares = view.seconds.map(|spent| if all > 0.0 { spent / all } else { 0.0 });
    bar(html, shares);
    let [making, barrier, sending] = shares.map(Percent);
    html.put("<small>").text(format_args!("{making} / {barrier} / {sending}")).put("</small></td>");
    html.put("<td role=\"cell\" class=\"num\" data-name=\"step\">").text(Count(view.step)).put("</td></tr>");
}

/// Problems, the newest first.
pub(super) fn problems(html: &mut Html, problems: &[(Duration, Problem)]) {
    html.put("<section><h2>Recent problems</h2>");
    if problems.is_empty() {
        html.put("<p class=\"none\">None since the server started.</p></section>");
        return;
    }
    html.put("<ol class=\"problems\">");
    for (age, problem) in problems {
        html.put("<li><p><b><bdi>").text(&problem.subject).put("</bdi></b> <small>").text(Time(*age));
        html.put(" ago</small></p><p><bdi>").text(&problem.text).put("</bdi></p></li>");
    }
    html.put("</ol></section>");
}

/// A share as a filled bar with its words.
pub(super) fn meter(html: &mut Html, share: f64, class: &'static str, label: &str) {
    html.put("<svg class=\"meter\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" role=\"img\"");
    html.attr("aria-label", label)
        .put("><rect width=\"100\" height=\"10\" class=\"back\"/><rect height=\"10\"");
    html.attr("width", format_args!("{:.1}", (share * 100.0).clamp(0.0, 100.0)))
        .attr("class", class)
        .put("/></svg>");
}

/// Index in [`WAITS`] by the order of [`Wait::ALL`].
const _: () =
    assert!(Wait::Making as usize == 0 && Wait::Barrier as usize == 1 && Wait::Sending as usize == 2);
