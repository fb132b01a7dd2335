//! From the kernel to the line: a leaking server and its client in a network namespace of their own, their
//! stacks taken by the BPF programs.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tcptrace_common::config::Filter;

use super::snapshot::Target;
use super::{assert_frames, site};
use crate::decode::StackReason;
use crate::kernel::{Tracer, TracerOptions};
use crate::sandbox::Sandbox;
use crate::stacks::{Limits, Resolved, Sites, Worker};

/// Connections that the client makes and the server leaks.
const CONNECTIONS: usize = 20;

const SERVER: &str = r#"#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in server;

__attribute__((noinline)) static int read_request(int fd, char *buffer, size_t size) {
    int total = 0;
    for (;;) {
        ssize_t got = recv(fd, buffer, size, 0); // line 14
        if (got <= 0) return total;
        total += got;
    }
}

__attribute__((noinline)) static int handle(int fd) {
    char buffer[2048];
    return read_request(fd, buffer, sizeof buffer) + buffer[0]; // line 22, and the socket stays open
}

__attribute__((noinline)) static int dial(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&server, sizeof server)) return 1; // line 27
    if (write(fd, "hello", 5) != 5) return 1; // line 28
    close(fd);
    return 0;
}

int main(int argc, char **argv) {
    int listener = socket(AF_INET, SOCK_STREAM, 0), sum = 0;
    socklen_t size = sizeof server;
    server.sin_family = AF_INET;
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&server, size) || listen(listener, 64)) return 1;
    if (getsockname(listener, (struct sockaddr *)&server, &size)) return 1;
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int i = 0; i < 20; i++) sum += dial(); // line 42
        return pause() + sum;
    }
    for (int i = 0; i < 20; i++) sum += handle(accept(listener, 0, 0)); // line 45
    puts("ready");
    fflush(stdout);
    pause();
    return sum;
}
"#;

fn collect(tracer: &mut Tracer, worker: &mut Worker, until: usize) -> Vec<Resolved> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut resolved = Vec::new();
    while resolved.len() < until && Instant::now() < deadline {
        while tracer.drain_stacks(|sample| {
            assert!(worker.submit(&sample));
        }) {}
        resolved.extend(worker.drain());
        std::thread::sleep(Duration::from_millis(5));
    }
    resolved
}

#[test]
fn the_leaking_and_the_connecting_function_of_a_c_program_are_named() {
    let Ok(sandbox) = Sandbox::new().inspect_err(|error| eprintln!("SKIPPED: {error}")) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let options = TracerOptions {
        filter: Filter { netns: sandbox.netns(), ..Filter::ALL },
        ring_bytes: 1 << 20,
        stacks: true,
        ..TracerOptions::default()
    };
    let mut worker = Worker::start(Limits::default()).unwrap();
    let mut tracer = match Tracer::start(&options) {
        Ok(tracer) if tracer.skipped_hooks().is_empty() => tracer,
        Ok(tracer) => return eprintln!("SKIPPED: {:?}", tracer.skipped_hooks()),
        Err(error) => return eprintln!("SKIPPED: {error}"),
    };
    let Some((_directory, program)) = Target::build(&["gcc", "-O2", "-g"], "server.c", SERVER) else {
        return;
    };
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut server = sandbox.spawn(command).unwrap();
    let resolved = collect(&mut tracer, &mut worker, 3 * CONNECTIONS);
    server.kill().unwrap();
    server.wait().unwrap();

    assert_eq!(resolved.len(), 3 * CONNECTIONS, "{resolved:#?}");
    let mut sites = Sites::default();
    for reason in [StackReason::Eof, StackReason::Connect, StackReason::Sent] {
        let ours = resolved.iter().filter(|one| one.reason == reason);
        let ids: Vec<_> = ours.filter_map(|one| sites.add(&one.stack)).collect();
        let tally = sites.tally(ids);
        eprintln!("{tally:#?}");
        assert_eq!((tally.len(), tally[0].count), (1, CONNECTIONS as u64), "{tally:#?}");
    }
    let of = |reason| resolved.iter().find(|one| one.reason == reason).unwrap();
    let told = of(StackReason::Eof);
    assert_eq!(told.pid, server.id());
    assert_frames(
        &site(&told.stack),
        &["read_request at /server.c:14", "handle at /server.c:22", "main at /server.c:45"],
    );
    assert_frames(&site(&of(StackReason::Connect).stack), &["dial at /server.c:27", "main at /server.c:42"]);
    assert_frames(&site(&of(StackReason::Sent).stack), &["dial at /server.c:28", "main at /server.c:42"]);
}
