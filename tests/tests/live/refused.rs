//! Programs that the kernel's verifier refuses: the real binary, with one instruction of its BPF programs spoilt.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use serde_json::Value;
use tcptrace::sandbox::Sandbox;
use tests::binary;
use tests::sockets::{Flavour, Meeting, read_eof};
use tests::spawn;
use tests::traced::Traced;
use tests::trial::live;

/// What the verifier says of [`R0_FROM_R9`].
const VERDICT: &str = "R9 !read_ok";
/// `r0 = r9`, where r9 holds nothing yet.
const R0_FROM_R9: [u8; 8] = [0xbf, 0x90, 0, 0, 0, 0, 0, 0];

pub fn trials() -> Vec<Trial> {
    vec![
        live("a_required_program_that_is_refused_ends_it_with_the_verifiers_words", required),
        live("an_optional_program_that_is_refused_is_left_out_and_said", optional),
        live("typed_programs_that_are_refused_are_stood_in_for", stood_in_for),
    ]
}

/// A copy of the binary in which the first instruction of these programs is spoilt.
fn spoilt(programs: &[&str]) -> Result<(tempfile::TempDir, PathBuf)> {
    let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tcptrace-ebpf/prebuilt/tcptrace.bpf.o");
    let object = fs::read(object)?;
    let (dir, path) = binary::copy_for_everybody()?;
    let mut program = fs::read(&path)?;
    // Aligned, as its headers must be.
    let mut places = (0..program.len()).step_by(8).filter(|&at| program[at..].starts_with(&object));
    let at = places.next().context("the binary does not hold the object")?;
    ensure!(places.next().is_none(), "the binary holds the object twice");
    let file = object::File::parse(&*object)?;
    for name in programs {
        let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name)).context(name.to_string())?;
        let section = symbol.section_index().context("of no section")?;
        let (start, _) = file.section_by_index(section)?.file_range().context("not in the file")?;
        let first = at + usize::try_from(start + symbol.address())?;
        program[first..first + R0_FROM_R9.len()].copy_from_slice(&R0_FROM_R9);
    }
    fs::write(&path, program)?;
    Ok((dir, path))
}

fn required(_: &Sandbox) -> Result<()> {
    let (_dir, tcptrace) = spoilt(&["typed_set_state", "inet_sock_set_state"])?;
    let mut command = Command::new(tcptrace);
    command.args(["watch", "--json"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawn::start(&mut command)?.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{}: {said}", output.status);
    ensure!(said.contains("rejected the BPF program inet_sock_set_state"), "{said}");
    ensure!(said.contains(VERDICT) && said.contains("hint: "), "{said}");
    Ok(())
}

/// `leaks --stacks` by a spoilt copy: what its last line says of its programs.
fn programs_of(sandbox: &Sandbox, spoilt_programs: &[&str]) -> Result<(Vec<String>, Vec<Value>)> {
    let (_dir, tcptrace) = spoilt(spoilt_programs)?;
    let mut command = Command::new(tcptrace);
    command.args(["leaks", "--json", "--stacks", "--duration", "3s", "--min-age", "0s"]);
    command.args(["--netns", &sandbox.netns().to_string()]);
    let tracer = Traced::start_command(command)?;
    tracer.wait_until_attached()?;
    let mut pair = Meeting::new(Flavour::V4)?.pair()?;
    drop(pair.client);
    read_eof(&mut pair.server)?;
    let run = tracer.ended(Duration::from_secs(60))?;
    // It does what is left: here is one socket in CLOSE_WAIT.
    ensure!(run.lines.iter().any(|line| line["type"] == "leak"), "{:?}", run.lines);
    let last = &run.last;
    let attached = last["bpf"]["programs"].as_array().with_context(|| format!("programs: {last}"))?.iter();
    let attached = attached.filter_map(|program| Some(program["name"].as_str()?.to_owned())).collect();
    let skipped = last["skipped"].as_array().with_context(|| format!("skipped: {last}"))?.clone();
    Ok((attached, skipped))
}

fn optional(sandbox: &Sandbox) -> Result<()> {
    let (attached, skipped) = programs_of(sandbox, &["sock_recv_length_stack"])?;
    ensure!(attached.iter().any(|name| name == "sock_recv_length"), "{attached:?}");
    ensure!(attached.iter().all(|name| name != "sock_recv_length_stack"), "{attached:?}");
    let said = skipped.iter().find(|hook| hook["name"] == "sock_recv_length_stack");
    let why = said.and_then(|hook| hook["why"].as_str()).with_context(|| format!("{skipped:?}"))?;
    ensure!(why.contains(VERDICT), "{why}");
    Ok(())
}

fn stood_in_for(sandbox: &Sandbox) -> Result<()> {
    let (attached, _) = programs_of(sandbox, &["typed_set_state"])?;
    ensure!(attached.iter().any(|name| name == "inet_sock_set_state"), "{attached:?}");
    ensure!(attached.iter().all(|name| !name.starts_with("typed_")), "{attached:?}");
    Ok(())
}
