//! Recordings that were cut off, damaged, or made by a newer version: what can be read of them is read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tcptrace::engine::Input;
use tcptrace::recording::{self, Ending, Footer, Header, ReadError, Reader, Recorder};
use tempfile::TempDir;

/// The demonstration, recorded.
const DEMO: &str = "tests/recordings/demo.jsonl.zst";

/// Its first events, and a tick: without dumps, which are long lines.
fn few() -> (Header, Vec<Input>) {
    let mut reader = Reader::open(Path::new(DEMO)).expect("the recording");
    let header = Header { namespaces: Vec::new(), sysctls: Vec::new(), ..reader.header().clone() };
    let mut inputs = Vec::new();
    while inputs.len() < 12 {
        match reader.next_input().expect("an input") {
            Input::Inventory(_) => {}
            input => inputs.push(input),
        }
    }
    inputs.push(Input::Tick { at: header.started + 5_000_000_000 });
    (header, inputs)
}

/// Records them, each flushed by itself, and gives the file's bytes.
fn record(directory: &TempDir, name: &str) -> (PathBuf, Vec<u8>, Vec<Input>) {
    let (header, inputs) = few();
    let path = directory.path().join(name);
    let file = recording::create(&path, false).expect("a file");
    let mut recorder = Recorder::start(&path, file, &header).expect("a recorder");
    let mut now = header.started;
    for input in &inputs {
        recorder.input(input).expect("taken");
        now += 1_000_000_000;
        recorder.turn(now).expect("flushed");
    }
    recorder.finish(&Footer { ended: now, ..Footer::default() }).expect("finished");
    let bytes = fs::read(&path).expect("the file");
    (path, bytes, inputs)
}

/// What is read of such a file; `None` where it is not even a recording.
fn read(path: &Path, bytes: &[u8]) -> Option<(Vec<Input>, Ending)> {
    fs::write(path, bytes).expect("written");
    match Reader::open(path) {
        Ok(mut reader) => {
            let inputs = std::iter::from_fn(|| reader.next_input()).collect();
            Some((inputs, reader.ending().expect("it ended").clone()))
        }
        Err(ReadError::NoHeader { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn cut_off_anywhere_all_that_is_whole_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    for name in ["cut.jsonl", "cut.jsonl.zst"] {
        let (path, bytes, inputs) = record(&directory, name);
        let mut most = 0;
        for length in 0..bytes.len() {
            let Some((seen, ending)) = read(&path, &bytes[..length]) else {
                assert_eq!(most, 0, "{name}: no recording at {length} bytes");
                continue;
            };
            assert!(inputs.starts_with(&seen), "{name} at {length} bytes");
            // What was there before is there with a byte more.
            assert!(seen.len() >= most, "{name} at {length} bytes: {} after {most}", seen.len());
            most = seen.len();
            if let Ending::CutOff { lines } = ending {
                assert_eq!(lines, seen.len() as u64 + 1, "{name} at {length} bytes");
            } else {
                // Only the end of the last frame is missing.
                assert!(
                    matches!(ending, Ending::Complete(_)) && seen == inputs,
                    "{name} at {length}: {ending:?}"
                );
            }
            if name.ends_with("jsonl") {
                let whole = bytes[..length].iter().filter(|&&byte| byte == b'\n').count();
                assert_eq!(seen.len() + 1, whole, "at {length} bytes");
            }
        }
        assert_eq!(most, inputs.len(), "{name}");
        let (seen, ending) = read(&path, &bytes).expect("a recording");
        assert!(seen == inputs && matches!(ending, Ending::Complete(_)), "{name}: {ending:?}");
    }
}

#[test]
fn damage_anywhere_is_no_panic_and_costs_nothing_before_it() {
    let directory = tempfile::tempdir().expect("a directory");
    for name in ["damaged.jsonl", "damaged.jsonl.zst"] {
        let (path, bytes, inputs) = record(&directory, name);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            fs::write(&path, &damaged).expect("written");
            // A damaged digit may be another digit: what comes after the damage need not be told from truth.
            let Ok(mut reader) = Reader::open(&path) else { continue };
            let seen: Vec<_> = std::iter::from_fn(|| reader.next_input()).collect();
            assert!(reader.ending().is_some());
            if name.ends_with("jsonl") {
                let before = bytes[..at].iter().filter(|&&byte| byte == b'\n').count().saturating_sub(1);
                let same = before.min(inputs.len());
                assert!(seen.len() >= same && seen[..same] == inputs[..same], "damage at {at}");
            }
        }
    }
}

#[test]
fn a_newer_version_is_refused_with_its_number() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, bytes, _) = record(&directory, "newer.jsonl");
    let text = String::from_utf8(bytes).expect("UTF-8");
    let made_by = format!("\"tool_version\":\"{}\"", few().0.tool_version);
    let newer =
        text.replacen("\"version\":1", "\"version\":2", 1).replacen(&made_by, "\"tool_version\":\"9.8\"", 1);
    assert_ne!(newer, text);
    fs::write(&path, newer).expect("written");
    for command in ["report", "watch", "leaks"] {
        let mut run = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        let output = run.args([command, "--from"]).arg(&path).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        assert!(output.stdout.is_empty(), "{command}");
        for wanted in ["has format version 2", "reads up to 1", "made by tcptrace 9.8"] {
            assert!(said.contains(wanted), "{command}: no {wanted:?} in {said}");
        }
    }
}
