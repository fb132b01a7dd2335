//! One rule per kind of leak: how to tell it, what to call it, what to do about it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evidence::{Candidate, Custody};
use crate::views::human;

/// A kind of leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The application was told EOF and kept the socket.
    EofConsumed,
    /// The application has read all data, and never the end.
    EofUnread,
    /// Data is unread, too.
    DataUnread,
    /// No accept() has returned the connection.
    NotAccepted,
    /// No process has a descriptor of it.
    InFlight,
    /// Whoever holds it cannot be seen from here.
    Unseen,
    /// The kernel alone has it.
    Detached,
    /// A process holds it; what it has read is not known.
    Held,
}

/// Sockets of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub sockets: u64,
    /// Unread data in all of them, bytes.
    pub unread_bytes: u64,
}

impl Tally {
    /// Counts one more, with its `idiag_rqueue`.
    pub fn add(&mut self, recv_queue: Option<u32>) {
        self.sockets += 1;
        // The FIN counts as one.
        self.unread_bytes += u64::from(recv_queue.unwrap_or(0).saturating_sub(1));
    }
}

/// Tells one kind of leak, and says in words what it is.
pub trait Rule: Sync {
    /// Which.
    fn kind(&self) -> Kind;

    /// Is the socket of this kind?
    fn applies(&self, candidate: &Candidate) -> bool;

    /// What is wrong, to be read after `3 sockets: `.
    fn verdict(&self, tally: Tally) -> String;

    /// What to do, in a sentence or two.
    fn advice(&self) -> &'static str;
}

/// All rules. Each socket belongs to the first that applies, and one always does.
pub static RULES: [&dyn Rule; 8] =
    [&EofConsumed, &EofUnread, &DataUnread, &Held, &NotAccepted, &InFlight, &Unseen, &Detached];

impl Kind {
    /// The kind of a socket.
    #[must_use]
    pub fn of(candidate: &Candidate) -> Self {
        RULES.iter().find(|rule| rule.applies(candidate)).map_or(Self::Detached, |rule| rule.kind())
    }

    /// Its rule.
    #[must_use]
    pub fn rule(self) -> &'static dyn Rule {
        RULES.iter().copied().find(|rule| rule.kind() == self).unwrap_or(&Detached)
    }

    /// As JSON writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EofConsumed => "eof_consumed",
            Self::EofUnread => "eof_unread",
            Self::DataUnread => "data_unread",
            Self::NotAccepted => "not_accepted",
            Self::InFlight => "in_flight",
            Self::Unseen => "unseen",
            Self::Detached => "detached",
            Self::Held => "held",
        }
    }
}

fn is_held(candidate: &Candidate) -> bool {
    matches!(candidate.custody, Custody::Held(_))
}

struct EofConsumed;

impl Rule for EofConsumed {
    fn kind(&self) -> Kind {
        Kind::EofConsumed
    }

    fn applies(&self, candidate: &Candidate) -> bool {
        is_held(candidate) && candidate.recv_queue == Some(0)
    }

    fn verdict(&self, _: Tally) -> String {
        "the application was told EOF and kept the socket".to_owned()
    }

    fn advice(&self) -> &'static str {
        "The code reads to the end (read() returned 0) and then forgets close(): look for the error path, the \
         early return or the connection pool that keeps it."
    }
}

struct EofUnread;

impl Rule for EofUnread {
    fn kind(&self) -> Kind {
        Kind::EofUnread
    }

    fn applies(&self, candidate: &Candidate) -> bool {
        is_held(candidate) && candidate.recv_queue == Some(1)
    }

    fn verdict(&self, _: Tally) -> String {
        "the application never read the EOF: nobody is reading this socket".to_owned()
    }

    fn advice(&self) -> &'static str {
        "Nothing reads these sockets any more: a worker that hangs or was cancelled, a socket that is not in the \
         event loop, or idle connections in a pool that nobody checks before use."
    }
}

struct DataUnread;

impl Rule for DataUnread {
    fn kind(&self) -> Kind {
        Kind::DataUnread
    }

    fn applies(&self, candidate: &Candidate) -> bool {
        is_held(candidate) && candidate.recv_queue.is_some_and(|queue| queue > 1)
    }

    fn verdict(&self, tally: Tally) -> String {
        let unread = human::bytes(tally.unread_bytes);
        if tally.sockets == 1 {
            format!("{unread} unread")
        } else {
            format!("{unread} unread in all of them")
        }
    }

    fn advice(&self) -> &'static str {
        "Data has arrived that nobody reads: a response whose body was never consumed or closed, or a reader that \
         hangs. Its close() will send RST, because data is lost."
    }
}

struct Held;

impl Rule for Held {
    fn kind(&self) -> Kind {
        Kind::Held
    }

    fn applies(&self, candidate: &Candidate) -> bool {
        is_held(candidate)
    }

    fn verdict(&self, _: Tally) -> String {
        "what the application has read of them is not known".to_owned()
    }

    fn advice(&self) -> &'static str {
        "The peer has closed and the application has not."
    }
}

struct NotAccepted;

impl Rule for NotAccepted {
    fn kind(&self) -> Kind {
        Kind::NotAccepted
    }

    fn applies(&self, candidate: &Candidate) -> bool {
        matches!(candidate.custody, Custody::AcceptQueue(_))
    }

    fn verdict(&self, _: Tally) -> String {
        "not accepted yet: the client came and went before accept() was called".to_owned()
    }

    fn advice(&self) -> &'static str {
        "accept() is not called, or too seldom: the listener's threads hang or are too few. These connections hold \
         no descriptor yet; when the accept queue is full, new clients wait or are refused."
    }
}

struct InFlight;

impl Rule for InFlight {
    fn kind(&self) -> Kind {
        Kind::InFlight
    }

    fn applies(&self, candidate: &Candidate) -> bool {
        candidate.custody == Custody::Nobody
    }

    fn verdict(&self, _: Tally) -> String {
        "no process has a descriptor of it: sent over a UNIX socket (SCM_RIGHTS) and not received yet, registered \
         with io_uring, or a socket of the kernel's own (NFS, CIFS, Ceph)"
            .to_owned()
    }

    fn advice(&self) -> &'static str {
        "Look for a process that passes connections on and a receiver that has stopped receiving: the descriptor \
         waits in the queue of their UNIX socket."
    }
}

struct Unseen;

impl Rule for Unseen {
    fn kind(&self) -> Kind {
        Kind::Unseen
    }

    fn applies(&self, candidate: &Candidate) -> bool {
        candidate.custody == Custody::Unseen
    }

    fn verdict(&self, _: Tally) -> String {
        "no process that could be looked at has it: one of the others does, or it is in flight between two"
            .to_owned()
    }

    fn advice(&self) -> &'static str {
        "What could not be looked at stands at the end; root sees the processes of other users."
    }
}

struct Detached;

impl Rule for Detached {
    fn kind(&self) -> Kind {
        Kind::Detached
    }

    fn applies(&self, candidate: &Candidate) -> bool {
        candidate.custody == Custody::Detached
    }

    fn verdict(&self, _: Tally) -> String {
        "in the kernel alone: no inode, and nobody listens on its port".to_owned()
    }

    fn advice(&self) -> &'static str {
        "No process can close it: it ends with its network namespace, by `ss -K`, or when the peer sends RST."
    }
}
