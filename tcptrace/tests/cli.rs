//! The command line as a user meets it, without privileges: help, mistakes, exit statuses, closed pipes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

use clap::CommandFactory as _;
use tcptrace::cli::Cli;

/// The program with nothing in its environment that changes what it prints.
fn tcptrace(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo_bin!("tcptrace"));
    for name in ["COLUMNS", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

fn output(args: &[&str]) -> Output {
    tcptrace(args).output().expect("runs")
}

/// Status and what was said on either side, as one text.
fn told(args: &[&str]) -> String {
    let output = output(args);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let status = output.status.code().map_or("killed".to_owned(), |code| code.to_string());
    format!("$ tcptrace {}\n{}{}=> {status}\n", args.join(" "), text(&output.stdout), text(&output.stderr))
}

/// Every command that `--help` lists.
fn commands() -> Vec<String> {
    let cli = Cli::command();
    let visible = cli.get_subcommands().filter(|command| !command.is_hide_set());
    visible.map(|command| command.get_name().to_owned()).collect()
}

#[test]
fn help_of_the_program() {
    insta::assert_snapshot!(told(&["--help"]));
    let bare = output(&[]);
    assert_eq!(bare.status.code(), Some(2));
    assert!(bare.stdout.is_empty() && bare.stderr.starts_with(b"How long"));
}

#[test]
fn help_of_every_command() {
    for command in commands() {
        insta::assert_snapshot!(format!("help of {command}"), told(&[&command, "--help"]));
    }
}

#[test]
fn every_command_shows_examples_and_no_line_is_wider_than_100() {
    for command in commands() {
        let help = told(&[&command, "--help"]);
        assert!(help.contains("Examples:\n  tcptrace "), "{command} has no examples");
        for line in help.lines().skip(1) {
            assert!(line.chars().count() <= 100, "{command}: {line}");
        }
    }
}

#[test]
fn the_version() {
    assert_eq!(
        told(&["--version"]),
        format!("$ tcptrace --version\ntcptrace {}\n=> 0\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn the_schema_is_json_and_knows_every_type() {
    let output = output(&["--schema"]);
    assert!(output.status.success() && output.stderr.is_empty());
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(schema["$schema"].as_str().is_some_and(|version| version.contains("json-schema.org")));
    for kind in ["transition", "state_report", "summary"] {
        assert!(schema.to_string().contains(&format!("\"const\":\"{kind}\"")), "{kind}");
    }
}

#[test]
fn mistakes_on_any_command() {
    let told: Vec<String> = [
        &["wtach"][..],
        &["--colour"],
        &["--schema", "man"],
        &["completions"],
        &["completions", "bsh"],
        &["man", "--out", "/nonexistent"],
        &["man", "tcp"],
    ]
    .into_iter()
    .map(told)
    .collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn mistakes_on_commands_that_trace() {
    let told: Vec<String> = [
        &["watch", "--state", "TIMEWAITING"][..],
        &["report", "--state", "NEW_SYN_RECV"],
        &["report", "--state", "CLOSE"],
        &["watch", "--port", "99999"],
        &["watch", "--addr", "10.0.0.300"],
        &["watch", "-4", "--addr", "2001:db8::/32"],
        &["watch", "-4", "-6"],
        &["watch", "--port", "80", "--lport", "443", "--rport", "1000"],
        &["watch", "--netns", "no-such-namespace"],
        &["watch", "--pid", "4194304"],
        &["watch", "--min-dwell", "10"],
        &["watch", "--json", "--plain"],
        &["watch", "--color", "sometimes"],
        &["watch", "--width", "10"],
        &["report", "--duration", "1s2m"],
        &["report", "--duration", "0s"],
        &["report", "--ring-size", "5M"],
        &["report", "--by", "user"],
        &["report", "now"],
        &["demo", "man"],
    ]
    .into_iter()
    .map(told)
    .collect();
    insta::assert_snapshot!(told.join("\n"));
    assert_eq!(
        told.iter().filter(|told| told.ends_with("=> 2\n")).count(),
        told.len(),
        "all are usage errors"
    );
}

/// What an ordinary user gets; `None`, said, where that cannot be tried.
fn as_nobody(args: &[&str]) -> Option<Output> {
    let mut command = tcptrace(args);
    if rustix::process::geteuid().is_root() {
        const NOBODY: u32 = 65_534;
        command.uid(NOBODY).gid(NOBODY);
    }
    match command.output() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            eprintln!("skipped: another user may not run the program where it was built");
            None
        }
        output => Some(output.expect("runs")),
    }
}

#[test]
fn without_privileges_it_names_what_is_missing() {
    let Some(output) = as_nobody(&["watch", "--duration", "1s"]) else { return };
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(output.stdout.is_empty());
    assert!(
        told.starts_with("tcptrace: error: ") && told.contains("CAP_BPF") && told.contains("\nhint: "),
        "{told}"
    );
}

#[test]
fn without_privileges_doctor_says_what_it_can() {
    for more in [&[][..], &["--duration", "1s"]] {
        let Some(output) = as_nobody(&[&["doctor", "--json"], more].concat()) else { return };
        assert_eq!(output.status.code(), Some(1), "tracing does not work");
        let lines: Vec<serde_json::Value> = String::from_utf8(output.stdout)
            .expect("UTF-8")
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let verdict = |name: &str| {
            lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("no {name}"))["verdict"]
                .clone()
        };
        assert_eq!(verdict("can_trace"), "fail");
        assert_eq!(verdict("hook_timer_start"), "note", "not tried is not broken");
        assert_eq!(verdict("local_ports"), "ok");
        assert!(lines.iter().any(|line| line["name"] == "tcp_fin_timeout" && line["value"].is_string()));
        let says =
            |text: &str| lines.iter().any(|line| line["detail"].as_str().is_some_and(|it| it.contains(text)));
        assert_eq!(says("nothing was measured"), !more.is_empty());
    }
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = output(&["completions", shell]);
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}");
        let script = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(script.contains("tcptrace") && script.contains("completions"), "{shell}");
        for role in ["__sandbox", "__workload", "__exec"] {
            assert!(!script.contains(role), "{shell} offers {role}");
        }
    }
}

#[test]
fn manual_pages_for_every_command() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let written = tcptrace(&["man", "--out"]).arg(dir.path()).output().expect("runs");
    assert!(written.status.success(), "{written:?}");
    let mut expected: Vec<String> =
        commands().iter().map(|command| format!("tcptrace-{command}.1")).collect();
    expected.push("tcptrace.1".to_owned());
    expected.sort();
    let entries = std::fs::read_dir(dir.path()).expect("directory");
    let mut pages: Vec<_> =
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8")).collect();
    pages.sort();
    assert_eq!(pages, expected, "a page for each command that --help lists, and for no other");
    let main = output(&["man"]);
    assert_eq!(main.stdout, std::fs::read(dir.path().join("tcptrace.1")).expect("main page"));
}

#[test]
fn a_reader_that_left_ends_it_quietly() {
    for args in [&["--help"][..], &["--version"], &["--schema"], &["completions", "zsh"], &["man"]] {
        let (reader, writer) = io::pipe().expect("pipe");
        drop(reader);
        let output = tcptrace(args).stdout(writer).stderr(Stdio::piped()).output().expect("runs");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_full_disk_is_a_failure_that_says_so() {
    let full = || OpenOptions::new().write(true).open("/dev/full");
    let Ok(_) = full() else {
        eprintln!("skipped: /dev/full cannot be opened here");
        return;
    };
    for args in [&["completions", "zsh"][..], &["man"], &["--help"], &["--schema"]] {
        let full: File = full().expect("/dev/full");
        let output = tcptrace(args).stdout(full).stderr(Stdio::piped()).output().expect("runs");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "tcptrace: error: cannot write to standard output (No space left on device (os error 28))\n",
            "{args:?}"
        );
    }
}

#[test]
fn nobody_listening_to_errors_changes_no_status() {
    let (reader, writer) = io::pipe().expect("pipe");
    drop(reader);
    let output = tcptrace(&["man", "--out", "/nonexistent"]).stderr(writer).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
}
