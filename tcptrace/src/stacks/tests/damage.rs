//! Programs whose call-frame and debug information are damaged: whoever may run a program may have one.

use std::process::Command;
use std::time::Duration;

use super::C;
use super::snapshot::Target;
use crate::stacks::elf::{Layout, Section};
use crate::stacks::{Limits, Worker};

/// Numbers that look random and are the same in every run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Damaged stacks tried on each damaged program.
const STACKS: usize = 20;

#[test]
fn damaged_files_and_stacks_do_no_harm() {
    let cases: u64 = std::env::var("DAMAGE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let Some((original, program)) = Target::build(&["gcc", "-O2", "-g"], "leaky.c", C) else { return };
    let file = std::fs::read(&program).unwrap();
    let layout = Layout::read(&file[..]).unwrap();
    let after_code = layout.eh_frame_hdr.as_ref().unwrap().file.start;
    for seed in 1..=cases {
        let mut numbers = Numbers(seed * 0x9e37_79b9);
        let mut damaged = file.clone();
        let mut hit = |range: std::ops::Range<u64>| {
            let at = range.start + numbers.below(range.end - range.start);
            damaged[usize::try_from(at).unwrap()] = u8::try_from(numbers.below(256)).unwrap();
        };
        for section in [&layout.eh_frame, &layout.eh_frame_hdr].into_iter().flatten() {
            let Section { file, .. } = section;
            (0..1 + seed % 5).for_each(|_| hit(file.clone()));
        }
        // Debug information, symbols and section headers: what the program does not need to run.
        let end = file.len() as u64;
        let debug = (after_code + 0x3000).min(end - 1)..end;
        (0..seed % 60).for_each(|_| hit(debug.clone()));

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("target");
        std::fs::write(&path, &damaged).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
        let Some(target) = Target::start(directory, &mut Command::new(path)) else { continue };
        let Some(mut snapshot) = target.snapshot() else { return };
        // In a debug build the crates that parse check for overflow and panic, which the worker survives.
        let mut worker = Worker::start(Limits::default()).unwrap();
        assert!(worker.submit(&snapshot.sample()));
        for _ in 0..STACKS {
            snapshot.change_stack(|stack| {
                let at = usize::try_from(numbers.below(stack.len() as u64)).unwrap();
                stack[at] = u8::try_from(numbers.below(256)).unwrap();
            });
            assert!(worker.submit(&snapshot.sample()));
        }
        assert_eq!(worker.finish(Duration::from_secs(60)).len(), STACKS + 1, "seed {seed}");
    }
    drop(original);
}
