//! [`Memory`] that remembers, so that tests can search what was written.

use std::collections::HashMap;

use super::{Memory, Page};
use crate::agent::bpf::abi;

/// Everything written.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) parts: u32,
    pub(super) pages: HashMap<u32, Page>,
    pub(super) rules: HashMap<u16, [u32; 4]>,
    pub(super) processes: HashMap<u32, [u32; 4]>,
    pub(super) max_processes: u32,
}

impl Default for Recorded {
    fn default() -> Self {
        let (pages, rules, processes) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { parts: 0, pages, rules, processes, max_processes: 100 }
    }
}

impl Memory for Recorded {
    fn add_part(&mut self) -> Result<(), i32> {
        self.parts += 1;
        Ok(())
    }

    fn write_page(&mut self, id: u32, page: &Page) {
        assert!(id > 0 && id < self.parts * abi::PART_PAGES, "page {id} of an added part");
        self.pages.insert(id, *page);
    }

    fn page_word(&self, id: u32, word: usize) -> u32 {
        self.pages[&id][word]
    }

    fn write_word(&mut self, id: u32, word: usize, value: u32) {
        self.pages.get_mut(&id).expect("a page that was written")[word] = value;
    }

    fn write_rule(&mut self, id: u16, rule: [u32; 4]) {
        self.rules.insert(id, rule);
    }

    fn set_process(&mut self, pid: u32, row: [u32; 4]) -> Result<(), i32> {
        self.processes.insert(pid, row);
        Ok(())
    }

    fn remove_process(&mut self, pid: u32) -> Result<(), i32> {
        self.processes.remove(&pid);
        Ok(())
    }

    fn max_processes(&self) -> u32 {
        self.max_processes
    }
}
