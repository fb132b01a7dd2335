//! `.hlog` files for the tools of HdrHistogram: one per state and phase, V2 deflate, values in microseconds.
//!
//! Finished dwells only, because the format knows no others: a comment says how many are open. With keys (`--by`)
//! there is a second file per state whose lines are tagged, apart from the first so that no tool that ignores tags
//! counts a dwell twice.

use std::io;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag};

use super::human;
use crate::outcome::Phase;
use crate::snapshot::{Meta, Snapshot, StateReport};
use crate::stats::cells::histogram_of;

/// Microseconds in a millisecond: `Interval_Max`, for people only, is in milliseconds by custom.
const MAX_VALUE_DIVISOR: f64 = 1000.0;

/// Name and contents of every file. States of which no dwell was seen from beginning to end have none.
///
/// # Errors
/// When a histogram cannot be encoded.
pub fn files(snapshot: &Snapshot) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for report in snapshot.overall().filter(|report| report.finished.count > 0) {
        let stem = stem(report);
        files.push((format!("{stem}.hlog"), log(snapshot, &[(None, report)])?));
        let keyed: Vec<_> = snapshot
            .keyed()
            .filter(|keyed| (keyed.state, keyed.phase) == (report.state, report.phase))
            .filter(|keyed| keyed.finished.count > 0)
            .map(|keyed| (Some(tag(keyed)), keyed))
            .collect();
        if let (Some(title), false) = (snapshot.keyed_title(), keyed.is_empty()) {
            files.push((format!("{stem}-by-{title}.hlog"), log(snapshot, &keyed)?));
        }
    }
    Ok(files)
}

/// `FIN_WAIT2-orphaned`.
fn stem(report: &StateReport) -> String {
    let phase = match report.phase {
        None => "",
        Some(Phase::HalfClosed) => "-half_closed",
        Some(Phase::Orphaned) => "-orphaned",
    };
    format!("{}{phase}", report.state)
}

/// A key as a tag, which takes neither commas nor white space.
fn tag(report: &StateReport) -> String {
    human::whose(report).replace(|c: char| c == ',' || c.is_whitespace() || c.is_control(), "_")
}

fn log(snapshot: &Snapshot, reports: &[(Option<String>, &StateReport)]) -> io::Result<Vec<u8>> {
    let meta = &snapshot.meta;
    let start = system_time(meta);
    let mut builder = IntervalLogWriterBuilder::new();
    for comment in comments(snapshot, reports) {
        builder.add_comment(&comment);
    }
    builder.with_start_time(start).with_base_time(start).with_max_value_divisor(MAX_VALUE_DIVISOR);
    let (mut bytes, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut writer = builder.begin_log_with(&mut bytes, &mut serializer)?;
    let length = Duration::from_nanos(meta.elapsed_ns());
    for (tag, report) in reports {
        let histogram = histogram_of(&report.finished.buckets);
        let tag = tag.as_deref().and_then(Tag::new);
        writer.write_histogram(&histogram, Duration::ZERO, length, tag).map_err(|error| match error {
            IntervalLogWriterError::IoError(error) => error,
            IntervalLogWriterError::SerializeError(error) => io::Error::other(error.to_string()),
        })?;
    }
    Ok(bytes)
}

fn comments(snapshot: &Snapshot, reports: &[(Option<String>, &StateReport)]) -> Vec<String> {
    let meta = &snapshot.meta;
    let mut comments = vec![
        "[Histogram log format version 1.3]".to_owned(),
        format!("tcptrace {}: dwells seen from beginning to end, in microseconds", meta.tool_version),
    ];
    let hosts = meta.parts.iter().map(|part| part.host.as_str());
    for host in meta.host.as_deref().into_iter().chain(hosts) {
        comments.push(format!("host {}", crate::text::escape(host.as_bytes())));
    }
    if snapshot.loss.any() {
        comments.push(format!("{} lost: counts are too low", human::counted(snapshot.loss.total(), "event")));
    }
    for (tag, report) in reports {
        let left_out = report.open.count + report.began_before.count;
        if left_out > 0 {
            comments.push(format!(
                "{}{}not in here: {} open, {} that began before the trace",
                stem(report),
                tag.as_ref().map_or_else(|| " ".to_owned(), |tag| format!(" {tag} ")),
                report.open.count,
                report.began_before.count
            ));
        }
    }
    comments
}

fn system_time(meta: &Meta) -> SystemTime {
    let since_epoch = u64::try_from(meta.wall.time(meta.started).as_nanosecond()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_nanos(since_epoch)
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::net::State;
    use crate::snapshot::KeyKind;
    use crate::views::report::samples;

    /// The tag, the length and the histogram of each line, as the crate's own reader has them.
    fn read(bytes: &[u8]) -> Vec<(Option<String>, Duration, Histogram<u64>)> {
        use base64::Engine as _;

        IntervalLogIterator::new(bytes)
            .filter_map(|entry| match entry.expect("a line of the format") {
                LogEntry::Interval(interval) => {
                    let raw = base64::engine::general_purpose::STANDARD
                        .decode(interval.encoded_histogram())
                        .expect("base64");
                    let histogram = Deserializer::new().deserialize(&mut raw.as_slice()).expect("histogram");
                    let tag = interval.tag().map(|tag| tag.as_str().to_owned());
                    Some((tag, interval.duration(), histogram))
                }
                LogEntry::StartTime(_) | LogEntry::BaseTime(_) => None,
            })
            .collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let snapshot = samples::busy_by(KeyKind::Process);
        let files = files(&snapshot).expect("written");
        assert!(files.len() > 6, "{:?}", files.iter().map(|(name, _)| name).collect::<Vec<_>>());
        let of = |name: &str| {
            let file = files.iter().find(|(other, _)| other == name).unwrap_or_else(|| panic!("no {name}"));
            read(&file.1)
        };
        for report in snapshot.overall().filter(|report| report.finished.count > 0) {
            let lines = of(&format!("{}.hlog", stem(report)));
            let [(None, length, histogram)] = lines.as_slice() else { panic!("one line without a tag") };
            assert_eq!(*length, Duration::from_nanos(snapshot.meta.elapsed_ns()));
            assert_eq!(histogram.len(), report.finished.count);
            assert_eq!(*histogram, histogram_of(&report.finished.buckets));
            let p99_us = histogram.value_at_quantile(0.99);
            assert_eq!(
                Some(p99_us),
                report.finished.p99_ns.map(|ns| histogram.highest_equivalent(ns / 1000))
            );
        }
        let total = snapshot.of(State::TimeWait, None).expect("TIME_WAIT").finished.count;
        let lines = of("TIME_WAIT-by-process.hlog");
        assert_eq!(lines.iter().map(|(_, _, histogram)| histogram.len()).sum::<u64>(), total);
        assert!(lines.iter().any(|(tag, ..)| tag.as_deref() == Some("nginx[812]")));
    }

    #[test]
    fn what_is_open_is_said_not_counted() {
        let snapshot = samples::busy_by(KeyKind::Port);
        let files = files(&snapshot).expect("written");
        let (_, bytes) = files.iter().find(|(name, _)| name == "CLOSE_WAIT.hlog").expect("CLOSE_WAIT");
        let text = String::from_utf8(bytes.clone()).expect("text");
        let open = snapshot.of(State::CloseWait, None).expect("CLOSE_WAIT").open.count;
        assert!(
            open > 0 && text.contains(&format!("#CLOSE_WAIT not in here: {open} open, 1 that")),
            "{text}"
        );
    }
}
