//! What `docs/privileges.md` says that each command needs, tried: as nobody with just those capabilities it does all that
//! is promised, and without any one of them it does not.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use caps::{Capability, CapsHashSet};
use libtest_mimic::Trial;
use serde_json::Value;
use tcptrace::event::Protocol;
use tcptrace::inventory::diag::{DiagSocket, Query, StateSet, list_here};
use tcptrace::kernel::confine::{Allow, confine};
use tcptrace::kernel::privileges::{Host, Release};
use tcptrace::sandbox::Sandbox;
use tcptrace::workload::Role;
use tests::binary;
use tests::clock::{sleep_ms, wait_until};
use tests::exporter::Traffic;
use tests::leaker::{Language, Leaker};
use tests::sockets::{Flavour, Meeting, MptcpPair, read_eof};
use tests::spawn::{self, nobody_with};
use tests::traced::Traced;
use tests::trial::live;

pub fn trials() -> Vec<Trial> {
    vec![
        live("nothing_is_needed_to_read_what_was_recorded", offline),
        live("tracing_needs_its_capabilities_and_no_others", |sandbox| row(sandbox, TRACING, &[], tracing)),
        live("owners_need_their_capabilities_and_no_others", |sandbox| row(sandbox, OWNERS, &[], owners)),
        live("namespaces_need_their_capabilities_and_no_others", |sandbox| {
            row(sandbox, NAMESPACES, &[], namespaces)
        }),
        live("mptcp_needs_its_capability_and_no_other", |sandbox| row(sandbox, MPTCP, &[], mptcp))
            .with_ignored_flag(!MptcpPair::is_possible()),
        live("stacks_need_their_capabilities_and_no_others", |sandbox| {
            row(sandbox, STACKS, &[TRACING], stacks)
        }),
        live("experiments_need_their_capabilities_and_no_others", |sandbox| {
            row(sandbox, EXPERIMENT, &[], experiment)
        }),
        live("sandboxes_need_their_capabilities_and_no_others", |sandbox| {
            row(sandbox, SANDBOX, &[], sandboxes)
        }),
        live("doctor_says_which_capabilities_are_missing", doctor),
    ]
}

/// Rows of the table, by how they begin.
const OWNERS: &str = "of other users' processes";
const NAMESPACES: &str = "of other network namespaces";
const MPTCP: &str = "MPTCP told from TCP";
const TRACING: &str = "`watch`, `report`";
const STACKS: &str = "with `--stacks`";
const EXPERIMENT: &str = "`experiment` ";
const SANDBOX: &str = "`demo`";

/// From here on `sock_diag` names the protocol above TCP to everybody (`tcp_diag_put_ulp()`).
const MPTCP_FOR_ALL: Release = Release { major: 6, minor: 15 };

/// Generous: other trials want the processors as well.
const PATIENCE: Duration = Duration::from_secs(60);

/// The capabilities of a row, as the document writes them.
fn documented(begins: &str) -> Result<Vec<String>> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/privileges.md");
    let text = fs::read_to_string(document)?;
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    let mut rows = rows.filter(|row| row.trim_start_matches("&nbsp; ").starts_with(begins));
    let row = rows.next().with_context(|| format!("no row {begins:?}"))?;
    ensure!(rows.next().is_none(), "two rows {begins:?}");
    let needs = row.split('|').nth(1).context("a second column")?;
    let names: Vec<_> = needs.split('`').filter(|word| word.starts_with("CAP_")).map(str::to_owned).collect();
    ensure!(!names.is_empty(), "no capability in {row}");
    Ok(names)
}

/// What a command is tried with.
struct As<'a> {
    /// A copy of the binary that nobody may run.
    program: &'a Path,
    capabilities: &'a [String],
    /// All that it takes is there, if the document is right.
    should_do: bool,
}

impl As<'_> {
    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new("setpriv");
        command.args(nobody_with(self.capabilities)?).arg(self.program).args(args).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    fn output(&self, args: &[&str]) -> Result<Output> {
        Ok(spawn::start(&mut self.command(args)?)?.wait_with_output()?)
    }

    /// Whether every one of these ends well. Either all do, or none.
    fn all_succeed(&self, lines: &[&[&str]]) -> Result<bool> {
        let mut outcomes = Vec::new();
        for args in lines {
            let output = self.output(args)?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(matches!(output.status.code(), Some(0 | 1)), "{args:?}: {}: {said}", output.status);
            outcomes.push((output.status.success(), said));
        }
        let good = outcomes.iter().filter(|(succeeded, _)| *succeeded).count();
        ensure!(good == 0 || good == lines.len(), "of {lines:?} some succeed: {outcomes:#?}");
        Ok(good > 0)
    }
}

/// Tries a command: true when it does all that the row says.
type Attempt = fn(&Sandbox, &As) -> Result<bool>;

/// With all capabilities of the row, and of the rows that it builds on, it does; with one less it does not.
fn row(sandbox: &Sandbox, begins: &str, builds_on: &[&str], attempt: Attempt) -> Result<()> {
    let (_dir, program) = binary::copy_for_everybody()?;
    let mut base = Vec::new();
    for begins in builds_on {
        base.extend(documented(begins)?);
    }
    let own = documented(begins)?;
    let attempt = |less: Option<&String>| -> Result<bool> {
        let capabilities: Vec<_> =
            base.iter().chain(&own).filter(|&capability| Some(capability) != less).cloned().collect();
        attempt(sandbox, &As { program: &program, capabilities: &capabilities, should_do: less.is_none() })
            .with_context(|| format!("with {capabilities:?}"))
    };
    ensure!(attempt(None)?, "{own:?} are not enough");
    for capability in &own {
        let is_needed = match (begins, capability.as_str()) {
            (_, "CAP_SYSLOG") => !symbols_are_for_all()?,
            (MPTCP, _) => release_is_older(MPTCP_FOR_ALL),
            _ => true,
        };
        let does = attempt(Some(capability))?;
        ensure!(does != is_needed, "{capability} of {own:?}: needed {is_needed}, done without it {does}");
    }
    Ok(())
}

/// Of the running kernel.
fn release_is_older(than: Release) -> bool {
    Release::parse(&Host::look().release).is_some_and(|release| release < than)
}

/// `kallsyms_show_value()`.
fn symbols_are_for_all() -> Result<bool> {
    let read = |name: &str| -> Result<i32> {
        Ok(fs::read_to_string(format!("/proc/sys/kernel/{name}"))?.trim().parse()?)
    };
    Ok(read("kptr_restrict")? == 0 && read("perf_event_paranoid")? <= 1)
}

/// A directory into which nobody may write.
fn open_directory() -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    fs::set_permissions(&dir, Permissions::from_mode(0o777))?;
    Ok(dir)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of text")
}

fn offline(sandbox: &Sandbox) -> Result<()> {
    let dir = open_directory()?;
    let recording = dir.path().join("recording.jsonl");
    let netns = sandbox.netns().to_string();
    let recording = text(&recording)?;
    let record = ["record", "-o", recording, "--netns", &netns, "--duration", "300ms"];
    let output = spawn::start(Command::new(binary::path()).args(record).stderr(Stdio::piped()))?;
    ensure!(output.wait_with_output()?.status.success());
    fs::set_permissions(recording, Permissions::from_mode(0o644))?;
    let (_dir, program) = binary::copy_for_everybody()?;
    let nobody = As { program: &program, capabilities: &[], should_do: true };
    let all = nobody.all_succeed(&[
        &["report", "--json", "--from", recording],
        &["watch", "--json", "--from", recording],
        &["leaks", "--json", "--from", recording],
        &["compare", "--json", recording, recording],
        &["--schema"],
        &["completions", "bash"],
        &["man", "--out", text(dir.path())?],
    ])?;
    ensure!(all);
    Ok(())
}

fn tracing(_: &Sandbox, nobody: &As) -> Result<bool> {
    let dir = open_directory()?;
    let recording = dir.path().join("recording.jsonl");
    nobody.all_succeed(&[
        &["watch", "--json", "--duration", "300ms"],
        &["report", "--json", "--duration", "300ms"],
        &["record", "-o", text(&recording)?, "--duration", "300ms"],
        &["leaks", "--json", "--duration", "300ms"],
        &["run", "--json", "--", "true"],
    ])
}

fn lines(output: &Output) -> Result<Vec<Value>> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    let text = std::str::from_utf8(&output.stdout)?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// This process, which is root's, holds a socket in CLOSE_WAIT.
fn owners(_: &Sandbox, nobody: &As) -> Result<bool> {
    let mut pair = Meeting::new(Flavour::V4)?.pair()?;
    drop(pair.client);
    read_eof(&mut pair.server)?;
    let lines = lines(&nobody.output(&["leaks", "--json", "--min-age", "0s"])?)?;
    let leak = lines.iter().find(|line| line["type"] == "leak").context("no leak")?;
    ensure!(leak["sockets"] == 1, "{leak}");
    match leak["process"]["pid"].as_u64() {
        Some(pid) => ensure!(pid == u64::from(std::process::id()), "{leak}"),
        None => ensure!(leak["kinds"]["unseen"] == 1, "{leak}"),
    }
    Ok(!leak["process"].is_null())
}

/// Another namespace, in which a process of root's listens.
fn namespaces(_: &Sandbox, nobody: &As) -> Result<bool> {
    let other = Sandbox::new()?;
    let _inhabitant = Traffic::start(&other, Role::Server, 8082, 1.0)?;
    let netns = other.netns().to_string();
    let listens = || -> Result<bool> {
        let output = nobody.output(&["states", "--json", "--netns", &netns])?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(said.contains("namespace"), "{said}");
            return Ok(false);
        }
        Ok(lines(&output)?[0]["counts"]["LISTEN"] == 1)
    };
    if !nobody.should_do {
        // The server listens by now, or it makes no difference.
        return listens();
    }
    let mut last = Ok(false);
    wait_until("the server", PATIENCE, || {
        last = listens();
        !matches!(last, Ok(false))
    })?;
    last
}

/// What the kernel says of a subflow. The program knows many by other marks as well, so this asks beneath it.
fn mptcp(sandbox: &Sandbox, nobody: &As) -> Result<bool> {
    let _connection = MptcpPair::new()?;
    let names = nobody.capabilities.iter().map(|name| name.parse::<Capability>());
    let keep = names.collect::<Result<CapsHashSet, _>>()?;
    let netns = sandbox.netns();
    let asked = std::thread::spawn(move || {
        confine(&keep, Allow::default())?;
        let mut sockets: Vec<DiagSocket> = Vec::new();
        list_here(netns, Query::from(StateSet::ALL), &mut sockets, &mut Vec::new())?;
        Ok::<_, anyhow::Error>(sockets)
    });
    let sockets = asked.join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;
    let count = |protocol| sockets.iter().filter(|socket| socket.protocol == protocol).count();
    ensure!(count(Protocol::Mptcp) >= 2, "{sockets:?}");
    Ok(count(Protocol::MptcpSubflow) >= 2)
}

/// A program of root's whose file is no longer there, as after an update.
fn stacks(sandbox: &Sandbox, nobody: &As) -> Result<bool> {
    if !Language::C.is_here() {
        return Ok(nobody.should_do);
    }
    let mut leaker = Leaker::start_removed()?;
    let netns = sandbox.netns().to_string();
    let args =
        ["leaks", "--json", "--netns", &netns, "--stacks", "--min-age", "0s", "--follow", "--interval", "1s"];
    let tracer = Traced::start_command(nobody.command(&args)?)?;
    wait_until("the first report", PATIENCE, || {
        tracer.lines().iter().any(|line| line["type"] == "leak_total")
    })?;
    leaker.leak("consumed 2")?;
    let is_named = || {
        tracer.lines().iter().any(|line| {
            line["process"]["pid"] == leaker.pid()
                && line["sites"][0]["frames"][0]
                    .as_str()
                    .is_some_and(|frame| frame.starts_with("read_to_the_end_and_forget at "))
        })
    };
    if nobody.should_do {
        wait_until("the code of the leak", PATIENCE, is_named)?;
    } else {
        // Time enough for two reports.
        sleep_ms(3000);
    }
    let named = is_named();
    let run = tracer.finish_lossy()?;
    ensure!(run.lines.iter().any(|line| line["type"] == "leak" && line["sockets"] == 2), "{:?}", run.lines);
    Ok(named)
}

/// In this trial's namespace, with a /run of its own for the journal.
fn experiment(sandbox: &Sandbox, nobody: &As) -> Result<bool> {
    const SCRIPT: &str = r#"mount -t tmpfs -o mode=1777 tmpfs /run; exec setpriv "$@""#;
    const SYSCTL: &str = "net.ipv4.tcp_fin_timeout";
    sandbox.set_sysctl(SYSCTL, "7")?;
    let args = ["experiment", "--json", "--set", "tcp_fin_timeout=5", "--duration", "500ms"];
    let rest = ["--settle", "100ms", "--drain", "0s"];
    let mut line = nobody_with(nobody.capabilities)?;
    line.push(text(nobody.program)?.to_owned());
    line.extend(args.iter().chain(&rest).map(|&word| word.to_owned()));
    let Some(child) = spawn::with_own_mounts(SCRIPT, &line)? else { return Ok(nobody.should_do) };
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(matches!(output.status.code(), Some(0 | 1)), "{}: {said}", output.status);
    let now = fs::read_to_string("/proc/sys/net/ipv4/tcp_fin_timeout")?;
    ensure!(now.trim() == "7", "{SYSCTL} is {now}: {said}");
    Ok(output.status.success())
}

fn sandboxes(_: &Sandbox, nobody: &As) -> Result<bool> {
    nobody.all_succeed(&[
        &["run", "--json", "--private-net", "--", "true"],
        &["demo", "report", "--json", "--duration", "500ms"],
        &[
            "experiment",
            "--json",
            "--sandbox",
            "--set",
            "tcp_fin_timeout=5",
            "--duration",
            "500ms",
            "--settle",
            "100ms",
            "--drain",
            "0s",
        ],
    ])
}

/// `doctor` names for each command what the table says, and nothing once it is there.
fn doctor(_: &Sandbox) -> Result<()> {
    let (_dir, program) = binary::copy_for_everybody()?;
    let inventory = [OWNERS, NAMESPACES, MPTCP].map(documented);
    let mut inventory = inventory.into_iter().collect::<Result<Vec<_>>>()?.concat();
    inventory.sort_unstable();
    inventory.dedup();
    let check = |name: &str, capabilities: &[String]| -> Result<(String, String)> {
        let nobody = As { program: &program, capabilities, should_do: true };
        let output = nobody.output(&["doctor", "--json"])?;
        let said = String::from_utf8_lossy(&output.stderr);
        let lines = std::str::from_utf8(&output.stdout)?.lines();
        let checks = lines.map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let check = checks.into_iter().find(|check| check["name"] == name);
        let check = check.with_context(|| format!("no {name}: {said}"))?;
        let part = |key: &str| check[key].as_str().map(str::to_owned).context(key.to_owned());
        Ok((part("value")?, part("detail")?))
    };
    let lines = [
        ("can_trace", documented(TRACING)?),
        ("can_see_owners", inventory),
        ("can_read_code", documented(STACKS)?),
        ("can_experiment", documented(EXPERIMENT)?),
        ("can_sandbox", documented(SANDBOX)?),
    ];
    for (name, needs) in lines {
        let (value, detail) = check(name, &needs)?;
        ensure!(value == "yes", "{name} with {needs:?}: {value}: {detail}");
        let (value, detail) = check(name, &[])?;
        ensure!(value != "yes", "{name} with nothing: {value}");
        for capability in needs {
            if capability == "CAP_SYSLOG" && (name != "can_trace" || symbols_are_for_all()?) {
                continue;
            }
            ensure!(detail.contains(&capability), "{name} does not name {capability}: {detail}");
        }
    }
    Ok(())
}
