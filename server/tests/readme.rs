//! The README's table of policies is the registry's.
#![allow(clippy::unwrap_used)]

use mixfeed_server::plan::image;
use std::{fs, path::Path};

const BEGIN: &str =
    "<!-- policies: written by UPDATE_GOLDEN=1 cargo test -p mixfeed-server --test readme -->\n";
const END: &str = "<!-- end of policies -->";

#[test]
fn the_table_of_policies_is_the_registry() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the marker is there");
    let (table, after) = rest.split_once(END).expect("the end marker is there");
    let wanted = image::table();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return fs::write(&file, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
    }
    assert_eq!(table, wanted, "run the command in the marker");
}
