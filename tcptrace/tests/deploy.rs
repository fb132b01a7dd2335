//! What `deploy/` says, against the program that it deploys: options that exist, files that are there, and one list
//! of capabilities everywhere. (That the capabilities are enough is a live test; so are rules and dashboard.)

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Tenths of what `systemd-analyze security` calls exposure, 0 to 100, that the unit may have: what is left is
/// what it is for (capabilities, sockets, the host's processes and network).
const EXPOSURE: u32 = 30;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Values of a setting of the unit, in order.
fn unit_setting<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

fn unit_capabilities(setting: &str) -> BTreeSet<String> {
    let unit = read("deploy/systemd/tcptrace.service");
    let values = unit_setting(&unit, setting);
    assert_eq!(values.len(), 1, "{setting}");
    values[0].split_whitespace().map(|name| name.trim_start_matches("CAP_").to_owned()).collect()
}

/// The documents of the manifest, by kind.
fn manifest(kind: &str) -> Value {
    let text = read("deploy/kubernetes/daemonset.yaml");
    let documents = text
        .split("\n---\n")
        .map(|text| serde_saphyr::from_str::<Value>(text).expect("YAML"))
        .collect::<Vec<_>>();
    documents.into_iter().find(|document| document["kind"] == kind).expect(kind)
}

/// The program takes these arguments.
fn expect_accepted(args: &[&str]) {
    let mut command = Command::new(assert_cmd::cargo_bin!("tcptrace"));
    // What stands before --help is looked at first.
    let output = command.args(args).arg("--help").stdin(Stdio::null()).output().expect("runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_unit_starts_what_exists() {
    let unit = read("deploy/systemd/tcptrace.service");
    let starts = unit_setting(&unit, "ExecStart");
    let [line] = starts.as_slice() else { panic!("{starts:?}") };
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[0], "/usr/bin/tcptrace");
    expect_accepted(&words[1..]);
    assert_eq!(unit_capabilities("AmbientCapabilities"), unit_capabilities("CapabilityBoundingSet"));
}

#[test]
fn systemd_accepts_the_unit_and_calls_it_safe() {
    let systemd_analyze = |args: &[&str]| Command::new("systemd-analyze").args(args).output();
    if systemd_analyze(&["--version"]).is_err() {
        println!("SKIPPED: no systemd-analyze (Debian package systemd)");
        return;
    }
    // `verify` wants the program where the unit says.
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("tcptrace.service");
    let unit = read("deploy/systemd/tcptrace.service");
    let binary = assert_cmd::cargo_bin!("tcptrace").display().to_string();
    fs::write(&path, unit.replace("ExecStart=/usr/bin/tcptrace", &format!("ExecStart={binary}")))
        .expect("written");
    let path = path.to_str().expect("UTF-8");
    let verified = systemd_analyze(&["verify", "--man=no", path]).expect("runs");
    let said = String::from_utf8_lossy(&[verified.stdout, verified.stderr].concat()).into_owned();
    // Of our unit: what the machine's own units look like is not for us to say.
    let complaints: Vec<_> = said.lines().filter(|line| line.contains("tcptrace")).collect();
    assert!(complaints.is_empty(), "{said}");

    let threshold = format!("--threshold={EXPOSURE}");
    let judged =
        systemd_analyze(&["security", "--offline=true", "--no-pager", &threshold, path]).expect("runs");
    let said = String::from_utf8_lossy(&[judged.stdout, judged.stderr].concat()).into_owned();
    assert!(judged.status.success() && said.contains("Overall exposure level"), "{said}");
    println!("{}", said.lines().last().unwrap_or_default());
}

#[test]
fn the_daemonset_has_the_units_capabilities_and_no_more() {
    let daemonset = manifest("DaemonSet");
    let pod = &daemonset["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let context = &container["securityContext"];
    let names = |list: &Value| -> BTreeSet<String> {
        let list = list.as_array().expect("a list");
        list.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&context["capabilities"]["add"]), unit_capabilities("AmbientCapabilities"));
    assert_eq!(names(&context["capabilities"]["drop"]), BTreeSet::from(["ALL".to_owned()]));
    assert_eq!(context["privileged"], false);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!((&pod["hostPID"], &pod["hostNetwork"]), (&Value::Bool(true), &Value::Bool(false)));
    // Nothing of the host but what is mounted read-only.
    let mounts = container["volumeMounts"].as_array().expect("mounts");
    assert!(mounts.iter().all(|mount| mount["readOnly"] == true), "{mounts:?}");
    assert_eq!(pod["volumes"].as_array().map(Vec::len), Some(mounts.len()));

    let args =
        container["args"].as_array().expect("args").iter().filter_map(Value::as_str).collect::<Vec<_>>();
    expect_accepted(&args);
    let port = container["ports"][0]["containerPort"].as_u64().expect("port").to_string();
    assert!(
        args.iter().any(|arg| arg.starts_with("--listen=") && arg.ends_with(&format!(":{port}"))),
        "{args:?}"
    );
    let annotations = &daemonset["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/port"], port.as_str());
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["path"], "/healthz");
    }
    let selector = &daemonset["spec"]["selector"]["matchLabels"];
    assert_eq!(selector, &daemonset["spec"]["template"]["metadata"]["labels"]);
    assert_eq!(selector, &manifest("PodMonitor")["spec"]["selector"]["matchLabels"]);
    assert_eq!(container["image"], format!("tcptrace:{}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_containerfile_copies_what_it_builds() {
    let text = read("deploy/container/Containerfile").replace("\\\n", " ");
    let instructions: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty())
        .map(|line| line.split_whitespace().collect())
        .collect();
    let mut stages = BTreeSet::new();
    for words in &instructions {
        match words.as_slice() {
            ["FROM", _, "AS", name] => assert!(stages.insert(*name), "{name} twice"),
            ["COPY", from, source, _] if from.starts_with("--from=") => {
                assert!(stages.contains(&from["--from=".len()..]), "{from} of {stages:?}");
                assert!(text.contains(&format!("install -D target/*/release/tcptrace {source}")), "{source}");
            }
            ["COPY", source, _] => assert!(repository().join(source).exists(), "{source}"),
            ["FROM", _] | ["WORKDIR" | "EXPOSE", ..] => {}
            ["ENTRYPOINT", rest @ ..] => assert_eq!(json(rest), ["/usr/bin/tcptrace"]),
            ["CMD", rest @ ..] => {
                let args = json(rest);
                expect_accepted(&args.iter().map(String::as_str).collect::<Vec<_>>());
            }
            ["RUN", rest @ ..] => {
                let cargo = rest.join(" ");
                // The package, the lock file and the profile that the path speaks of.
                for word in ["--release", "--locked", "--package tcptrace", "--target"] {
                    assert!(cargo.contains(word), "{cargo}");
                }
                assert!(repository().join("Cargo.lock").exists());
            }
            other => panic!("{other:?}"),
        }
    }
    // The compiler of the build stage is not older than the oldest that is promised.
    let promised = env!("CARGO_PKG_RUST_VERSION");
    assert!(text.contains(&format!("rust:{promised}-")), "{promised}");
}

fn json(words: &[&str]) -> Vec<String> {
    serde_json::from_str(&words.join(" ")).expect("a JSON list")
}
