use super::*;

#[test]
fn the_running_kernel_has_every_member() {
    if !std::path::Path::new(VMLINUX_BTF).exists() {
        eprintln!("skipped: this kernel has no {VMLINUX_BTF}");
        return;
    }
    let layout = Layout::of_running_kernel().unwrap();
    let offsets = layout.offsets;
    assert_eq!(offsets.sk_protocol_size, 2);
    assert!(layout.thread_size.is_power_of_two());
    for offset in [offsets.regs_ip, offsets.regs_sp, offsets.regs_fp] {
        assert_ne!(offset, ABSENT, "user registers of this architecture");
    }
    // `sock_common` is the first member of everything; its parts are near the beginning.
    for offset in
        [offsets.skc_daddr, offsets.skc_dport, offsets.skc_num, offsets.skc_family, offsets.skc_state]
    {
        assert!(offset < 64);
    }
}

#[test]
fn a_missing_file_and_a_damaged_one_are_told_apart() {
    let error = Layout::from_file("/nonexistent/btf").unwrap_err();
    assert!(error.to_string().contains("/nonexistent/btf"), "{error}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"not BTF at all, whatever its name says").unwrap();
    let error = Layout::from_file(file.path().to_str().unwrap()).unwrap_err();
    assert!(matches!(error, LayoutError::Btf { source: BtfError::Magic { .. }, .. }), "{error}");
}

/// Every offset against bpftool's dump of the same BTF, where bpftool is installed.
#[test]
fn offsets_agree_with_bpftool() {
    let dump = std::process::Command::new("bpftool").args(["btf", "dump", "file", VMLINUX_BTF]).output();
    let Ok(dump) = dump.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()) else {
        eprintln!("skipped: no bpftool");
        return;
    };
    if dump.is_empty() {
        eprintln!("skipped: bpftool says nothing");
        return;
    }
    let offsets = Layout::of_running_kernel().unwrap().offsets;
    // A direct member's bit offset, as bpftool prints it.
    let direct = |of: &str, member: &str| {
        let begin = dump.find(&format!("STRUCT '{of}' size=")).unwrap();
        let line = dump[begin..].lines().skip(1).take_while(|line| line.starts_with('\t'));
        let line =
            line.into_iter().find(|line| line.trim_start().starts_with(&format!("'{member}' "))).unwrap();
        let bits = line.split("bits_offset=").nth(1).unwrap().split_whitespace().next().unwrap();
        bits.parse::<u32>().unwrap() / 8
    };
    for (ours, of, member) in [
        (offsets.skc_family, "sock_common", "skc_family"),
        (offsets.skc_state, "sock_common", "skc_state"),
        (offsets.skc_net, "sock_common", "skc_net"),
        (offsets.skc_v6_daddr, "sock_common", "skc_v6_daddr"),
        (offsets.skc_v6_rcv_saddr, "sock_common", "skc_v6_rcv_saddr"),
        (offsets.inet_sport, "inet_sock", "inet_sport"),
        (offsets.sk_protocol, "sock", "sk_protocol"),
        (offsets.sk_socket, "sock", "sk_socket"),
        (offsets.sk_err, "sock", "sk_err"),
        (offsets.copied_seq, "tcp_sock", "copied_seq"),
        (offsets.rcv_nxt, "tcp_sock", "rcv_nxt"),
        (offsets.linger2, "tcp_sock", "linger2"),
        (offsets.timer_function, "timer_list", "function"),
        (offsets.timer_expires, "timer_list", "expires"),
        (offsets.tw_timer, "inet_timewait_sock", "tw_timer"),
        (offsets.tw_substate, "inet_timewait_sock", "tw_substate"),
        (offsets.task_stack, "task_struct", "stack"),
        (offsets.task_flags, "task_struct", "flags"),
        (offsets.task_cgroups, "task_struct", "cgroups"),
        (offsets.css_set_dfl_cgrp, "css_set", "dfl_cgrp"),
        (offsets.cgroup_kn, "cgroup", "kn"),
        (offsets.kernfs_node_id, "kernfs_node", "id"),
        (offsets.regs_ip, "pt_regs", if cfg!(target_arch = "aarch64") { "pc" } else { "ip" }),
        (offsets.regs_sp, "pt_regs", "sp"),
    ] {
        assert_eq!(ours, direct(of, member), "{of}.{member}");
    }
    assert_eq!(offsets.net_inum, direct("net", "ns") + direct("ns_common", "inum"));
    // The addresses and ports sit in anonymous unions whose place in the struct is fixed by the order of members.
    assert_eq!((offsets.skc_daddr, offsets.skc_rcv_saddr), (0, 4));
}

/// Run with `--release --ignored --nocapture`: prints milliseconds for the whole of it.
#[test]
#[ignore = "a measurement, not a check"]
fn cost() {
    for _ in 0..5 {
        let begin = std::time::Instant::now();
        let bytes = std::fs::read(VMLINUX_BTF).unwrap();
        let read = begin.elapsed();
        let btf = btf::parse(&bytes).unwrap();
        let parsed = begin.elapsed();
        Layout::from_btf(&btf, 4096).unwrap();
        println!(
            "{} types: read {read:?}, parsed at {parsed:?}, offsets at {:?}",
            btf.type_count(),
            begin.elapsed()
        );
    }
}
