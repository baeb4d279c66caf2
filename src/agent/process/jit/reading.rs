//! How far the list of one process is read: appended lines are read on, a list that was begun anew is read anew.

use std::collections::HashSet;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::source::{self, Format, Refusal, Refused, Source};
use crate::agent::process::procfs;
use crate::symbols::jit::{Change, Dump, PerfMap};

/// Largest perf map that is read from its start; of larger ones the newest part counts: 64 MiB.
const MAX_MAP_BYTES: u64 = 64 << 20;
/// Most bytes read in one look.
const MAX_LOOK_BYTES: u64 = 64 << 20;
/// Bytes before the place that was read up to, which must still be the same.
const TAIL_BYTES: usize = 64;
/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 << 10;

#[derive(Debug)]
enum Parser {
    PerfMap(PerfMap),
    Dump(Dump),
}

/// One list that is being read.
#[derive(Debug)]
struct Place {
    device_and_inode: (u64, u64),
    format: Format,
    offset: u64,
    tail: Vec<u8>,
    parser: Parser,
    broken: bool,
}

/// What is read of the list of one process.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Start of the process when it was first looked at: its number may come to mean another.
    start_ticks: Option<u64>,
    place: Option<Place>,
    /// Reasons of refusal that are told already.
    told: HashSet<&'static str>,
    /// Lines and records that made no sense, up to the last list.
    skipped_before: u64,
}

/// What came of a look.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// There is a list.
    pub(super) found: bool,
    /// It is read to its end.
    pub(super) at_end: bool,
    /// Files found and not believed for a reason not yet told of this process.
    pub(super) refused: Vec<Refused>,
}

impl Reading {
    /// Reads on, and hands every change to `take` in the order of the file.
    pub(super) fn look(&mut self, pid: u32, has_dump: bool, take: &mut dyn FnMut(Change)) -> Look {
        let mut look = Look { at_end: true, ..Look::default() };
        let Some(start_ticks) = procfs::stat(pid).map(|stat| stat.start_ticks) else { return look };
        if *self.start_ticks.get_or_insert(start_ticks) != start_ticks {
            return look;
        }
        let mut refused = Vec::new();
        if let Some(source) = source::find(pid, has_dump, &mut refused) {
            match self.read(&source, &mut look, take) {
                Ok(()) => look.found = true,
                Err(why) => refused.push(Refused { path: source.path, why }),
            }
        }
        look.refused = refused.into_iter().filter(|refused| self.told.insert(refused.why.word())).collect();
        look
    }

    /// Lines and records that made no sense.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped_before + self.place.as_ref().map_or(0, Place::skipped)
    }

    fn read(
        &mut self,
        source: &Source,
        look: &mut Look,
        take: &mut dyn FnMut(Change),
    ) -> Result<(), Refusal> {
        if !self.place.as_ref().is_some_and(|place| place.is_of(source)) {
            self.skipped_before = self.skipped();
            if self.place.is_some() {
                take(Change::Begun);
            }
            self.place = Some(Place::new(&source.metadata, source.format));
        }
        let place = self.place.as_mut().expect("set above");
        if place.broken {
            return Err(Refusal::Content(String::new()));
        }
        let open = |error: io::Error| Refusal::Open(error.kind());
        let mut piece = vec![0; PIECE_BYTES];
        let mut read = 0;
        while read < MAX_LOOK_BYTES {
            let bytes = source.file.read_at(&mut piece, place.offset).map_err(open)?;
            if bytes == 0 {
                return Ok(());
            }
            read += bytes as u64;
            place.take(&piece[..bytes], take)?;
        }
        look.at_end = false;
        Ok(())
    }
}

impl Place {
    fn new(metadata: &Metadata, format: Format) -> Self {
        let behind = metadata.len().saturating_sub(MAX_MAP_BYTES);
        let (offset, parser) = match format {
            Format::PerfMap if behind > 0 => (behind, Parser::PerfMap(PerfMap::from_the_middle())),
            Format::PerfMap => (0, Parser::PerfMap(PerfMap::default())),
            Format::Dump(pid) => (0, Parser::Dump(Dump::new(pid))),
        };
        let device_and_inode = (metadata.dev(), metadata.ino());
        Self { device_and_inode, format, offset, tail: Vec::new(), parser, broken: false }
    }

    /// Whether the file is the one that was read, as far as it was read.
    fn is_of(&self, source: &Source) -> bool {
        let metadata = &source.metadata;
        if self.device_and_inode != (metadata.dev(), metadata.ino())
            || self.format != source.format
            || metadata.len() < self.offset
        {
            return false;
        }
        let mut tail = vec![0; self.tail.len()];
        let from = self.offset - self.tail.len() as u64;
        source.file.read_exact_at(&mut tail, from).is_ok() && tail == self.tail
    }

    fn take(&mut self, bytes: &[u8], take: &mut dyn FnMut(Change)) -> Result<(), Refusal> {
        self.offset += bytes.len() as u64;
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        match &mut self.parser {
            Parser::PerfMap(map) => map.feed(bytes, take),
            Parser::Dump(dump) => dump.feed(bytes, take).map_err(|broken| {
                self.broken = true;
                Refusal::Content(broken.to_string())
            })?,
        }
        Ok(())
    }

    fn skipped(&self) -> u64 {
        match &self.parser {
            Parser::PerfMap(map) => map.skipped(),
            Parser::Dump(dump) => dump.skipped(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::Path;

    use super::*;

    fn source(path: &Path) -> Source {
        let file = fs::File::open(path).unwrap();
        let metadata = file.metadata().unwrap();
        Source { file, metadata, format: Format::PerfMap, path: path.to_owned() }
    }

    fn read(reading: &mut Reading, path: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut take = |change| match change {
            Change::Made(code) => found.push(code.name.to_string()),
            Change::Begun => found.push("begun".into()),
            Change::Moved { .. } => panic!("{change:?}"),
        };
        reading.read(&source(path), &mut Look::default(), &mut take).unwrap();
        found
    }

    #[test]
    fn what_is_appended_is_read_on_and_what_is_new_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("perf-1.map");
        let mut reading = Reading::default();
        fs::write(&path, "1000 10 a\n2000 10 b").unwrap();
        assert_eq!(read(&mut reading, &path), ["a"]);
        assert!(read(&mut reading, &path).is_empty());
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"c\n3000 10 d\nx\n").unwrap();
        assert_eq!(read(&mut reading, &path), ["bc", "d"]);
        assert_eq!(reading.skipped(), 1);
        // The same file, shorter; longer with another content; another file.
        fs::write(&path, "1000 10 e\n").unwrap();
        assert_eq!(read(&mut reading, &path), ["begun", "e"]);
        fs::write(&path, "2000 10 f\n3000 10 g\n").unwrap();
        assert_eq!(read(&mut reading, &path), ["begun", "f", "g"]);
        let other = directory.path().join("other");
        fs::write(&other, "2000 10 f\n3000 10 g\n4000 10 h\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(read(&mut reading, &path), ["begun", "f", "g", "h"]);
        assert_eq!(reading.skipped(), 1);
    }

    #[test]
    fn of_a_huge_list_the_newest_part_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("perf-1.map");
        let file = fs::File::create(&path).unwrap();
        file.set_len(MAX_MAP_BYTES + 5).unwrap();
        let mut end = b"\n1000 10 newest\n".to_vec();
        file.write_all_at(&end, MAX_MAP_BYTES + 5 - end.len() as u64).unwrap();
        end.clear();
        let mut reading = Reading::default();
        let mut names = Vec::new();
        for _ in 0..2 {
            names.extend(read(&mut reading, &path));
        }
        assert_eq!(names, ["newest"]);
    }

    #[test]
    fn a_dump_that_is_none_is_refused_once_and_for_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jit-1.dump");
        fs::write(&path, [7; 100]).unwrap();
        let dump = || Source { format: Format::Dump(1), ..source(&path) };
        let mut reading = Reading::default();
        for _ in 0..2 {
            let result = reading.read(&dump(), &mut Look::default(), &mut |change| panic!("{change:?}"));
            assert_eq!(result.unwrap_err().word(), "content");
        }
    }

    #[test]
    fn process_that_is_gone_has_no_list() {
        let look = Reading::default().look(4_194_305, true, &mut |change| panic!("{change:?}"));
        assert!(!look.found && look.refused.is_empty());
    }
}
