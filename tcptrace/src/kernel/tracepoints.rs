//! Ids of tracepoints among the kernel's types, which programs at typed tracepoints are loaded with.

use aya::{Btf as AyaBtf, Endianness};

use super::btf::{self, Btf, TRACEPOINT_PREFIX};

/// Tracepoints that there are typed programs for.
pub(super) const NAMES: [&str; 4] =
    ["timer_start", "timer_cancel", "timer_expire_entry", "inet_sock_set_state"];

/// Their ids, in the order of `NAMES`; 0, which is void's, where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracepoints([u32; NAMES.len()]);

impl Tracepoints {
    /// Looks them up.
    #[must_use]
    pub fn from_btf(btf: &Btf<'_>) -> Self {
        Self(NAMES.map(|name| btf.tracepoint(name).unwrap_or(0)))
    }

    /// Types of which only these have a name, under the ids that they have in the kernel. aya asks its copy of the
    /// kernel's types for nothing else, and reads all of them from the kernel in fifty times the time.
    ///
    /// `None` where none is known.
    pub(super) fn as_aya(&self) -> Option<AyaBtf> {
        let named = NAMES.into_iter().zip(self.0).filter(|&(_, id)| id != 0);
        let names = named.map(|(name, id)| (id, format!("{TRACEPOINT_PREFIX}{name}")));
        let bytes = btf::only_typedefs(names.collect())?;
        AyaBtf::parse(&bytes, Endianness::default()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya_obj::btf::BtfKind;

    #[test]
    fn aya_finds_the_ids_that_were_given() {
        let btf = Tracepoints([7, 100_000, 0, 8]).as_aya().unwrap();
        let id = |name: &str| btf.id_by_type_name_kind(name, BtfKind::Typedef).ok();
        assert_eq!(id("btf_trace_timer_start"), Some(7));
        assert_eq!(id("btf_trace_timer_cancel"), Some(100_000));
        assert_eq!(id("btf_trace_timer_expire_entry"), None);
        assert_eq!(id("btf_trace_inet_sock_set_state"), Some(8));
        assert!(Tracepoints::default().as_aya().is_none());
    }

    #[test]
    fn the_running_kernels_are_those_that_aya_finds() {
        let Ok(bytes) = std::fs::read(super::super::offsets::VMLINUX_BTF) else {
            eprintln!("skipped: this kernel has no BTF");
            return;
        };
        let whole = AyaBtf::parse(&bytes, Endianness::default()).unwrap();
        let found = Tracepoints::from_btf(&btf::parse(&bytes).unwrap());
        for (name, id) in NAMES.into_iter().zip(found.0) {
            let typedef = format!("{TRACEPOINT_PREFIX}{name}");
            assert_eq!(whole.id_by_type_name_kind(&typedef, BtfKind::Typedef).unwrap(), id, "{name}");
        }
    }
}
