//! Leaks as the screen shows them. Which sockets are in CLOSE_WAIT, and since when, the engine knows at any
//! moment. Who holds them, what is unread and how many descriptors are left is asked of the running system now and
//! then (a survey takes long on a large host), by the inventory's thread; a recording has no such answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::engine::Engine;
use crate::event::MonoNs;
use crate::filter::Filter;
use crate::inventory::worker::{Answer, Worker};
use crate::inventory::{DumpError, clock};
use crate::leaks::{Candidate, Custody, Evidence, History, LeakReport, Terms, replayed, survey};
use crate::net::{Flow, State};

/// From here on a CLOSE_WAIT is held rather than about to be closed: the default of `leaks --min-age`.
pub const HELD_NS: u64 = 10_000_000_000;
/// Reports are this far apart, in the traced host's time.
const REPORT_EVERY_NS: u64 = 1_000_000_000;
/// Surveys are at least this far apart.
const SURVEY_EVERY: Duration = Duration::from_secs(5);
/// And at most so far, however much they cost.
const SURVEY_AT_LEAST_EVERY: Duration = Duration::from_secs(60);
/// A survey that costs much is made less often: it takes at most a hundredth of a processor. Its own time counts, and
/// not how long it waited for others, or the answers would be oldest when a host is busiest.
const COST_FACTOR: u32 = 100;

/// See the module.
#[derive(Debug)]
pub struct Leaks {
    surveys: Option<Surveys>,
    survey: Option<Survey>,
    terms: Terms,
    history: History,
    /// Network namespaces of the last dump.
    namespaces: u64,
    next: MonoNs,
    report: Arc<LeakReport>,
}

/// What a survey said.
#[derive(Debug)]
struct Survey {
    evidence: Evidence,
    /// Sockets that the engine did not know then: it cannot tell when they go.
    untraced: FxHashSet<Flow>,
}

#[derive(Debug)]
struct Surveys {
    worker: Worker,
    asked: Instant,
    /// What the engine knew to be in CLOSE_WAIT then: when it knows that no more, the socket has gone on.
    known: FxHashSet<Flow>,
    /// What it says, and the processor's time that it took.
    answer: Option<Answer<(Result<Evidence, DumpError>, Duration)>>,
    next: Instant,
    /// What went wrong with the last.
    failure: Option<String>,
}

impl Leaks {
    /// With surveys of the running system; the first is asked for at once.
    #[must_use]
    pub fn of_system(worker: Worker, filter: Filter) -> Self {
        let now = Instant::now();
        let surveys = Surveys {
            worker,
            asked: now,
            known: FxHashSet::default(),
            answer: None,
            next: now,
            failure: None,
        };
        Self { surveys: Some(surveys), ..Self::of_engine(filter) }
    }

    /// From what the engine knows.
    #[must_use]
    pub fn of_engine(filter: Filter) -> Self {
        Self {
            surveys: None,
            survey: None,
            terms: Terms { filter, min_age_ns: HELD_NS },
            history: History::default(),
            namespaces: 0,
            next: 0,
            report: Arc::new(LeakReport { min_age_ns: HELD_NS, ..LeakReport::default() }),
        }
    }

    /// The same again, of what the engine knows.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            surveys: None,
            survey: None,
            terms: self.terms.clone(),
            history: self.history.clone(),
            namespaces: self.namespaces,
            next: self.next,
            report: Arc::clone(&self.report),
        }
    }

    /// A dump of so many network namespaces was fed to the engine.
    pub fn dumped(&mut self, namespaces: u64) {
        self.namespaces = namespaces;
    }

    /// The last report.
    #[must_use]
    pub fn report(&self) -> Arc<LeakReport> {
        Arc::clone(&self.report)
    }

    /// What went wrong with the last survey, in words.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.surveys.as_ref()?.failure.as_deref()
    }

    /// Takes what has come in, asks again when it is time. `focus` is the filter that was typed in.
    pub fn turn(&mut self, engine: &Engine, focus: Option<&Filter>) {
        let mut is_due = engine.now() >= self.next;
        if let Some(surveys) = &mut self.surveys
            && let Some(mut evidence) = surveys.turn(engine, &self.terms.filter, focus)
        {
            replayed::add_ages(&mut evidence, engine);
            let mut traced = std::mem::take(&mut surveys.known);
            traced.extend(flows_in_close_wait(engine));
            let flows = evidence.candidates.iter().map(|candidate| candidate.flow);
            let untraced = flows.filter(|flow| !traced.contains(flow)).collect();
            self.survey = Some(Survey { evidence, untraced });
            is_due = true;
        }
        if is_due {
            self.refocus(engine, focus);
        }
    }

    /// Makes a new report at once.
    pub fn refocus(&mut self, engine: &Engine, focus: Option<&Filter>) {
        self.next = engine.now() + REPORT_EVERY_NS;
        let evidence = self.evidence(engine);
        let watched_ns = engine.meta().elapsed_ns();
        let report = match focus {
            None => LeakReport::new(&evidence, &self.terms, &self.history),
            Some(focus) => LeakReport::new(&narrowed(evidence.clone(), focus), &self.terms, &self.history),
        };
        self.report = Arc::new(LeakReport { watched_ns: Some(watched_ns), ..report });
        // Before the first dump nothing is known of what was there: all of it would seem to be new.
        if self.namespaces > 0 || self.survey.is_some() {
            self.history.keep(&evidence, &self.terms);
        }
    }

    /// What is known now: the sockets of the engine, with what the last survey said of them.
    fn evidence(&self, engine: &Engine) -> Evidence {
        let now = replayed::evidence(engine, &|_| None, self.namespaces);
        let Some(Survey { evidence: survey, untraced }) = &self.survey else { return now };
        let known: FxHashMap<Flow, &Candidate> =
            survey.candidates.iter().map(|candidate| (candidate.flow, candidate)).collect();
        let mut culprits = now.culprits;
        culprits.extend(survey.culprits.clone());
        let since_ns = now.at.saturating_sub(survey.at);
        let mut candidates = now.candidates;
        for candidate in &mut candidates {
            // One that is younger than the survey only has the addresses of another.
            let is_younger = candidate.age.is_some_and(|age| !age.is_lower_bound && age.ns < since_ns);
            if let Some(known) = known.get(&candidate.flow).filter(|_| !is_younger) {
                *candidate = Candidate { age: candidate.age, ..(*known).clone() };
            }
        }
        let untraced = survey.candidates.iter().filter(|candidate| untraced.contains(&candidate.flow));
        candidates.extend(untraced.cloned().map(|mut candidate| {
            if let Some(age) = &mut candidate.age {
                age.ns += since_ns;
            }
            candidate
        }));
        Evidence {
            at: now.at,
            candidates,
            culprits,
            listening: survey.listening.clone(),
            namespaces: survey.namespaces.clone(),
            own_netns: survey.own_netns,
            looked: survey.looked,
            notes: survey.notes.clone(),
        }
    }
}

fn flows_in_close_wait(engine: &Engine) -> impl Iterator<Item = Flow> {
    engine.in_close_wait().map(|open| open.flow)
}

impl Surveys {
    /// What a survey said, when one has come; a failure is kept until the next.
    fn turn(&mut self, engine: &Engine, filter: &Filter, focus: Option<&Filter>) -> Option<Evidence> {
        if let Some(answer) = self.answer.as_mut().and_then(Answer::take) {
            self.answer = None;
            let answer = answer.map_err(|error| error.to_string()).and_then(|(survey, cost)| {
                let wait = (cost * COST_FACTOR).clamp(SURVEY_EVERY, SURVEY_AT_LEAST_EVERY);
                self.next = self.asked + wait;
                survey.map_err(|error| error.to_string())
            });
            self.failure = answer.as_ref().err().cloned();
            return answer.ok();
        }
        if self.answer.is_none() && Instant::now() >= self.next {
            self.asked = Instant::now();
            self.known = flows_in_close_wait(engine).collect();
            self.next = self.asked + SURVEY_EVERY;
            // Where there is nothing to look for, all of /proc need not be searched.
            if engine.events() == 0 || engine.in_close_wait().next().is_some() {
                // Containers are looked up only where somebody asks for one.
                let mut wanted = filter.clone();
                wanted.containers.extend(focus.into_iter().flat_map(|focus| focus.containers.clone()));
                self.answer = Some(self.worker.ask(move || {
                    let begun = clock::thread_cpu();
                    let survey = survey::take(&wanted);
                    (survey, clock::thread_cpu().saturating_sub(begun))
                }));
            }
        }
        None
    }
}

/// What a second filter leaves of the evidence.
fn narrowed(mut evidence: Evidence, filter: &Filter) -> Evidence {
    let Evidence { candidates, culprits, .. } = &mut evidence;
    let wanted = |pid: u32| match culprits.get(&pid) {
        Some(culprit) => filter.matches_process(culprit.pid, culprit.comm, culprit.cgroup_id),
        None => !filter.needs_owner(),
    };
    candidates.retain_mut(|candidate| {
        filter.states.contains(State::CloseWait)
            && filter.matches_flow(&candidate.flow)
            && filter.matches_dwell_ns(candidate.age.map(|age| age.ns))
            && match &mut candidate.custody {
                Custody::Held(keepers) => {
                    keepers.retain(|keeper| wanted(keeper.pid));
                    !keepers.is_empty()
                }
                Custody::AcceptQueue(listeners) => {
                    listeners.retain(|&pid| wanted(pid));
                    !listeners.is_empty() || !filter.needs_owner()
                }
                Custody::Nobody | Custody::Unseen | Custody::Detached => !filter.needs_owner(),
            }
    });
    evidence
}
