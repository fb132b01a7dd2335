//! Who takes the sockets of a dump: a list, or somebody who only counts.

use super::DiagSocket;
use crate::net::State;

/// Takes sockets as they come. A list of 100,000 takes 14 MB and some milliseconds that a count has no need of.
pub trait Sink: Send + Sized {
    /// A state to come back to.
    type Mark;

    /// Takes one.
    fn take(&mut self, socket: DiagSocket);

    /// Wants nothing of a socket but to count it by its state.
    fn only_counts(&self) -> bool {
        false
    }

    /// Takes so many in this state, of TCP, each of them accepted where there is an application to accept it. Only
    /// asked of who [only counts](Self::only_counts).
    fn take_counted(&mut self, _state: State, _sockets: u64) {}

    /// The state now.
    fn mark(&self) -> Self::Mark;

    /// Forgets what came since: the kernel gave up, or has to be asked again.
    fn rewind(&mut self, mark: Self::Mark);

    /// Another of the kind, which has taken nothing, for a thread beside this.
    #[must_use]
    fn fresh(&self) -> Self;

    /// Takes what another has taken.
    fn absorb(&mut self, other: Self);
}

impl Sink for Vec<DiagSocket> {
    type Mark = usize;

    fn take(&mut self, socket: DiagSocket) {
        self.push(socket);
    }

    fn mark(&self) -> usize {
        self.len()
    }

    fn rewind(&mut self, mark: usize) {
        self.truncate(mark);
    }

    fn fresh(&self) -> Self {
        Self::new()
    }

    fn absorb(&mut self, mut other: Self) {
        self.append(&mut other);
    }
}
