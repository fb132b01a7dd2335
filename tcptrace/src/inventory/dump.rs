//! Dumps of many network namespaces.

use std::thread;

use super::clock::monotonic_ns;
use super::diag::{Dump, Query, QueryError, Sink, list_here};
use super::namespaces::{self, Namespace, NamespaceError};

/// No socket could be listed at all.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// A namespace could not be found or entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The dump itself failed.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// Every TCP socket that `query` asks for, of every network namespace of the host.
///
/// A namespace that refuses or vanishes becomes a note. Without CAP_SYS_ADMIN that is every one but the
/// program's own. An error means that there is no answer at all.
pub fn dump_all(query: impl Into<Query>) -> Result<Dump, DumpError> {
    let found = namespaces::all()?;
    let mut dump = dump_these(&found.list, query)?;
    dump.notes.extend(found.notes);
    Ok(dump)
}

/// Every TCP socket that `query` asks for, of one namespace.
pub fn dump_one(namespace: &Namespace, query: impl Into<Query>) -> Result<Dump, DumpError> {
    dump_these(std::slice::from_ref(namespace), query)
}

/// Every TCP socket that `query` asks for, of these namespaces. Refusals become notes as in [`dump_all`]; when
/// all refuse, the first refusal is the error.
pub fn dump_these(list: &[Namespace], query: impl Into<Query>) -> Result<Dump, DumpError> {
    let mut sockets = Vec::new();
    let dump = list_these(list, query, &mut sockets)?;
    Ok(Dump { sockets, ..dump })
}

/// As [`dump_these`], but the sockets go to `sink`: the dump has none.
pub fn list_these<S: Sink>(
    list: &[Namespace],
    query: impl Into<Query>,
    sink: &mut S,
) -> Result<Dump, DumpError> {
    let query = query.into();
    let started = monotonic_ns();
    let visited = visit(list, query, sink)?;
    let mut dump = Dump { started, finished: monotonic_ns(), notes: visited.notes, ..Dump::default() };
    let mut first_error = None;
    for (namespace, result) in list.iter().zip(visited.results) {
        match result {
            Ok(()) => dump.namespaces.push(namespace.inode),
            Err(error) => {
                let label = namespace.label();
                dump.notes.push(format!("network namespace {label} was not seen: {error}"));
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        Some(error) if dump.namespaces.is_empty() => Err(error),
        _ => Ok(dump),
    }
}

#[derive(Default)]
struct Visited {
    /// Of each namespace.
    results: Vec<Result<(), DumpError>>,
    notes: Vec<String>,
}

/// Lists each of them; several by two threads, because for each the kernel walks through the hash table of all.
fn visit<S: Sink>(list: &[Namespace], query: Query, sink: &mut S) -> Result<Visited, DumpError> {
    let (here, beside) = list.split_at(list.len().div_ceil(2));
    if beside.is_empty() {
        return visit_in_turn(list, query, sink);
    }
    let mut others = sink.fresh();
    let (first, second) = thread::scope(|scope| {
        let work = || visit_in_turn(beside, query, &mut others);
        let Ok(thread) = thread::Builder::new().name("dump".to_owned()).spawn_scoped(scope, work) else {
            // All by this thread, then.
            return (visit_in_turn(list, query, sink), Ok(Visited::default()));
        };
        let first = visit_in_turn(here, query, sink);
        // A panic is the caller's.
        (first, thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let (mut visited, second) = (first?, second?);
    sink.absorb(others);
    visited.results.extend(second.results);
    visited.notes.extend(second.notes);
    Ok(visited)
}

fn visit_in_turn<S: Sink>(list: &[Namespace], query: Query, sink: &mut S) -> Result<Visited, DumpError> {
    let mut notes = Vec::new();
    let list_one = |namespace: &Namespace| list_here(namespace.inode, query, sink, &mut notes);
    let results = namespaces::within_each(list, list_one)?.into_iter();
    let results = results.map(|result| Ok(result??)).collect();
    Ok(Visited { results, notes })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::inventory::diag::StateSet;
    use crate::net::State;

    #[test]
    fn own_sockets_are_listed_with_inode_and_uid() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let addr = listener.local_addr().expect("address");
        let client = TcpStream::connect(addr).expect("connect");
        let namespace = Namespace::own().expect("own namespace");
        let dump = dump_one(&namespace, StateSet::ALL).expect("dump");
        assert_eq!(dump.namespaces, [namespace.inode]);
        assert!(dump.started <= dump.finished);
        let find = |local, state| {
            dump.sockets
                .iter()
                .find(|socket| socket.flow.local_addr() == local && socket.state == state)
                .unwrap_or_else(|| panic!("no {state} at {local}"))
        };
        let listening = find(addr, State::Listen);
        assert!(listening.inode.is_some() && !listening.is_mini);
        let ours = find(client.local_addr().expect("address"), State::Established);
        assert_eq!(ours.flow.remote_addr(), addr);
        assert_eq!(ours.flow.netns, namespace.inode);
        assert!(ours.cookie.is_some());
        // Not accepted: nobody holds it.
        let waiting = dump
            .sockets
            .iter()
            .find(|socket| socket.flow.local_addr() == addr && socket.state == State::Established)
            .expect("not accepted socket");
        assert_eq!(waiting.inode, None);
    }

    #[test]
    fn only_wanted_states_are_listed() {
        let _listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let namespace = Namespace::own().expect("own namespace");
        let dump = dump_one(&namespace, State::Listen).expect("dump");
        assert!(!dump.sockets.is_empty());
        assert!(dump.sockets.iter().all(|socket| socket.state == State::Listen));
    }
}
