//! One executable: open it, read its symbols, name its addresses. Runs on a thread of the pool.
//!
//! The seam for a sandboxed child: [`Naming::read`] is the only place where bytes of strangers are parsed; it takes open
//! files and gives an index or a reason.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::ExecutableSource;
use super::cache::{Cache, Known};
use super::counters::Counters;
use super::debug_files::DebugFiles;
use super::worker::Clock;
use crate::model::{ElfAddr, FileId, FrameId, UnknownReason};
use crate::store::PendingFile;
use crate::store::document::StackFrame;
use crate::symbols::elf::Elf;
use crate::symbols::file_id::{build_ids, of_file};
use crate::symbols::mapped::ImageFile;
use crate::symbols::{Error, SymbolIndex};

/// Longest time that the look-ups of one file may take at once. 4096 of them take some milliseconds; a file made to
/// be slow could take an hour.
const MAX_LOOKUP_TIME: Duration = Duration::from_secs(20);

/// What became of the addresses of one file.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) named: Vec<StackFrame>,
    /// Addresses without a name, by reason.
    pub(super) unnamed: Vec<(UnknownReason, Vec<u64>)>,
}

impl Outcome {
    fn fail(&mut self, reason: UnknownReason, address: u64) {
        match self.unnamed.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, addresses)) => addresses.push(address),
            None => self.unnamed.push((reason, vec![address])),
        }
    }
}

/// What all threads share.
pub(super) struct Naming {
    pub(super) source: Arc<dyn ExecutableSource>,
    pub(super) debug_files: DebugFiles,
    pub(super) cache: Mutex<Cache>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Clock,
}

impl Naming {
    /// Names what can be named.
    pub(super) fn name(&self, pending: &PendingFile) -> Outcome {
        let mut outcome = Outcome::default();
        let known = self.index(pending.file);
        match &known {
            Ok(index) => look_up(index, pending, &mut outcome),
            Err(reason) => outcome.unnamed.push((reason.clone(), pending.addresses.clone())),
        }
        // Unavailable files are asked for again each time: the answer costs little and changes.
        if !matches!(known, Err(UnknownReason::FileUnavailable(_))) {
            let mut cache = self.cache.lock();
            cache.put(pending.file, &known, (self.clock)());
            self.counters.cache_bytes.store(cache.bytes() as u64, std::sync::atomic::Ordering::Relaxed);
        }
        outcome
    }

    fn index(&self, file: FileId) -> Known {
        if let Some(known) = self.cache.lock().get(file, (self.clock)()) {
            Counters::add(&self.counters.cache_hits, 1);
            return known;
        }
        let opened = self.source.open(file).and_then(|opened| {
            let image = ImageFile::open(opened).map_err(|error| UnknownReason::from(&error))?;
            let found = of_file(&image).map_err(|error| UnknownReason::from(&error))?;
            if found == file {
                Ok(image)
            } else {
                Err(UnknownReason::FileUnavailable("the file has changed since it was sampled".into()))
            }
        });
        let image = match opened {
            Ok(image) => image,
            Err(reason) => {
                Counters::add(&self.counters.files_unavailable, 1);
                return Err(reason);
            }
        };
        match self.read(image) {
            Ok(index) => {
                Counters::add(&self.counters.files_read, 1);
                for fault in index.faults() {
                    tracing::debug!(%file, fault, "part of an executable is not readable");
                }
                Ok(Arc::new(index))
            }
            Err(error) => {
                Counters::add(&self.counters.files_bad, 1);
                tracing::debug!(%file, %error, "executable is not readable");
                Err(UnknownReason::from(&error))
            }
        }
    }

    fn read(&self, image: ImageFile) -> Result<SymbolIndex, Error> {
        let elf = Elf::open(image)?;
        let debug = self.debug_files.open(&build_ids(&elf)?);
        Counters::add(&self.counters.debug_files, usize::from(debug.is_some()));
        SymbolIndex::build(&elf, debug.as_ref())
    }
}

fn look_up(index: &SymbolIndex, pending: &PendingFile, outcome: &mut Outcome) {
    let started = Instant::now();
    for address in pending.addresses.iter().copied() {
        if started.elapsed() > MAX_LOOKUP_TIME {
            let limit = MAX_LOOKUP_TIME.as_secs();
            outcome.fail(UnknownReason::BadFile(format!("look-ups took longer than {limit} s")), address);
            continue;
        }
        match index.lookup(ElfAddr(address)) {
            Ok(lines) => {
                let id = FrameId { file: pending.file, address_or_line: address };
                outcome.named.push(StackFrame { id, lines });
            }
            Err(reason) => outcome.fail(reason, address),
        }
    }
}
