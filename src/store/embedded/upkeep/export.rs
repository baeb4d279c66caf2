//! Dictionaries as Parquet files, so that the events can be read without us, and so that `repair` has a second copy.
//!
//! Numbered values only grow, so each export writes what is new; small files at the end are written again as one, which
//! keeps their number logarithmic. Names and executables change, so they are written whole at each merge that finds
//! them changed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use parquet::data_type::{ByteArray, FixedLenByteArray};
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::super::core::Core;
use super::super::database::{Database, Fault};
use super::super::dictionary::logs::Log;
use super::super::layout::Layout;
use super::super::parquet_file::{FileWriter, Schema, Values};
use super::super::{queue, tables};
use super::UpkeepState;
use crate::model::FrameId;
use crate::store::{Error, Result};

/// Rows of a row group.
const GROUP_ROWS: usize = 1_000_000;

/// Exported name of the frame names.
pub(super) const NAMES: &str = "names";
/// Exported name of the executables.
pub(super) const EXECUTABLES: &str = "executables";

/// Key of an export: which dictionary, from which number on.
type Key = (String, u32);

/// What is exported now.
#[derive(Debug, Default)]
pub(in super::super) struct Exports {
    /// Number behind the last value, and file number.
    files: BTreeMap<Key, (u32, u64)>,
    /// How many names and executables there were at their last export.
    whole: BTreeMap<&'static str, u64>,
}

/// Exports that appear and go in one transaction.
#[derive(Debug, Default)]
pub(super) struct Change {
    add: Vec<(Key, (u32, u64))>,
    /// Keys that go, with the file number that they have now.
    remove: Vec<(Key, u64)>,
    whole: Vec<(&'static str, u64)>,
}

impl Exports {
    /// Reads what is exported.
    pub(in super::super) fn load(database: &Database) -> Result<Self> {
        let files = database.read(|txn| {
            let mut files = BTreeMap::new();
            for entry in txn.open_table(tables::EXPORTS)?.iter()? {
                let (key, value) = entry?;
                let (name, from) = key.value();
                files.insert((name.to_owned(), from), value.value());
            }
            Ok(files)
        })?;
        Ok(Self { files, whole: BTreeMap::new() })
    }

    /// Names of the files that count.
    pub(in super::super) fn file_names(&self) -> Vec<String> {
        self.files.iter().map(|((name, _), (_, file))| file_name(name, *file)).collect()
    }

    /// Follows a durable change.
    pub(super) fn settle(&mut self, layout: &Layout, change: Change) {
        for (key, file) in change.remove {
            // What cannot be deleted now is swept at the next start.
            let _ = std::fs::remove_file(path(layout, &key.0, file));
            self.files.remove(&key);
        }
        self.files.extend(change.add);
        self.whole.extend(change.whole);
    }
}

impl Change {
    /// Part of the manifest's transaction.
    pub(super) fn write(&self, txn: &WriteTransaction) -> Result<(), Fault> {
        if self.add.is_empty() && self.remove.is_empty() {
            return Ok(());
        }
        let mut table = txn.open_table(tables::EXPORTS)?;
        for ((name, from), _) in &self.remove {
            table.remove((name.as_str(), *from))?;
        }
        for ((name, from), value) in &self.add {
            table.insert((name.as_str(), *from), *value)?;
        }
        Ok(())
    }

    /// Whether the transaction with this change is in the database.
    pub(super) fn happened(&self, txn: &ReadTransaction) -> Result<bool, Fault> {
        let table = txn.open_table(tables::EXPORTS)?;
        for ((name, from), value) in &self.add {
            if table.get((name.as_str(), *from))?.map(|v| v.value()) != Some(*value) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes the files of a change that did not happen.
    pub(super) fn discard(&self, layout: &Layout) {
        for ((name, _), (_, file)) in &self.add {
            let _ = std::fs::remove_file(path(layout, name, *file));
        }
    }
}

fn file_name(name: &str, file: u64) -> String {
    format!("{name}-{file:08}.parquet")
}

/// Dictionary that a file belongs to, by its name.
pub(super) fn dictionary_of(file_name: &str) -> Option<&str> {
    file_name.strip_suffix(".parquet")?.rsplit_once('-').map(|(name, _)| name)
}

/// Path of an exported file.
pub(super) fn path(layout: &Layout, name: &str, file: u64) -> PathBuf {
    layout.dictionaries().join(file_name(name, file))
}

/// Exports the numbered values that no file has.
pub(super) fn plan_logs(core: &Core, upkeep: &mut UpkeepState) -> Result<Change> {
    let (persisted, late) = {
        let mut marks = core.marks.lock();
        (marks.persisted, marks.late.take())
    };
    let mut change = Change::default();
    for log in Log::ALL {
        let to = persisted.get(log) as u32;
        let mine: Vec<_> = upkeep
            .exports
            .files
            .range((log.name().to_owned(), 0)..=(log.name().to_owned(), u32::MAX))
            .map(|((_, from), (end, file))| (*from, *end, *file))
            .collect();
        let mut from = mine.last().map_or(log.first() as u32, |(_, end, _)| *end);
        let late = late.filter(|stack| log == Log::Stacks && *stack < from);
        if to == from && late.is_none() {
            continue;
        }
        let mut remove = Vec::new();
        for (start, end, file) in mine.iter().rev() {
            let changed = late.is_some_and(|stack| stack < *end);
            if u64::from(end - start) > 2 * u64::from(to - from) && !changed {
                break;
            }
            from = *start;
            remove.push(((log.name().to_owned(), *start), *file));
        }
        let file = upkeep.file();
        if let Err(error) = write_log(core, log, from as usize, to as usize, file) {
            change.discard(&core.layout);
            return Err(error);
        }
        change.add.push(((log.name().to_owned(), from), (to, file)));
        change.remove.extend(remove);
    }
    Ok(change)
}

/// Layout of the exported dictionaries. `number` is what events and other dictionaries point to.
pub(super) fn schema(name: &str) -> Option<Schema> {
    let (message, deltas): (_, &[&str]) = match name {
        "resources" => (
            "message resources {
                required int32 number (INTEGER(32,false));
                required binary host_id (STRING);
                required binary host_name (STRING);
                required binary executable_name (STRING);
                required binary container_id (STRING);
                required binary container_name (STRING);
                required binary pod_name (STRING);
                required binary namespace_name (STRING);
                required binary service_name (STRING);
                required int32 frequency_hz (INTEGER(32,false));
            }",
            &["number"],
        ),
        "threads" => (
            "message threads {
                required int32 number (INTEGER(32,false));
                required binary name (STRING);
            }",
            &["number"],
        ),
        "frames" => (
            "message frames {
                required int32 number (INTEGER(32,false));
                required fixed_len_byte_array(16) file_id;
                required int64 address (INTEGER(64,false));
                required int32 kind (INTEGER(32,false));
            }",
            &["number", "address"],
        ),
        "nodes" => (
            "message nodes {
                required int32 number (INTEGER(32,false));
                required int32 parent (INTEGER(32,false));
                required int32 frame (INTEGER(32,false));
            }",
            &["number", "parent", "frame"],
        ),
        "stacks" => (
            "message stacks {
                required int32 number (INTEGER(32,false));
                required fixed_len_byte_array(16) id;
                required int32 node (INTEGER(32,false));
            }",
            &["number", "node"],
        ),
        EXECUTABLES => (
            "message executables {
                required fixed_len_byte_array(16) file_id;
                required binary name (STRING);
                required binary gnu_build_id (STRING);
            }",
            &[],
        ),
        NAMES => (
            "message names {
                required fixed_len_byte_array(16) file_id;
                required int64 address (INTEGER(64,false));
                required int32 level (INTEGER(32,false));
                required binary function (STRING);
                required binary file (STRING);
                required int32 line (INTEGER(32,false));
                required int32 column (INTEGER(32,false));
            }",
            &["address"],
        ),
        _ => return None,
    };
    Some(Schema { message, deltas })
}

fn create(layout: &Layout, name: &str, file: u64) -> Result<FileWriter> {
    let schema = schema(name).ok_or_else(|| Error::Engine(format!("no dictionary {name}")))?;
    FileWriter::create(path(layout, name, file), &schema)
}

fn text(value: &str) -> ByteArray {
    ByteArray::from(value.as_bytes().to_vec())
}

fn fixed(value: &[u8]) -> FixedLenByteArray {
    FixedLenByteArray::from(value.to_vec())
}

fn write_log(core: &Core, log: Log, from: usize, to: usize, file: u64) -> Result<()> {
    let mut writer = create(&core.layout, log.name(), file)?;
    let mut start = from;
    while start < to {
        let end = to.min(start + GROUP_ROWS);
        let number: Vec<i32> = (start as i32..end as i32).collect();
        match log {
            Log::Resources => {
                let rows = core.dictionaries.read().resources.values()[start..end].to_vec();
                let column = |value: fn(&crate::store::document::EventResource) -> &str| {
                    rows.iter().map(|r| text(value(r))).collect::<Vec<_>>()
                };
                let frequency: Vec<i32> = rows.iter().map(|r| r.frequency_hz as i32).collect();
                writer.group(&[
                    Values::I32(&number),
                    Values::Text(&column(|r| &r.host_id)),
                    Values::Text(&column(|r| &r.host_name)),
                    Values::Text(&column(|r| &r.executable_name)),
                    Values::Text(&column(|r| &r.container_id)),
                    Values::Text(&column(|r| &r.container_name)),
                    Values::Text(&column(|r| &r.pod_name)),
                    Values::Text(&column(|r| &r.namespace_name)),
                    Values::Text(&column(|r| &r.service_name)),
                    Values::I32(&frequency),
                ])?;
            }
            Log::Threads => {
                let names: Vec<_> =
                    core.dictionaries.read().threads.values()[start..end].iter().map(|t| text(t)).collect();
                writer.group(&[Values::I32(&number), Values::Text(&names)])?;
            }
            Log::Frames => {
                let rows = core.dictionaries.read().frames.values()[start..end].to_vec();
                let files: Vec<_> = rows.iter().map(|(f, _)| fixed(&f.file.0)).collect();
                let addresses: Vec<i64> = rows.iter().map(|(f, _)| f.address_or_line as i64).collect();
                let kinds: Vec<i32> = rows.iter().map(|(_, kind)| i32::from(kind.0)).collect();
                writer.group(&[
                    Values::I32(&number),
                    Values::Fixed(&files),
                    Values::I64(&addresses),
                    Values::I32(&kinds),
                ])?;
            }
            Log::Nodes => {
                let rows = core.dictionaries.read().nodes.values()[start..end].to_vec();
                let parents: Vec<i32> = rows.iter().map(|(parent, _)| *parent as i32).collect();
                let frames: Vec<i32> = rows.iter().map(|(_, frame)| *frame as i32).collect();
                writer.group(&[Values::I32(&number), Values::I32(&parents), Values::I32(&frames)])?;
            }
            Log::Stacks => {
                let d = core.dictionaries.read();
                let ids: Vec<_> = d.stacks.values()[start..end].iter().map(|id| fixed(&id.0)).collect();
                let nodes: Vec<i32> = d.stack_node[start..end].iter().map(|node| *node as i32).collect();
                drop(d);
                writer.group(&[Values::I32(&number), Values::Fixed(&ids), Values::I32(&nodes)])?;
            }
        }
        start = end;
    }
    writer.publish().map(drop)
}

/// Whether names and executables were never exported since the start: then the first flush does it, so that whoever
/// reads the files finds one of each kind.
pub(super) fn never_named(upkeep: &UpkeepState) -> bool {
    upkeep.exports.whole.is_empty()
}

/// Exports names and executables whole, if their number has changed since the last time.
pub(super) fn plan_names(core: &Core, upkeep: &mut UpkeepState, change: &mut Change) -> Result<()> {
    let names = core.database.read(|txn| Ok(txn.open_table(tables::NAMES)?.len()?))?;
    let executables = core.dictionaries.read().executables.len() as u64;
    for (name, count) in [(NAMES, names), (EXECUTABLES, executables)] {
        if upkeep.exports.whole.get(name) == Some(&count) {
            continue;
        }
        let file = upkeep.file();
        let written = if name == NAMES { write_names(core, file) } else { write_executables(core, file) };
        if let Err(error) = written {
            change.discard(&core.layout);
            return Err(error);
        }
        let key = (name.to_owned(), 0);
        if let Some((_, old)) = upkeep.exports.files.get(&key) {
            change.remove.push((key.clone(), *old));
        }
        change.add.push((key, (0, file)));
        change.whole.push((name, count));
    }
    Ok(())
}

fn write_executables(core: &Core, file: u64) -> Result<()> {
    let mut rows: Vec<_> = core.dictionaries.read().executables.values().cloned().collect();
    rows.sort_unstable_by_key(|e| e.id);
    let mut writer = create(&core.layout, EXECUTABLES, file)?;
    let ids: Vec<_> = rows.iter().map(|e| fixed(&e.id.0)).collect();
    let names: Vec<_> = rows.iter().map(|e| text(&e.name)).collect();
    let builds: Vec<_> = rows.iter().map(|e| text(&e.gnu_build_id)).collect();
    if !ids.is_empty() {
        writer.group(&[Values::Fixed(&ids), Values::Text(&names), Values::Text(&builds)])?;
    }
    writer.publish().map(drop)
}

/// Columns of the names under construction.
#[derive(Default)]
struct NameColumns {
    file_id: Vec<FixedLenByteArray>,
    address: Vec<i64>,
    level: Vec<i32>,
    function: Vec<ByteArray>,
    file: Vec<ByteArray>,
    line: Vec<i32>,
    column: Vec<i32>,
}

impl NameColumns {
    fn push(&mut self, id: FrameId, value: &[u8]) -> Option<()> {
        for (level, line) in queue::decode_lines(value)?.into_iter().enumerate() {
            self.file_id.push(fixed(&id.file.0));
            self.address.push(id.address_or_line as i64);
            self.level.push(level as i32);
            self.function.push(text(&line.function));
            self.file.push(text(&line.file));
            self.line.push(line.line as i32);
            self.column.push(line.column as i32);
        }
        Some(())
    }

    fn write(&mut self, writer: &mut FileWriter) -> Result<()> {
        if self.level.is_empty() {
            return Ok(());
        }
        writer.group(&[
            Values::Fixed(&self.file_id),
            Values::I64(&self.address),
            Values::I32(&self.level),
            Values::Text(&self.function),
            Values::Text(&self.file),
            Values::I32(&self.line),
            Values::I32(&self.column),
        ])?;
        *self = Self::default();
        Ok(())
    }
}

fn write_names(core: &Core, file: u64) -> Result<()> {
    let mut writer = create(&core.layout, NAMES, file)?;
    let mut next = Some([0u8; 24]);
    // In parts, so that no reader keeps the database from being opened again after a fault for long.
    while let Some(from) = next {
        let (mut columns, after) = core.database.read(|txn| {
            let table = txn.open_table(tables::NAMES)?;
            let mut columns = NameColumns::default();
            for entry in table.range(from..)? {
                let (key, value) = entry?;
                let id = FrameId::from_bytes(key.value());
                if columns.level.len() >= GROUP_ROWS / 4 {
                    return Ok((columns, Some(key.value())));
                }
                columns.push(id, value.value()).ok_or_else(|| Error::Corrupt {
                    path: core.layout.database(),
                    problem: format!("names: {id:?} is malformed"),
                })?;
            }
            Ok((columns, None))
        })?;
        columns.write(&mut writer)?;
        next = after;
    }
    writer.publish().map(drop)
}
