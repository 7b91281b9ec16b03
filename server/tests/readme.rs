//! The README's tables of policies and estimators are the registries'.
#![allow(clippy::unwrap_used)]

use mixfeed_server::estimate;
use mixfeed_server::plan::{image, points};
use std::{fs, path::Path};

/// The table between the markers of `what` is `wanted`.
fn check(what: &str, wanted: &str) {
    let begin =
        format!("<!-- {what}: written by UPDATE_GOLDEN=1 cargo test -p mixfeed-server --test readme -->\n");
    let end = format!("<!-- end of {what} -->");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(&begin).expect("the marker is there");
    let (table, after) = rest.split_once(&end).expect("the end marker is there");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return fs::write(&file, format!("{before}{begin}{wanted}{end}{after}")).unwrap();
    }
    assert_eq!(table, wanted, "run the command in the marker");
}

// One test: both write the same file.
#[test]
fn the_tables_are_the_registries() {
    check("policies", &image::table());
    check("policies of scenes", &points::table());
    check("estimators", &estimate::table());
}
