//! What a running tcptrace can still do to the system: every thread of it is made to try.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libc::{EPERM, c_int};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use tcptrace::sandbox::Sandbox;
use tests::binary;
use tests::clock::{sleep_ms, wait_until};
use tests::exporter::Exporter;
use tests::inject::{self, Stopped};
use tests::spawn;
use tests::traced::{REQUIRED_HOOKS, Traced};
use tests::trial::live;
use tests::truth::attached;

pub fn trials() -> Vec<Trial> {
    vec![
        live("calls_made_in_another_process_do_what_they_would", control),
        live("a_running_exporter_changes_nothing_and_starts_nothing", exporter),
        live("a_running_watch_changes_nothing_and_starts_nothing", watch),
        live("a_running_report_writes_the_one_file_that_it_was_told_to", report),
        live("a_running_leaks_with_stacks_changes_nothing_and_starts_nothing", leaks),
        live("a_running_recording_opens_no_other_file", record),
        live("a_running_command_is_watched_by_what_starts_nothing_else", run),
        live("a_running_experiment_has_one_thread_that_writes_files", experiment),
    ]
}

/// What a thread's name says that it keeps: capabilities, and whether it may make files. What is not here is not
/// known to `docs/privileges.md` either.
const THREADS: [(&str, &[u32], bool); 8] = [
    ("tcptrace", &[], false),
    ("http", &[], false),
    ("recorder", &[], false),
    // CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYS_ADMIN.
    ("inventory", &[2, 12, 19, 21], false),
    // CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE.
    ("stacks", &[2, 19, 40], false),
    // CAP_DAC_OVERRIDE, CAP_FOWNER.
    ("files", &[1, 3], true),
    // CAP_DAC_OVERRIDE.
    ("cgroup", &[1], true),
    // CAP_DAC_OVERRIDE, CAP_NET_ADMIN, CAP_SYS_ADMIN.
    ("sysctl", &[1, 12, 21], true),
];

/// Something to try things on: a file, the name of another, and a process that sleeps.
struct Prey {
    dir: tempfile::TempDir,
    sleeper: Child,
}

impl Prey {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("old"), "old")?;
        Ok(Self { dir, sleeper: spawn::quiet(Path::new("sleep"), &["1000"])? })
    }

    fn path(&self, name: &str) -> Result<String> {
        let path = self.dir.path().join(name);
        Ok(path.to_str().context("a path of text")?.to_owned())
    }

    fn is_untouched(&self) -> Result<()> {
        let names = fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name()));
        let names = names.collect::<Result<Vec<_>>>()?;
        ensure!(names == ["old"] && fs::read_to_string(self.path("old")?)? == "old", "{names:?}");
        Ok(())
    }
}

impl Drop for Prey {
    fn drop(&mut self) {
        let _ = self.sleeper.kill();
        let _ = self.sleeper.wait();
    }
}

/// What came of a call: nothing, or its errno.
type Came = Result<(), c_int>;

/// Opening for writing, making and removing files.
fn try_files(thread: &mut Stopped, prey: &Prey) -> Result<[Came; 4]> {
    const HERE: u64 = libc::AT_FDCWD as u64;
    let (old, new) = (thread.put_path(&prey.path("old")?)?, thread.put_path(&prey.path("new")?)?);
    let open = |thread: &Stopped, path, flags: c_int| -> Result<Came> {
        let opened = thread.call(libc::SYS_openat, [HERE, path, u64::try_from(flags)?, 0o600, 0])?;
        if let Ok(descriptor) = opened {
            thread.call(libc::SYS_close, [descriptor, 0, 0, 0, 0])?.ok();
        }
        Ok(opened.map(drop))
    };
    Ok([
        open(thread, old, libc::O_WRONLY)?,
        open(thread, old, libc::O_RDWR | libc::O_APPEND)?,
        open(thread, new, libc::O_RDONLY | libc::O_CREAT)?,
        thread.call(libc::SYS_unlink, [new, 0, 0, 0, 0])?.map(drop),
    ])
}

/// Loading a program that is as simple as one can be: `r0 = 0; exit`, of type socket filter.
fn try_loading(thread: &mut Stopped) -> Result<Came> {
    const BPF_PROG_LOAD: u64 = 5;
    const SOCKET_FILTER: u32 = 1;
    let code: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];
    let code = thread.put(&code.map(u64::to_le_bytes).concat())?;
    let license = thread.put_path("MIT")?;
    // union bpf_attr { prog_type, insn_cnt, insns, license, … }
    let mut attributes = Vec::new();
    attributes.extend(SOCKET_FILTER.to_le_bytes());
    attributes.extend(2_u32.to_le_bytes());
    attributes.extend(code.to_le_bytes());
    attributes.extend(license.to_le_bytes());
    attributes.resize(48, 0);
    let at = thread.put(&attributes)?;
    let loaded = thread.call(libc::SYS_bpf, [BPF_PROG_LOAD, at, attributes.len() as u64, 0, 0])?;
    if let Ok(descriptor) = loaded {
        thread.call(libc::SYS_close, [descriptor, 0, 0, 0, 0])?.ok();
    }
    Ok(loaded.map(drop))
}

/// Starting a program, tracing and signalling a process, mounting, making a namespace.
fn try_the_rest(thread: &mut Stopped, prey: &Prey) -> Result<[Came; 6]> {
    let pid = u64::from(prey.sleeper.id());
    let program = thread.put_path("/bin/false")?;
    let (none, tmpfs) = (thread.put_path("none")?, thread.put_path("tmpfs")?);
    let dir = thread.put_path(&prey.path("")?)?;
    let try_one = |number, arguments| -> Result<Came> { Ok(thread.call(number, arguments)?.map(drop)) };
    Ok([
        try_one(libc::SYS_execve, [program, 0, 0, 0, 0])?,
        try_one(libc::SYS_ptrace, [libc::PTRACE_SEIZE.into(), pid, 0, 0, 0])?,
        try_one(libc::SYS_kill, [pid, 0, 0, 0, 0])?,
        try_one(libc::SYS_mount, [none, dir, tmpfs, 0, 0])?,
        try_one(libc::SYS_unshare, [libc::CLONE_NEWNET as u64, 0, 0, 0, 0])?,
        try_one(libc::SYS_perf_event_open, [0, 0, 0, 0, 0])?,
    ])
}

/// That the method shows what is possible where it is: in a process of root's that is not confined.
fn control(_: &Sandbox) -> Result<()> {
    let (prey, other) = (Prey::new()?, Prey::new()?);
    let mut thread = inject::stop(prey.sleeper.id())?;
    ensure!(try_files(&mut thread, &prey)? == [Ok(()); 4]);
    ensure!(try_loading(&mut thread)? == Ok(()));
    let pid = other.sleeper.id().into();
    ensure!(thread.call(libc::SYS_kill, [pid, 0, 0, 0, 0])? == Ok(0));
    drop(thread);
    prey.is_untouched()?;
    // It sleeps on.
    sleep_ms(50);
    let state = fs::read_to_string(format!("/proc/{}/stat", prey.sleeper.id()))?;
    ensure!(state.contains(") S "), "{state}");
    Ok(())
}

/// Has every thread of a process try everything; `expected` are their names, each once.
fn every_thread_is_confined(pid: u32, expected: &[&str]) -> Result<()> {
    every_thread_is(pid, expected, false)
}

/// The same, where the first may send signals if `passes_signals_on`.
fn every_thread_is(pid: u32, expected: &[&str], passes_signals_on: bool) -> Result<()> {
    let expected: BTreeSet<_> = expected.iter().map(|&name| name.to_owned()).collect();
    // Listing who holds what takes further threads for a moment, which come of `inventory`. The first thread is confined
    // a moment after the programs are attached.
    let mut threads = Vec::new();
    let found = wait_until("its threads", Duration::from_secs(30), || {
        threads = inject::threads(pid).unwrap_or_default();
        // The first has the name of the file.
        threads.iter_mut().filter(|(tid, _)| *tid == pid).for_each(|(_, name)| "tcptrace".clone_into(name));
        threads.iter().map(|(_, name)| name.clone()).collect::<BTreeSet<_>>() == expected
            && threads.iter().all(|&(tid, _)| is_filtered(tid))
    });
    found.with_context(|| format!("threads {threads:?}, expected {expected:?}, all of them filtered"))?;
    let prey = Prey::new()?;
    let mut tried = BTreeSet::new();
    for (tid, name) in threads {
        match confined(tid, &name, &prey, passes_signals_on && tid == pid)
            .with_context(|| format!("thread {name}"))
        {
            Ok(()) => drop(tried.insert(name)),
            // One of those that list has ended meanwhile.
            Err(_) if !Path::new(&format!("/proc/{tid}")).exists() => {}
            Err(error) => return Err(error),
        }
    }
    ensure!(tried == expected, "tried were {tried:?} of {expected:?}");
    prey.is_untouched()
}

fn is_filtered(tid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{tid}/status"));
    status.is_ok_and(|status| status.contains("\nSeccomp:\t2\n"))
}

fn confined(tid: u32, name: &str, prey: &Prey, may_signal: bool) -> Result<()> {
    let (_, capabilities, files) = THREADS.iter().find(|(known, ..)| *known == name).context("unknown")?;
    let status = fs::read_to_string(format!("/proc/{tid}/status"))?;
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        line.with_context(|| format!("no {key} in {status}"))
    };
    ensure!(field("Seccomp:")? == "2" && field("NoNewPrivs:")? == "1", "{status}");
    let allowed: u64 = capabilities.iter().map(|bit| 1 << bit).sum();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        let held = u64::from_str_radix(field(set)?, 16)?;
        ensure!(held & !allowed == 0, "{set} {held:x}, of which {:x} is known", held & allowed);
    }
    let mut thread = inject::stop(tid)?;
    let tried = try_files(&mut thread, prey)?;
    let expected = if *files { [Ok(()); 4] } else { [Err(EPERM); 4] };
    ensure!(tried == expected, "open for writing, append, create, unlink: {tried:?}");
    let loaded = try_loading(&mut thread)?;
    ensure!(loaded == Err(EPERM), "BPF_PROG_LOAD: {loaded:?}");
    let tried = try_the_rest(&mut thread, prey)?;
    let mut expected = [Err(EPERM); 6];
    if may_signal {
        expected[2] = Ok(());
    }
    ensure!(tried == expected, "execve, ptrace, kill, mount, unshare, perf_event_open: {tried:?}");
    Ok(())
}

fn exporter(sandbox: &Sandbox) -> Result<()> {
    let exporter = Exporter::start(sandbox, 9435, &[])?;
    every_thread_is_confined(exporter.pid(), &["tcptrace", "inventory", "http"])?;
    ensure!(exporter.health()?["healthy"] == true);
    ensure!(exporter.stop()?.success());
    Ok(())
}

fn watch(sandbox: &Sandbox) -> Result<()> {
    let tracer = Traced::watch(sandbox, &[])?;
    every_thread_is_confined(tracer.pid(), &["tcptrace", "inventory"])?;
    // It goes on as before.
    tracer.wait_until_it_sees(2)?;
    tracer.finish()?;
    Ok(())
}

fn report(sandbox: &Sandbox) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("report.html");
    let tracer = Traced::report(sandbox, &["--html", path.to_str().context("a path of text")?])?;
    every_thread_is_confined(tracer.pid(), &["tcptrace", "inventory", "files"])?;
    tracer.finish()?;
    ensure!(fs::read_to_string(path)?.ends_with("</html>\n"));
    Ok(())
}

fn leaks(sandbox: &Sandbox) -> Result<()> {
    let netns = sandbox.netns().to_string();
    let tracer = Traced::start(&["leaks", "--json", "--stacks", "--duration", "300s", "--netns", &netns])?;
    tracer.wait_until_attached()?;
    every_thread_is_confined(tracer.pid(), &["tcptrace", "inventory", "stacks"])?;
    tracer.finish()?;
    Ok(())
}

fn record(sandbox: &Sandbox) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("recording.jsonl.zst");
    let path = path.to_str().context("a path of text")?;
    let netns = sandbox.netns().to_string();
    let tracer = Traced::start(&["record", "-o", path, "--netns", &netns])?;
    tracer.wait_until_attached()?;
    every_thread_is_confined(tracer.pid(), &["tcptrace", "inventory", "recorder"])?;
    tracer.signal(Signal::INT)?;
    tracer.exited(Duration::from_secs(60))?;
    ensure!(fs::metadata(path)?.len() > 0);
    Ok(())
}

fn run(_: &Sandbox) -> Result<()> {
    let mut run = spawn::quiet(binary::path(), &["run", "--json", "--", "sleep", "300"])?;
    let pid = run.id();
    let outcome =
        wait_until("attached programs", Duration::from_secs(60), || attached(pid) >= REQUIRED_HOOKS)
            .and_then(|()| {
                // Where cgroups can be made.
                let has_cgroup = inject::threads(pid)?.iter().any(|(_, name)| name == "cgroup");
                let threads = ["tcptrace", "inventory", "cgroup"];
                every_thread_is(pid, &threads[..2 + usize::from(has_cgroup)], true)
            });
    // It passes this on, and ends with the command.
    kill_process(Pid::from_child(&run), Signal::TERM)?;
    run.wait()?;
    outcome
}

/// With a /run of its own: a journal on the host would stop others' experiments.
const EXPERIMENT: &str = r#"
mount -t tmpfs tmpfs /run
echo $$
exec "$0" experiment --set net.ipv4.tcp_fin_timeout=10 --baseline 20 --settle 0s -d 300s
"#;

fn experiment(_: &Sandbox) -> Result<()> {
    const FIN_TIMEOUT: &str = "/proc/sys/net/ipv4/tcp_fin_timeout";
    let before = fs::read_to_string(FIN_TIMEOUT)?;
    let Some(mut experiment) = spawn::with_own_mounts::<&str>(EXPERIMENT, &[])? else { return Ok(()) };
    let mut said = BufReader::new(experiment.stdout.take().context("its output")?);
    let mut pid = String::new();
    said.read_line(&mut pid)?;
    let pid: u32 = pid.trim().parse()?;
    let outcome =
        wait_until("attached programs", Duration::from_secs(60), || attached(pid) >= REQUIRED_HOOKS)
            .and_then(|()| every_thread_is_confined(pid, &["tcptrace", "inventory", "sysctl"]));
    // It restores what it set.
    kill_process(Pid::from_raw(pid.cast_signed()).context("a process")?, Signal::TERM)?;
    let ended = experiment.wait_with_output()?;
    outcome.with_context(|| String::from_utf8_lossy(&ended.stderr).into_owned())?;
    ensure!(ended.status.success(), "{ended:?}");
    let after = fs::read_to_string(FIN_TIMEOUT)?;
    ensure!(after == before, "{after} is left of an experiment, {before} it was");
    Ok(())
}
