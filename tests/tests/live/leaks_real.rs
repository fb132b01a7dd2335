//! `leaks` and `report` on programs that people really run: nginx as a proxy, and Python's `requests`.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde::Deserialize;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tcptrace::sandbox::Sandbox;
use tests::backend::Backend;
use tests::clock::wait_until;
use tests::nginx::{self, Nginx};
use tests::traced::Traced;
use tests::trial::live;
use tests::truth::{self, state};
use tests::{binary, installed, spawn, web};

pub fn trials() -> Vec<Trial> {
    vec![
        live("leaks_and_time_waits_of_a_real_nginx", behind_nginx),
        live("leaks_of_responses_that_requests_never_closed", requests),
    ]
}

const PATIENCE: Duration = Duration::from_secs(60);
/// Requests that go well.
const WELL: usize = 30;
/// Clients that ask and do not read.
const SLOW: usize = 5;

/// What `tcptrace leaks` says at once, as JSON and as text.
fn leaks(sandbox: &Sandbox) -> Result<(Vec<Value>, String)> {
    let netns = sandbox.netns().to_string();
    let run = |format: &[&str]| -> Result<String> {
        let mut command = Command::new(binary::path());
        command.args(["leaks", "--min-age", "0s", "--color", "never", "--netns", &netns]).args(format);
        let output = command.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let text = run(&[])?;
    show(&text);
    let lines = run(&["--json"])?;
    Ok((lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?, text))
}

/// For the documentation, where somebody asks (`-- --nocapture` has no meaning here).
fn show(text: &str) {
    if std::env::var_os("TCPTRACE_TEST_SHOW").is_some() {
        println!("{text}");
    }
}

fn close_waits(towards: SocketAddr) -> Result<Vec<truth::Socket>> {
    let mut sockets = truth::sockets()?;
    sockets.retain(|socket| socket.state == state::CLOSE_WAIT && socket.remote == towards);
    Ok(sockets)
}

/// A proxy that is well leaks nothing, and its backend, which closes first, has the TIME_WAITs. Clients that do not
/// read make it hold what its backend has closed long ago.
fn behind_nginx(sandbox: &Sandbox) -> Result<()> {
    let Some(program) = nginx::program() else {
        println!("SKIPPED: no nginx (Debian package nginx)");
        return Ok(());
    };
    let backend = Backend::start()?;
    let nginx = Nginx::start(&program, backend.addr())?;
    let tracer = Traced::report(sandbox, &["--by", "process", "--state", "TIME_WAIT,CLOSE_WAIT"])?;
    for _ in 0..WELL {
        let answer = web::get(nginx.addr(), "/small", "")?;
        ensure!(answer.status == 200 && answer.body == "xxxxx", "{answer:?}");
    }
    wait_until("the proxy has let go", PATIENCE, || {
        close_waits(backend.addr()).is_ok_and(|left| left.is_empty())
    })?;
    let run = tracer.finish_lossy()?;
    let pid = std::process::id();
    let made = |lines: &[Value], pid: u32| -> u64 {
        let of = |line: &&Value| line["key"]["process"]["pid"] == pid && line["state"] == "TIME_WAIT";
        lines.iter().filter(of).filter_map(|line| line["open"]["count"].as_u64()).sum()
    };
    // The backend lives in this process; nginx closes first towards the clients.
    if run.is_lossless() {
        for pid in [pid, nginx.worker()?] {
            ensure!(made(&run.lines, pid) == WELL as u64, "{pid}: {:#?}", run.lines);
        }
    }
    let (lines, text) = leaks(sandbox)?;
    ensure!(lines[0]["type"] == "leak_total" && lines[0]["sockets"] == 0, "{lines:#?}");
    ensure!(text.starts_with("No leak"), "{text}");

    let slow: Vec<Socket> = (0..SLOW).map(|_| ask_and_read_nothing(nginx.addr())).collect::<Result<_>>()?;
    wait_until("the backend's FINs", PATIENCE, || {
        close_waits(backend.addr()).is_ok_and(|all| all.len() == SLOW)
    })?;
    let (lines, text) = leaks(sandbox)?;
    let worker = nginx.worker()?;
    let leak = &lines[0];
    ensure!(lines.len() == 2 && leak["process"]["pid"] == worker && leak["process"]["comm"] == "nginx");
    ensure!(leak["sockets"] == SLOW as u64 && leak["eof"]["data_unread"] == SLOW as u64, "{leak}");
    let peer = backend.addr().ip().to_string();
    ensure!(leak["peers"] == serde_json::json!([{"addr": peer, "sockets": SLOW}]), "{leak}");
    // Each descriptor is the very socket that the kernel lists, from the port that the backend was asked from.
    let asked: BTreeSet<_> = backend.peers("/large").into_iter().collect();
    let listed = close_waits(backend.addr())?;
    let found: Vec<Connection> = serde_json::from_value(leak["connections"].clone())?;
    ensure!(found.iter().map(|line| line.local).collect::<BTreeSet<_>>() == asked, "{asked:?} {leak}");
    for line in &found {
        let truth = listed.iter().find(|socket| socket.local == line.local).context("not in CLOSE_WAIT")?;
        let link = std::fs::read_link(format!("/proc/{worker}/fd/{}", line.fd))?;
        ensure!(link == Path::new(&format!("socket:[{}]", truth.inode)), "{line:?}: {}", link.display());
        ensure!(line.recv_queue == truth.recv_queue, "{line:?} {truth:?}");
    }
    ensure!(text.contains(&format!("nginx[{worker}] ")), "{text}");
    drop(slow);
    wait_until("the proxy has let go", PATIENCE, || {
        close_waits(backend.addr()).is_ok_and(|left| left.is_empty())
    })
}

#[derive(Debug, Deserialize)]
struct Connection {
    local: SocketAddr,
    remote: SocketAddr,
    fd: u32,
    recv_queue: u32,
}

fn ask_and_read_nothing(addr: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(&addr.into())?;
    (&socket).write_all(b"GET /large HTTP/1.0\r\nHost: slow\r\n\r\n")?;
    Ok(socket)
}

/// The program of `tests/programs`, which says which sockets it leaked.
struct Requests {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

#[derive(Debug, Deserialize)]
struct Leaked {
    pid: u32,
    fd: u32,
    local: SocketAddr,
    remote: SocketAddr,
}

impl Requests {
    /// `None`, and said so, where `requests` is not installed.
    fn start(base: SocketAddr) -> Result<Option<Self>> {
        let packages = installed("python");
        let python = || {
            let mut command = Command::new("python3");
            // Where the environment names a proxy, it is not for this.
            command.env("PYTHONPATH", &packages).env("NO_PROXY", "*").stderr(Stdio::null());
            command
        };
        let import = python().args(["-c", "import requests"]).stdin(Stdio::null()).status();
        if !import.is_ok_and(|status| status.success()) {
            println!("SKIPPED: no requests for python3 (PyPI package requests)");
            return Ok(None);
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/requests_leaker.py");
        let mut command = python();
        command.arg(source).arg(format!("http://{base}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn::start(&mut command)?;
        let input = child.stdin.take().context("stdin")?;
        let output = BufReader::new(child.stdout.take().context("stdout")?);
        Ok(Some(Self { child, input, output }))
    }

    fn leak(&mut self, command: &str) -> Result<Vec<Leaked>> {
        writeln!(self.input, "{command}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("{command}: {line:?}"))
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Responses that are streamed and forgotten, and a session whose server closed what its pool keeps.
fn requests(sandbox: &Sandbox) -> Result<()> {
    let backend = Backend::start()?;
    let Some(mut program) = Requests::start(backend.addr())? else { return Ok(()) };
    let small = program.leak("small 4")?;
    let large = program.leak("large 3")?;
    let pooled = program.leak("pooled 2")?;
    // Two sockets that are well until their server closes.
    let (lines, _) = at_rest(sandbox, &backend, small.len() + large.len())?;
    ensure!(lines[0]["sockets"] == 7, "{lines:#?}");
    backend.close_kept();
    let all = small.len() + large.len() + pooled.len();
    let (lines, text) = at_rest(sandbox, &backend, all)?;
    let leak = &lines[0];
    ensure!(lines.len() == 2 && leak["sockets"] == all as u64, "{lines:#?}");
    // Nobody reads what the pool keeps. Of a small answer the client has read everything; whether the end as well
    // depends on whether that was there when it read, and the kernel knows.
    ensure!(leak["eof"]["data_unread"] == 3 && leak["eof"]["unread"].as_u64() >= Some(2), "{leak}");
    let listed = close_waits(backend.addr())?;
    let with_queue = |count: fn(u32) -> bool| listed.iter().filter(|socket| count(socket.recv_queue)).count();
    ensure!(leak["eof"]["consumed"] == with_queue(|bytes| bytes == 0), "{listed:?} {leak}");
    ensure!(leak["eof"]["unread"] == with_queue(|bytes| bytes == 1), "{listed:?} {leak}");
    let row = |local, remote, fd| (local, remote, fd);
    let expected: BTreeSet<_> = small
        .iter()
        .chain(&large)
        .chain(&pooled)
        .map(|leaked| {
            assert_eq!(Some(u64::from(leaked.pid)), leak["process"]["pid"].as_u64());
            row(leaked.local, leaked.remote, leaked.fd)
        })
        .collect();
    let found: Vec<Connection> = serde_json::from_value(leak["connections"].clone())?;
    let found: BTreeSet<_> = found.iter().map(|line| row(line.local, line.remote, line.fd)).collect();
    ensure!(expected == found, "{expected:#?} {found:#?}");
    ensure!(text.contains(&format!("127.0.0.2:{}", backend.addr().port())), "{text}");
    Ok(())
}

/// What is reported once so many sockets towards the server are in CLOSE_WAIT.
fn at_rest(sandbox: &Sandbox, backend: &Backend, expected: usize) -> Result<(Vec<Value>, String)> {
    wait_until("the server's FINs", PATIENCE, || {
        close_waits(backend.addr()).is_ok_and(|all| all.len() == expected)
    })?;
    leaks(sandbox)
}
