//! Series of jobs. They are kept here and not by the recorder, which cannot forget a series while its process lives and
//! whose counters hold whole numbers only: a closed job leaves the scrape, and seconds have fractions.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Jobs that have series of their own at a time; clients choose names, so there must be an end.
const MAX_JOBS: usize = 20;
/// Label of the other ones' counters, all together.
pub(super) const OTHER: &str = "other";

/// What a family is, for its readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

/// A family of series: name, kind, meaning.
pub(super) type Family = (&'static str, Kind, &'static str);

/// Labels beside the job, in order.
pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

/// A family with its values by job and other labels.
pub(super) type Written = (Family, Vec<(String, BTreeMap<String, f64>)>);

/// Open jobs of the process and what is known of them.
#[derive(Debug, Default)]
pub(super) struct Series {
    open: BTreeMap<String, Opening>,
    /// Values by job's label, family and other labels as they are written.
    values: BTreeMap<String, BTreeMap<&'static str, BTreeMap<String, f64>>>,
    /// Labels that are looked up: kept, so that counting allocates nothing.
    text: String,
}

#[derive(Debug)]
struct Opening {
    /// Servers of the process that have it open.
    servers: usize,
    /// Whether it has series of its own.
    own: bool,
}

/// The series of this process.
pub(super) fn all() -> MutexGuard<'static, Series> {
    static ALL: Mutex<Series> = Mutex::new(Series::new());
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes series as Prometheus reads them.
pub(super) fn write(series: &[Written], out: &mut String) {
    for ((name, kind, meaning), found) in series.iter().filter(|(_, found)| !found.is_empty()) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = writeln!(out, "# HELP {name} {meaning}\n# TYPE {name} {kind}"); // text takes everything
        for (job, values) in found {
            for (labels, value) in values {
                let _ = writeln!(out, "{name}{{job=\"{job}\"{labels}}} {value}"); // as above
            }
        }
        out.push('\n');
    }
}

impl Series {
    const fn new() -> Series {
        Series { open: BTreeMap::new(), values: BTreeMap::new(), text: String::new() }
    }

    /// A job is opened; returns whether it is the first of its name.
    pub fn open(&mut self, job: &str) -> bool {
        let own = job != OTHER && self.open.values().filter(|opening| opening.own).count() < MAX_JOBS;
        let opening = self.open.entry(job.into()).or_insert(Opening { servers: 0, own });
        opening.servers += 1;
        opening.servers == 1
    }

    /// A job is closed: its series end.
    pub fn close(&mut self, job: &str) {
        let Some(opening) = self.open.get_mut(job) else { return };
        opening.servers -= 1;
        if opening.servers > 0 {
            return;
        }
        let own = opening.own;
        self.open.remove(job);
        if own {
            self.values.remove(job);
        } else if self.open.values().all(|opening| opening.own) {
            self.values.remove(OTHER);
        }
    }

    /// Adds to a counter of a job. One that is not open any more, or never was, has none.
    pub fn add(&mut self, family: &'static str, job: &str, labels: Labels, more: f64) {
        if let Some(opening) = self.open.get(job) {
            let label = if opening.own { job } else { OTHER };
            write_labels(&mut self.text, labels);
            *value(&mut self.values, label, family, &self.text) += more;
        }
    }

    /// Sets a gauge of a job; only jobs with series of their own have gauges.
    pub fn set(&mut self, family: &'static str, job: &str, labels: Labels, now: f64) {
        if self.open.get(job).is_some_and(|opening| opening.own) {
            write_labels(&mut self.text, labels);
            *value(&mut self.values, job, family, &self.text) = now;
        }
    }

    /// Every series of `families` as it stands.
    pub fn copy(&self, families: &[Family]) -> Vec<Written> {
        let copied = |family: &Family| {
            let of = |(job, values): (&String, &BTreeMap<&'static str, BTreeMap<String, f64>>)| {
                values.get(family.0).map(|values| (escaped(job), values.clone()))
            };
            (*family, self.values.iter().filter_map(of).collect())
        };
        families.iter().map(copied).collect()
    }
}

/// The value of a series, made when it is new.
fn value<'a>(
    values: &'a mut BTreeMap<String, BTreeMap<&'static str, BTreeMap<String, f64>>>,
    job: &str,
    family: &'static str,
    labels: &str,
) -> &'a mut f64 {
    if !values.contains_key(job) {
        values.insert(job.into(), BTreeMap::new());
    }
    let family = values.get_mut(job).expect("is there now").entry(family).or_default();
    if !family.contains_key(labels) {
        family.insert(labels.into(), 0.0);
    }
    family.get_mut(labels).expect("is there now")
}

/// Writes `,NAME="VALUE"` for each label over `text`.
fn write_labels(text: &mut String, labels: Labels) {
    text.clear();
    for (name, value) in labels {
        text.push(',');
        text.push_str(name);
        text.push_str("=\"");
        escape(value, text);
        text.push('"');
    }
}

fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    escape(value, &mut out);
    out
}

/// A label's value between its quotes.
fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: Family = ("rows_total", Kind::Counter, "rows");
    const SHARE: Family = ("share_ratio", Kind::Gauge, "share");

    fn text(series: &Series) -> String {
        let mut out = String::new();
        write(&series.copy(&[ROWS, SHARE]), &mut out);
        out
    }

    #[test]
    fn series_of_a_job_live_as_long_as_it_is_open() {
        let mut series = Series::default();
        series.add(ROWS.0, "a", &[("group", "g")], 1.0);
        assert_eq!(text(&series), "", "it is not open");
        assert!(series.open("a") && !series.open("a"));
        series.add(ROWS.0, "a", &[("group", "g")], 1.5);
        series.add(ROWS.0, "a", &[("group", "g")], 1.0);
        series.set(SHARE.0, "a", &[], 0.25);
        series.set(SHARE.0, "a", &[], f64::NAN);
        let want = "# HELP rows_total rows\n# TYPE rows_total counter\nrows_total{job=\"a\",group=\"g\"} 2.5\n\n\
            # HELP share_ratio share\n# TYPE share_ratio gauge\nshare_ratio{job=\"a\"} NaN\n\n";
        assert_eq!(text(&series), want);
        series.close("a");
        assert_eq!(text(&series), want, "another server has it open");
        series.close("a");
        assert_eq!(text(&series), "");
        series.add(ROWS.0, "a", &[], 1.0);
        series.close("a");
        assert_eq!(text(&series), "", "what comes late leaves no trace");
        assert!(series.open("a"));
        series.add(ROWS.0, "a", &[("group", "g")], 1.0);
        assert!(text(&series).contains("} 1\n"), "a job of the same name begins anew");
    }

    #[test]
    fn jobs_beyond_the_cap_are_counted_together_and_have_no_gauges() {
        let mut series = Series::default();
        let names: Vec<String> = (0..MAX_JOBS + 3).map(|i| format!("job{i:02}")).collect();
        names.iter().for_each(|name| assert!(series.open(name)));
        for name in &names {
            series.add(ROWS.0, name, &[], 1.0);
            series.set(SHARE.0, name, &[], 1.0);
        }
        let all = text(&series);
        let lines = |family: &str| all.lines().filter(|line| line.starts_with(family)).count();
        assert_eq!((lines("rows_total{"), lines("share_ratio{")), (MAX_JOBS + 1, MAX_JOBS));
        assert!(all.contains("rows_total{job=\"other\"} 3\n"), "{all}");
        // One that closes makes room for the next; those that were counted together stay so.
        series.close("job00");
        series.open("new");
        series.add(ROWS.0, "new", &[], 7.0);
        series.add(ROWS.0, "job20", &[], 1.0);
        let all = text(&series);
        assert!(all.contains("{job=\"new\"} 7\n") && all.contains("{job=\"other\"} 4\n"), "{all}");
        names[MAX_JOBS..].iter().for_each(|name| series.close(name));
        assert!(!text(&series).contains(OTHER));
    }

    #[test]
    fn a_job_called_other_is_one_of_the_others_and_values_are_escaped() {
        let mut series = Series::default();
        series.open(OTHER);
        series.open("a\"b\\c\n");
        series.add(ROWS.0, "a\"b\\c\n", &[("x", "1\"2"), ("y", "3")], 1.0);
        series.set(SHARE.0, OTHER, &[], 1.0);
        assert!(!text(&series).contains(SHARE.0));
        assert!(
            text(&series).contains("{job=\"a\\\"b\\\\c\\n\",x=\"1\\\"2\",y=\"3\"} 1\n"),
            "{}",
            text(&series)
        );
    }
}
