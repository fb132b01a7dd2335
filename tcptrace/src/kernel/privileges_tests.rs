use super::*;

/// A host that lacks nothing.
fn good() -> Host {
    Host {
        release: "6.1.0-13-amd64".into(),
        effective: caps::all(),
        initial_user_namespace: Some(true),
        lockdown: Some(Lockdown::Integrity),
        has_btf: true,
        kptr_restrict: Some(1),
        perf_event_paranoid: Some(2),
        unprivileged_bpf_disabled: Some(2),
    }
}

fn with(capabilities: &[Capability]) -> Host {
    Host { effective: capabilities.iter().copied().collect(), ..good() }
}

#[test]
fn releases_are_read_as_vendors_write_them() {
    for (text, major, minor) in [
        ("6.1.0-13-amd64", 6, 1),
        ("5.10.0", 5, 10),
        ("6.18.44-fc-v657", 6, 18),
        ("5.8-rc1", 5, 8),
        ("4.18.0-513.el8.x86_64", 4, 18),
        ("6.6+", 6, 6),
    ] {
        assert_eq!(Release::parse(text), Some(Release { major, minor }), "{text}");
    }
    for text in ["", "linux", "6", "6.", ".1", "99999999.1"] {
        assert_eq!(Release::parse(text), None, "{text}");
    }
}

#[test]
fn lockdown_is_the_word_in_brackets() {
    assert_eq!(Lockdown::parse("none [integrity] confidentiality\n"), Some(Lockdown::Integrity));
    assert_eq!(Lockdown::parse("[none] integrity confidentiality\n"), Some(Lockdown::None));
    assert_eq!(Lockdown::parse("none integrity [confidentiality]\n"), Some(Lockdown::Confidentiality));
    for text in ["", "none", "[", "[]", "[strange]", "]none["] {
        assert_eq!(Lockdown::parse(text), None, "{text}");
    }
}

#[test]
fn a_good_host_lacks_nothing() {
    assert_eq!(good().missing(true), []);
    assert_eq!(with(&[Capability::CAP_SYS_ADMIN, Capability::CAP_SYSLOG]).missing(true), []);
    let minimal = [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_SYSLOG];
    assert_eq!(with(&minimal).missing(true), []);
    assert_eq!(with(&minimal[..2]).missing(false), [], "no symbol is needed without timers");
}

#[test]
fn missing_capabilities_are_named_each() {
    let missing = with(&[]).missing(true);
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].to_string(), "missing CAP_BPF, CAP_PERFMON and CAP_SYSLOG");
    assert!(
        missing[0].advice().contains("setcap cap_bpf,cap_perfmon,cap_syslog+ep"),
        "{}",
        missing[0].advice()
    );
    let missing = with(&[Capability::CAP_SYS_ADMIN]).missing(true);
    assert_eq!(missing, [Missing::Capabilities(vec![Capability::CAP_SYSLOG])]);
    let missing = with(&[Capability::CAP_PERFMON]).missing(false);
    assert_eq!(missing[0].to_string(), "missing CAP_BPF");
}

#[test]
fn hidden_symbols_follow_the_sysctls() {
    let open =
        Host { kptr_restrict: Some(0), perf_event_paranoid: Some(1), ..with(&[Capability::CAP_SYS_ADMIN]) };
    assert_eq!(open.missing(true), []);
    let paranoid = Host { perf_event_paranoid: Some(2), ..open.clone() };
    assert_eq!(paranoid.missing(true), [Missing::Capabilities(vec![Capability::CAP_SYSLOG])]);
    let closed = Host { kptr_restrict: Some(2), ..good() };
    assert_eq!(closed.missing(true), [Missing::KptrRestrict]);
    assert_eq!(closed.missing(false), []);
}

#[test]
fn kernels_that_cannot_are_told_apart() {
    let old = Host { release: "5.4.0-150-generic".into(), ..good() };
    assert_eq!(old.missing(true), [Missing::KernelTooOld("5.4.0-150-generic".into())]);
    // A release that nobody can read is no proof of age.
    assert_eq!(Host { release: "custom".into(), ..good() }.missing(true), []);
    assert_eq!(Host { has_btf: false, ..good() }.missing(true), [Missing::Btf]);
    let locked = Host { lockdown: Some(Lockdown::Confidentiality), ..good() };
    assert_eq!(locked.missing(true), [Missing::Lockdown]);
    let inside = Host { initial_user_namespace: Some(false), ..good() };
    assert_eq!(inside.missing(true), [Missing::UserNamespace]);
    for missing in [Missing::Btf, Missing::Lockdown, Missing::UserNamespace, Missing::KptrRestrict] {
        assert!(!missing.advice().is_empty());
    }
}

#[test]
fn only_older_kernels_need_a_capability_to_read_counters() {
    assert!(good().needed_while_tracing().is_empty());
    let old = Host { release: "5.10.0-28-amd64".into(), ..good() };
    assert_eq!(old.needed_while_tracing(), CapsHashSet::from([Capability::CAP_BPF]));
    assert!(Host { unprivileged_bpf_disabled: Some(0), ..old.clone() }.needed_while_tracing().is_empty());
    let admin = Host { effective: CapsHashSet::from([Capability::CAP_SYS_ADMIN]), ..old };
    assert_eq!(admin.needed_while_tracing(), CapsHashSet::from([Capability::CAP_SYS_ADMIN]));
}

/// The real thing, in a thread that has given everything up.
#[test]
fn a_thread_without_capabilities_sees_what_it_lacks() {
    std::thread::spawn(|| {
        caps::clear(None, CapSet::Effective).unwrap();
        let host = Host::look();
        assert!(host.effective.is_empty());
        assert!(!host.release.is_empty());
        let missing = host.missing(false);
        assert!(
            missing.iter().any(|missing| matches!(missing, Missing::Capabilities(list) if list.len() == 2))
        );
    })
    .join()
    .unwrap();
}
