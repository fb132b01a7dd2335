//! Looking through the stack for a return address, for code that says nothing about its frames: musl is built
//! with neither call-frame information nor frame pointers, and is the libc of every Alpine container.
//!
//! The frames of musl's wrappers are small, so the first word that points behind a call instruction in code
//! that can be unwound is the application's, unless an older call left one in a hole between them. Frames
//! found this way are marked. x86-64 only, where the word above a return address is where the caller's frame begins.

/// Bytes of stack that are looked through: several times what musl's system call wrappers use.
pub const MAX_BYTES: u64 = 512;

/// Bytes before a return address that decide whether it follows a call.
pub const CALL_BYTES: usize = 8;

/// The words to look at, from the stack pointer upwards.
pub fn slots(sp: u64) -> impl Iterator<Item = u64> {
    (0..MAX_BYTES / 8).filter_map(move |index| sp.checked_add(index * 8))
}

/// True when the code ends in a call instruction: `call rel32`, or `call` through a register or memory.
#[must_use]
pub fn ends_with_call(before: &[u8; CALL_BYTES]) -> bool {
    if before[CALL_BYTES - 5] == 0xe8 {
        return true;
    }
    (2..=7).any(|len| {
        let [0xff, modrm, rest @ ..] = &before[CALL_BYTES - len..] else { return false };
        (modrm >> 3) & 7 == 2 && operand_bytes(*modrm, rest.first()) == Some(rest.len())
    })
}

/// Bytes that follow a ModRM byte; `None` where its SIB byte is missing.
fn operand_bytes(modrm: u8, sib: Option<&u8>) -> Option<usize> {
    let (mode, base) = (modrm >> 6, modrm & 7);
    if mode == 3 {
        return Some(0);
    }
    let has_sib = base == 4;
    let base = if has_sib { sib? & 7 } else { base };
    let displacement = match (mode, base) {
        (0, 5) | (2, _) => 4,
        (0, _) => 0,
        _ => 1,
    };
    Some(usize::from(has_sib) + displacement)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(tail: &[u8]) -> bool {
        let mut before = [0x90; CALL_BYTES];
        before[CALL_BYTES - tail.len()..].copy_from_slice(tail);
        ends_with_call(&before)
    }

    #[test]
    fn every_form_of_call_is_known() {
        assert!(ends(&[0xe8, 1, 2, 3, 4])); // call rel32
        assert!(ends(&[0xff, 0xd0])); // call rax
        assert!(ends(&[0x41, 0xff, 0xd4])); // call r12
        assert!(ends(&[0xff, 0x10])); // call [rax]
        assert!(ends(&[0xff, 0x53, 0x18])); // call [rbx+0x18]
        assert!(ends(&[0xff, 0x15, 1, 2, 3, 4])); // call [rip+…]
        assert!(ends(&[0xff, 0x14, 0xc8])); // call [rax+rcx*8]
        assert!(ends(&[0xff, 0x94, 0x24, 0, 1, 0, 0])); // call [rsp+0x100]
    }

    #[test]
    fn jumps_and_data_are_no_calls() {
        assert!(!ends(&[0xe9, 1, 2, 3, 4])); // jmp rel32
        assert!(!ends(&[0xff, 0xe0])); // jmp rax
        assert!(!ends(&[0xff, 0x53])); // cut short
        assert!(!ends(&[]));
    }
}
