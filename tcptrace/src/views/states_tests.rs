use serde_json::Value;

use super::*;
use crate::census::tests::{census, dump, ownership};
use crate::filter::Filter;
use crate::inventory::holders::Holders;

fn text(census: &Census, by: Option<KeyKind>, top: usize) -> String {
    let options = Options { width: 80, ascii: false, paint: Paint::default(), top };
    let mut out = Vec::new();
    write(census, by, &options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn counts_alone() {
    insta::assert_snapshot!(text(&census(&Filter::default(), None), None, 20));
}

#[test]
fn by_process_with_units_and_without_escape_sequences() {
    let by = Some(KeyKind::Process);
    insta::assert_snapshot!(text(&census(&Filter::default(), by), by, 20));
}

#[test]
fn what_is_beyond_the_top_is_one_row() {
    let by = Some(KeyKind::Process);
    insta::assert_snapshot!(text(&census(&Filter::default(), by), by, 1));
}

#[test]
fn an_owner_that_may_not_be_seen_is_unknown() {
    let by = Some(KeyKind::Process);
    let mut owners = ownership();
    owners.holders = Holders::default();
    owners.holders.denied.push(1);
    let census = Census::take(&dump(), &Filter::default(), by, &owners, &|_| None);
    assert!(text(&census, by, 20).contains("\nnone or unknown"));
}

#[test]
fn nothing_at_all() {
    assert_eq!(text(&Census::default(), None, 20), "0 TCP sockets in 0 network namespaces\n");
}

#[test]
fn json_names_the_processes() {
    let census = census(&Filter::default(), Some(KeyKind::Process));
    let value: Value = serde_json::to_value(line(&census, Some(7))).unwrap();
    assert_eq!((&value["type"], &value["netns"]), (&"states".into(), &7.into()));
    assert_eq!(value["counts"]["CLOSE_WAIT"], 2);
    assert_eq!(value["mptcp"]["CLOSE_WAIT"], 1);
    assert_eq!(value["by"][0]["process"], Value::Null);
    assert_eq!(value["by"][1]["process"]["unit"], "nginx.service");
    assert_eq!(value["by"][3]["process"]["comm"], "cur\\x1bl");
    assert_eq!(value["by"][3]["counts"]["FIN_WAIT2"], 1);
}
