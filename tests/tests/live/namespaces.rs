//! Several network namespaces at once, with the same addresses in each.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use tcptrace::sandbox::Sandbox;
use tests::clock::sleep_ms;
use tests::helper::{Helper, Role};
use tests::sockets::{Flavour, Meeting, read_eof};
use tests::traced::Traced;
use tests::trial::live;

/// Used by nothing else on the host, it is hoped: this tracer sees all of it.
const PORT: u16 = 47_113;
const CLIENT_PORT: u16 = 47_114;

pub fn trials() -> Vec<Trial> {
    vec![
        live("the_same_four_tuple_in_several_namespaces", same_four_tuple),
        live("filter_by_namespace_and_pid", filtered),
    ]
}

/// Three namespaces close the same four-tuple at overlapping times; each keeps its own dwell.
fn same_four_tuple(sandbox: &Sandbox) -> Result<()> {
    let others = [Sandbox::new()?, Sandbox::new()?];
    let tracer = Traced::start(&["watch", "--json", "--port", &PORT.to_string()])?;
    tracer.wait_until_it_sees(PORT)?;
    let all = [sandbox, &others[0], &others[1]];
    for namespace in all {
        namespace.set_sysctl("net.ipv4.tcp_fin_timeout", "2")?;
    }
    let mut held = Vec::new();
    for (index, namespace) in (0_u32..).zip(all) {
        let pair = namespace.enter(|| {
            let meeting = Meeting::on(Flavour::V4, PORT)?;
            let mut pair = meeting.pair_from(CLIENT_PORT)?;
            drop(pair.client);
            read_eof(&mut pair.server)?;
            Ok::<_, anyhow::Error>((pair.server, pair.server_addr, pair.client_addr))
        })??;
        held.push((index, namespace.netns(), pair));
        sleep_ms(150);
    }
    // Let go in the order in which they came, each 150 ms after the next had begun.
    let mut expected = Vec::new();
    for (_, netns, (server, server_addr, client_addr)) in held {
        drop(server);
        expected.push((netns, server_addr, client_addr));
        sleep_ms(150);
    }
    let run = tracer.finish()?;
    let mut dwells = Vec::new();
    for (netns, server, client) in expected {
        let mut of = run.of(server, client);
        of.retain(|line| line.netns == netns && line.from == "CLOSE_WAIT");
        ensure!(of.len() == 1, "{of:#?}");
        dwells.push(of[0].dwell()?);
    }
    // Each had to wait 450 ms: two more namespaces' steps and its own, then its turn.
    for dwell in &dwells {
        ensure!((440_000_000..1_500_000_000).contains(dwell), "{dwells:?}");
    }
    Ok(())
}

/// `--netns` by a pid inside, and `--pid`.
fn filtered(sandbox: &Sandbox) -> Result<()> {
    let mut helper = Helper::start(Role::HoldUntilExit)?;
    let port: u16 = helper.line()?.parse()?;
    let pid = helper.pid().to_string();
    let by_netns = Traced::start(&["watch", "--json", "--netns", &pid])?;
    by_netns.wait_until_it_sees(1)?;
    let by_pid = Traced::start(&["watch", "--json", "--netns", &pid, "--pid", &pid])?;
    // Its probe would be this process's, not the helper's.
    by_pid.wait_until_attached()?;

    drop(Meeting::new(Flavour::V4)?.pair()?);
    drop(std::net::TcpStream::connect(("127.0.0.1", port))?);
    ensure!(helper.line()? == "eof");
    helper.go_on()?;
    helper.wait()?;
    by_netns.wait_for("the helper's close", Duration::from_secs(60), |lines| {
        lines.iter().any(|line| line.local.port() == port && line.from == "CLOSE_WAIT")
    })?;
    let run = by_netns.finish()?;
    ensure!(run.transitions.iter().all(|line| line.netns == sandbox.netns()), "a foreign namespace");
    ensure!(run.transitions.iter().any(|line| line.local.port() == port), "nothing of the namespace");
    let run = by_pid.finish()?;
    ensure!(!run.transitions.is_empty(), "--pid showed nothing");
    for line in &run.transitions {
        ensure!(line.owner.as_ref().is_some_and(|owner| owner.pid == helper.pid()), "{line:?}");
    }
    Ok(())
}
