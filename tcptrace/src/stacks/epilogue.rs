//! The end of a function, read from its machine code: where the return address lies.
//!
//! Only a run of `add rsp`, `pop` and `leave` that ends in `ret` is understood, so what is decoded is certain;
//! anything else is left to the other rules.

/// Bytes of code that are looked at: an `add`, six two-byte `pop`s and a `ret`.
pub const MAX_BYTES: usize = 24;

/// What an epilogue does to the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epilogue {
    /// Distance from the stack pointer to the return address, bytes.
    pub return_slot: u64,
    /// Distance from the stack pointer to the caller's frame pointer, where it is restored.
    pub saved_frame_pointer: Option<u64>,
}

/// Decodes the instructions at the address that a call returns to.
#[cfg(target_arch = "x86_64")]
#[must_use]
pub fn decode(code: &[u8]) -> Option<Epilogue> {
    let mut rest = code;
    let mut offset = 0_u64;
    let mut saved_frame_pointer = None;
    loop {
        rest = match rest {
            // ret; endbr64 and nops do not stand here.
            [0xc3, ..] => return Some(Epilogue { return_slot: offset, saved_frame_pointer }),
            // pop rbp
            [0x5d, after @ ..] => {
                saved_frame_pointer = Some(offset);
                offset += 8;
                after
            }
            // pop of another register than rsp
            [0x58..=0x5b | 0x5e | 0x5f, after @ ..] | [0x41, 0x58..=0x5f, after @ ..] => {
                offset += 8;
                after
            }
            // add rsp, imm8
            [0x48, 0x83, 0xc4, bytes @ 0..=0x7f, after @ ..] => {
                offset += u64::from(*bytes);
                after
            }
            // add rsp, imm32
            [0x48, 0x81, 0xc4, a, b, c, d @ 0..=0x7f, after @ ..] => {
                offset += u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
                after
            }
            _ => return None,
        };
    }
}

/// Decodes the instructions at the address that a call returns to. On this machine the trampolines concerned
/// keep a frame pointer, so there is nothing to do.
#[cfg(not(target_arch = "x86_64"))]
#[must_use]
pub fn decode(_code: &[u8]) -> Option<Epilogue> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn plain_epilogues_are_understood() {
        let cases: [(&[u8], u64, Option<u64>); 5] = [
            (&[0xc3], 0, None),
            // CPython 3.12's trampoline: add rsp, 8; ret
            (&[0x48, 0x83, 0xc4, 0x08, 0xc3], 8, None),
            // CPython 3.13's: pop rbp; ret
            (&[0x5d, 0xc3], 8, Some(0)),
            (&[0x48, 0x83, 0xc4, 0x18, 0x5b, 0x5d, 0x41, 0x5c, 0xc3], 0x18 + 24, Some(0x20)),
            (&[0x48, 0x81, 0xc4, 0x00, 0x01, 0x00, 0x00, 0xc3], 0x100, None),
        ];
        for (code, return_slot, saved_frame_pointer) in cases {
            assert_eq!(decode(code), Some(Epilogue { return_slot, saved_frame_pointer }));
        }
    }

    #[test]
    fn anything_else_is_not_guessed_at() {
        let cases: [&[u8]; 5] = [
            &[],
            &[0x5d],
            &[0x5c, 0xc3],                   // pop rsp
            &[0x48, 0x83, 0xc4, 0x80, 0xc3], // add rsp, -128
            &[0x85, 0xc0, 0xc3],             // test eax, eax
        ];
        for code in cases {
            assert_eq!(decode(code), None, "{code:x?}");
        }
    }
}
