//! What the screen is showing, and what an action changes about that. Draws nothing and asks nothing: what has to
//! be done elsewhere is returned as effects.

use ratatui::crossterm::event::KeyEvent;
use ratatui::layout::{Position, Rect};

use super::action::{Action, Effect, Play};
use super::keymap;
use super::list::{List, RowKey};
use super::panes;
use super::prompt::{Prompt, Purpose, Typed};
use super::query::{ConnectionOrder, Pane, Query};
use super::view::View;

/// See the module.
#[derive(Clone, Debug)]
pub struct State {
    /// The pane in front.
    pub pane: Pane,
    /// The lists of the panes.
    pub lists: [List; Pane::ALL.len()],
    /// The row whose details are shown instead of the list.
    pub detail: Option<Detail>,
    /// The help is shown, scrolled by so many rows.
    pub help: Option<usize>,
    /// The line that is being typed.
    pub prompt: Option<Prompt>,
    /// Views that come are not shown.
    pub paused: bool,
    /// The mouse is listened to.
    pub mouse: bool,
    /// What there is to say until the next key.
    pub message: Option<Message>,
    /// What is shown.
    pub view: View,
    /// What was drawn where.
    pub drawn: Drawn,
}

/// Details of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail {
    /// Which.
    pub key: RowKey,
    /// Scrolled by so many rows.
    pub scroll: usize,
}

/// A word to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The word.
    pub text: String,
    /// It is bad news.
    pub is_error: bool,
}

/// What was drawn where: what the mouse points at, and how far a page goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// The tabs.
    pub tabs: Vec<(Rect, Pane)>,
    /// The rows of the list.
    pub rows: Rect,
    /// The first of them.
    pub top: usize,
    /// How far a recording has been played, as a bar.
    pub progress: Rect,
    /// Lines of the page that is scrolled, and of the window that it is seen through.
    pub page: (usize, usize),
}

impl Default for State {
    fn default() -> Self {
        let mut lists: [List; Pane::ALL.len()] = Default::default();
        lists[Pane::Events.index()] = List::following();
        Self {
            pane: Pane::default(),
            lists,
            detail: None,
            help: None,
            prompt: None,
            paused: false,
            mouse: true,
            message: None,
            view: View::default(),
            drawn: Drawn::default(),
        }
    }
}

impl State {
    /// The list of the pane in front.
    #[must_use]
    pub fn list(&self) -> &List {
        &self.lists[self.pane.index()]
    }

    fn list_mut(&mut self) -> &mut List {
        &mut self.lists[self.pane.index()]
    }

    /// What has to be worked out for what is shown.
    #[must_use]
    pub fn query(&self) -> Query {
        let connections = &self.lists[Pane::Connections.index()];
        let timeline = match self.detail.map(|detail| detail.key) {
            Some(RowKey::Connection(conn)) => Some(conn),
            _ => None,
        };
        Query {
            pane: self.pane,
            search: self.list().search.clone(),
            order: ConnectionOrder::ALL[connections.order % ConnectionOrder::ALL.len()],
            reverse: connections.reverse,
            timeline,
        }
    }

    /// A new view has come.
    pub fn show(&mut self, view: View) {
        if self.paused {
            // A question that was asked meanwhile is answered, everything else stands still.
            self.view.timeline = view.timeline;
            if self.view.pane != view.pane {
                self.view.pane = view.pane;
                self.view.connections = view.connections;
                self.view.events = view.events;
            }
            return;
        }
        self.view = view;
    }

    /// Takes a key.
    pub fn key(&mut self, event: &KeyEvent) -> Vec<Effect> {
        self.message = None;
        if self.prompt.is_some() {
            return self.type_key(event);
        }
        match keymap::action(event, self.view.playback.is_some()) {
            Some(action) => self.act(action),
            None => Vec::new(),
        }
    }

    fn type_key(&mut self, event: &KeyEvent) -> Vec<Effect> {
        let Some(mut prompt) = self.prompt.take() else { return Vec::new() };
        match (prompt.key(event), prompt.purpose) {
            (Typed::More, purpose) => {
                let text = prompt.text();
                self.prompt = Some(prompt);
                if purpose == Purpose::Search { self.search(&text) } else { Vec::new() }
            }
            (Typed::Done, Purpose::Search) => Vec::new(),
            (Typed::Done, Purpose::Filter) => vec![Effect::Filter(prompt.text().trim().to_owned())],
            (Typed::Cancelled, Purpose::Search) => {
                let before = prompt.before().to_owned();
                self.search(&before)
            }
            (Typed::Cancelled, Purpose::Filter) => Vec::new(),
        }
    }

    /// Takes a paste: only where something is being typed.
    pub fn paste(&mut self, text: &str) -> Vec<Effect> {
        let Some(prompt) = &mut self.prompt else { return Vec::new() };
        prompt.paste(text);
        let (purpose, text) = (prompt.purpose, prompt.text());
        if purpose == Purpose::Search { self.search(&text) } else { Vec::new() }
    }

    fn search(&mut self, text: &str) -> Vec<Effect> {
        let before = self.query();
        let list = self.list_mut();
        list.search = text.to_lowercase();
        if !list.follows {
            list.rewind();
        }
        self.ask_if_changed(&before)
    }

    /// Does what a key, or the mouse, asks for.
    pub fn act(&mut self, action: Action) -> Vec<Effect> {
        let before = self.query();
        let mut effects = self.change(action);
        effects.extend(self.ask_if_changed(&before));
        effects
    }

    fn ask_if_changed(&self, before: &Query) -> Vec<Effect> {
        let now = self.query();
        if now == *before { Vec::new() } else { vec![Effect::Ask(now)] }
    }

    fn change(&mut self, action: Action) -> Vec<Effect> {
        match action {
            Action::Quit => return vec![Effect::Quit],
            Action::Redraw => return vec![Effect::Redraw],
            Action::Suspend => return vec![Effect::Suspend],
            Action::Export => return vec![Effect::Export],
            Action::Record => return vec![Effect::Record],
            Action::Play(play) => return vec![Effect::Play(play)],
            Action::Mouse => {
                self.mouse = !self.mouse;
                let who = if self.mouse { "used here" } else { "left to the terminal" };
                self.say(&format!("the mouse is {who}"));
                return vec![Effect::Mouse(self.mouse)];
            }
            Action::Help => self.help = if self.help.is_some() { None } else { Some(0) },
            Action::Go(pane) => self.go(pane),
            Action::Turn(by) => self.go(self.pane.step(by)),
            Action::Move(by) => self.step(by),
            Action::Page(by) => {
                let rows =
                    if self.is_page() { self.drawn.page.1 } else { usize::from(self.drawn.rows.height) };
                self.step(by * rows.saturating_sub(1).max(1) as isize);
            }
            Action::First => self.step(isize::MIN / 2),
            Action::Last => {
                self.step(isize::MAX / 2);
                if self.pane == Pane::Events && !self.is_page() {
                    self.list_mut().follows = true;
                }
            }
            Action::Open => self.open(),
            Action::Back => self.back(),
            Action::Search => self.prompt = Some(Prompt::new(Purpose::Search, &self.list().search)),
            Action::Filter => {
                let line = self.view.focus.as_ref().map_or("", |focus| &focus.line);
                self.prompt = Some(Prompt::new(Purpose::Filter, line));
            }
            Action::Sort => self.sort(),
            Action::Reverse => {
                let list = self.list_mut();
                list.reverse = !list.reverse;
                list.rewind();
            }
            Action::Pause => self.paused = !self.paused,
        }
        Vec::new()
    }

    fn sort(&mut self) {
        let orders = panes::orders(self.pane);
        if orders.is_empty() {
            return self.say("this pane has one order only");
        }
        let list = self.list_mut();
        list.order = (list.order + 1) % orders.len();
        list.reverse = false;
        list.rewind();
        let by = orders[list.order];
        self.say(&format!("sorted by {by}"));
    }

    fn go(&mut self, pane: Pane) {
        self.help = None;
        if pane != self.pane {
            self.detail = None;
            self.pane = pane;
            self.drawn = Drawn::default();
        }
    }

    fn back(&mut self) {
        if self.help.take().is_some() || self.detail.take().is_some() {
            return;
        }
        let list = self.list_mut();
        if !list.search.is_empty() {
            list.search.clear();
            list.rewind();
        }
    }

    fn open(&mut self) {
        if self.help.take().is_some() || self.detail.is_some() {
            return;
        }
        // What the overview warns of stands first among the leaks.
        if self.pane == Pane::Overview {
            return self.go(Pane::Leaks);
        }
        let keys = panes::keys(self);
        if let Some(key) = self.list().selected(&keys) {
            // The row stays where it is while it is looked at.
            if let Some(position) = self.list().position(&keys) {
                self.list_mut().go(&keys, position);
            }
            match panes::detail_of(self, key) {
                Ok(key) => self.detail = Some(Detail { key, scroll: 0 }),
                Err(why) => self.say(why),
            }
        }
    }

    /// A text is shown, not a list.
    fn is_page(&self) -> bool {
        self.help.is_some() || self.detail.is_some()
    }

    fn step(&mut self, by: isize) {
        let (lines, window) = self.drawn.page;
        let scrolled = |scroll: usize| scroll.saturating_add_signed(by).min(lines.saturating_sub(window));
        if let Some(scroll) = &mut self.help {
            *scroll = scrolled(*scroll);
        } else if let Some(detail) = &mut self.detail {
            detail.scroll = scrolled(detail.scroll);
        } else {
            let keys = panes::keys(self);
            self.list_mut().step(&keys, by);
        }
    }

    /// A click of the first button.
    pub fn click(&mut self, at: Position) -> Vec<Effect> {
        self.message = None;
        if self.prompt.is_some() {
            return Vec::new();
        }
        let tab = self.drawn.tabs.iter().find(|(area, _)| area.contains(at)).map(|&(_, pane)| pane);
        if let Some(pane) = tab {
            return self.act(Action::Go(pane));
        }
        let progress = self.drawn.progress;
        if progress.contains(at) {
            let part =
                u32::from(at.x - progress.x) * 1000 / u32::from(progress.width.saturating_sub(1).max(1));
            return self.act(Action::Play(Play::Part(part.min(1000) as u16)));
        }
        if self.is_page() || !self.drawn.rows.contains(at) {
            return Vec::new();
        }
        let row = self.drawn.top + usize::from(at.y - self.drawn.rows.y);
        let keys = panes::keys(self);
        if row >= keys.len() {
            return Vec::new();
        }
        // A second click on the same row opens it.
        if self.list().position(&keys) == Some(row) && !self.list().follows {
            return self.act(Action::Open);
        }
        self.list_mut().go(&keys, row);
        Vec::new()
    }

    /// Says something until the next key.
    pub fn say(&mut self, text: &str) {
        self.message = Some(Message { text: text.to_owned(), is_error: false });
    }

    /// Says something that went wrong.
    pub fn complain(&mut self, text: &str) {
        self.message = Some(Message { text: text.to_owned(), is_error: true });
    }
}
