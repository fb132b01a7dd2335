//! The values of sysctls, asked again from time to time: somebody may turn them while this watches.

use std::time::{Duration, Instant};

use crate::filter::Filter;
use crate::inventory::sysctl::Sysctls;
use crate::inventory::worker::{Answer, Worker};
use crate::snapshot;

/// Each reading opens some thirty files.
const EVERY: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct Watch {
    worker: Worker,
    namespaces: Vec<u32>,
    answer: Option<Answer<Vec<snapshot::Sysctls>>>,
    next: Instant,
}

impl Watch {
    /// Of the namespaces that the filter wants, else of the program's own.
    #[must_use]
    pub fn new(worker: Worker, filter: &Filter) -> Self {
        let namespaces = filter.namespaces.iter().map(|netns| netns.inode).collect();
        // The engine was told them when it was made.
        Self { worker, namespaces, answer: None, next: Instant::now() + EVERY }
    }

    /// New values, when some have come.
    pub fn turn(&mut self) -> Option<Vec<snapshot::Sysctls>> {
        if self.answer.is_none() && Instant::now() >= self.next {
            self.next = Instant::now() + EVERY;
            let namespaces = self.namespaces.clone();
            self.answer = Some(self.worker.ask(move || {
                Sysctls::of_namespaces(&namespaces).iter().map(Sysctls::for_snapshot).collect()
            }));
        }
        let values = self.answer.as_mut().and_then(Answer::take)?;
        self.answer = None;
        // A namespace that is gone has none; the last ones stay.
        values.ok().filter(|values| !values.is_empty())
    }
}
