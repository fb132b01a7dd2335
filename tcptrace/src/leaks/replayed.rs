//! What the engine knows, as evidence: exact ages for a survey, or everything when there is only a recording.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rustc_hash::FxHashMap;

use super::evidence::{Candidate, Culprit, Custody, Evidence, Keeper, Looked};
use crate::engine::Engine;
use crate::event::MonoNs;
use crate::net::Flow;
use crate::outcome::Open;
use crate::snapshot::Age;
use crate::text::escape;

/// Puts in the ages that tracing knows: exact where the beginning was seen, else the better of two bounds.
pub fn add_ages(evidence: &mut Evidence, engine: &Engine) {
    let known: FxHashMap<Flow, Open> = engine.in_close_wait().map(|open| (open.flow, open)).collect();
    for candidate in &mut evidence.candidates {
        let Some(open) = known.get(&candidate.flow) else { continue };
        let traced = age(open, evidence.at);
        // A bound above an exact age is of a socket that had this four-tuple before.
        candidate.age = if traced.is_lower_bound { candidate.age.max(Some(traced)) } else { Some(traced) };
    }
}

fn age(open: &Open, now: MonoNs) -> Age {
    Age { ns: now.saturating_sub(open.since), is_lower_bound: open.since_is_lower_bound }
}

/// Evidence from a recording: processes by pid and name alone, and of what was read only what was recorded.
/// `namespaces` are those of its last dump.
#[must_use]
pub fn evidence(engine: &Engine, container_of: &dyn Fn(u64) -> Option<String>, namespaces: u64) -> Evidence {
    let listening = listeners(engine);
    let mut evidence = Evidence { at: engine.now(), notes: engine.notes().to_vec(), ..Evidence::default() };
    for open in engine.in_close_wait() {
        let custody = match open.owner {
            None => Custody::Unseen,
            Some(owner) => {
                evidence.culprits.entry(owner.pid).or_insert_with(|| {
                    let container = container_of(owner.cgroup_id);
                    Culprit {
                        pid: owner.pid,
                        comm: owner.comm,
                        container_shown: container.as_deref().map(shown),
                        container,
                        cgroup_id: owner.cgroup_id,
                        ..Culprit::default()
                    }
                });
                Custody::Held(vec![Keeper { pid: owner.pid, fd: None }])
            }
        };
        evidence.candidates.push(Candidate {
            flow: open.flow,
            age: Some(age(&open, evidence.at)),
            // What a dump showed holds until something is read; what an event showed was before anybody could
            // have read it. That it was read to the end is an event of its own.
            recv_queue: open.unread.filter(|&unread| unread == 0 || open.since_is_lower_bound),
            uid: None,
            accepted_on: accepted_on(&listening, &open.flow),
            custody,
        });
    }
    evidence.looked =
        Looked { namespaces, close_wait: evidence.candidates.len() as u64, processes: None, fds: None };
    evidence
}

/// A container as short as `docker ps` shows it; which runtime made it a recording does not know.
fn shown(id: &str) -> String {
    let is_hexadecimal = id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let short = if is_hexadecimal { id.get(..12).unwrap_or(id) } else { id };
    format!("container {}", escape(short.as_bytes()))
}

/// Where somebody listens, by namespace and port.
fn listeners(engine: &Engine) -> BTreeMap<(u32, u16), SocketAddr> {
    let listening = engine.listening();
    listening.map(|flow| ((flow.netns, flow.local_port), flow.local_addr())).collect()
}

fn accepted_on(listening: &BTreeMap<(u32, u16), SocketAddr>, flow: &Flow) -> Option<SocketAddr> {
    listening.get(&(flow.netns, flow.local_port)).copied()
}
