//! Live tests: what tcptrace says against what the kernel says by another road.
//!
//! All trials run at once, each in its own process and network namespace: they mostly wait for the kernel's timers.

mod beside;
mod close_wait;
#[cfg(target_arch = "x86_64")]
mod confined;
mod containers;
mod cpus;
mod demo;
mod doctor;
mod experiment;
mod faults;
mod fin_wait2;
mod gaps;
mod leaks;
mod leaks_hostile;
mod leaks_real;
mod leaks_scale;
mod merged;
mod namespaces;
mod normal;
mod privileges;
mod recording;
mod refused;
mod robust;
mod run;
mod scale;
mod screen;
mod screen_faults;
mod seeding;
mod serve;
mod serve_fleet;
mod sockets_rare;
mod states;
mod time_wait;

use std::process::ExitCode;

use tests::{helper, trial};

/// Set in the environment of a run of the core alone.
const CORE_ONLY: &str = "TCPTRACE_TEST_CORE_ONLY";
/// Set in the environment where nobody else uses the machine: then its processors may be taken away.
const OWN_MACHINE: &str = "TCPTRACE_TEST_OWN_MACHINE";

fn main() -> anyhow::Result<ExitCode> {
    helper::become_helper_if_asked()?;
    // What needs nothing but a kernel: `cargo xtask vm-test` runs these on every kernel that it boots.
    let core = [
        time_wait::trials(),
        fin_wait2::trials(),
        gaps::trials(),
        normal::trials(),
        close_wait::trials(),
        seeding::trials(),
        namespaces::trials(),
        sockets_rare::trials(),
        states::trials(),
    ];
    let mut trials = Vec::new();
    let is_all = std::env::var_os(CORE_ONLY).is_none();
    // Those that wait longest begin first.
    if is_all {
        trials.extend([scale::trials(), serve::trials()].into_iter().flatten());
    }
    trials.extend(core.into_iter().flatten());
    if std::env::var_os(OWN_MACHINE).is_some() {
        trials.extend(cpus::trials());
    }
    if is_all {
        let others = [
            demo::trials(),
            screen::trials(),
            screen_faults::trials(),
            doctor::trials(),
            experiment::trials(),
            recording::trials(),
            robust::trials(),
            run::trials(),
            leaks::trials(),
            leaks_hostile::trials(),
            leaks_real::trials(),
            containers::trials(),
            leaks_scale::trials(),
            merged::trials(),
            serve_fleet::trials(),
            faults::trials(),
            beside::trials(),
            refused::trials(),
            privileges::trials(),
        ];
        trials.extend(others.into_iter().flatten());
        #[cfg(target_arch = "x86_64")]
        trials.extend(confined::trials());
    }
    Ok(trial::run(trials))
}
