//! Which code was told EOF, opened the connection, or wrote to it: stacks joined with the sockets that they belong
//! to.
//!
//! A stack comes through a ring of its own, before or after its event; both carry the socket's address and the
//! same time. Stacks are resolved on a thread of their own, so that a result comes later still.
//!
//! A send has no event. Its stack carries the socket's ports, and the socket becomes known when it goes to
//! CLOSE_WAIT: an address that another connection has taken over meanwhile is told by its ports.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::report::{Leak, LeakReport};
use crate::decode::{StackReason, StackSample};
use crate::event::{Event, MonoNs};
use crate::net::{Flow, State};
use crate::stacks::{Limits, Resolved, Site, SiteId, Sites, Worker};

/// Sockets of which a stack is kept, for each reason. A leak of so many would have taken the host down.
const MAX_SOCKETS: usize = 1 << 16;
/// An event follows its stack, if it does at all, within one batch of the ring's reader.
const EVENT_LATE_NS: u64 = 1_000_000_000;
/// How long the end of a trace waits for stacks that are being resolved.
const PATIENCE: Duration = Duration::from_secs(3);

/// Collects stacks while tracing.
pub struct Codes {
    worker: Option<Worker>,
    sites: Sites,
    told: Table,
    opened: Table,
    sent: Table,
    /// Sockets in CLOSE_WAIT, by address.
    waiting: FxHashMap<u64, Flow>,
    dropped: u64,
}

/// Stacks of one reason by the socket's address.
#[derive(Default)]
struct Table {
    by_socket: FxHashMap<u64, Taken>,
    full: u64,
}

/// A stack that was taken.
struct Taken {
    at: MonoNs,
    /// Known once the event has come.
    flow: Option<Flow>,
    /// Of a send: local and remote port.
    ports: Option<(u16, u16)>,
    /// The stack is with the resolver, or has been.
    is_submitted: bool,
    site: Option<SiteId>,
}

impl Codes {
    /// Starts the resolver. To be called before the calling thread gives up its privileges.
    ///
    /// # Errors
    /// When its thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        Ok(Self {
            worker: Some(Worker::start(Limits::default())?),
            sites: Sites::default(),
            told: Table::default(),
            opened: Table::default(),
            sent: Table::default(),
            waiting: FxHashMap::default(),
            dropped: 0,
        })
    }

    /// Takes an event.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::EofTold(told) => {
                if let Some(taken) = self.told.expect(told.sk, told.at, Some(told.flow)) {
                    taken.flow = Some(told.flow);
                }
            }
            Event::State(change) => {
                if change.from == State::CloseWait {
                    self.told.by_socket.remove(&change.sk);
                    self.sent.by_socket.remove(&change.sk);
                    self.waiting.remove(&change.sk);
                }
                match (change.from, change.to) {
                    // The port may not be chosen yet: the flow comes with the next transition.
                    (_, State::SynSent) => drop(self.opened.replace(change.sk, change.at)),
                    (State::SynSent, State::Established) => {
                        if let Some(taken) = self.opened.by_socket.get_mut(&change.sk) {
                            taken.flow = Some(change.flow);
                        }
                    }
                    (_, State::Close) => drop(self.opened.by_socket.remove(&change.sk)),
                    (_, State::CloseWait) => self.begins_to_wait(change.sk, change.flow),
                    _ => {}
                }
            }
            Event::MiniStarted(_) | Event::MiniCancelled(_) | Event::MiniExpired(_) => {}
        }
    }

    /// Takes a stack.
    pub fn stack(&mut self, sample: &StackSample<'_>) {
        let taken = match sample.reason {
            // The first time counts: after it the code knew.
            StackReason::Eof => self.told.expect(sample.sk, sample.at, None),
            StackReason::Connect => self.opened.replace(sample.sk, sample.at),
            // The last time counts: a send after the peer has closed is nearer to what was forgotten.
            StackReason::Sent => {
                let ports = (sample.local_port, sample.remote_port);
                let flow = self.waiting.get(&sample.sk).copied().filter(|flow| has_ports(flow, ports));
                let mut taken = self.sent.replace(sample.sk, sample.at);
                if let Some(taken) = &mut taken {
                    (taken.ports, taken.flow) = (Some(ports), flow);
                }
                taken
            }
        };
        if let (Some(taken), Some(worker)) = (taken.filter(|taken| !taken.is_submitted), &mut self.worker) {
            taken.is_submitted = worker.submit(sample);
            self.dropped += u64::from(!taken.is_submitted);
        }
    }

    /// Takes over what has been resolved, without waiting.
    pub fn collect(&mut self) {
        let ready: Vec<Resolved> = self.worker.iter().flat_map(Worker::drain).collect();
        ready.iter().for_each(|resolved| self.take(resolved));
    }

    /// Waits for the last stacks, some seconds at most, and ends the resolver.
    pub fn finish(&mut self) {
        if let Some(worker) = self.worker.take() {
            let last = worker.finish(PATIENCE);
            last.iter().for_each(|resolved| self.take(resolved));
        }
    }

    fn begins_to_wait(&mut self, socket: u64, flow: Flow) {
        if self.waiting.len() < MAX_SOCKETS {
            self.waiting.insert(socket, flow);
        }
        if let Some(taken) = self.sent.by_socket.get_mut(&socket) {
            taken.flow = taken.ports.is_some_and(|ports| has_ports(&flow, ports)).then_some(flow);
        }
    }

    fn take(&mut self, resolved: &Resolved) {
        let table = match resolved.reason {
            StackReason::Eof => &mut self.told,
            StackReason::Connect => &mut self.opened,
            StackReason::Sent => &mut self.sent,
        };
        if let Some(taken) = table.by_socket.get_mut(&resolved.sk)
            && taken.at == resolved.at
        {
            taken.site = self.sites.add(&resolved.stack);
        }
    }

    /// Adds the places in code to the leaks.
    pub fn add_to(&self, report: &mut LeakReport) {
        let (told, opened, sent) = (self.told.by_flow(), self.opened.by_flow(), self.sent.by_flow());
        for leak in &mut report.leaks {
            leak.sites = self.sites_of(leak, &told);
            leak.opened_at = self.sites_of(leak, &opened);
            leak.sent_at = self.sites_of(leak, &sent);
        }
        let lost = self.dropped + self.told.full + self.opened.full + self.sent.full + self.sites.beyond();
        if lost > 0 {
            report
                .notes
                .push(format!("{lost} stacks were not kept: they came faster than they could be resolved"));
        }
    }

    fn sites_of(&self, leak: &Leak, by_flow: &FxHashMap<Flow, SiteId>) -> Vec<Site> {
        self.sites.tally(leak.sockets.iter().filter_map(|socket| by_flow.get(&socket.flow).copied()))
    }
}

fn has_ports(flow: &Flow, ports: (u16, u16)) -> bool {
    (flow.local_port, flow.remote_port) == ports
}

impl Table {
    /// The entry of this socket and moment, made where there is none. `None` where the same socket has an earlier
    /// one: the first counts. `flow` is known when an event asks, and not when a stack does.
    fn expect(&mut self, socket: u64, at: MonoNs, flow: Option<Flow>) -> Option<&mut Taken> {
        // Otherwise it is of a socket that had this address before, and whose end was not heard of in time.
        let is_same_socket = |taken: &Taken| match (flow, taken.flow) {
            (Some(flow), Some(known)) => flow == known,
            // Events come in order: that of the earlier moment is not coming any more.
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (None, None) => at.saturating_sub(taken.at) < EVENT_LATE_NS,
        };
        let is_taken =
            self.by_socket.get(&socket).is_some_and(|taken| taken.at == at || is_same_socket(taken));
        if !is_taken {
            return self.replace(socket, at);
        }
        self.by_socket.get_mut(&socket).filter(|taken| taken.at == at)
    }

    /// The entry of this socket and moment; whatever it was before is forgotten.
    fn replace(&mut self, socket: u64, at: MonoNs) -> Option<&mut Taken> {
        let is_known = self.by_socket.contains_key(&socket);
        if !is_known && self.by_socket.len() >= MAX_SOCKETS {
            // Stacks whose event never came, or came after the end of the socket.
            self.by_socket.retain(|_, taken| taken.flow.is_some());
            if self.by_socket.len() >= MAX_SOCKETS {
                self.full += 1;
                return None;
            }
        }
        let fresh = || Taken { at, flow: None, ports: None, is_submitted: false, site: None };
        let taken = self.by_socket.entry(socket).or_insert_with(fresh);
        if taken.at != at {
            *taken = fresh();
        }
        Some(taken)
    }

    fn by_flow(&self) -> FxHashMap<Flow, SiteId> {
        self.by_socket.values().filter_map(|taken| Some((taken.flow?, taken.site?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::*;
    use crate::event::{Comm, Context, EofTold, Protocol, StateChange, Task};
    use crate::net::Addr;
    use crate::stacks::{Frame, Role, Stack};

    fn codes() -> Codes {
        let sites = Sites::default();
        let (told, opened, sent) = (Table::default(), Table::default(), Table::default());
        Codes { worker: None, sites, told, opened, sent, waiting: FxHashMap::default(), dropped: 0 }
    }

    fn flow(remote_port: u16) -> Flow {
        let addr = Addr::from("127.0.0.1".parse::<IpAddr>().unwrap());
        Flow { local: addr, remote: addr, netns: 1, local_port: 80, remote_port }
    }

    fn told(sk: u64, at: MonoNs, port: u16) -> Event {
        let task = Task { pid: 7, tid: 7, comm: Comm::default(), cgroup_id: 0, kthread: false };
        Event::EofTold(EofTold { at, sk, flow: flow(port), task })
    }

    fn sample(sk: u64, at: MonoNs) -> StackSample<'static> {
        let reason = StackReason::Eof;
        let (local_port, remote_port) = (80, 1000);
        let stack = &[];
        StackSample {
            at,
            reason,
            sk,
            local_port,
            remote_port,
            pid: 7,
            tid: 7,
            ip: 1,
            sp: 1,
            fp: 0,
            lr: 0,
            stack,
        }
    }

    fn resolved(sk: u64, at: MonoNs, function: &str) -> Resolved {
        let frame = Frame {
            function: Some(function.to_owned()),
            file: None,
            line: None,
            module: Some("app".to_owned()),
            address: 0,
            inlined: false,
            role: Role::Application,
            scanned: false,
        };
        let stack = Arc::new(Stack { frames: vec![frame], truncated: false, note: None });
        Resolved { reason: StackReason::Eof, at, sk, pid: 7, tid: 7, stack }
    }

    fn named(codes: &Codes, port: u16) -> Option<String> {
        let id = codes.told.by_flow().get(&flow(port)).copied()?;
        codes.sites.get(id).map(|site| site.frames[0].clone())
    }

    #[test]
    fn stack_and_event_meet_in_either_order() {
        let mut codes = codes();
        codes.stack(&sample(1, 10));
        codes.event(&told(1, 10, 1000));
        codes.event(&told(2, 11, 1001));
        codes.stack(&sample(2, 11));
        codes.take(&resolved(1, 10, "f"));
        codes.take(&resolved(2, 11, "g"));
        assert_eq!(named(&codes, 1000).as_deref(), Some("f in app"));
        assert_eq!(named(&codes, 1001).as_deref(), Some("g in app"));
    }

    #[test]
    fn the_first_time_counts() {
        let mut codes = codes();
        for (at, function) in [(10, "first"), (20, "again")] {
            codes.event(&told(1, at, 1000));
            codes.stack(&sample(1, at));
            codes.take(&resolved(1, at, function));
        }
        assert_eq!(named(&codes, 1000).as_deref(), Some("first in app"));
    }

    #[test]
    fn an_address_that_is_used_again_is_another_socket() {
        let mut codes = codes();
        codes.event(&told(1, 10, 1000));
        codes.take(&resolved(1, 10, "old"));
        codes.event(&told(1, 30, 2000));
        codes.take(&resolved(1, 30, "new"));
        assert_eq!(named(&codes, 1000), None);
        assert_eq!(named(&codes, 2000).as_deref(), Some("new in app"));
        // A stack that came when its socket had gone already, then another socket at that address.
        codes.stack(&sample(5, 40));
        codes.event(&told(5, 50, 3000));
        codes.take(&resolved(5, 50, "newest"));
        assert_eq!(named(&codes, 3000).as_deref(), Some("newest in app"));
    }

    fn to_close_wait(sk: u64, at: MonoNs, port: u16) -> Event {
        Event::State(StateChange {
            at,
            sk,
            flow: flow(port),
            from: State::Established,
            to: State::CloseWait,
            protocol: Protocol::Tcp,
            context: Context::Softirq,
            orphan: false,
            linger2_negative: false,
            unread: Some(1),
            sk_err: 0,
            buckets_left: None,
        })
    }

    #[test]
    fn a_send_belongs_to_the_socket_of_its_ports() {
        let send = |sk, at| StackSample { reason: StackReason::Sent, ..sample(sk, at) };
        let sent = |codes: &Codes, port| {
            let id = codes.sent.by_flow().get(&flow(port)).copied()?;
            codes.sites.get(id).map(|site| site.frames[0].clone())
        };
        let resolved =
            |sk, at, function| Resolved { reason: StackReason::Sent, ..resolved(sk, at, function) };
        // Before it is in CLOSE_WAIT, and after.
        let mut codes = codes();
        codes.stack(&send(1, 10));
        codes.take(&resolved(1, 10, "answer"));
        codes.event(&to_close_wait(1, 20, 1000));
        assert_eq!(sent(&codes, 1000).as_deref(), Some("answer in app"));
        codes.stack(&send(1, 30));
        codes.take(&resolved(1, 30, "toldEof"));
        assert_eq!(sent(&codes, 1000).as_deref(), Some("toldEof in app"));
        // Another connection at the same address.
        codes.event(&to_close_wait(2, 40, 1000));
        codes.stack(&send(3, 50));
        codes.take(&resolved(3, 50, "other"));
        codes.event(&to_close_wait(3, 60, 2000));
        assert_eq!(sent(&codes, 2000), None);
    }

    #[test]
    fn stacks_without_an_event_make_room() {
        let mut codes = codes();
        (0..MAX_SOCKETS as u64 + 5).for_each(|sk| codes.stack(&sample(sk, 10)));
        assert!(codes.told.by_socket.len() <= MAX_SOCKETS);
        assert_eq!(codes.told.full, 0);
    }
}
