//! Stack copies on their way to the sample that follows them: one per CPU, checked, memory reused.

use std::collections::HashMap;

use super::StackCopy;
use super::abi::{self, PC_SP_FP_SLOTS};
use super::records::Malformed;
use crate::unwind::{Architecture, Registers};

/// The last copy of each CPU.
#[derive(Debug, Default)]
pub(super) struct StackCopies {
    by_cpu: HashMap<u32, (u64, StackCopy)>,
}

impl StackCopies {
    /// Takes a record if it is a stack copy. Says whether it was.
    pub(super) fn take(&mut self, record: &[u8]) -> Result<bool, Malformed> {
        let Some(head) = abi::StackCopy::read(record) else { return Ok(false) };
        if u32::from(head.version) != abi::VERSION {
            return Err(Malformed::Version(head.version));
        }
        let stack = &record[abi::STACK_COPY_BYTES as usize..];
        let bytes = head.stack_bytes as usize;
        let Some(stack) = stack.get(..bytes) else {
            return Err(Malformed::StackCopy { claimed: head.stack_bytes, found: stack.len() });
        };
        let (time_ns, copy) = self.by_cpu.entry(head.cpu).or_default();
        *time_ns = head.time_ns;
        copy.registers = registers(&head);
        copy.start = head.stack_start;
        copy.bytes.clear();
        copy.bytes.extend_from_slice(stack);
        Ok(true)
    }

    /// The copy that belongs to a sample.
    pub(super) fn of(&self, cpu: u32, time_ns: u64) -> Option<&StackCopy> {
        self.by_cpu.get(&cpu).filter(|(of_ns, _)| *of_ns == time_ns).map(|(_, copy)| copy)
    }
}

fn registers(head: &abi::StackCopy) -> Registers {
    let mut all = [0; 32];
    for (dwarf, register) in all.iter_mut().enumerate() {
        let slot = abi::register_slot(Architecture::HOST, dwarf as u8);
        *register = slot.and_then(|slot| head.reg.get(usize::from(slot)).copied()).unwrap_or(0);
    }
    let [pc, sp, fp] = PC_SP_FP_SLOTS.map(|slot| head.reg[slot]);
    Registers { pc, sp, fp, all: Some(all), is_return_address: head.is_return != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(cpu: u32, time_ns: u64, claimed: u32, stack: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((abi::VERSION as u16).to_ne_bytes());
        bytes.extend((abi::STACK_COPY as u16).to_ne_bytes());
        bytes.extend(cpu.to_ne_bytes());
        bytes.extend(time_ns.to_ne_bytes());
        bytes.extend(0x7000_u64.to_ne_bytes());
        bytes.extend(claimed.to_ne_bytes());
        bytes.extend(1_u32.to_ne_bytes());
        (0..36_u64).for_each(|word| bytes.extend((word + 100).to_ne_bytes()));
        bytes.extend(stack);
        bytes
    }

    #[test]
    fn copy_is_kept_for_its_sample_only() {
        let mut copies = StackCopies::default();
        let stack: Vec<u8> = (0..64).collect();
        assert_eq!(copies.take(&record(3, 55, 64, &stack)), Ok(true));
        assert_eq!(copies.of(3, 54), None);
        assert_eq!(copies.of(2, 55), None);
        let copy = copies.of(3, 55).unwrap();
        assert_eq!(copy.word(0x7008), Some(u64::from_ne_bytes([8, 9, 10, 11, 12, 13, 14, 15])));
        assert_eq!([copy.word(0x7039), copy.word(0x6fff), copy.word(u64::MAX)], [None; 3]);
        let slots = PC_SP_FP_SLOTS.map(|slot| slot as u64 + 100);
        assert_eq!([copy.registers.pc, copy.registers.sp, copy.registers.fp], slots);
        assert!(copy.registers.is_return_address);
        // The next one of the CPU takes its place.
        assert_eq!(copies.take(&record(3, 56, 0, &[])), Ok(true));
        assert_eq!((copies.of(3, 55), copies.of(3, 56).map(|copy| copy.bytes.len())), (None, Some(0)));
    }

    #[test]
    fn what_is_no_copy_or_too_short_is_refused() {
        let mut copies = StackCopies::default();
        assert_eq!(copies.take(&[0; 400]), Ok(false));
        assert_eq!(copies.take(&record(0, 1, 0, &[])[..100]), Ok(false));
        let short = copies.take(&record(0, 1, 65, &[0; 64]));
        assert_eq!(short, Err(Malformed::StackCopy { claimed: 65, found: 64 }));
    }
}
