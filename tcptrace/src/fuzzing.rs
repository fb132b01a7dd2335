//! What is done with bytes of strangers, one function for each fuzz target in `fuzz/`. The inputs that were once
//! interesting, or once broke something, stand in `fuzz/corpus` and are run by a test here.

use std::io::Cursor;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use clap::Parser as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc, watch};

use crate::engine::Engine;
use crate::event::{Event, Protocol};
use crate::filter::{Filter, Resolver, Unresolved, parse_line};
use crate::inventory::cgroup::ProcessCgroup;
use crate::inventory::counters::Counters;
use crate::inventory::diag::{Context, Part, decode_datagram};
use crate::inventory::{mountinfo, process, sysctl};
use crate::kernel::{btf, offsets::Layout, privileges, symbols};
use crate::live::Handler;
use crate::recording::{Reader, row};
use crate::serve::{Guard, GuardFiles, Office, Pulse};
use crate::settings::duration;
use crate::snapshot::{KeyKind, Meta};
use crate::stacks::{elf, jit_name, maps, perf_map};
use crate::tracker::Limits;
use crate::views::{json, report};
use crate::{cli, decode, replay, tracker};

/// A kernel's type information: parsed, and everything looked up in it that the loader wants.
pub fn btf(data: &[u8]) {
    let Ok(btf) = btf::parse(data) else { return };
    let _ = btf.type_count();
    let _ = btf.struct_size("sock");
    for (of, path) in [("sock", "__sk_common.skc_state"), ("s", "a.b.c"), ("a", "a"), ("", "")] {
        let _ = btf.member(of, path);
    }
    let _ = Layout::from_btf(&btf, 4096);
}

/// Records of the two rings. What decodes is written to a recording and read back as it was.
pub fn wire(data: &[u8]) {
    let mut rest = data;
    while let Some((&len, tail)) = rest.split_first() {
        let (record, tail) = tail.split_at(tail.len().min(len.into()));
        rest = tail;
        let _ = decode::stack(record);
        let Ok(event) = decode::event(record) else { continue };
        let mut line = String::new();
        row::write(&event, &mut line).expect("a string takes everything");
        // A row has no room for what only the ring knows: it is read as it was written.
        let read: Event =
            row::read(&line).unwrap_or_else(|error| panic!("{event:?} is written as {line}: {error}"));
        assert_eq!(read, event, "{line}");
    }
}

/// A recording, replayed and reported on.
pub fn recording(data: &[u8]) {
    struct Ignore;
    impl Handler for Ignore {}
    let path = Path::new("fuzzed");
    let lines = Box::new(Cursor::new(data.to_vec()));
    let Ok(mut reader) = Reader::of_lines(path, lines) else { return };
    let limits = Limits { full_sockets: 64, minis: 64 };
    let meta = Meta { hz: Some(250), ..Meta::default() };
    let mut engine = Engine::new(meta, Filter::default(), Some(KeyKind::Process), limits);
    replay::run(&mut reader, &mut engine, &mut Ignore).expect("damage is no error");
    let snapshot = engine.snapshot(&|_| None);
    let mut out = Vec::new();
    json::write_report(&snapshot, &mut out).expect("a vector takes everything");
    report::write(&snapshot, &report::Options::default(), &mut out).expect("a vector takes everything");
    let text = String::from_utf8(out).expect("what is written is text");
    assert!(!text.contains('\u{1b}'), "an escape sequence got through");
}

/// Datagrams of `sock_diag`.
pub fn sock_diag(data: &[u8]) {
    let context = Context { netns: 1, at: 0, protocol: Protocol::Tcp };
    let _ = decode_datagram(data, context, |_, _, part| {
        if let Ok(Part::Done(errno) | Part::Error(errno)) = part {
            assert!(errno >= 0);
        }
    });
    let _ = crate::inventory::diag::decode(data, context);
}

/// A system in which everything exists that looks as if it could.
struct Anything;

impl Resolver for Anything {
    fn netns(&self, wanted: &str) -> Result<u32, Unresolved> {
        // An inode number stands for itself; what is too small for one is the id of a process somewhere.
        const FIRST: u32 = 0xF000_0000;
        let inode = wanted.parse().ok().filter(|&inode| inode >= FIRST);
        Ok(inode.unwrap_or(FIRST + wanted.len() as u32))
    }

    fn container(&self, id: &str) -> Result<Vec<u64>, Unresolved> {
        Ok(vec![id.len() as u64])
    }

    fn pid(&self, _: u32) -> Result<(), Unresolved> {
        Ok(())
    }
}

/// A filter as it is typed, durations, and whole command lines. What a filter prints means the same again.
pub fn options(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(filter) = parse_line(text, &Anything) {
        let printed = filter.to_string();
        let again = parse_line(&printed, &Anything)
            .unwrap_or_else(|error| panic!("{text:?} is printed as {printed:?}: {error}"));
        assert_eq!(again.to_string(), printed);
    }
    for parse in
        [cli::values::tracing_duration, cli::values::min_dwell, cli::values::min_age, cli::values::interval]
    {
        if let Ok(value) = parse(text) {
            assert_eq!(parse(&duration::exact(value)).ok(), Some(value), "{text:?}");
        }
    }
    let _ = cli::values::assignment(text);
    let _ = cli::values::ring_size(text);
    let _ = cli::values::network(text);
    if let Some(words) = shlex::split(text) {
        let _ = cli::Cli::try_parse_from(std::iter::once("tcptrace".to_owned()).chain(words));
    }
}

/// Any order of events, dumps and pauses.
pub fn tracker(data: &[u8]) {
    tracker::properties::check(data);
}

/// Files of /proc, which other people's processes and container engines have their say in.
pub fn proc(data: &[u8]) {
    let _ = process::parse::stat(data);
    let _ = process::parse::effective_uid(data);
    let _ = process::parse::open_files_limit(data);
    let _ = ProcessCgroup::parse(data);
    mountinfo::mounts(data).for_each(drop);
    let _ = symbols::find(data, "tw_timer_handler", "fuzzed");
    let maps = maps::Mappings::parse(data);
    for mapping in maps.iter() {
        assert_eq!(maps.find(mapping.range.start).map(|found| &found.range), Some(&mapping.range));
    }
    let (first, second) = data.split_at(data.len() / 2);
    perf_map::check(first, second);
    if let Ok(text) = std::str::from_utf8(data) {
        let mut counters = Counters::default();
        counters.add_table(text);
        counters.add_sockstat(text);
        let _ = counters.minis().made();
        sysctl::port_ranges(text).for_each(drop);
        let _ = sysctl::path(text);
        let _ = jit_name::parse(text);
        let _ = privileges::Release::parse(text);
        let _ = privileges::Lockdown::parse(text);
    }
}

/// An executable of another user.
pub fn executable(data: &[u8]) {
    let Ok(layout) = elf::Layout::read(data) else { return };
    for segment in &layout.segments {
        let _ = layout.address_of(segment.file.start);
        let _ = layout.bias(segment.address, segment.file.start, 4096);
    }
}

/// What a client of `serve` sends, and then says no more.
pub fn http(data: &[u8]) {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop")
    });
    runtime.block_on(async {
        // Nobody answers: the tracer is gone.
        let (asks, _) = mpsc::channel(1);
        let office = Arc::new(Office::new(asks, Arc::new(Notify::new()), Arc::new(Pulse::default())));
        let guard = Arc::new(Guard::new(GuardFiles::default()).expect("no files, no errors"));
        let (_stop, stopped) = watch::channel(false);
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let serving = crate::serve::http::answer(server, peer, office, guard, stopped);
        let talking = async {
            let _ = client.write_all(&data[..data.len().min(1 << 19)]).await;
            let _ = client.shutdown().await;
            let mut answer = Vec::new();
            let _ = client.read_to_end(&mut answer).await;
            answer
        };
        let ((), answer) = tokio::join!(serving, talking);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{answer:?}");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs every input that is kept for a target.
    fn run_corpus(target: &str, each: fn(&[u8])) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty(), "no input in {}", dir.display());
        for file in files {
            println!("{}", file.display());
            each(&std::fs::read(file).unwrap());
        }
    }

    macro_rules! corpus {
        ($($target:ident),+) => {
            $(#[test]
            fn $target() {
                run_corpus(stringify!($target), super::$target);
            })+
        };
    }

    corpus!(btf, wire, recording, sock_diag, options, tracker, proc, executable, http);
}
