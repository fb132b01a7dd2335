//! How a live trial is run, and when it cannot be.

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use tcptrace::sandbox::Sandbox;

/// A trial: runs inside the given namespace.
pub type Body = fn(&Sandbox) -> Result<()>;

/// A trial in a network namespace of its own, on a thread of its name.
#[must_use]
pub fn live(name: &str, body: Body) -> Trial {
    let thread = std::thread::Builder::new().name(name.to_owned());
    Trial::test(name, move || {
        let outcome = std::thread::scope(|scope| {
            let inside = || -> Result<()> {
                let sandbox = Sandbox::new()?;
                sandbox.enter(|| body(&sandbox))?
            };
            let running = thread.spawn_scoped(scope, inside)?;
            running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        outcome.map_err(|error| format!("{error:#}").into())
    })
}

/// Why live trials cannot run here; `None` when they can.
#[must_use]
pub fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root (namespaces and BPF need it)".to_owned());
    }
    if let Err(error) = std::fs::metadata("/sys/kernel/btf/vmlinux") {
        return Some(format!("this kernel tells no types (/sys/kernel/btf/vmlinux: {error})"));
    }
    Sandbox::new().err().map(|error| error.to_string())
}

/// Runs them all at once, for they mostly wait, and ends the process. Where they cannot run they are counted
/// as skipped, with the reason, never as passed.
pub fn run(trials: Vec<Trial>) -> ! {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(trials.len().max(1));
    let obstacle = obstacle();
    let number = trials.len();
    let skipped = obstacle.is_some() && !arguments.list;
    let trials = trials.into_iter().map(|trial| if skipped { trial.with_ignored_flag(true) } else { trial });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if let (true, Some(reason)) = (skipped, obstacle) {
        println!("SKIPPED {number} live tests: {reason}");
    }
    conclusion.exit()
}
