//! Feeds one stream of input to the tracker and the statistics. Runs the same from a live kernel (`live`) and
//! from a recording, and cannot tell which it is: time comes with the input, nothing here asks for it.

use serde::{Deserialize, Serialize};

use crate::event::{Event, MonoNs};
use crate::filter::{Detail, Filter, StateSet, tells_every_end};
use crate::inventory::diag::Dump;
use crate::loss::Loss;
use crate::net::{Flow, State};
use crate::outcome::{Open, Outcome, Owner};
use crate::snapshot::{KeyKind, Meta, Program, SkippedHook, Snapshot, TransitionCount};
use crate::stats::{DEFAULT_KEYS, Stats};
use crate::tracker::{Limits, Tracker};

/// A `sock_diag` dump and who was found in /proc to hold the sockets in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The sockets.
    pub dump: Dump,
    /// Inode of a socket and its first holder, with evidence `fd`; ascending by inode.
    pub owners: Vec<(u64, Owner)>,
}

/// Everything that can be fed: what a recording holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "snake_case")]
pub enum Input {
    /// One event of the kernel.
    Event(Event),
    /// A dump is about to be taken; see [`Tracker::begin_resync`].
    InventoryBegins {
        /// When.
        at: MonoNs,
    },
    /// The dump, once every event that came before its end has been fed.
    Inventory(Inventory),
    /// Totals of the kernel side's loss.
    Loss(KernelLoss),
    /// Time passed.
    Tick {
        /// Now.
        at: MonoNs,
    },
}

/// What the kernel side did not deliver. Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelLoss {
    /// Records that found no room, or could not be read.
    pub ring_full: u64,
    /// Program runs that the kernel skipped.
    pub skipped_runs: u64,
}

/// Tracker, statistics and filters behind one entrance.
#[derive(Clone)]
pub struct Engine {
    tracker: Tracker,
    stats: Stats,
    filter: Filter,
    /// What the recording that is replayed was filtered by: it holds more than its recorder was asked for.
    recorded: Filter,
    /// One of the two leaves outcomes out. Most traces have no filter, and asking about each of its parts is a tenth of
    /// what an event costs.
    filters: bool,
    meta: Meta,
    kernel_loss: KernelLoss,
    lost_since_inventory: bool,
    /// The dump that is being taken is to mend what was lost before.
    is_mending: bool,
    /// Gaps that loss which the kernel side has counted may explain, or that are in `vanished` already.
    settled_gaps: u64,
    vanished: u64,
    skipped: Vec<SkippedHook>,
    programs: Vec<Program>,
    lost_transitions: Vec<TransitionCount>,
    /// Dumps that were begun because something had been lost.
    resyncs: u64,
    notes: Vec<String>,
    /// Reused for every input, so that an event costs no allocation.
    outcomes: Vec<Outcome>,
}

impl Engine {
    /// `meta` says where the input comes from; its `now`, `events` and `connections` are kept here.
    #[must_use]
    pub fn new(meta: Meta, filter: Filter, by: Option<KeyKind>, limits: Limits) -> Self {
        let mut tracker = Tracker::new(limits);
        tracker.set_hz(meta.hz);
        Self {
            tracker,
            stats: Stats::new(by, DEFAULT_KEYS),
            filters: leaves_out(&filter),
            filter,
            recorded: Filter::default(),
            meta,
            kernel_loss: KernelLoss::default(),
            lost_since_inventory: false,
            is_mending: false,
            settled_gaps: 0,
            vanished: 0,
            skipped: Vec::new(),
            programs: Vec::new(),
            lost_transitions: Vec::new(),
            resyncs: 0,
            notes: Vec::new(),
            outcomes: Vec::with_capacity(16),
        }
    }

    /// Adds the filter that a recording was made with.
    pub fn set_recorded_filter(&mut self, recorded: Filter) {
        let passed = recorded.kernel_part(StateSet::ALL, Detail::Transitions);
        self.expect_every_end(tells_every_end(&passed.transitions));
        self.recorded = recorded;
        self.look_at_filters();
    }

    fn look_at_filters(&mut self) {
        self.filters = leaves_out(&self.filter) || leaves_out(&self.recorded);
    }

    /// Says whether the kernel side tells every step of a connection that has begun to end.
    pub fn expect_every_end(&mut self, is_told: bool) {
        self.tracker.expect_every_end(is_told);
    }

    /// Tracing begins.
    pub fn begin(&mut self, now: MonoNs) {
        self.meta.started = now;
        self.meta.now = now;
    }

    /// Says which events come next, so that the memory that they will look at is on its way. Changes nothing.
    pub fn fetch(&self, events: &[Event]) {
        self.tracker.fetch(events);
    }

    /// Feeds one event; `sink` gets what the filter lets through.
    pub fn event(&mut self, event: &Event, mut sink: impl FnMut(&Outcome)) {
        self.meta.events += 1;
        self.meta.now = self.meta.now.max(event.at());
        self.tracker.apply(event, &mut self.outcomes);
        self.deliver(&mut sink);
    }

    /// Time passed without an event.
    pub fn tick(&mut self, now: MonoNs, mut sink: impl FnMut(&Outcome)) {
        self.meta.now = self.meta.now.max(now);
        // One deadline at a time: of a namespace that is given up half a million TIME_WAITs end at once, and the
        // outcomes of them all would be a hundred megabytes.
        while let Some(deadline) = self.tracker.deadline().filter(|&deadline| deadline <= now) {
            self.tracker.expire(deadline, &mut self.outcomes);
            self.deliver(&mut sink);
        }
        self.tracker.expire(now, &mut self.outcomes);
        self.deliver(&mut sink);
        self.tracker.shrink();
    }

    /// No more input will come: what waits for further events is concluded without them. A TIME_WAIT that was
    /// taken away just now has ended, even if nobody can say any more whether a connection took its place.
    pub fn finish(&mut self, mut sink: impl FnMut(&Outcome)) {
        while let Some(deadline) = self.tracker.deadline() {
            self.tracker.expire(deadline, &mut self.outcomes);
            self.deliver(&mut sink);
        }
        self.settle_gaps();
    }

    /// A dump is about to be taken.
    pub fn inventory_begins(&mut self, now: MonoNs) {
        self.settle_gaps();
        self.resyncs += u64::from(self.lost_since_inventory);
        self.is_mending = self.lost_since_inventory;
        self.tracker.trust_events(!self.is_mending);
        self.lost_since_inventory = false;
        self.tracker.begin_resync(now);
    }

    /// Reconciles the tracker with a dump: seeding, and mending after loss.
    pub fn inventory(&mut self, inventory: &Inventory, mut sink: impl FnMut(&Outcome)) {
        inventory.dump.notes.iter().for_each(|note| self.note(note.clone()));
        let owner_of = |socket: &crate::inventory::diag::DiagSocket| {
            let position = inventory.owners.binary_search_by_key(&socket.inode?, |&(inode, _)| inode);
            position.ok().map(|position| inventory.owners[position].1)
        };
        self.tracker.reconcile(&inventory.dump, &owner_of, &mut self.outcomes);
        self.deliver(&mut sink);
        self.settle_gaps();
        self.is_mending = false;
    }

    /// Feeds anything that a recording holds.
    pub fn feed(&mut self, input: &Input, sink: impl FnMut(&Outcome)) {
        match input {
            Input::Event(event) => self.event(event, sink),
            Input::InventoryBegins { at } => self.inventory_begins(*at),
            Input::Inventory(inventory) => self.inventory(inventory, sink),
            Input::Loss(loss) => self.set_kernel_loss(*loss),
            Input::Tick { at } => self.tick(*at, sink),
        }
    }

    fn deliver(&mut self, sink: &mut impl FnMut(&Outcome)) {
        for outcome in &self.outcomes {
            if !self.filters || wanted(&self.filter, outcome) && wanted(&self.recorded, outcome) {
                self.stats.record(outcome);
                sink(outcome);
            }
        }
        self.outcomes.clear();
    }

    /// Sets the totals of the kernel side's loss, read after every event that was fed.
    pub fn set_kernel_loss(&mut self, loss: KernelLoss) {
        self.lost_since_inventory |= loss != self.kernel_loss;
        self.kernel_loss = loss;
        self.settle_gaps();
    }

    /// Whether gaps were found that the next reading of the kernel side's loss may explain: it is wanted even when it
    /// has not changed.
    #[must_use]
    pub fn has_unsettled_gaps(&self) -> bool {
        self.tracker.gaps() != self.settled_gaps
    }

    /// What shows a gap while nothing is known to be lost was lost without being counted. Where something is known,
    /// it may be that, until a dump has mended what is known of the sockets.
    fn settle_gaps(&mut self) {
        if !self.lost_since_inventory && !self.is_mending {
            self.vanished += self.tracker.gaps() - self.settled_gaps;
        }
        self.settled_gaps = self.tracker.gaps();
    }

    /// Something looks as if its end had not been told: a dump would show it. Looks at all that is open.
    #[must_use]
    pub fn has_doubts(&self) -> bool {
        self.tracker.has_doubts(self.meta.now)
    }

    /// The totals of the kernel side's loss.
    #[must_use]
    pub fn kernel_loss(&self) -> KernelLoss {
        self.kernel_loss
    }

    /// Something was lost since the last dump began: the tables may be wrong until the next.
    #[must_use]
    pub fn needs_resync(&self) -> bool {
        self.lost_since_inventory
    }

    /// Whether every socket that the last dump showed, and every one since, is known: nothing was lost, and all found room.
    #[must_use]
    pub fn knows_every_socket(&self) -> bool {
        !self.lost_since_inventory && self.tracker.table_full() == 0
    }

    /// Sets what is known of the BPF programs.
    pub fn set_programs(&mut self, programs: Vec<Program>, skipped: Vec<SkippedHook>) {
        self.programs = programs;
        self.skipped = skipped;
    }

    /// Sets which transitions found no room in the ring, totals since the start.
    pub fn set_lost_transitions(&mut self, lost: Vec<TransitionCount>) {
        self.lost_transitions = lost;
    }

    /// Everything that was lost so far.
    #[must_use]
    pub fn loss(&self) -> Loss {
        Loss {
            ring_full: self.kernel_loss.ring_full,
            skipped_runs: self.kernel_loss.skipped_runs,
            table_full: self.tracker.table_full(),
            vanished: self.vanished,
            resyncs: self.resyncs,
        }
    }

    /// What could not be seen, in words.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Adds a sentence about what could not be seen.
    pub fn note(&mut self, note: String) {
        if !self.notes.contains(&note) && self.notes.len() < MAX_NOTES {
            self.notes.push(note);
        }
    }

    /// Events fed so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.meta.events
    }

    /// Connections by the state that they are in now, those included that the filter does not want. One pass over
    /// what is open: ask once for all states.
    pub fn open_by_state(&self) -> impl Fn(State) -> u64 + use<> {
        let open = self.tracker.counts().open;
        move |state| open[usize::from(state.number())]
    }

    /// The same for one state.
    #[must_use]
    pub fn open_in(&self, state: State) -> u64 {
        self.open_by_state()(state)
    }

    /// The latest moment that was fed.
    #[must_use]
    pub fn now(&self) -> MonoNs {
        self.meta.now
    }

    /// Where the input comes from.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The filters in force.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Replaces the filter, from now on.
    pub fn set_filter(&mut self, filter: Filter) {
        self.filter = filter;
        self.look_at_filters();
    }

    /// When [`Engine::tick`] has something to do, at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<MonoNs> {
        self.tracker.deadline()
    }

    /// Connections that the filter wants, with the state that they are in now.
    pub fn open(&self) -> impl Iterator<Item = Open> {
        self.wanted(self.tracker.open())
    }

    /// Those of them that are in CLOSE_WAIT. TIME_WAITs, of which there may be a million, are not looked at.
    pub fn in_close_wait(&self) -> impl Iterator<Item = Open> {
        self.wanted(self.tracker.open_full_sockets().filter(|open| open.state == State::CloseWait))
    }

    fn wanted(&self, open: impl Iterator<Item = Open>) -> impl Iterator<Item = Open> {
        // Most traces have no filter: then a million connections need not be asked about each of its parts.
        let filters =
            [&self.filter, &self.recorded].map(|filter| (*filter != Filter::default()).then_some(filter));
        let now = self.meta.now;
        open.filter(move |open| {
            open.state != State::Listen
                && filters.iter().flatten().all(|filter| {
                    filter.matches_flow(&open.flow)
                        && filter.matches_owner(open.owner.as_ref())
                        && filter.matches_dwell_ns(Some(now.saturating_sub(open.since)))
                })
        })
    }

    /// Where somebody listens, by local address.
    pub fn listening(&self) -> impl Iterator<Item = Flow> {
        self.tracker.open_full_sockets().filter(|open| open.state == State::Listen).map(|open| open.flow)
    }

    /// The view of this moment. `container` names the container of a cgroup v2 id.
    #[must_use]
    pub fn snapshot(&self, container: &dyn Fn(u64) -> Option<String>) -> Snapshot {
        let snapshot = self.stats.snapshot(self.meta_now(), self.open(), container);
        self.complete(snapshot, self.filter.states)
    }

    /// The same from statistics that somebody else kept of a part of this engine's outcomes: those that `filter`,
    /// which narrows the engine's own, wants.
    #[must_use]
    pub fn snapshot_of(
        &self,
        stats: &Stats,
        filter: &Filter,
        container: &dyn Fn(u64) -> Option<String>,
    ) -> Snapshot {
        let open = self.open().filter(|open| filter.matches_open(open, self.meta.now));
        let snapshot = stats.snapshot(self.meta_now(), open, container);
        self.complete(snapshot, self.filter.states.and(filter.states))
    }

    fn meta_now(&self) -> Meta {
        Meta { connections: self.tracker.connections(), ..self.meta.clone() }
    }

    /// Adds what is known beside the statistics, and takes away the states that nobody asked for.
    fn complete(&self, mut snapshot: Snapshot, states: StateSet) -> Snapshot {
        let states = states.and(self.recorded.states);
        snapshot.states.retain(|report| states.contains(report.state));
        snapshot.loss = self.loss();
        snapshot.skipped.clone_from(&self.skipped);
        snapshot.notes.clone_from(&self.notes);
        snapshot.programs.clone_from(&self.programs);
        snapshot.lost_transitions.clone_from(&self.lost_transitions);
        snapshot
    }
}

/// Distinct notes that are kept: more would bury the first, which is the one that matters.
const MAX_NOTES: usize = 20;

/// Flow, owner and length decide here; states are chosen when a view is made, because a dwell's beginning is a
/// transition of another state.
/// Whether [`wanted`] ever says no. States are for the reports: every outcome of a connection is counted.
fn leaves_out(filter: &Filter) -> bool {
    !Filter { states: StateSet::ALL, ..filter.clone() }.is_all()
}

/// Whether a filter wants an outcome.
fn wanted(filter: &Filter, outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Transition(transition) => {
            filter.matches_flow(&transition.flow)
                && filter.matches_owner(transition.owner.as_ref())
                && (filter.min_dwell_ns.is_none()
                    || filter.matches_dwell_ns(transition.dwell.map(|dwell| dwell.ns)))
        }
        Outcome::ConnectFailed { flow, owner, .. } => {
            filter.matches_flow(flow) && filter.matches_owner(owner.as_ref())
        }
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
