//! The maps that user space fills: pool parts and rules through memory maps, processes through the system call.
//!
//! Called by `agent::tables` through its [`Memory`] trait. Owns its own descriptors, so it outlives the BPF object.

#![allow(clippy::cast_ptr_alignment, reason = "memory maps begin at a page")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use libbpf_rs::libbpf_sys;
use memmap2::{MmapOptions, MmapRaw};

use super::abi;
use crate::agent::tables::{Memory, Page};

/// An mmapable array map, seen as 32-bit words.
#[derive(Debug)]
struct MappedArray {
    map: MmapRaw,
}

impl MappedArray {
    fn new(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        Ok(Self { map: MmapOptions::new().len(bytes).map_raw(fd.as_raw_fd())? })
    }

    /// Stores `words` from word `at` on. The kernel side may read them at the same time and must not be led there yet.
    fn write(&mut self, at: usize, words: &[u32]) {
        let end = at.checked_add(words.len()).and_then(|end| end.checked_mul(size_of::<u32>()));
        assert!(end.is_some_and(|end| end <= self.map.len()), "element within the array");
        // SAFETY: the range lies inside the mapping (asserted above), which lives as long as `self` and is page
        // aligned; nothing in this process holds a reference into it, for it is only ever written here.
        unsafe {
            let to = self.map.as_mut_ptr().cast::<u32>().add(at);
            std::ptr::copy_nonoverlapping(words.as_ptr(), to, words.len());
        }
    }
}

impl MappedArray {
    /// Word number `at`; `None` beyond the end.
    fn word(&self, at: usize) -> Option<u32> {
        if at >= self.map.len() / size_of::<u32>() {
            return None;
        }
        // SAFETY: the word lies inside the mapping (checked above), which lives as long as `self`; the kernel side never
        // writes to these maps, and this process only through `&mut self`.
        Some(unsafe { self.map.as_ptr().cast::<u32>().add(at).read_volatile() })
    }

    /// Stores one word that the kernel side may be reading: it sees the old one or the new one, and with it every word
    /// stored before.
    fn write_word(&mut self, at: usize, word: u32) {
        let end = at.checked_add(1).and_then(|end| end.checked_mul(size_of::<u32>()));
        assert!(end.is_some_and(|end| end <= self.map.len()), "word within the array");
        // SAFETY: the word lies inside the mapping (asserted above), which lives as long as `self` and is page aligned;
        // nothing in this process holds a reference into it, and the kernel only reads it.
        let to = unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().cast::<u32>().add(at)) };
        to.store(word, Ordering::Release);
    }
}

/// The kernel's end of `agent::tables`.
#[derive(Debug)]
pub struct KernelMaps {
    parts: OwnedFd,
    processes: OwnedFd,
    rules: MappedArray,
    mapped_parts: Vec<MappedArray>,
    max_processes: u32,
}

impl KernelMaps {
    /// Takes its own copies of the descriptors.
    pub(super) fn new(
        parts: BorrowedFd<'_>,
        rules: BorrowedFd<'_>,
        processes: BorrowedFd<'_>,
        max_processes: u32,
    ) -> io::Result<Self> {
        Ok(Self {
            parts: parts.try_clone_to_owned()?,
            processes: processes.try_clone_to_owned()?,
            rules: MappedArray::new(rules, (abi::MAX_RULES * abi::RULE_BYTES) as usize)?,
            mapped_parts: Vec::new(),
            max_processes,
        })
    }
}

impl Memory for KernelMaps {
    fn add_part(&mut self) -> Result<(), i32> {
        let index = self.mapped_parts.len() as u32;
        if index >= abi::MAX_PARTS {
            return Err(libc::E2BIG);
        }
        let part = create_part()?;
        let bytes = (abi::PART_PAGES * abi::PAGE_WORDS * 4) as usize;
        let map = MappedArray::new(borrow(&part), bytes).map_err(|error| errno(&error))?;
        update(&self.parts, &index.to_ne_bytes(), &part.as_raw_fd().to_ne_bytes())?;
        self.mapped_parts.push(map);
        Ok(())
    }

    fn write_page(&mut self, id: u32, page: &Page) {
        let part = &mut self.mapped_parts[(id / abi::PART_PAGES) as usize];
        part.write((id % abi::PART_PAGES * abi::PAGE_WORDS) as usize, page);
    }

    fn page_word(&self, id: u32, word: usize) -> u32 {
        let at = (id % abi::PART_PAGES * abi::PAGE_WORDS) as usize + word;
        let part = self.mapped_parts.get((id / abi::PART_PAGES) as usize);
        part.and_then(|part| part.word(at)).unwrap_or(u32::MAX)
    }

    fn write_word(&mut self, id: u32, word: usize, value: u32) {
        let part = &mut self.mapped_parts[(id / abi::PART_PAGES) as usize];
        part.write_word((id % abi::PART_PAGES * abi::PAGE_WORDS) as usize + word, value);
    }

    fn write_rule(&mut self, id: u16, rule: [u32; 4]) {
        self.rules.write(usize::from(id) * 4, &rule);
    }

    fn set_process(&mut self, pid: u32, row: [u32; 4]) -> Result<(), i32> {
        let mut value = [0; abi::PROCESS_BYTES as usize];
        for (bytes, word) in value.chunks_exact_mut(4).zip(row) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        // The system call orders the pages written before it against the program that reads the row.
        update(&self.processes, &pid.to_ne_bytes(), &value)
    }

    fn remove_process(&mut self, pid: u32) -> Result<(), i32> {
        let key = pid.to_ne_bytes();
        // SAFETY: the key is as long as the map's; the descriptor is open as long as `self`.
        let ret = unsafe {
            libbpf_sys::bpf_map_delete_elem(self.processes.as_raw_fd(), key.as_ptr().cast::<c_void>())
        };
        if ret < 0 && ret != -libc::ENOENT { Err(-ret) } else { Ok(()) }
    }

    fn max_processes(&self) -> u32 {
        self.max_processes
    }
}

fn borrow(fd: &OwnedFd) -> BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(fd)
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// A new part: the shape of `struct part` in `bpf/maps.h`.
fn create_part() -> Result<OwnedFd, i32> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        map_flags: libbpf_sys::BPF_F_MMAPABLE,
        ..Default::default()
    };
    // SAFETY: the name is NUL-terminated and the options live until the call returns.
    let fd = unsafe {
        libbpf_sys::bpf_map_create(
            libbpf_sys::BPF_MAP_TYPE_ARRAY,
            c"everflame_part".as_ptr(),
            4,
            abi::PAGE_WORDS * 4,
            abi::PART_PAGES,
            &raw const options,
        )
    };
    if fd < 0 {
        return Err(-fd);
    }
    // SAFETY: the call has just returned this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Stores one element. Both slices must be as long as the map says; all callers pass fixed layouts of `abi.h`.
fn update(map: &OwnedFd, key: &[u8], value: &[u8]) -> Result<(), i32> {
    // SAFETY: key and value have the sizes of the map's definition in `bpf/maps.h` and live until the call returns.
    let ret = unsafe {
        libbpf_sys::bpf_map_update_elem(
            map.as_raw_fd(),
            key.as_ptr().cast::<c_void>(),
            value.as_ptr().cast::<c_void>(),
            u64::from(libbpf_sys::BPF_ANY),
        )
    };
    if ret < 0 { Err(-ret) } else { Ok(()) }
}
