//! Stacks that were resolved before and come again, word for word where it matters.
//!
//! A server is told end of file at the same place all day. Where a walk goes depends on the registers and on the
//! few words of the stack that it read, so an equal sample gives an equal stack without walking.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::stack::Stack;
use super::unwind::StackCopy;
use crate::decode::StackSample;

/// Stacks remembered of one process; beyond it all are forgotten.
const MAX_STACKS: usize = 64;

/// A word of the stack that a walk looked at; `None` where the copy did not have it.
pub type WordRead = (u64, Option<u64>);

/// The stacks of one process.
#[derive(Default)]
pub struct Memo {
    by_registers: FxHashMap<[u64; 4], (Vec<WordRead>, Arc<Stack>)>,
}

impl Memo {
    /// The stack of an equal sample.
    pub fn recall(&self, sample: &StackSample<'_>) -> Option<Arc<Stack>> {
        let (words, stack) = self.by_registers.get(&registers(sample))?;
        let copy = StackCopy::of(sample);
        let equal = words.iter().all(|&(address, word)| copy.word(address).ok() == word);
        equal.then(|| stack.clone())
    }

    /// Remembers a stack and what its walk read.
    pub fn keep(&mut self, sample: &StackSample<'_>, words: Vec<WordRead>, stack: Arc<Stack>) {
        if self.by_registers.len() >= MAX_STACKS {
            self.by_registers.clear();
        }
        self.by_registers.insert(registers(sample), (words, stack));
    }
}

fn registers(sample: &StackSample<'_>) -> [u64; 4] {
    [sample.ip, sample.sp, sample.fp, sample.lr]
}
