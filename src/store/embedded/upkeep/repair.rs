//! Makes a damaged store usable again and keeps everything that can be read.
//!
//! A damaged events file goes to `quarantine/`, a damaged sums file is dropped. When the redb file itself is damaged it
//! goes there too, and a new one is built from the Parquet files: dictionaries, names and all segments come back; what
//! was in the head (the last minutes) and the retry dates of the queue are lost. Runs on a closed store.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use redb::ReadableTable as _;

use super::super::database::{Database, Fault};
use super::super::dictionary::Dictionaries;
use super::super::dictionary::logs::{self, Log, Marks};
use super::super::layout::{self, Layout, Part};
use super::super::parquet_file::{self, Column, corrupt};
use super::super::queue::{self, Change, Changes};
use super::super::segment::{Meta, Notes, Origin, RowStream, Segment, SegmentWriter};
use super::super::settings::Settings;
use super::super::{make_tables, tables};
use super::export;
use crate::model::{FileId, FrameId, FrameKind, SourceLine, StackId};
use crate::store::document::{EventResource, Executable};
use crate::store::{Error, Result};

/// What a repair has found and done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Segments that are as they were.
    pub segments_kept: usize,
    /// Damaged files, where they are now.
    pub quarantined: Vec<PathBuf>,
    /// Samples in files that had to go, as far as the manifest knew.
    pub samples_lost: u64,
    /// Whether the redb file was built anew from the Parquet files.
    pub database_rebuilt: bool,
    /// What was wrong, for people.
    pub problems: Vec<String>,
}

impl RepairReport {
    fn problem(&mut self, error: &Error) {
        self.problems.push(error.to_string());
    }

    fn quarantine(&mut self, layout: &Layout, path: &Path) -> Result<()> {
        if path.exists() {
            self.quarantined.push(layout.quarantine(path)?);
        }
        Ok(())
    }
}

/// Repairs the store of these settings. The store must not be open.
pub(in super::super) fn repair(settings: &Settings) -> Result<RepairReport> {
    let mut report = RepairReport::default();
    let layout = match Layout::open(&settings.path) {
        Err(Error::Corrupt { path, problem }) => {
            report.problem(&corrupt(&path, problem));
            std::fs::remove_file(&path).map_err(|e| layout::io("delete", &path, e))?;
            Layout::open(&settings.path)?
        }
        other => other?,
    };
    let _lock = layout.lock()?;
    match open_sound(&layout, &mut report) {
        Ok(database) => mend_segments(&layout, &database, &mut report)?,
        Err(error @ (Error::Corrupt { .. } | Error::Engine(_))) => {
            report.problem(&error);
            report.quarantine(&layout, &layout.database())?;
            report.database_rebuilt = true;
            rebuild(&layout, settings, &mut report)?;
        }
        Err(other) => return Err(other),
    }
    Ok(report)
}

/// Opens the redb file and reads all of it.
fn open_sound(layout: &Layout, report: &mut RepairReport) -> Result<Database> {
    let path = layout.database();
    let database = Database::open(path.clone())?;
    if !database.check()? {
        report.problems.push(format!("{}: mended after an interrupted commit", path.display()));
    }
    make_tables(&database)?;
    logs::load(&database, &path)?;
    super::super::load_head(&database, &path, 0)?;
    database.read(|txn| {
        for entry in txn.open_table(tables::NAMES)?.iter()? {
            let (_, value) = entry?;
            queue::decode_lines(value.value())
                .ok_or_else(|| Fault::Store(corrupt(&path, "names: a value is malformed".into())))?;
        }
        for entry in txn.open_table(tables::SEGMENTS)?.iter()? {
            let (id, value) = entry?;
            Meta::decode(id.value(), value.value())
                .ok_or_else(|| Fault::Store(corrupt(&path, "segments: a value is malformed".into())))?;
        }
        Ok(())
    })?;
    Ok(database)
}

/// Checks every file that the manifest names.
fn mend_segments(layout: &Layout, database: &Database, report: &mut RepairReport) -> Result<()> {
    let metas: Vec<Meta> = database.read(|txn| {
        let mut metas = Vec::new();
        for entry in txn.open_table(tables::SEGMENTS)?.iter()? {
            let (id, value) = entry?;
            metas.extend(Meta::decode(id.value(), value.value()));
        }
        Ok(metas)
    })?;
    let (mut gone, mut changed) = (Vec::new(), Vec::new());
    for mut meta in metas {
        let mut damaged = Vec::new();
        for part in Part::ALL {
            let Some(file) = meta.file(part) else { continue };
            let path = layout.segment(meta.id, part);
            if let Err(error) = parquet_file::verify(&path, file) {
                report.problem(&error);
                report.quarantine(layout, &path)?;
                damaged.push(part);
            }
        }
        if damaged.contains(&Part::Events) {
            report.samples_lost += meta.rows;
            gone.push(meta.id);
        } else if damaged.is_empty() {
            report.segments_kept += 1;
        } else {
            for part in damaged {
                meta.files[part as usize] = None;
            }
            report.segments_kept += 1;
            changed.push(meta);
        }
    }
    let exports = damaged_exports(layout, database, report)?;
    database.write(|txn| {
        let mut segments = txn.open_table(tables::SEGMENTS)?;
        for id in gone {
            segments.remove(id)?;
        }
        for meta in changed {
            segments.insert(meta.id, meta.encode().as_slice())?;
        }
        // They are exported again with the next flush.
        txn.open_table(tables::EXPORTS)?.retain(|(name, _), _| !exports.contains(name))?;
        Ok(())
    })
}

/// Names of dictionaries with an exported file that cannot be read.
fn damaged_exports(
    layout: &Layout,
    database: &Database,
    report: &mut RepairReport,
) -> Result<HashSet<String>> {
    let files: Vec<(String, u64)> = database.read(|txn| {
        let mut files = Vec::new();
        for entry in txn.open_table(tables::EXPORTS)?.iter()? {
            let (key, value) = entry?;
            files.push((key.value().0.to_owned(), value.value().1));
        }
        Ok(files)
    })?;
    let mut damaged = HashSet::new();
    for (name, file) in files {
        let path = export::path(layout, &name, file);
        if let Err(error) = read_file(&path, &mut |_| Some(())) {
            report.problem(&error);
            report.quarantine(layout, &path)?;
            damaged.insert(name);
        }
    }
    Ok(damaged)
}

/// Builds a new redb file from everything that lies beside it.
fn rebuild(layout: &Layout, settings: &Settings, report: &mut RepairReport) -> Result<()> {
    let (mut d, names) = read_dictionaries(layout, report)?;
    let (found, mut next_file) = find_events(layout, report)?;
    let replaced: HashSet<u64> = found.iter().flat_map(|(_, notes, _)| notes.replaces.clone()).collect();
    let database = Database::open(layout.database())?;
    make_tables(&database)?;
    let mut metas = Vec::new();
    for (id, notes, file) in found.into_iter().filter(|(id, ..)| !replaced.contains(id)) {
        let rows = file.rows;
        let meta = Meta {
            id,
            level: notes.level,
            unit_ms: notes.unit_ms,
            block_hours: notes.block_hours,
            published_ms: (settings.clock)().millis() as i64,
            rows,
            blocks: notes.blocks,
            files: [Some(file), None, None],
        };
        let segment = Segment::new(layout.clone(), meta);
        match rewrite(layout, &segment, next_file, &mut d) {
            Ok(meta) => {
                report.segments_kept += 1;
                next_file += 1;
                metas.push(meta);
            }
            Err(error @ Error::Corrupt { .. }) => {
                report.problem(&error);
                report.samples_lost += rows;
                report.quarantine(layout, &segment.path(Part::Events))?;
            }
            Err(other) => return Err(other),
        }
    }
    database.write(|txn| {
        logs::append(txn, &d, &Marks::start())?;
        let mut segments = txn.open_table(tables::SEGMENTS)?;
        for meta in &metas {
            segments.insert(meta.id, meta.encode().as_slice())?;
        }
        txn.open_table(tables::COUNTERS)?.insert(tables::NEXT_FILE, next_file)?;
        let mut executables = txn.open_table(tables::EXECUTABLES)?;
        for executable in d.executables.values() {
            executables.insert(executable.id.0, logs::put_executable(executable).as_slice())?;
        }
        drop(executables);
        queue::apply(txn, &names)?;
        Ok(())
    })
    // The old files are not in the new manifest: the next start sweeps them.
}

/// Writes a segment again, with new sums, and makes room in the dictionaries for whatever it points to.
fn rewrite(layout: &Layout, old: &Segment, id: u64, d: &mut Dictionaries) -> Result<Meta> {
    let (mut resources, mut threads, mut stacks) = (0, 0, 0);
    // First only read, so that a damaged file leaves no half-written one.
    for block in &old.meta.blocks {
        let mut rows = RowStream::new(old, block.first_group..block.first_group + block.groups);
        while let Some(row) = rows.next()? {
            resources = resources.max(row.resource as usize + 1);
            threads = threads.max(row.thread as usize + 1);
            stacks = stacks.max(row.stack as usize + 1);
        }
    }
    d.fill_up(resources, threads, stacks);
    let complete = d.complete();
    let mut writer = SegmentWriter::create(layout, id, old.meta.rows, old.meta.unit_ms, &complete)?;
    for block in &old.meta.blocks {
        let mut rows = RowStream::new(old, block.first_group..block.first_group + block.groups);
        while let Some(row) = rows.next()? {
            writer.push(row)?;
        }
        writer.end_block()?;
    }
    writer.finish(&Origin {
        level: old.meta.level,
        block_hours: old.meta.block_hours,
        published_ms: old.meta.published_ms,
        replaces: &[old.meta.id],
    })
}

type Found = (u64, Notes, parquet_file::FileMeta);

/// All events files that can be opened, and a file number that nobody has had.
fn find_events(layout: &Layout, report: &mut RepairReport) -> Result<(Vec<Found>, u64)> {
    let mut found = Vec::new();
    let mut next_file = 0;
    for folder in Part::ALL.map(|part| layout.folder(part)).into_iter().chain([layout.dictionaries()]) {
        for path in files(&folder)? {
            let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            let number: Option<u64> = stem.rsplit('-').next().and_then(|n| n.parse().ok());
            next_file = next_file.max(number.map_or(0, |n| n + 1));
            if folder != layout.folder(Part::Events) {
                continue;
            }
            let read = parquet_file::open_unknown(&path).and_then(|(footer, file)| {
                let notes = footer.file_metadata().key_value_metadata();
                let note = |key: &str| notes?.iter().find(|n| n.key == key)?.value.as_deref();
                let notes = Notes::read(note).ok_or_else(|| corrupt(&path, "notes are missing".into()))?;
                let id = number.ok_or_else(|| corrupt(&path, "file name is not a number".into()))?;
                Ok((id, notes, file))
            });
            match read {
                Ok(segment) => found.push(segment),
                Err(error) => {
                    report.problem(&error);
                    report.quarantine(layout, &path)?;
                }
            }
        }
    }
    found.sort_by_key(|(id, ..)| *id);
    Ok((found, next_file))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| layout::io("read", folder, e))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "parquet"))
        .collect();
    files.sort();
    Ok(files)
}

/// Dictionaries and names from their exported files. Values that no readable file has stay away: numbers behind the
/// first gap are filled up later by what points to them.
fn read_dictionaries(layout: &Layout, report: &mut RepairReport) -> Result<(Dictionaries, Changes)> {
    let mut by_name: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in files(&layout.dictionaries())? {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(name) = export::dictionary_of(&name) {
            by_name.entry(name.to_owned()).or_default().push(path);
        }
    }
    let mut d = Dictionaries::default();
    let mut read = |name: &str, row: &mut dyn FnMut(&[Cell<'_>]) -> Option<()>| -> Result<()> {
        let mut files: Vec<_> = by_name.remove(name).unwrap_or_default();
        // By first number, so that values come in order; of the whole ones (no numbers) by age.
        files.sort_by_key(|path| first_number(path).unwrap_or(u64::MAX));
        for path in files {
            if let Err(error) = read_file(&path, row) {
                report.problem(&error);
                report.quarantine(layout, &path)?;
            }
        }
        Ok(())
    };
    read(Log::Resources.name(), &mut |cells| load_resource(&mut d, cells))?;
    read(Log::Threads.name(), &mut |cells| {
        let [number, name] = cells else { return None };
        if number.number()? as usize == d.threads.len() {
            d.threads.push(name.text()?.into());
        }
        Some(())
    })?;
    read(Log::Frames.name(), &mut |cells| {
        let [number, file, address, kind] = cells else { return None };
        if number.number()? as usize == d.frames.len() {
            let id = FrameId { file: FileId(file.array()?), address_or_line: address.number()? };
            d.frames.push((id, FrameKind(kind.number()? as u8)));
        }
        Some(())
    })?;
    read(Log::Nodes.name(), &mut |cells| {
        let [number, parent, frame] = cells else { return None };
        if number.number()? as usize == d.nodes.len() {
            // A node whose frame is lost ends the readable part of the trie.
            let _ = d.load_node(parent.number()? as u32, frame.number()? as u32);
        }
        Some(())
    })?;
    read(Log::Stacks.name(), &mut |cells| {
        let [number, id, node] = cells else { return None };
        if number.number()? as usize == d.stacks.len() {
            let (id, node) = (StackId(id.array()?), node.number()? as u32);
            d.load_stack(id, node).or_else(|| d.load_stack(id, 0));
        }
        Some(())
    })?;
    read(export::EXECUTABLES, &mut |cells| {
        let [id, name, build] = cells else { return None };
        let id = FileId(id.array()?);
        let executable = Executable { id, name: name.text()?.into(), gnu_build_id: build.text()?.into() };
        d.executables.insert(id, executable);
        Some(())
    })?;
    let mut lines: BTreeMap<[u8; 24], Vec<SourceLine>> = BTreeMap::new();
    read(export::NAMES, &mut |cells| {
        let [file, address, level, function, source, line, column] = cells else { return None };
        let id = FrameId { file: FileId(file.array()?), address_or_line: address.number()? };
        let known = lines.entry(id.to_bytes()).or_default();
        if level.number()? == 0 {
            known.clear();
        }
        known.push(SourceLine {
            function: function.text()?.into(),
            file: source.text()?.into(),
            line: line.number()? as u32,
            column: column.number()? as u32,
        });
        Some(())
    })?;
    let mut names: Changes =
        lines.into_iter().map(|(id, lines)| (id, Change::Named(queue::encode_lines(&lines)))).collect();
    for (frame, kind) in d.frames.values() {
        if matches!(*kind, FrameKind::NATIVE | FrameKind::KERNEL) {
            names.entry(frame.to_bytes()).or_insert(Change::Unnamed);
        }
    }
    Ok((d, names))
}

fn load_resource(d: &mut Dictionaries, cells: &[Cell<'_>]) -> Option<()> {
    let [number, texts @ .., frequency] = cells else { return None };
    if number.number()? as usize != d.resources.len() {
        return Some(());
    }
    let [host_id, host_name, executable, container_id, container, pod, namespace, service] = texts else {
        return None;
    };
    d.resources.push(EventResource {
        host_id: host_id.text()?.into(),
        host_name: host_name.text()?.into(),
        executable_name: executable.text()?.into(),
        container_id: container_id.text()?.into(),
        container_name: container.text()?.into(),
        pod_name: pod.text()?.into(),
        namespace_name: namespace.text()?.into(),
        service_name: service.text()?.into(),
        frequency_hz: frequency.number()? as u32,
    });
    Some(())
}

/// Number of the first value of an exported file.
fn first_number(path: &Path) -> Option<u64> {
    let (footer, _) = parquet_file::open_unknown(path).ok()?;
    match parquet_file::read_group(path, &footer, 0).ok()?.first()? {
        Column::I32(numbers) => numbers.first().map(|n| u64::from(*n as u32)),
        _ => None,
    }
}

/// One value of a row.
#[derive(Clone, Copy, Debug)]
enum Cell<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Cell<'_> {
    fn number(&self) -> Option<u64> {
        match self {
            Self::Number(n) => Some(*n),
            Self::Bytes(_) => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            Self::Number(_) => None,
        }
    }

    fn array<const N: usize>(&self) -> Option<[u8; N]> {
        match self {
            Self::Bytes(bytes) => (*bytes).try_into().ok(),
            Self::Number(_) => None,
        }
    }
}

/// Hands all rows of a file to `row`, which returns `None` for one that is not ours.
fn read_file(path: &Path, row: &mut dyn FnMut(&[Cell<'_>]) -> Option<()>) -> Result<()> {
    let (footer, _) = parquet_file::open_unknown(path)?;
    for group in 0..footer.row_groups().len() {
        let columns = parquet_file::read_group(path, &footer, group)?;
        let rows = columns.first().map_or(0, |c| match c {
            Column::I32(v) => v.len(),
            Column::I64(v) => v.len(),
            Column::Bytes(v) => v.len(),
        });
        let mut cells = Vec::with_capacity(columns.len());
        for i in 0..rows {
            cells.clear();
            cells.extend(columns.iter().map(|column| match column {
                Column::I32(v) => Cell::Number(u64::from(v[i] as u32)),
                Column::I64(v) => Cell::Number(v[i] as u64),
                Column::Bytes(v) => Cell::Bytes(&v[i]),
            }));
            row(&cells).ok_or_else(|| corrupt(path, format!("row {i} is malformed")))?;
        }
    }
    Ok(())
}
