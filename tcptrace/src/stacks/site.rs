//! Sites: the places in code that stacks lead to, each kept once and counted.

use std::collections::HashMap;

use super::stack::{Note, Stack};

/// Sites kept. Programs have few places that read or connect sockets; a process that makes up code for every
/// call is cut here.
pub const MAX_SITES: usize = 4096;

/// A place in code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The application's own frame first, then its callers, as they are shown.
    pub frames: Vec<String>,
    /// What the frames lack.
    pub note: Option<Note>,
    /// Callers are missing at the end.
    pub truncated: bool,
    /// Stacks that led here.
    pub count: u64,
}

/// Names a [`Site`] of one [`Sites`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(u32);

/// Sites by their frames.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    sites: Vec<Site>,
    by_frames: HashMap<Vec<String>, SiteId>,
    beyond: u64,
}

impl Sites {
    /// Counts a stack at its site. `None` where the stack has no frames or [`MAX_SITES`] are known already.
    pub fn add(&mut self, stack: &Stack) -> Option<SiteId> {
        let frames: Vec<String> = stack.site_frames().iter().map(ToString::to_string).collect();
        if frames.is_empty() {
            return None;
        }
        if let Some(&id) = self.by_frames.get(&frames) {
            self.sites[id.0 as usize].count += 1;
            return Some(id);
        }
        if self.sites.len() >= MAX_SITES {
            self.beyond += 1;
            return None;
        }
        let id = SiteId(u32::try_from(self.sites.len()).ok()?);
        self.by_frames.insert(frames.clone(), id);
        let (note, truncated) = (stack.note.clone(), stack.truncated);
        self.sites.push(Site { frames, note, truncated, count: 1 });
        Some(id)
    }

    /// A site by its name; `None` for the name of another [`Sites`].
    #[must_use]
    pub fn get(&self, id: SiteId) -> Option<&Site> {
        self.sites.get(id.0 as usize)
    }

    /// All sites, in the order in which they were first seen.
    pub fn iter(&self) -> impl Iterator<Item = (SiteId, &Site)> {
        self.sites.iter().zip(0..).map(|(site, index)| (SiteId(index), site))
    }

    /// Stacks that led to places beyond [`MAX_SITES`].
    #[must_use]
    pub fn beyond(&self) -> u64 {
        self.beyond
    }

    /// Sites with their share of the given ones, most first: for the sockets of one process.
    #[must_use]
    pub fn tally(&self, ids: impl IntoIterator<Item = SiteId>) -> Vec<Site> {
        let mut counts: HashMap<SiteId, u64> = HashMap::new();
        for id in ids {
            *counts.entry(id).or_default() += 1;
        }
        let mut sites: Vec<Site> = counts
            .into_iter()
            .filter_map(|(id, count)| Some(Site { count, ..self.get(id)?.clone() }))
            .collect();
        sites.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.frames.cmp(&b.frames)));
        sites
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stacks::frame::{Frame, Role};

    fn stack(function: &str) -> Stack {
        let frame = Frame {
            function: Some(function.to_owned()),
            file: Some("app.py".to_owned()),
            line: Some(41),
            module: None,
            address: 0,
            inlined: false,
            role: Role::Application,
            scanned: false,
        };
        Stack { frames: vec![frame], truncated: false, note: None }
    }

    #[test]
    fn stacks_are_counted_by_their_site() {
        let mut sites = Sites::default();
        let a = sites.add(&stack("a")).unwrap();
        let b = sites.add(&stack("b")).unwrap();
        assert_eq!(sites.add(&stack("a")), Some(a));
        assert_eq!(sites.add(&Stack::default()), None);
        assert_eq!(sites.get(a).unwrap().count, 2);
        assert_eq!(sites.iter().count(), 2);
        let tally = sites.tally([b, a, b]);
        assert_eq!(tally[0].frames, ["b at app.py:41"]);
        assert_eq!(tally.iter().map(|site| site.count).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn beyond_the_limit_stacks_are_counted_apart() {
        let mut sites = Sites::default();
        for index in 0..=MAX_SITES {
            sites.add(&stack(&format!("f{index}")));
        }
        assert_eq!(sites.iter().count(), MAX_SITES);
        assert_eq!(sites.beyond(), 1);
        assert!(sites.add(&stack("f0")).is_some());
    }
}
