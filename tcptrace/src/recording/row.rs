//! Events as rows: arrays of numbers and strings, a third of the size of objects and as quickly made.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::event::{Comm, Context, EofTold, Event, MiniExpired, MiniTimer, Protocol, StateChange, Task};
use crate::net::{Flow, State};

/// Names of the columns by kind of row, as they stand in the header: a recording explains itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Columns {
    /// `s`: `sock:inet_sock_set_state`.
    s: Cow<'static, str>,
    /// `b`: a mini's timer was started.
    b: Cow<'static, str>,
    /// `c`: a mini's timer was taken off the wheel.
    c: Cow<'static, str>,
    /// `x`: a mini's timer ran out.
    x: Cow<'static, str>,
    /// `e`: an application was told EOF.
    e: Cow<'static, str>,
}

impl Default for Columns {
    fn default() -> Self {
        let mini = "kind at mini netns local lport remote rport substate left_jiffies context";
        Self {
            s: "kind at sk netns local lport remote rport from to protocol(0=tcp,1=mptcp,2=subflow) \
                flags(1=orphan,2=linger2_negative) unread(null|bytes) sk_err buckets_left(null|minis) \
                context(null|0=softirq|[pid,tid,comm,cgroup,kthread])"
                .into(),
            b: mini.into(),
            c: mini.into(),
            x: "kind at mini".into(),
            e: "kind at sk netns local lport remote rport context".into(),
        }
    }
}

/// Appends the row of an event, with its newline.
pub fn write(event: &Event, out: &mut String) -> fmt::Result {
    match event {
        Event::State(event) => {
            write!(out, "[\"s\",{},{},", event.at, event.sk)?;
            write_flow(&event.flow, out)?;
            write!(
                out,
                ",{},{},{},{},",
                event.from.number(),
                event.to.number(),
                protocol_number(event.protocol),
                u8::from(event.orphan) | u8::from(event.linger2_negative) << 1,
            )?;
            write_or_null(event.unread, out)?;
            write!(out, ",{},", event.sk_err)?;
            write_or_null(event.buckets_left, out)?;
            out.push(',');
            write_context(&event.context, out)?;
        }
        Event::MiniStarted(event) => write_mini('b', event, out)?,
        Event::MiniCancelled(event) => write_mini('c', event, out)?,
        Event::MiniExpired(event) => write!(out, "[\"x\",{},{}", event.at, event.mini)?,
        Event::EofTold(event) => {
            write!(out, "[\"e\",{},{},", event.at, event.sk)?;
            write_flow(&event.flow, out)?;
            out.push(',');
            write_context(&Context::Process(event.task), out)?;
        }
    }
    out.push_str("]\n");
    Ok(())
}

fn write_or_null(number: Option<u32>, out: &mut String) -> fmt::Result {
    match number {
        Some(number) => write!(out, "{number}"),
        None => out.write_str("null"),
    }
}

fn write_mini(kind: char, event: &MiniTimer, out: &mut String) -> fmt::Result {
    write!(out, "[\"{kind}\",{},{},", event.at, event.mini)?;
    write_flow(&event.flow, out)?;
    write!(out, ",{},{},", event.substate.number(), event.left_jiffies)?;
    write_context(&event.context, out)
}

fn write_flow(flow: &Flow, out: &mut String) -> fmt::Result {
    write!(
        out,
        "{},\"{}\",{},\"{}\",{}",
        flow.netns,
        flow.local.ip(),
        flow.local_port,
        flow.remote.ip(),
        flow.remote_port
    )
}

fn write_context(context: &Context, out: &mut String) -> fmt::Result {
    match context {
        Context::Unknown => out.write_str("null"),
        Context::Softirq => out.write_str("0"),
        Context::Process(task) => {
            write!(out, "[{},{},", task.pid, task.tid)?;
            write_comm(task.comm, out)?;
            write!(out, ",{},{}]", task.cgroup_id, u8::from(task.kthread))
        }
    }
}

/// Escaped as everywhere, and once more for JSON.
fn write_comm(comm: Comm, out: &mut String) -> fmt::Result {
    let shown = crate::text::escape(comm.bytes());
    out.push('"');
    for c in shown.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    Ok(())
}

const fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Mptcp => 1,
        Protocol::MptcpSubflow => 2,
    }
}

/// A row that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// Not JSON, or not of this shape.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A number that stands for nothing.
    #[error(transparent)]
    State(#[from] crate::net::UnknownStateNumber),
    /// A protocol number that stands for nothing.
    #[error("{0} is no protocol number (0 to 2)")]
    Protocol(u8),
    /// A kind that this version does not know.
    #[error("unknown kind of row")]
    Kind,
    /// A row that must have a task has none.
    #[error("a row without the task it is about")]
    NoTask,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ContextRow<'a> {
    Process(u32, u32, #[serde(borrow)] Cow<'a, str>, u64, u8),
    Softirq(u8),
    Unknown(()),
}

impl From<ContextRow<'_>> for Context {
    fn from(row: ContextRow<'_>) -> Self {
        match row {
            ContextRow::Process(pid, tid, comm, cgroup_id, kthread) => Self::Process(Task {
                pid,
                tid,
                comm: Comm::from_bytes(&crate::text::unescape(&comm)),
                cgroup_id,
                kthread: kthread != 0,
            }),
            ContextRow::Softirq(0) => Self::Softirq,
            ContextRow::Softirq(_) | ContextRow::Unknown(()) => Self::Unknown,
        }
    }
}

type Kind<'a> = &'a str;
type MiniRow<'a> = (Kind<'a>, u64, u64, u32, IpAddr, u16, IpAddr, u16, u8, i64, ContextRow<'a>);
type EofRow<'a> = (Kind<'a>, u64, u64, u32, IpAddr, u16, IpAddr, u16, ContextRow<'a>);
/// serde reads tuples of up to 16 members: exactly what a state row has.
type StateRow<'a> = (
    Kind<'a>,
    u64,
    u64,
    u32,
    IpAddr,
    u16,
    IpAddr,
    u16,
    u8,
    u8,
    u8,
    u8,
    Option<u32>,
    u16,
    Option<u32>,
    ContextRow<'a>,
);

fn flow(netns: u32, local: IpAddr, local_port: u16, remote: IpAddr, remote_port: u16) -> Flow {
    Flow { local: local.into(), remote: remote.into(), netns, local_port, remote_port }
}

/// Reads a row.
pub fn read(line: &str) -> Result<Event, RowError> {
    // The kind is the first thing in the row: `["s",…`.
    match line.as_bytes().get(2) {
        Some(b's') => state(line),
        Some(b'b') => Ok(Event::MiniStarted(mini(line)?)),
        Some(b'c') => Ok(Event::MiniCancelled(mini(line)?)),
        Some(b'x') => {
            let (_, at, mini): (Kind<'_>, u64, u64) = serde_json::from_str(line)?;
            Ok(Event::MiniExpired(MiniExpired { at, mini }))
        }
        Some(b'e') => {
            let (_, at, sk, netns, local, lport, remote, rport, context): EofRow<'_> =
                serde_json::from_str(line)?;
            let Context::Process(task) = context.into() else { return Err(RowError::NoTask) };
            Ok(Event::EofTold(EofTold { at, sk, flow: flow(netns, local, lport, remote, rport), task }))
        }
        _ => Err(RowError::Kind),
    }
}

fn state(line: &str) -> Result<Event, RowError> {
    let row: StateRow<'_> = serde_json::from_str(line)?;
    let (_, at, sk, netns, local, lport, remote, rport, from, to, protocol, ..) = row;
    let (.., flags, unread, sk_err, buckets_left, context) = row;
    Ok(Event::State(StateChange {
        at,
        sk,
        flow: flow(netns, local, lport, remote, rport),
        from: State::try_from(from)?,
        to: State::try_from(to)?,
        protocol: match protocol {
            0 => Protocol::Tcp,
            1 => Protocol::Mptcp,
            2 => Protocol::MptcpSubflow,
            other => return Err(RowError::Protocol(other)),
        },
        context: context.into(),
        orphan: flags & 1 != 0,
        linger2_negative: flags & 2 != 0,
        unread,
        sk_err,
        buckets_left,
    }))
}

fn mini(line: &str) -> Result<MiniTimer, RowError> {
    let (_, at, mini, netns, local, lport, remote, rport, substate, left_jiffies, context): MiniRow<'_> =
        serde_json::from_str(line)?;
    Ok(MiniTimer {
        at,
        mini,
        flow: flow(netns, local, lport, remote, rport),
        substate: State::try_from(substate)?,
        left_jiffies,
        context: context.into(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::Addr;

    fn any_flow() -> impl Strategy<Value = Flow> {
        (any::<[u8; 16]>(), any::<u32>(), any::<u32>(), any::<u16>(), any::<u16>()).prop_map(
            |(local, remote, netns, local_port, remote_port)| Flow {
                local: Addr(local),
                remote: IpAddr::from(std::net::Ipv4Addr::from(remote)).into(),
                netns,
                local_port,
                remote_port,
            },
        )
    }

    fn any_task() -> impl Strategy<Value = Task> {
        (any::<u32>(), any::<u32>(), any::<[u8; 15]>(), any::<u64>(), any::<bool>()).prop_map(
            |(pid, tid, comm, cgroup_id, kthread)| {
                let name = Comm::from_bytes(&comm);
                // What stands after the first NUL is no part of a name.
                Task { pid, tid, comm: Comm::from_bytes(name.bytes()), cgroup_id, kthread }
            },
        )
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let context = prop_oneof![
            Just(Context::Unknown),
            Just(Context::Softirq),
            any_task().prop_map(Context::Process)
        ];
        let state = (1_u8..=12).prop_map(|number| State::try_from(number).unwrap());
        let mini = (any::<u64>(), any::<u64>(), any_flow(), state.clone(), any::<i64>(), context.clone())
            .prop_map(|(at, mini, flow, substate, left_jiffies, context)| MiniTimer {
                at,
                mini,
                flow,
                substate,
                left_jiffies,
                context,
            })
            .boxed();
        let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Mptcp), Just(Protocol::MptcpSubflow)];
        let numbers = (
            any::<u64>(),
            any::<u64>(),
            any::<bool>(),
            any::<bool>(),
            any::<[Option<u32>; 2]>(),
            any::<u16>(),
        );
        prop_oneof![
            (numbers, any_flow(), state.clone(), state, protocol, context).prop_map(
                |(
                    (at, sk, orphan, linger2_negative, [unread, buckets_left], sk_err),
                    flow,
                    from,
                    to,
                    protocol,
                    context,
                )| {
                    Event::State(StateChange {
                        at,
                        sk,
                        flow,
                        from,
                        to,
                        protocol,
                        context,
                        orphan,
                        linger2_negative,
                        unread,
                        sk_err,
                        buckets_left,
                    })
                }
            ),
            mini.clone().prop_map(Event::MiniStarted),
            mini.prop_map(Event::MiniCancelled),
            (any::<u64>(), any::<u64>()).prop_map(|(at, mini)| Event::MiniExpired(MiniExpired { at, mini })),
            (any::<u64>(), any::<u64>(), any_flow(), any_task())
                .prop_map(|(at, sk, flow, task)| Event::EofTold(EofTold { at, sk, flow, task })),
        ]
    }

    proptest! {
        #[test]
        fn a_row_read_is_the_event_written(event in any_event()) {
            let mut line = String::new();
            write(&event, &mut line).unwrap();
            prop_assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
            prop_assert_eq!(read(line.trim_end()).unwrap(), event);
        }

        #[test]
        fn garbage_is_an_error_not_a_panic(line in "\\[\"[sbcxe]\",.{0,80}") {
            let _ = read(&line);
        }
    }
}
