//! Dictionaries on disk: append-only runs of values in redb, keyed by the number of their first value.
//!
//! A commit appends what is new as one short run per dictionary; [`gather`] later turns short runs into long ones.
//! Written by `ingest` and `upkeep`, read once at the start.

use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::super::codec::{Bytes, put_text, put_u64};
use super::super::database::{Database, Fault};
use super::super::tables;
use super::Dictionaries;
use crate::model::{FileId, FrameId, FrameKind, StackId};
use crate::store::document::{EventResource, Executable};
use crate::store::{Error, Result};

/// Values in a long run: small enough to rewrite the last one at each gathering, large enough to load fast.
const RUN: usize = 4096;

/// The dictionaries that are logs, in an order in which each only points to earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Log {
    /// Resources.
    Resources,
    /// Thread names.
    Threads,
    /// Frames.
    Frames,
    /// Trie nodes, without the root.
    Nodes,
    /// Stacks.
    Stacks,
}

impl Log {
    /// All of them.
    pub(crate) const ALL: [Self; 5] =
        [Self::Resources, Self::Threads, Self::Frames, Self::Nodes, Self::Stacks];

    /// Name in messages and of exported files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Resources => "resources",
            Self::Threads => "threads",
            Self::Frames => "frames",
            Self::Nodes => "nodes",
            Self::Stacks => "stacks",
        }
    }

    /// Table in redb.
    pub(crate) fn table(self) -> tables::LogTable {
        match self {
            Self::Resources => tables::RESOURCES,
            Self::Threads => tables::THREADS,
            Self::Frames => tables::FRAMES,
            Self::Nodes => tables::NODES,
            Self::Stacks => tables::STACKS,
        }
    }

    /// Values of this dictionary in memory, the root node included.
    pub(crate) fn len(self, d: &Dictionaries) -> usize {
        match self {
            Self::Resources => d.resources.len(),
            Self::Threads => d.threads.len(),
            Self::Frames => d.frames.len(),
            Self::Nodes => d.nodes.len(),
            Self::Stacks => d.stacks.len(),
        }
    }

    fn encode(self, d: &Dictionaries, from: usize, to: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity((to - from) * 8);
        match self {
            Self::Resources => {
                d.resources.values()[from..to].iter().for_each(|r| put_resource(&mut out, r));
            }
            Self::Threads => d.threads.values()[from..to].iter().for_each(|t| put_text(&mut out, t)),
            Self::Frames => {
                let mut file = None;
                for (frame, kind) in &d.frames.values()[from..to] {
                    let same = file == Some(frame.file);
                    out.extend([u8::from(same), kind.0]);
                    if !same {
                        out.extend_from_slice(&frame.file.0);
                    }
                    put_u64(&mut out, frame.address_or_line);
                    file = Some(frame.file);
                }
            }
            Self::Nodes => {
                for (i, (parent, frame)) in d.nodes.values()[from..to].iter().enumerate() {
                    put_u64(&mut out, (from + i) as u64 - u64::from(*parent));
                    put_u64(&mut out, u64::from(*frame));
                }
            }
            Self::Stacks => {
                for (id, node) in d.stacks.values()[from..to].iter().zip(&d.stack_node[from..to]) {
                    out.extend_from_slice(&id.0);
                    put_u64(&mut out, u64::from(*node));
                }
            }
        }
        out
    }

    /// Appends the values of one run; `None` when it is malformed.
    fn decode(self, d: &mut Dictionaries, run: &[u8]) -> Option<()> {
        let mut bytes = Bytes(run);
        let mut file = None;
        while !bytes.is_empty() {
            match self {
                Self::Resources => {
                    let resource = take_resource(&mut bytes)?;
                    d.resources.push(resource);
                }
                Self::Threads => d.threads.push(bytes.text()?),
                Self::Frames => {
                    let same = bytes.byte()? == 1;
                    let kind = FrameKind(bytes.byte()?);
                    if !same {
                        file = Some(FileId(bytes.array()?));
                    }
                    let frame = FrameId { file: file?, address_or_line: bytes.u64()? };
                    d.frames.push((frame, kind));
                }
                Self::Nodes => {
                    let back = bytes.u64()?;
                    let parent = (d.nodes.len() as u64).checked_sub(back)?;
                    d.load_node(u32::try_from(parent).ok()?, bytes.u32()?)?;
                }
                Self::Stacks => {
                    let id = StackId(bytes.array()?);
                    d.load_stack(id, bytes.u32()?)?;
                }
            }
        }
        Some(())
    }

    /// Number of the first value that is in the log (the root node is in none).
    pub(crate) fn first(self) -> usize {
        usize::from(self == Self::Nodes)
    }
}

/// Per dictionary, in the order of [`Log::ALL`]: how many values something is true of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks(pub(crate) [usize; 5]);

impl Marks {
    /// Where the logs begin.
    pub(crate) fn start() -> Self {
        Self(Log::ALL.map(Log::first))
    }

    /// Everything in memory.
    pub(crate) fn of(d: &Dictionaries) -> Self {
        Self(Log::ALL.map(|log| log.len(d)))
    }

    /// The mark of one dictionary.
    pub(crate) fn get(&self, log: Log) -> usize {
        self.0[log as usize]
    }
}

/// Persists everything that `persisted` does not cover. The caller moves its mark once the commit has succeeded.
pub(crate) fn append(txn: &WriteTransaction, d: &Dictionaries, persisted: &Marks) -> Result<(), Fault> {
    for log in Log::ALL {
        let (from, to) = (persisted.get(log), log.len(d));
        if to > from {
            txn.open_table(log.table())?.insert(from as u32, log.encode(d, from, to).as_slice())?;
        }
    }
    if !d.late.is_empty() {
        let mut late = txn.open_table(tables::LATE_STACKS)?;
        for stack in &d.late {
            late.insert(stack, d.stack_node[*stack as usize])?;
        }
    }
    Ok(())
}

/// Turns the short runs behind `gathered` into long ones, up to `persisted`. Returns the new mark.
pub(crate) fn gather(
    txn: &WriteTransaction,
    d: &Dictionaries,
    gathered: &Marks,
    persisted: &Marks,
) -> Result<Marks, Fault> {
    let mut marks = *gathered;
    for log in Log::ALL {
        let (from, to) = (gathered.get(log), persisted.get(log));
        if to == from {
            continue;
        }
        let mut table = txn.open_table(log.table())?;
        table.retain_in(from as u32.., |_, _| false)?;
        let mut start = from;
        while start < to {
            let end = to.min(start + RUN);
            table.insert(start as u32, log.encode(d, start, end).as_slice())?;
            if end - start == RUN {
                marks.0[log as usize] = end;
            }
            start = end;
        }
    }
    Ok(marks)
}

/// Reads all dictionaries. Returns them and the mark behind the last long run.
pub(crate) fn load(database: &Database, path: &std::path::Path) -> Result<(Dictionaries, Marks)> {
    let corrupt = |what: String| Fault::Store(Error::Corrupt { path: path.to_owned(), problem: what });
    database.read(|txn| {
        let mut d = Dictionaries::default();
        let mut gathered = Marks::start();
        for log in Log::ALL {
            let table = txn.open_table(log.table())?;
            for run in table.iter()? {
                let (first, run) = run?;
                let (first, before) = (first.value() as usize, log.len(&d));
                if first != before {
                    return Err(corrupt(format!("{}: expected value {before}, found {first}", log.name())));
                }
                log.decode(&mut d, run.value())
                    .ok_or_else(|| corrupt(format!("{}: run at {first} is malformed", log.name())))?;
                if gathered.get(log) == first && log.len(&d) - first == RUN {
                    gathered.0[log as usize] = log.len(&d);
                }
            }
        }
        load_late(txn, &mut d).map_err(|problem| problem.unwrap_or_else(|| corrupt("late_stacks".into())))?;
        for entry in txn.open_table(tables::EXECUTABLES)?.iter()? {
            let (id, value) = entry?;
            let id = FileId(id.value());
            let executable = take_executable(id, value.value())
                .ok_or_else(|| corrupt(format!("executables: {id} is malformed")))?;
            d.executables.insert(id, executable);
        }
        Ok((d, gathered))
    })
}

fn load_late(txn: &ReadTransaction, d: &mut Dictionaries) -> Result<(), Option<Fault>> {
    let table = txn.open_table(tables::LATE_STACKS).map_err(|e| Some(e.into()))?;
    for entry in table.iter().map_err(|e| Some(e.into()))? {
        let (stack, node) = entry.map_err(|e| Some(e.into()))?;
        d.load_late(stack.value(), node.value()).ok_or(None)?;
    }
    Ok(())
}

fn put_resource(out: &mut Vec<u8>, r: &EventResource) {
    for text in [
        &r.host_id,
        &r.host_name,
        &r.executable_name,
        &r.container_id,
        &r.container_name,
        &r.pod_name,
        &r.namespace_name,
        &r.service_name,
    ] {
        put_text(out, text);
    }
    put_u64(out, u64::from(r.frequency_hz));
}

fn take_resource(bytes: &mut Bytes<'_>) -> Option<EventResource> {
    Some(EventResource {
        host_id: bytes.text()?,
        host_name: bytes.text()?,
        executable_name: bytes.text()?,
        container_id: bytes.text()?,
        container_name: bytes.text()?,
        pod_name: bytes.text()?,
        namespace_name: bytes.text()?,
        service_name: bytes.text()?,
        frequency_hz: bytes.u32()?,
    })
}

/// Encodes the value of an executable in its table.
pub(crate) fn put_executable(executable: &Executable) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, &executable.name);
    put_text(&mut out, &executable.gnu_build_id);
    out
}

fn take_executable(id: FileId, value: &[u8]) -> Option<Executable> {
    let mut bytes = Bytes(value);
    Some(Executable { id, name: bytes.text()?, gnu_build_id: bytes.text()? })
}
