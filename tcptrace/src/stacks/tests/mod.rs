//! Real processes, stopped by ptrace where the BPF program would have looked at them.
//!
//! They need a compiler, the runtime concerned and permission to ptrace; each says so when it skips.

mod containers;
mod cost;
mod damage;
mod live;
mod snapshot;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use snapshot::{Snapshot, Target};

use super::{Limits, Note, Role, Stack, Stacks, Worker};

const C: &str = r#"#include <stdio.h>
#include <sys/socket.h>

__attribute__((noinline)) static long leaky_read(int fd, char *buffer, unsigned long len) {
    long total = buffer[1];
    total += recv(fd, buffer, len, 0); // line 6
    return total + buffer[0];
}

__attribute__((noinline)) static long serve(int fd) {
    char buffer[4096];
    return leaky_read(fd, buffer, sizeof buffer) + buffer[17]; // line 12
}

int main(int argc, char **argv) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return 1;
    puts("ready");
    fflush(stdout);
    return serve(pair[0]) + argc; // line 20
}
"#;

fn shown(stack: &Stack) -> Vec<String> {
    stack.frames.iter().map(ToString::to_string).collect()
}

fn site(stack: &Stack) -> Vec<String> {
    stack.site_frames().iter().map(ToString::to_string).collect()
}

/// Every frame begins with the function and ends with the place that are expected; the directory of the test's
/// files is random.
fn assert_frames(frames: &[String], expected: &[&str]) {
    assert_eq!(frames.len(), expected.len(), "{frames:#?}");
    for (frame, expected) in frames.iter().zip(expected) {
        let (function, place) = expected.split_once(" at ").unwrap_or((expected, ""));
        assert!(frame.starts_with(function) && frame.ends_with(place), "{expected}: {frames:#?}");
    }
}

/// The stack of a blocked program.
fn resolve(target: &Target) -> Option<Arc<Stack>> {
    Some(resolve_in(&target.snapshot()?))
}

fn resolve_in(snapshot: &Snapshot) -> Arc<Stack> {
    let stack = Stacks::default().resolve(&snapshot.sample());
    eprintln!("{:#?}\n{:?}", shown(&stack), stack.note);
    stack
}

#[test]
fn c_without_frame_pointers_is_named_by_function_file_and_line() {
    let Some(target) = Target::run(&["gcc", "-O2", "-g"], "leaky.c", C) else { return };
    let Some(stack) = resolve(&target) else { return };
    assert_frames(&site(&stack), &LEAKY_C);
    assert_eq!(stack.frames[0].role, Role::System, "{:?}", stack.frames[0]);
    assert!(!stack.truncated);
    assert_eq!(stack.note, None);
}

const LEAKY_C: [&str; 3] = ["leaky_read at /leaky.c:6", "serve at /leaky.c:12", "main at /leaky.c:20"];

#[test]
fn c_on_a_static_libc_is_named_too() {
    let Some(target) = Target::run(&["gcc", "-O2", "-g", "-static"], "leaky.c", C) else { return };
    let Some(stack) = resolve(&target) else { return };
    assert_frames(&site(&stack), &LEAKY_C);
    assert!(!stack.truncated);
}

#[test]
fn c_on_musl_is_named_though_its_libc_says_nothing_about_its_frames() {
    for linking in ["-static", "-dynamic"] {
        let Some(target) = Target::run(&["musl-gcc", "-O2", "-g", linking], "leaky.c", C) else {
            return;
        };
        let Some(stack) = resolve(&target) else { return };
        assert_frames(&site(&stack)[..3], &["? leaky_read at /leaky.c:6", LEAKY_C[1], LEAKY_C[2]]);
    }
}

#[test]
fn a_stripped_program_is_named_by_module_and_offset() {
    let Some(target) = Target::run(&["gcc", "-O2", "-s"], "leaky.c", C) else { return };
    let Some(stack) = resolve(&target) else { return };
    let site = site(&stack);
    assert!(site.len() >= 3 && site.iter().all(|frame| frame.starts_with("target+0x")), "{site:?}");
    assert_eq!(stack.note, Some(Note::NoSymbols("target".to_owned())));
}

#[test]
fn a_program_that_has_exited_and_was_deleted_is_still_named() {
    let Some(mut target) = Target::run(&["gcc", "-O2", "-g"], "leaky.c", C) else { return };
    let Some(snapshot) = target.snapshot() else { return };
    let mut stacks = Stacks::default();
    let capture = stacks.capture(&snapshot.sample()).unwrap();
    target.end();
    std::fs::remove_file(target.program()).unwrap();
    let stack = stacks.symbolise(&capture);
    assert_frames(&site(&stack), &LEAKY_C);
    // And a record that is read only now.
    assert_frames(&site(&stacks.resolve(&snapshot.sample())), &LEAKY_C);
    // Without anything known of it there is nothing to say, but why.
    let stack = Stacks::default().resolve(&snapshot.sample());
    assert!(matches!(&stack.note, Some(Note::NotFollowed(why)) if why.contains("has gone")));
}

#[test]
fn a_short_copy_of_the_stack_is_marked_as_truncated() {
    let Some(target) = Target::run(&["gcc", "-O2", "-g"], "leaky.c", C) else { return };
    let Some(mut snapshot) = target.snapshot() else { return };
    snapshot.change_stack(|stack| stack.truncate(1024));
    let stack = Stacks::default().resolve(&snapshot.sample());
    assert!(stack.truncated);
    assert_frames(&site(&stack), &LEAKY_C[..2]);
}

#[test]
fn an_equal_sample_gives_the_same_stack_and_another_does_not() {
    let Some(target) = Target::run(&["gcc", "-O2", "-g"], "leaky.c", C) else { return };
    let Some(snapshot) = target.snapshot() else { return };
    let mut stacks = Stacks::default();
    let first = stacks.resolve(&snapshot.sample());
    let again = stacks.resolve(&snapshot.sample());
    assert!(Arc::ptr_eq(&first, &again));
    // Other contents of the buffer change nothing; another return address does.
    let mut other = snapshot.clone();
    other.change_stack(|stack| stack[256] ^= 1);
    assert!(Arc::ptr_eq(&first, &stacks.resolve(&other.sample())));
    other.change_stack(|stack| stack.fill(1));
    assert_ne!(first, stacks.resolve(&other.sample()));
}

#[test]
fn the_worker_answers_for_every_sample_and_counts_what_it_drops() {
    let Some(target) = Target::run(&["gcc", "-O2", "-g"], "leaky.c", C) else { return };
    let Some(snapshot) = target.snapshot() else { return };
    let mut worker = Worker::start(Limits::default()).unwrap();
    assert!(worker.submit(&snapshot.sample()));
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut resolved = Vec::new();
    while resolved.is_empty() && Instant::now() < deadline {
        resolved.extend(worker.drain());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_frames(&site(&resolved[0].stack), &LEAKY_C);
    assert_eq!((resolved[0].sk, resolved[0].at), (2, 1));
    let taken = (0..2000).filter(|_| worker.submit(&snapshot.sample())).count();
    let dropped = worker.dropped();
    assert_eq!(u64::try_from(2000 - taken).unwrap(), dropped);
    assert_eq!(worker.finish(Duration::from_secs(20)).len(), taken);
}

const RUST: &str = r#"use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

#[inline(never)]
fn serve(stream: &mut UnixStream) -> usize {
    let mut buffer = [0; 512];
    stream.read(&mut buffer).unwrap() + usize::from(buffer[3]) // line 7
}

fn main() {
    let (mut ours, _theirs) = UnixStream::pair().unwrap();
    std::io::stdout().write_all(b"ready").unwrap();
    std::io::stdout().flush().unwrap();
    println!("{}", serve(&mut ours)); // line 14
}
"#;

#[test]
fn rust_is_demangled_and_the_standard_library_is_passed_over() {
    let compiler = ["rustc", "--edition=2021", "-O", "-g"];
    let Some(target) = Target::run(&compiler, "leaky.rs", RUST) else { return };
    let Some(stack) = resolve(&target) else { return };
    assert_frames(&site(&stack), &["leaky::serve at /leaky.rs:7", "leaky::main at /leaky.rs:14"]);
    assert!(!stack.truncated);
}

const CPP: &str = r#"#include <cstdio>
#include <string>
#include <sys/socket.h>

namespace shop {
template <typename T> struct Connection {
    int fd;
    [[gnu::always_inline]] inline long fill(T &buffer) {
        return recv(fd, buffer.data(), buffer.size(), 0); // line 9
    }
    [[gnu::noinline]] long drain() {
        T buffer(512, 'x');
        return fill(buffer) + buffer[7]; // line 13
    }
};
}

int main() {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return 1;
    puts("ready");
    fflush(stdout);
    return shop::Connection<std::string>{pair[0]}.drain() + 1; // line 23
}
"#;

#[test]
fn cplusplus_is_demangled_and_inlined_functions_are_frames() {
    let Some(target) = Target::run(&["g++", "-O2", "-g"], "leaky.cpp", CPP) else { return };
    let Some(stack) = resolve(&target) else { return };
    let site = site(&stack);
    assert!(site[0].contains("fill") && site[0].ends_with("/leaky.cpp:9"), "{site:#?}");
    assert!(site[1].contains("drain") && site[1].ends_with("/leaky.cpp:13"), "{site:#?}");
    let first = stack.interesting().unwrap();
    assert!(stack.frames[first].inlined && !stack.frames[first + 1].inlined);
}

const JAVASCRIPT: &str = r#"const fs = require('fs');
function leakyRead(buffer) { // line 2
    return fs.readSync(0, buffer) + 1;
}
function serve() { // line 5
    return leakyRead(Buffer.alloc(10)) + 1;
}
fs.writeSync(1, 'ready');
serve();
"#;

#[test]
fn node_is_named_by_its_perf_map_and_told_how_without() {
    let run = |options: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("app.js");
        std::fs::write(&script, JAVASCRIPT).unwrap();
        Target::start(directory, Command::new("node").args(options).arg(script))
    };
    let Some(target) = run(&["--perf-basic-prof"]) else { return };
    let Some(stack) = resolve(&target) else { return };
    assert_eq!(stack.note, None);
    let site = site(&stack);
    assert_frames(&site[..2], &["leakyRead at /app.js:2", "serve at /app.js:5"]);
    assert!(!stack.truncated);

    let Some(stack) = run(&[]).as_ref().and_then(resolve) else { return };
    assert_eq!(stack.note, Some(Note::JavaScript));
}

const PYTHON: &str = r#"import socket, sys
def leaky_read(sock):
    return sock.recv(10)
def serve():
    ours, theirs = socket.socketpair()
    sys.stdout.write("ready"); sys.stdout.flush()
    leaky_read(ours)
serve()
"#;

#[test]
fn python_is_named_by_its_perf_map_and_told_how_without() {
    let run = |options: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("app.py");
        std::fs::write(&script, PYTHON).unwrap();
        Target::start(directory, Command::new("python3").args(options).arg(script))
    };
    let Some(stack) = run(&[]).as_ref().and_then(resolve) else { return };
    assert_eq!(stack.note, Some(Note::Python));
    assert!(!stack.truncated);

    let trampolines = "import sys; sys.exit(sys.version_info < (3, 12))";
    let recent = Command::new("python3").args(["-c", trampolines]).status();
    if !recent.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: python3 is older than 3.12 and writes no perf map");
        return;
    }
    let Some(stack) = run(&["-X", "perf"]).as_ref().and_then(resolve) else { return };
    assert_eq!(stack.note, None);
    assert_frames(&site(&stack)[..2], &["leaky_read at /app.py", "serve at /app.py"]);
    assert!(!stack.truncated);
}
