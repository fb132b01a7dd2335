//! Sysctls that a killed experiment has left changed.

use super::patient::Left;
use super::{Check, Group, Patient, Verdict};

const NAME: &str = "experiment_left";

pub(super) fn checks(patient: &Patient) -> Vec<Check> {
    match &patient.left {
        Ok(left) => left.iter().flat_map(of_journal).collect(),
        Err(error) => vec![Check::new(
            Group::Left,
            NAME,
            Verdict::Note,
            format!("whether an experiment was killed and left something changed is not known: {error}"),
        )],
    }
}

fn of_journal(left: &Left) -> Vec<Check> {
    let Left { journal, now } = left;
    let one = |(index, changed): (usize, &crate::experiment::journal::Changed)| {
        let crate::experiment::journal::Changed { name, original, .. } = changed;
        let present = now.as_ref().and_then(|now| now.get(index));
        let (verdict, state) = match present {
            None => (
                Verdict::Note,
                format!(
                    "Network namespace {} cannot be seen, or has gone and its sysctls with it.",
                    journal.netns
                ),
            ),
            Some(present) if present.value().is_some_and(|value| same(value, original)) => {
                (Verdict::Note, "It has its old value again.".to_owned())
            }
            Some(present) => (Verdict::Warn, format!("It is {present} now.")),
        };
        let detail = format!(
            "An experiment (process {}) was killed before it could restore {name}, which was {original}. {state} \
             `tcptrace experiment --restore` puts it back.",
            journal.pid
        );
        let check = Check::new(Group::Left, NAME, verdict, detail).of(journal.netns);
        check.value(format!("{name} = {}", present.map_or_else(|| "?".to_owned(), ToString::to_string)))
    };
    journal.changed.iter().enumerate().map(one).collect()
}

fn same(a: &str, b: &str) -> bool {
    a.split_ascii_whitespace().eq(b.split_ascii_whitespace())
}
