use std::net::IpAddr;

use super::*;
use crate::net::State;
use crate::outcome::{Dwell, Evidence};

/// A system in which some names exist.
struct Known;

impl Resolver for Known {
    fn netns(&self, wanted: &str) -> Result<u32, Unresolved> {
        match wanted {
            "blue" => Ok(4_026_532_000),
            "1" | "4026531833" => Ok(4_026_531_833),
            "4026532111" => Ok(4_026_532_111),
            other => Err(Unresolved(format!("no network namespace {other}"))),
        }
    }

    fn container(&self, id: &str) -> Result<Vec<u64>, Unresolved> {
        if id == "0123abcd" { Ok(vec![70, 71]) } else { Err(Unresolved(format!("no container {id}"))) }
    }

    fn pid(&self, pid: u32) -> Result<(), Unresolved> {
        if pid < 1000 { Ok(()) } else { Err(Unresolved(format!("no process {pid}"))) }
    }
}

fn filter(line: &str) -> Filter {
    parse_line(line, &Known).unwrap()
}

fn refusal(line: &str) -> String {
    parse_line(line, &Known).unwrap_err().to_string()
}

fn flow(local: &str, local_port: u16, remote: &str, remote_port: u16) -> Flow {
    let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
    Flow { local: addr(local), remote: addr(remote), netns: 4_026_531_833, local_port, remote_port }
}

fn owner(pid: u32, comm: &str, cgroup_id: u64) -> Owner {
    Owner { pid, comm: Comm::from_bytes(comm.as_bytes()), evidence: Evidence::Close, cgroup_id }
}

fn transition(from: State, to: State, dwell_ns: Option<u64>) -> Transition {
    Transition {
        at: 0,
        conn: 1,
        flow: flow("10.0.0.1", 40_000, "10.0.0.2", 80),
        from,
        to,
        phase: None,
        to_phase: None,
        dwell: dwell_ns.map(|ns| Dwell { ns, is_lower_bound: false }),
        as_full_socket_ns: None,
        end: None,
        rearmed: 0,
        timeout_jiffies: None,
        owner: Some(owner(7, "nginx", 70)),
    }
}

#[test]
fn the_empty_line_wants_everything() {
    let all = filter("");
    assert!(all.is_all() && !all.needs_owner());
    assert_eq!(all.to_string(), "");
    assert!(all.matches_flow(&flow("::1", 0, "::", 0)));
    assert!(all.matches_owner(None));
    assert!(all.matches_transition(&transition(State::SynSent, State::Close, None)));
}

#[test]
fn values_of_an_option_are_alternatives_and_options_must_all_hold() {
    let wanted = filter("--port 80,443 --rport 80 --addr 10.0.0.0/8 --addr 192.168.1.1");
    assert!(wanted.matches_flow(&flow("10.0.0.1", 40_000, "1.2.3.4", 80)));
    assert!(wanted.matches_flow(&flow("1.2.3.4", 40_000, "192.168.1.1", 80)));
    assert!(!wanted.matches_flow(&flow("10.0.0.1", 80, "1.2.3.4", 40_000)), "not the remote port");
    assert!(!wanted.matches_flow(&flow("1.1.1.1", 40_000, "1.2.3.4", 80)), "not the network");
    assert!(filter("--port 80").matches_flow(&flow("10.0.0.1", 80, "1.2.3.4", 40_000)));
    assert!(!filter("--lport 80").matches_flow(&flow("10.0.0.1", 0, "1.2.3.4", 80)));
}

#[test]
fn v4_mapped_flows_are_ipv4() {
    let mapped = flow("::ffff:10.0.0.1", 1, "::ffff:10.0.0.2", 2);
    assert!(filter("-4").matches_flow(&mapped));
    assert!(!filter("-6").matches_flow(&mapped));
    assert!(filter("--addr 10.0.0.0/24").matches_flow(&mapped));
    assert!(filter("--addr ::ffff:10.0.0.0/120").matches_flow(&mapped));
    assert!(filter("-6 --addr 2001:db8::/32").matches_flow(&flow("2001:db8::1", 1, "::1", 2)));
}

#[test]
fn owners_match_by_pid_name_and_container() {
    let nginx = owner(7, "nginx", 70);
    assert!(filter("--pid 7").matches_owner(Some(&nginx)));
    assert!(!filter("--pid 8").matches_owner(Some(&nginx)));
    assert!(filter("--comm 'ngi*' --pid 7,8").matches_owner(Some(&nginx)));
    assert!(filter("--container 0123abcd").matches_owner(Some(&nginx)));
    assert!(!filter("--container 0123abcd").matches_owner(Some(&owner(7, "nginx", 72))));
    assert!(!filter("--container 0123abcd").matches_owner(Some(&owner(7, "nginx", 0))), "not known");
    assert!(!filter("--pid 7").matches_owner(None));
}

#[test]
fn namespaces_are_resolved_once() {
    let wanted = filter("--netns blue,1");
    assert!(wanted.matches_flow(&flow("10.0.0.1", 1, "10.0.0.2", 2)));
    assert_eq!(wanted.namespaces[0].inode, 4_026_532_000);
    assert_eq!(wanted.to_string(), "--netns blue,4026531833");
    assert_eq!(filter(&wanted.to_string()), wanted);
    assert_eq!(
        filter("--netns net:[4026532111]").kernel_part(StateSet::ALL, Detail::Transitions).netns,
        4_026_532_111
    );
    assert_eq!(wanted.kernel_part(StateSet::ALL, Detail::Transitions).netns, 0);
}

#[test]
fn states_count_on_both_sides_in_lists_and_on_the_left_in_statistics() {
    let wanted = filter("--state time-wait,CLOSE_WAIT");
    let enters = transition(State::FinWait2, State::TimeWait, Some(1));
    let leaves = transition(State::TimeWait, State::Close, Some(1));
    assert!(wanted.matches_transition(&enters) && wanted.matches_transition(&leaves));
    assert!(!wanted.matches_finished(&enters) && wanted.matches_finished(&leaves));
    assert!(!wanted.matches_transition(&transition(State::SynSent, State::Established, Some(1))));
}

#[test]
fn a_dwell_that_is_not_known_is_not_long_enough() {
    let wanted = filter("--min-dwell 1s500ms");
    let lasted = |ns| wanted.matches_transition(&transition(State::CloseWait, State::LastAck, ns));
    assert!(lasted(Some(1_500_000_000)));
    assert!(!lasted(Some(1_499_999_999)));
    assert!(!lasted(None));
    assert!(filter("").matches_transition(&transition(State::CloseWait, State::LastAck, None)));
}

#[test]
fn open_states_match_by_age() {
    let open = Open {
        conn: 1,
        flow: flow("10.0.0.1", 1, "10.0.0.2", 2),
        state: State::CloseWait,
        phase: None,
        since: 5_000_000_000,
        since_is_lower_bound: true,
        owner: None,
        unread: None,
    };
    let wanted = filter("--state CLOSE_WAIT --min-dwell 10s");
    assert!(wanted.matches_open(&open, 15_000_000_000));
    assert!(!wanted.matches_open(&open, 14_000_000_000));
    assert!(!wanted.matches_open(&open, 0), "a clock that went back is no age");
    assert!(!filter("--pid 7").matches_open(&open, 15_000_000_000));
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    insta::assert_snapshot!(
        [
            "--state TIMEWAITING",
            "--port 0",
            "--port 80-90",
            "--addr 10.0.0.300",
            "--addr 10.0.0.1:80",
            "--addr localhost",
            "--min-dwell 10",
            "--pid nginx",
            "--pid 2000",
            "--netns green",
            "--netns ../x",
            "--netns 2",
            "--container a/b",
            "--container abcdef",
            "-4 -6",
            "-4 --addr ::1",
            "-6 --addr 10.0.0.0/8",
            "--port 80 --lport 443 --rport 1000",
            "--colour",
            "stray",
            "--comm 'open",
        ]
        .map(|line| format!("{line}\n    {}", refusal(line)))
        .join("\n")
    );
}

#[test]
fn a_filter_prints_as_the_line_that_makes_it() {
    let line = "--port 80,443 --lport 80 --rport 1024 --addr 10.0.0.0/8,2001:db8::/32 --pid 7 --comm 'a b*' \
                --netns blue --container 0123abcd -4 --state FIN_WAIT2,TIME_WAIT --min-dwell 1h30m";
    let line = line.replace(",2001:db8::/32", "");
    let parsed = filter(&line);
    assert_eq!(parsed.to_string(), line);
    assert_eq!(filter(&parsed.to_string()), parsed);
}

proptest::proptest! {
    #[test]
    fn no_line_panics(line in "[-a-z0-9 .:/,'*_]{0,60}") {
        if let Ok(parsed) = parse_line(&line, &Known) {
            assert_eq!(filter(&parsed.to_string()), parsed);
        }
    }
}
