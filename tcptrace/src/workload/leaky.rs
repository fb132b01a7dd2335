//! A server with the four bugs that leave sockets in CLOSE_WAIT for ever, each in a function of its own, so
//! that a report that names the line of code can be checked against this file.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::role::{Role, RoleArgs};
use super::server::{accept, listen};

/// What the upload service answers.
pub(super) const THANKS: &[u8] = b"thanks\n";

/// Three services on consecutive ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Services {
    /// Echoes until EOF, then forgets to close.
    pub(super) echo: SocketAddr,
    /// Accepts and never reads.
    pub(super) silent: SocketAddr,
    /// Answers without reading what was sent.
    pub(super) upload: SocketAddr,
}

impl Services {
    /// `first` and the two ports after it.
    pub(super) fn beginning_at(first: SocketAddr) -> Self {
        let after = |offset| SocketAddr::new(first.ip(), first.port().saturating_add(offset));
        Self { echo: first, silent: after(1), upload: after(2) }
    }
}

/// What the server has forgotten. Once `limit` sockets are in it the bugs are over: the rest is closed as it
/// should be, so that a long demonstration does not run into the descriptor limit.
struct Forgotten {
    sockets: VecDeque<TcpStream>,
    limit: usize,
}

impl Forgotten {
    fn new(args: &RoleArgs) -> Self {
        Self { sockets: VecDeque::new(), limit: usize::try_from(args.count).unwrap_or(usize::MAX) }
    }

    fn keep(&mut self, stream: TcpStream) {
        if self.sockets.len() < self.limit {
            self.sockets.push_back(stream);
        }
    }
}

/// Serves the three services until killed.
pub(super) fn serve(args: &RoleArgs) -> io::Result<()> {
    let services = Services::beginning_at(args.at);
    let silent = super::server::bind(services.silent)?;
    let upload = super::server::bind(services.upload)?;
    let echo = listen(args)?;

    let mut forgotten = Forgotten::new(args);
    thread::Builder::new().spawn(move || -> io::Result<()> {
        loop {
            accept_and_never_read(accept(&silent)?, &mut forgotten);
        }
    })?;
    let mut forgotten = Forgotten::new(args);
    thread::Builder::new().spawn(move || -> io::Result<()> {
        loop {
            answer_without_reading_the_upload(accept(&upload)?, &mut forgotten);
        }
    })?;
    let mut forgotten = Forgotten::new(args);
    let mut worker = None;
    loop {
        let stream = accept(&echo)?;
        if worker.is_none() {
            worker = Some(start_worker_that_inherits_the_connection(&stream, args)?);
        }
        echo_and_forget_to_close(stream, &mut forgotten);
    }
}

/// Bug 1: the client's EOF is read, and then nothing is done about it.
#[inline(never)]
fn echo_and_forget_to_close(mut stream: TcpStream, forgotten: &mut Forgotten) {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                if stream.write_all(&buffer[..read]).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
    forgotten.keep(stream);
}

/// Bug 2: accepted, put aside, never looked at again. The EOF stays unread.
#[inline(never)]
fn accept_and_never_read(stream: TcpStream, forgotten: &mut Forgotten) {
    forgotten.keep(stream);
}

/// Bug 3: the answer is sent, the request is not read: data and EOF stay in the receive queue.
#[inline(never)]
fn answer_without_reading_the_upload(mut stream: TcpStream, forgotten: &mut Forgotten) {
    if stream.write_all(THANKS).is_ok() {
        forgotten.keep(stream);
    }
}

/// Bug 4: a helper process is started while a connection is open and inherits its descriptor. Whatever the
/// server does later, this connection is held by two processes.
#[inline(never)]
fn start_worker_that_inherits_the_connection(stream: &TcpStream, args: &RoleArgs) -> io::Result<Child> {
    let worker = RoleArgs { lifetime: args.lifetime, ..RoleArgs::new(Role::Worker, args.at) };
    Command::new(std::env::current_exe()?)
        .args(worker.to_command_line())
        .stdin(OwnedFd::from(stream.try_clone()?))
        .stdout(Stdio::null())
        .spawn()
}

/// The worker of bug 4: its standard input is the connection, and it has other things to do.
pub(super) fn work_and_never_look_at_stdin() -> io::Result<()> {
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}
