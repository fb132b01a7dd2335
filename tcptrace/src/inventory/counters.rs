//! The kernel's own counters of one network namespace: what is measured can be checked against them.

use std::collections::BTreeMap;
use std::{fs, io};

use super::namespaces::{self, Namespace, NamespaceError};

/// Files of pairs of lines, names and values.
const TABLES: [&str; 2] = ["/proc/thread-self/net/snmp", "/proc/thread-self/net/netstat"];
/// Files of one line a protocol, name and value by turns.
const SOCKSTATS: [&str; 2] = ["/proc/thread-self/net/sockstat", "/proc/thread-self/net/sockstat6"];

/// Counters that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CounterError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A file cannot be read.
    #[error("cannot read {file}: {error}")]
    Read {
        /// Which.
        file: &'static str,
        /// Why.
        error: io::Error,
    },
}

/// Counters since the namespace was made, by table and name as `nstat -az` joins them: `TcpExtTW`,
/// `TcpActiveOpens`; of `sockstat` as `sockstat.TCP.tw`, which are present figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    values: BTreeMap<String, i64>,
}

impl Counters {
    /// Reads them in `namespace`.
    pub fn read(namespace: &Namespace) -> Result<Self, CounterError> {
        namespaces::within(namespace, Self::read_here)?
    }

    /// Reads them in the network namespace of the calling thread.
    pub fn read_here() -> Result<Self, CounterError> {
        let mut counters = Self::default();
        let read = |file| fs::read_to_string(file).map_err(|error| CounterError::Read { file, error });
        for file in TABLES {
            counters.add_table(&read(file)?);
        }
        for file in SOCKSTATS {
            match read(file) {
                Ok(text) => counters.add_sockstat(&text),
                // A kernel without IPv6 has no sockstat6.
                Err(CounterError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(counters)
    }

    /// Only those about how many sockets the network namespace of the calling thread has; what cannot be read is
    /// left out.
    #[must_use]
    pub fn read_tcp_here() -> Self {
        let mut counters = Self::default();
        for text in SOCKSTATS.iter().filter_map(|file| fs::read_to_string(file).ok()) {
            counters.add_sockstat(&text);
        }
        if let Ok(text) = fs::read_to_string(TABLES[0]) {
            counters.add_table(&text);
        }
        counters
    }

    /// From texts of the forms of `netstat` and `sockstat`.
    #[must_use]
    pub fn parse(tables: &str, sockstat: &str) -> Self {
        let mut counters = Self::default();
        counters.add_table(tables);
        counters.add_sockstat(sockstat);
        counters
    }

    /// A counter; `None` when this kernel has none of that name. Almost all are unsigned: a negative one is
    /// a limit that is none (`TcpMaxConn`).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<i64> {
        self.values.get(name).copied()
    }

    /// How much a counter grew since `earlier`; `None` where either is not known.
    #[must_use]
    pub fn growth(&self, earlier: &Self, name: &str) -> Option<i64> {
        Some(self.get(name)?.wrapping_sub(earlier.get(name)?))
    }

    /// What the kernel counts about TIME_WAIT minis.
    #[must_use]
    pub fn minis(&self) -> MiniCounters {
        MiniCounters {
            made_long: self.get("TcpExtTW"),
            made_short: self.get("TcpExtTWKilled"),
            recycled: self.get("TcpExtTWRecycled"),
            overflowed: self.get("TcpExtTCPTimeWaitOverflow"),
            now: self.get("sockstat.TCP.tw"),
        }
    }

    /// `Table: name name …` and `Table: value value …` by turns.
    pub(crate) fn add_table(&mut self, text: &str) {
        let mut lines = text.lines();
        while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
            let (Some((table, names)), Some((same, values))) =
                (names.split_once(':'), values.split_once(':'))
            else {
                continue;
            };
            if table == same {
                for (name, value) in names.split_ascii_whitespace().zip(values.split_ascii_whitespace()) {
                    self.add(format!("{table}{name}"), value);
                }
            }
        }
    }

    /// `TCP: inuse 5 orphan 0 tw 12 alloc 7 mem 3`.
    pub(crate) fn add_sockstat(&mut self, text: &str) {
        for (protocol, rest) in text.lines().filter_map(|line| line.split_once(':')) {
            let mut words = rest.split_ascii_whitespace();
            while let (Some(name), Some(value)) = (words.next(), words.next()) {
                self.add(format!("sockstat.{protocol}.{name}"), value);
            }
        }
    }

    /// A 64-bit counter printed as unsigned is kept by its bits.
    fn add(&mut self, name: String, value: &str) {
        let number = value.parse::<i64>().ok().or_else(|| value.parse::<u64>().ok().map(|n| n as i64));
        if let Some(number) = number {
            self.values.insert(name, number);
        }
    }
}

/// What the kernel counts about minis, TIME_WAIT and orphaned FIN_WAIT2 together. `None` where it does not say.
///
/// In spite of their names in `nstat`, TcpExtTW and TcpExtTWKilled count minis when their timer is first started
/// and not when they end (`__inet_twsk_schedule`, seen live on 6.18).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MiniCounters {
    /// Made with a timeout of more than 4 s (`TcpExtTW`): every TIME_WAIT, and FIN_WAIT2 with such a
    /// `tcp_fin_timeout`.
    pub made_long: Option<i64>,
    /// Made with a timeout of 4 s or less (`TcpExtTWKilled`).
    pub made_short: Option<i64>,
    /// Given to a new connection by connect() (`TcpExtTWRecycled`).
    pub recycled: Option<i64>,
    /// Not made because `tcp_max_tw_buckets` was reached (`TcpExtTCPTimeWaitOverflow`).
    pub overflowed: Option<i64>,
    /// Exist now.
    pub now: Option<i64>,
}

impl MiniCounters {
    /// All that were ever made.
    #[must_use]
    pub fn made(&self) -> Option<i64> {
        Some(self.made_long?.wrapping_add(self.made_short?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_sockstat_are_read() {
        let mut counters = Counters::default();
        counters.add_table(
            "Tcp: RtoAlgorithm MaxConn ActiveOpens\nTcp: 1 -1 18446744073709551615\n\
             TcpExt: TW TWRecycled TWKilled TCPTimeWaitOverflow\nTcpExt: 5 4 3 2\nodd\n",
        );
        counters.add_sockstat("sockets: used 16\nTCP: inuse 1 orphan 0 tw 12 alloc 1 mem x\n");
        assert_eq!(counters.get("TcpMaxConn"), Some(-1));
        assert_eq!(counters.get("sockstat.TCP.mem"), None);
        let expected = MiniCounters {
            made_long: Some(5),
            made_short: Some(3),
            recycled: Some(4),
            overflowed: Some(2),
            now: Some(12),
        };
        assert_eq!(counters.minis(), expected);
        assert_eq!(counters.minis().made(), Some(8));
        let mut later = counters.clone();
        later.values.insert("TcpExtTW".to_owned(), 9);
        later.values.insert("TcpActiveOpens".to_owned(), 1);
        assert_eq!(later.growth(&counters, "TcpExtTW"), Some(4));
        // Across the end of 64 bits.
        assert_eq!(later.growth(&counters, "TcpActiveOpens"), Some(2));
        assert_eq!(later.growth(&counters, "TcpExtNone"), None);
    }

    #[test]
    fn own_counters_are_read_without_privileges() {
        let counters = Counters::read_here().expect("readable");
        assert!(counters.minis().made().is_some());
        assert!(counters.get("TcpActiveOpens").is_some());
        assert!(counters.get("sockstat.TCP.inuse").is_some());
    }
}
