//! Task names with `*`.

use std::fmt;

use crate::event::Comm;

/// Longest task name in the kernel: TASK_COMM_LEN less its NUL.
const COMM_MAX: usize = 15;

/// A task name in which `*` stands for any run of bytes, none included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommPattern(String);

impl CommPattern {
    /// Takes a name that is not empty. One without `*` is cut to 15 bytes as the kernel cuts it, so that
    /// `systemd-networkd` finds `systemd-network`.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        Some(Self(text.to_owned()))
    }

    /// Does the name match?
    #[must_use]
    pub fn matches(&self, comm: Comm) -> bool {
        let pattern = self.0.as_bytes();
        let Some(star) = pattern.iter().position(|&byte| byte == b'*') else {
            return comm.bytes() == &pattern[..pattern.len().min(COMM_MAX)];
        };
        let Some(mut rest) = comm.bytes().strip_prefix(&pattern[..star]) else { return false };
        let mut parts = pattern[star + 1..].split(|&byte| byte == b'*').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            // Taking the first place where a middle part fits leaves the most for those after it.
            let found = rest.windows(part.len().max(1)).position(|window| window == part);
            match if part.is_empty() { Some(0) } else { found } {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

impl fmt::Display for CommPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, comm: &str) -> bool {
        CommPattern::new(pattern).unwrap().matches(Comm::from_bytes(comm.as_bytes()))
    }

    #[test]
    fn whole_names_are_cut_as_the_kernel_cuts_them() {
        assert!(matches("nginx", "nginx"));
        assert!(!matches("nginx", "nginx2"));
        assert!(!matches("nginx", "ngin"));
        assert!(matches("systemd-networkd", "systemd-network"));
        assert!(CommPattern::new("").is_none());
    }

    #[test]
    fn stars_stand_for_anything() {
        assert!(matches("nginx*", "nginx"));
        assert!(matches("nginx*", "nginx: worker"));
        assert!(matches("*work*", "kworker/0:1"));
        assert!(matches("k*/*:1", "kworker/0:1"));
        assert!(matches("*", "x"));
        assert!(matches("a**b", "ab"));
        assert!(!matches("a*a", "a"), "parts do not overlap");
        assert!(!matches("*x", "xy"));
        assert!(!matches("k*/*:2", "kworker/0:1"));
    }
}
