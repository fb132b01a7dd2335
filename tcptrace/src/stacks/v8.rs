//! JavaScript functions that V8 interprets, found in the frames of its interpreter.
//!
//! An interpreted function has no code of its own: its frame lies in a builtin of the node program. But the
//! frame holds a pointer to the function's bytecode, and `--perf-basic-prof` writes the function's name down at
//! the address of its bytecode. Functions that ran only a few times, such as those that open connections at
//! start-up, are seen in no other way.

use super::perf_map::PerfMap;
use super::unwind::StackCopy;

/// Where an interpreter frame may hold the bytecode array, below its frame pointer
/// (`InterpreterFrameConstants::kBytecodeArrayFromFp`): the fourth word since the argument count joined the
/// frame (V8 8.9), the third before.
const SLOTS: [u64; 2] = [32, 24];

/// Distance from a bytecode array to its first bytecode. Its header has seven fields in every version from V8 9
/// to 13, 0x34 to 0x3c bytes. No smaller and no larger distance counts: an object in front of the array takes 16
/// bytes at least, so a pointer to that object cannot be taken for one to the array.
const HEADER: std::ops::Range<u64> = 0x30..0x40;

/// The name in the perf map of the function that is interpreted in the frame with this frame pointer.
pub fn interpreted(stack: &StackCopy<'_>, frame_pointer: u64, names: &mut PerfMap) -> Option<String> {
    SLOTS.iter().find_map(|&slot| {
        let pointer = stack.word(frame_pointer.checked_sub(slot)?).ok()?;
        // Pointers to objects carry a 1 in their lowest bit, small integers a 0.
        let object = pointer.checked_sub(1).filter(|object| object % 8 == 0)?;
        let bytecodes = object.checked_add(HEADER.start)?..object.checked_add(HEADER.end)?;
        let name = String::from_utf8_lossy(names.begins_in(bytecodes)?).into_owned();
        // `JS:~name place`: the tilde marks what is interpreted.
        name.split_once(":~").is_some_and(|(kind, _)| !kind.contains(' ')).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{StackReason, StackSample};

    /// A frame pointer at 0x1040 with a tagged pointer to an object at 0x7000 in the given slot.
    fn frame(slot: u64, pointer: u64) -> Vec<u8> {
        let mut stack = vec![0; 128];
        let at = usize::try_from(0x40 - slot).unwrap();
        stack[at..at + 8].copy_from_slice(&pointer.to_ne_bytes());
        stack
    }

    fn name_of(stack: &[u8], map: &str) -> Option<String> {
        let sample = StackSample {
            at: 0,
            reason: StackReason::Eof,
            sk: 0,
            local_port: 0,
            remote_port: 0,
            pid: 0,
            tid: 0,
            ip: 0,
            sp: 0x1000,
            fp: 0x1040,
            lr: 0,
            stack,
        };
        interpreted(&StackCopy::of(&sample), 0x1040, &mut PerfMap::of_text(map))
    }

    #[test]
    fn the_bytecode_array_in_the_frame_leads_to_the_name() {
        let map = "7036 16 JS:~leak /app.js:2:19\n";
        assert_eq!(name_of(&frame(32, 0x7001), map).unwrap(), "JS:~leak /app.js:2:19");
        assert_eq!(name_of(&frame(24, 0x7001), map).unwrap(), "JS:~leak /app.js:2:19");
        // A small integer, an object in front of the array, and code that is not interpreted.
        assert_eq!(name_of(&frame(32, 0x7000), map), None);
        assert_eq!(name_of(&frame(32, 0x6ff1), map), None);
        assert_eq!(name_of(&frame(32, 0x7001), "7036 16 JS:*leak /app.js:2:19\n"), None);
        assert_eq!(name_of(&frame(32, u64::MAX), map), None);
    }
}
