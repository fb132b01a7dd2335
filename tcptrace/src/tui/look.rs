//! How things look here: colours, characters, the time zone.

use jiff::tz::TimeZone;

use super::theme::Theme;
use super::view::View;
use crate::event::MonoNs;

/// See the module.
#[derive(Clone, Debug)]
pub struct Look {
    /// Colours and characters.
    pub theme: Theme,
    /// The time zone that times are shown in.
    pub zone: TimeZone,
}

/// Times further back than this get their date.
const TODAY_NS: u64 = 12 * 3600 * 1_000_000_000;

impl Look {
    /// A moment as the clock on the wall had it: `14:03:11`, with the date where it is half a day ago.
    #[must_use]
    pub fn clock(&self, view: &View, at: MonoNs) -> String {
        let time = view.snapshot.meta.wall.time(at).to_zoned(self.zone.clone());
        let format = if view.now().saturating_sub(at) < TODAY_NS { "%H:%M:%S" } else { "%b %d %H:%M:%S" };
        time.strftime(format).to_string()
    }

    /// The same to the millisecond.
    #[must_use]
    pub fn precise(&self, view: &View, at: MonoNs) -> String {
        let time = view.snapshot.meta.wall.time(at).to_zoned(self.zone.clone());
        let format =
            if view.now().saturating_sub(at) < TODAY_NS { "%H:%M:%S%.3f" } else { "%b %d %H:%M:%S%.3f" };
        time.strftime(format).to_string()
    }
}
