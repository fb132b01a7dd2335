//! Live tests: what tcptrace says against what the kernel says by another road.
//!
//! All trials run at once, each in its own process and network namespace: they mostly wait for the kernel's timers.

mod close_wait;
mod demo;
mod doctor;
mod fin_wait2;
mod gaps;
mod leaks;
mod leaks_real;
mod leaks_scale;
mod namespaces;
mod normal;
mod robust;
mod run;
mod scale;
mod seeding;
mod serve;
mod serve_fleet;
mod sockets_rare;
mod states;
mod time_wait;

use std::process::ExitCode;

use tests::{helper, trial};

fn main() -> anyhow::Result<ExitCode> {
    helper::become_helper_if_asked()?;
    let modules = [
        time_wait::trials(),
        scale::trials(),
        demo::trials(),
        doctor::trials(),
        fin_wait2::trials(),
        gaps::trials(),
        normal::trials(),
        close_wait::trials(),
        seeding::trials(),
        namespaces::trials(),
        sockets_rare::trials(),
        robust::trials(),
        run::trials(),
        states::trials(),
        leaks::trials(),
        leaks_real::trials(),
        leaks_scale::trials(),
        serve::trials(),
        serve_fleet::trials(),
    ];
    Ok(trial::run(modules.into_iter().flatten().collect()))
}
