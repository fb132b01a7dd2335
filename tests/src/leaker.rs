//! The programs of `tests/programs`, which leak sockets on purpose and say exactly which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Compiled with `cc -O2 -g`.
    C,
    /// `python3`.
    Python,
    /// `node --perf-basic-prof`.
    Node,
}

impl Language {
    fn program(self) -> &'static str {
        match self {
            Self::C => "cc",
            Self::Python => "python3",
            Self::Node => "node",
        }
    }

    /// Its source.
    #[must_use]
    pub fn source(self) -> PathBuf {
        let name = match self {
            Self::C => "leaker.c",
            Self::Python => "leaker.py",
            Self::Node => "leaker.js",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(name)
    }

    /// False, and said so, where what it takes is not installed.
    #[must_use]
    pub fn is_here(self) -> bool {
        let is_here = Command::new(self.program())
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !is_here {
            println!("SKIPPED the part with {self:?}: {} is not installed", self.program());
        }
        is_here
    }

    /// The line that carries the comment `told EOF here`.
    ///
    /// # Errors
    /// When there is none.
    pub fn eof_line(self) -> Result<usize> {
        let text = std::fs::read_to_string(self.source())?;
        text.lines()
            .position(|line| line.contains("told EOF here"))
            .map(|at| at + 1)
            .context("no such comment")
    }

    fn command(self) -> Result<Command> {
        let mut command = match self {
            Self::C => Command::new(compiled()?),
            Self::Python => Command::new("python3"),
            Self::Node => Command::new("node"),
        };
        match self {
            Self::C => {}
            Self::Python => drop(command.arg(self.source())),
            Self::Node => drop(command.arg("--perf-basic-prof").arg(self.source())),
        }
        Ok(command)
    }
}

/// `leaker.c` as a distribution would build it, with debug information. Built by the first process that wants it
/// since this program was built.
fn compiled() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    // Beside this program, among what is built.
    let (program, fresh) = (here.with_file_name("leaker"), here.with_extension("leaker"));
    let lock = File::create(here.with_extension("leaker.lock"))?;
    lock.lock()?;
    let built = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified());
    let source = Language::C.source();
    let oldest = built(&here)?.max(built(&source)?);
    if built(&program).is_ok_and(|program| program >= oldest) {
        return Ok(program);
    }
    let mut cc = Command::new("cc");
    let output = cc.args(["-O2", "-g", "-Wall", "-o"]).args([&fresh, &source]).output().context("cc")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(fresh, &program)?;
    Ok(program)
}

/// A running one. Dropping it ends it and its children.
#[derive(Debug)]
pub struct Leaker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Its working directory, into which Node writes a log.
    _directory: TempDir,
}

/// What it answers.
#[derive(Clone, Debug, Deserialize)]
pub struct Truth {
    /// Its process id.
    pub pid: u32,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// The sockets' clients closed after this, CLOCK_MONOTONIC.
    pub after_ns: u64,
    /// And before this.
    pub before_ns: u64,
    /// The sockets.
    pub sockets: Vec<TrueSocket>,
}

/// A socket that it leaked.
#[derive(Clone, Debug, Deserialize)]
pub struct TrueSocket {
    /// Its end.
    pub local: SocketAddr,
    /// The client's.
    pub remote: SocketAddr,
    /// The kind of leak.
    pub kind: String,
    /// Who holds it.
    pub holders: Vec<TrueHolder>,
}

/// A descriptor.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct TrueHolder {
    /// Process.
    pub pid: u32,
    /// Descriptor.
    pub fd: u32,
}

impl Leaker {
    /// Starts one in the calling thread's network namespace, with further arguments.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(language: Language, args: &[&str]) -> Result<Self> {
        Self::spawn(language.command()?.args(args))
    }

    /// Starts one as another user.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_as(language: Language, uid: u32) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        Self::spawn(language.command()?.uid(uid).gid(uid))
    }

    /// Starts the one in C, of which no file is left once it runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_removed() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let program = directory.path().join("leaker");
        // By another process, as a descriptor open for writing that some child has inherited makes a program busy.
        ensure!(Command::new("cp").arg(compiled()?).arg(&program).status()?.success());
        // It runs when this returns.
        Self::spawn(&mut Command::new(&program))
    }

    fn spawn(command: &mut Command) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        // Also where it is another user's program.
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
        let command = command.current_dir(directory.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("stdin")?;
        let output = BufReader::new(child.stdout.take().context("stdout")?);
        Ok(Self { child, input, output, _directory: directory })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives a command and waits until it is done.
    ///
    /// # Errors
    /// When it has ended.
    pub fn tell(&mut self, command: &str) -> Result<Value> {
        writeln!(self.input, "{command}")?;
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "the leaking program ended: {}", self.child.wait()?);
        Ok(serde_json::from_str(&line)?)
    }

    /// Lets it leak.
    ///
    /// # Errors
    /// When it has ended.
    pub fn leak(&mut self, command: &str) -> Result<Truth> {
        Ok(serde_json::from_value(self.tell(command)?)?)
    }
}

impl Drop for Leaker {
    fn drop(&mut self) {
        // Ended already, when the trial failed because of that.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Node's; the others write none.
        let _ = std::fs::remove_file(format!("/tmp/perf-{}.map", self.child.id()));
    }
}

/// A socket as it should be reported: netns, local, remote, descriptor, kind.
pub type Expected = (u32, String, String, Option<u32>, String);

/// What should be reported, by process.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// Sockets of each process.
    pub by_pid: BTreeMap<u32, BTreeSet<Expected>>,
    /// Sockets that nobody holds.
    pub nobody: BTreeSet<Expected>,
    /// Where each process listens at least.
    pub listen: BTreeMap<u32, Vec<SocketAddr>>,
}

impl Expectation {
    /// Adds what was leaked in a namespace.
    pub fn add(&mut self, netns: u32, truth: &Truth) {
        self.listen.insert(truth.pid, truth.listen.clone());
        for socket in &truth.sockets {
            let row =
                |fd| (netns, socket.local.to_string(), socket.remote.to_string(), fd, socket.kind.clone());
            for holder in &socket.holders {
                self.by_pid.entry(holder.pid).or_default().insert(row(Some(holder.fd)));
            }
            match (socket.holders.is_empty(), socket.kind.as_str()) {
                (true, "not_accepted") => drop(self.by_pid.entry(truth.pid).or_default().insert(row(None))),
                (true, _) => drop(self.nobody.insert(row(None))),
                (false, _) => {}
            }
        }
    }

    /// Forgets a socket that was closed.
    pub fn remove(&mut self, local: SocketAddr, remote: SocketAddr) {
        let (local, remote) = (local.to_string(), remote.to_string());
        self.by_pid.values_mut().for_each(|rows| rows.retain(|row| row.1 != local || row.2 != remote));
    }

    /// Sockets, each once.
    #[must_use]
    pub fn sockets(&self) -> usize {
        let rows = self.by_pid.values().chain([&self.nobody]).flatten();
        rows.map(|row| (row.0, &row.1, &row.2)).collect::<BTreeSet<_>>().len()
    }

    /// Fails unless exactly this is reported.
    ///
    /// # Errors
    /// When it is not; the text says where.
    pub fn check(&self, lines: &[Value]) -> Result<()> {
        let leaks: Vec<_> = lines.iter().filter(|line| line["type"] == "leak").collect();
        let mut by_pid = BTreeMap::new();
        let mut nobody = BTreeSet::new();
        for leak in &leaks {
            let rows: BTreeSet<Expected> = connections(leak)?;
            ensure!(leak["sockets"].as_u64() == Some(rows.len() as u64), "sockets: {leak}");
            match leak["process"]["pid"].as_u64() {
                Some(pid) => drop(by_pid.insert(u32::try_from(pid)?, rows)),
                // Where some process may not be looked at, nobody can be sure that nobody holds it.
                None => nobody.extend(rows.into_iter().map(|mut row| {
                    row.4 = if row.4 == "unseen" { "in_flight".to_owned() } else { row.4 };
                    row
                })),
            }
            self.check_counts(leak)?;
        }
        same("without a process", &self.nobody, &nobody)?;
        let nothing = BTreeSet::new();
        for pid in self.by_pid.keys().chain(by_pid.keys()) {
            let of = |all: &BTreeMap<u32, BTreeSet<Expected>>| {
                all.get(pid).cloned().unwrap_or_else(|| nothing.clone())
            };
            same(&format!("process {pid}"), &of(&self.by_pid), &of(&by_pid))?;
        }
        let order: Vec<_> =
            leaks.iter().map(|leak| (leak["sockets"].as_u64(), leak["oldest_ns"].as_u64())).collect();
        ensure!(order.is_sorted_by(|a, b| a >= b), "not in order: {order:?}");
        let total = lines.iter().find(|line| line["type"] == "leak_total").context("no leak_total")?;
        ensure!(total["sockets"].as_u64() == Some(self.sockets() as u64), "{total}");
        Ok(())
    }

    fn check_counts(&self, leak: &Value) -> Result<()> {
        let count = |kinds: &[&str]| -> u64 {
            let of = |kind: &&str| leak["kinds"][*kind].as_u64().unwrap_or(0);
            kinds.iter().map(of).sum()
        };
        let rows = connections(leak)?;
        for kind in ["eof_consumed", "eof_unread", "data_unread", "not_accepted", "in_flight", "unseen"] {
            let expected = rows.iter().filter(|row| row.4 == kind).count() as u64;
            ensure!(count(&[kind]) == expected, "{kind}: {leak}");
        }
        // By the queue alone, a connection that nobody has accepted has its EOF unread.
        ensure!(leak["eof"]["consumed"] == count(&["eof_consumed"]), "{leak}");
        let unread = count(&["eof_unread", "not_accepted", "in_flight", "unseen"]);
        ensure!(leak["eof"]["unread"] == unread, "{leak}");
        ensure!(leak["eof"]["data_unread"] == count(&["data_unread"]), "{leak}");
        ensure!(leak["not_accepted"] == count(&["not_accepted"]), "{leak}");
        ensure!(
            leak["peers"][0]["addr"] == "127.0.0.1" && leak["peers"][0]["sockets"] == leak["sockets"],
            "{leak}"
        );
        let Some(pid) = leak["process"]["pid"].as_u64() else { return Ok(()) };
        let pid = u32::try_from(pid)?;
        let listen: Vec<SocketAddr> = serde_json::from_value(leak["listen"].clone())?;
        for addr in self.listen.get(&pid).into_iter().flatten() {
            ensure!(listen.contains(addr), "{addr} is not in {leak}");
        }
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
        ensure!(leak["fds"]["open"].as_u64() == Some(open), "{open} descriptors, {leak}");
        let shared: BTreeSet<u32> = serde_json::from_value(leak["shared_with"].clone())?;
        let mine = self.by_pid.get(&pid).cloned().unwrap_or_default();
        let of_others = |rows: &BTreeSet<Expected>| {
            rows.iter().any(|row| mine.iter().any(|own| (own.0, &own.1, &own.2) == (row.0, &row.1, &row.2)))
        };
        let expected: BTreeSet<u32> = self
            .by_pid
            .iter()
            .filter(|(other, rows)| **other != pid && of_others(rows))
            .map(|(other, _)| *other)
            .collect();
        ensure!(shared == expected, "shared with {expected:?}: {leak}");
        Ok(())
    }
}

fn same(whose: &str, expected: &BTreeSet<Expected>, reported: &BTreeSet<Expected>) -> Result<()> {
    let missing: Vec<_> = expected.difference(reported).collect();
    let beyond: Vec<_> = reported.difference(expected).collect();
    ensure!(missing.is_empty() && beyond.is_empty(), "{whose}: missing {missing:#?}, beyond {beyond:#?}");
    Ok(())
}

fn connections(leak: &Value) -> Result<BTreeSet<Expected>> {
    #[derive(Deserialize)]
    struct Connection {
        local: String,
        remote: String,
        netns: u32,
        fd: Option<u32>,
        kind: String,
    }
    let all: Vec<Connection> = serde_json::from_value(leak["connections"].clone())?;
    Ok(all.into_iter().map(|line| (line.netns, line.local, line.remote, line.fd, line.kind)).collect())
}
