//! Parquet files, written so that a crash leaves whole files only, read so that damage is noticed.
//!
//! Low-level reader and writer of the `parquet` crate, no arrow. Parquet's own page checksums are not written by that
//! crate, so [`FileMeta`] keeps a hash per column chunk and one of the footer; every read checks what it reads.
//! Knows no schema of ours. Called by `segment` and `upkeep::export`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::page::PageReader;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{
    ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use twox_hash::XxHash64;

use super::codec;
use super::layout::{self, Layout};
use crate::store::{Error, Result};

/// Rows of a page: the price of a page is its header, its gain is that less is decoded at once.
const PAGE_ROWS: usize = 20_000;

/// How a file is laid out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schema {
    /// In Parquet's message syntax.
    pub(super) message: &'static str,
    /// Columns stored as differences to the value before, without a dictionary of values.
    pub(super) deltas: &'static [&'static str],
}

/// Size and hashes of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FileMeta {
    /// Bytes of the whole file.
    pub(super) bytes: u64,
    /// Rows.
    pub(super) rows: u64,
    /// xxHash64 of each column chunk, row group by row group, then of everything behind the last chunk.
    pub(super) hashes: Vec<u64>,
}

impl FileMeta {
    /// Appends the binary form.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        codec::put_u64(out, self.bytes);
        codec::put_u64(out, self.rows);
        codec::put_u64(out, self.hashes.len() as u64);
        self.hashes.iter().for_each(|h| out.extend_from_slice(&h.to_le_bytes()));
    }

    /// Inverse of [`FileMeta::put`].
    pub(super) fn take(bytes: &mut codec::Bytes<'_>) -> Option<Self> {
        let (size, rows, count) = (bytes.u64()?, bytes.u64()?, bytes.count()?);
        let hashes = (0..count).map(|_| bytes.array().map(u64::from_le_bytes)).collect::<Option<_>>()?;
        Some(Self { bytes: size, rows, hashes })
    }
}

/// Values of one column.
#[derive(Clone, Copy, Debug)]
pub(super) enum Values<'a> {
    /// `INT32`
    I32(&'a [i32]),
    /// `INT64`
    I64(&'a [i64]),
    /// `BYTE_ARRAY`
    Text(&'a [ByteArray]),
    /// `FIXED_LEN_BYTE_ARRAY`
    Fixed(&'a [FixedLenByteArray]),
}

/// A Parquet file under construction.
pub(super) struct FileWriter {
    path: PathBuf,
    writer: SerializedFileWriter<BufWriter<File>>,
    rows: u64,
}

impl std::fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWriter")
            .field("path", &self.path)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl FileWriter {
    /// Starts a file that will be published at `path`.
    pub(super) fn create(path: PathBuf, schema: &Schema) -> Result<Self> {
        let beside = Layout::unpublished(&path);
        let file = File::create(&beside).map_err(|e| layout::io("create", &beside, e))?;
        let message = parse_message_type(schema.message).map_err(|e| failed(&path, e))?;
        let mut properties = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_created_by(concat!("everflame ", env!("CARGO_PKG_VERSION")).into())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_max_row_group_row_count(None)
            .set_data_page_row_count_limit(PAGE_ROWS);
        for column in schema.deltas {
            properties = properties
                .set_column_dictionary_enabled(ColumnPath::from(*column), false)
                .set_column_encoding(ColumnPath::from(*column), Encoding::DELTA_BINARY_PACKED);
        }
        let writer = SerializedFileWriter::new(
            BufWriter::with_capacity(1 << 20, file),
            Arc::new(message),
            Arc::new(properties.build()),
        )
        .map_err(|e| failed(&path, e))?;
        Ok(Self { path, writer, rows: 0 })
    }

    /// Writes one row group; all columns have the same length and stand in the order of the schema.
    pub(super) fn group(&mut self, columns: &[Values<'_>]) -> Result<()> {
        let written = write_group(&mut self.writer, columns).map_err(|e| failed(&self.path, e))?;
        self.rows += written as u64;
        Ok(())
    }

    /// Number of row groups so far.
    pub(super) fn groups(&self) -> usize {
        self.writer.flushed_row_groups().len()
    }

    /// Adds a note for readers of the file.
    pub(super) fn note(&mut self, key: &str, value: String) {
        self.writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
    }

    /// Completes the file, syncs it and gives it its name.
    pub(super) fn publish(mut self) -> Result<FileMeta> {
        let beside = Layout::unpublished(&self.path);
        let footer = self.writer.finish().map_err(|e| failed(&self.path, e))?;
        let file = self
            .writer
            .inner_mut()
            .flush()
            .and_then(|()| File::open(&beside))
            .map_err(|e| layout::io("write", &beside, e))?;
        file.sync_all().map_err(|e| layout::io("sync", &beside, e))?;
        let meta = hash_file(&file, &beside, &footer, self.rows)?;
        Layout::rename_into_place(&self.path)?;
        Ok(meta)
    }
}

fn write_group(
    writer: &mut SerializedFileWriter<BufWriter<File>>,
    columns: &[Values<'_>],
) -> Result<usize, ParquetError> {
    let mut rows = 0;
    let mut group = writer.next_row_group()?;
    for values in columns {
        let mut column =
            group.next_column()?.ok_or_else(|| ParquetError::General("too many columns".into()))?;
        rows = match values {
            Values::I32(v) => column.typed::<Int32Type>().write_batch(v, None, None)?,
            Values::I64(v) => column.typed::<Int64Type>().write_batch(v, None, None)?,
            Values::Text(v) => column.typed::<ByteArrayType>().write_batch(v, None, None)?,
            Values::Fixed(v) => column.typed::<FixedLenByteArrayType>().write_batch(v, None, None)?,
        };
        column.close()?;
    }
    group.close()?;
    Ok(rows)
}

/// Byte ranges of a file that are hashed one by one: the column chunks, then the rest.
fn chunks(footer: &ParquetMetaData, bytes: u64) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = footer
        .row_groups()
        .iter()
        .flat_map(|g| g.columns().iter().map(ColumnChunkMetaData::byte_range))
        .collect();
    let end = ranges.iter().map(|(start, len)| start.saturating_add(*len)).max().unwrap_or(0);
    ranges.push((end, bytes.saturating_sub(end)));
    ranges
}

fn hash_file(file: &File, path: &Path, footer: &ParquetMetaData, rows: u64) -> Result<FileMeta> {
    let bytes = file.metadata().map_err(|e| layout::io("read", path, e))?.len();
    let hashes = chunks(footer, bytes)
        .into_iter()
        .map(|(start, len)| Ok(XxHash64::oneshot(0, &read_range(file, path, start, len, bytes)?)))
        .collect::<Result<_>>()?;
    Ok(FileMeta { bytes, rows, hashes })
}

fn read_range(file: &File, path: &Path, start: u64, len: u64, file_bytes: u64) -> Result<Vec<u8>> {
    if start.checked_add(len).is_none_or(|end| end > file_bytes) {
        return Err(corrupt(path, format!("expected {len} bytes at {start}, the file has {file_bytes}")));
    }
    let mut buffer = vec![0; len as usize];
    file.read_exact_at(&mut buffer, start).map_err(|e| layout::io("read", path, e))?;
    Ok(buffer)
}

/// Reads the footer of a file that the manifest describes, and checks it.
pub(super) fn open_checked(path: &Path, expected: &FileMeta) -> Result<ParquetMetaData> {
    let file = File::open(path).map_err(|e| layout::io("open", path, e))?;
    let bytes = file.metadata().map_err(|e| layout::io("read", path, e))?.len();
    if bytes != expected.bytes {
        return Err(corrupt(path, format!("expected {} bytes, found {bytes}", expected.bytes)));
    }
    let footer = read_footer(&file, path)?;
    let ranges = chunks(&footer, bytes);
    let (Some((start, len)), Some(hash)) = (ranges.last(), expected.hashes.last()) else {
        return Err(corrupt(path, "no footer".into()));
    };
    if ranges.len() != expected.hashes.len()
        || XxHash64::oneshot(0, &read_range(&file, path, *start, *len, bytes)?) != *hash
    {
        return Err(corrupt(path, "footer is not the one that was written".into()));
    }
    Ok(footer)
}

/// Reads a file that no manifest describes: its footer, and the hashes as they are now.
pub(super) fn open_unknown(path: &Path) -> Result<(ParquetMetaData, FileMeta)> {
    let file = File::open(path).map_err(|e| layout::io("open", path, e))?;
    let footer = read_footer(&file, path)?;
    let rows = footer.row_groups().iter().map(|g| g.num_rows().max(0) as u64).sum();
    let meta = hash_file(&file, path, &footer, rows)?;
    Ok((footer, meta))
}

fn read_footer(file: &File, path: &Path) -> Result<ParquetMetaData> {
    ParquetMetaDataReader::new().parse_and_finish(file).map_err(|e| failed(path, e))
}

/// A whole column in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// `INT32`
    I32(Vec<i32>),
    /// `INT64`
    I64(Vec<i64>),
    /// `BYTE_ARRAY` or `FIXED_LEN_BYTE_ARRAY`
    Bytes(Vec<Vec<u8>>),
}

/// Reads all columns of one row group of a file that no manifest describes.
pub(super) fn read_group(path: &Path, footer: &ParquetMetaData, group: usize) -> Result<Vec<Column>> {
    let Some(row_group) = footer.row_groups().get(group) else {
        return Err(corrupt(path, format!("no row group {group}")));
    };
    let rows = row_group.num_rows().max(0) as usize;
    (0..row_group.num_columns())
        .map(|i| {
            let column = match column(path, footer, None, group, i)? {
                ColumnReader::Int32ColumnReader(r) => Column::I32(read_all(path, r, rows)?),
                ColumnReader::Int64ColumnReader(r) => Column::I64(read_all(path, r, rows)?),
                ColumnReader::ByteArrayColumnReader(r) => {
                    Column::Bytes(read_all(path, r, rows)?.iter().map(|v| v.data().to_vec()).collect())
                }
                ColumnReader::FixedLenByteArrayColumnReader(r) => {
                    Column::Bytes(read_all(path, r, rows)?.iter().map(|v| v.data().to_vec()).collect())
                }
                _ => return Err(corrupt(path, format!("column {i} has a type that is not ours"))),
            };
            Ok(column)
        })
        .collect()
}

fn read_all<T: DataType>(path: &Path, mut reader: ColumnReaderImpl<T>, rows: usize) -> Result<Vec<T::T>> {
    let mut values = Vec::new();
    read_exactly(path, &mut reader, &mut values, rows)?;
    Ok(values)
}

/// Decodes until `values` has `len` entries.
pub(super) fn read_exactly<T: DataType>(
    path: &Path,
    reader: &mut ColumnReaderImpl<T>,
    values: &mut Vec<T::T>,
    len: usize,
) -> Result<()> {
    while values.len() < len {
        let missing = len - values.len();
        let (_, read, _) = reader.read_records(missing, None, None, values).map_err(|e| failed(path, e))?;
        if read == 0 {
            return Err(corrupt(path, format!("column ends {missing} rows early")));
        }
    }
    Ok(())
}

/// Checks every byte of a file against its description.
pub(super) fn verify(path: &Path, expected: &FileMeta) -> Result<()> {
    let footer = open_checked(path, expected)?;
    let file = File::open(path).map_err(|e| layout::io("open", path, e))?;
    let found = hash_file(&file, path, &footer, expected.rows)?;
    match found.hashes.iter().zip(&expected.hashes).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(chunk) => Err(corrupt(path, format!("column chunk {chunk} is not what was written"))),
    }
}

/// Reader of one column in one row group, its bytes checked.
pub(super) fn column(
    path: &Path,
    footer: &ParquetMetaData,
    hashes: Option<&[u64]>,
    group: usize,
    column: usize,
) -> Result<ColumnReader> {
    let out_of_range = || corrupt(path, format!("no column {column} in row group {group}"));
    let row_group = footer.row_groups().get(group).ok_or_else(out_of_range)?;
    let chunk = row_group.columns().get(column).ok_or_else(out_of_range)?;
    let (start, len) = chunk.byte_range();
    let file = File::open(path).map_err(|e| layout::io("open", path, e))?;
    let bytes = file.metadata().map_err(|e| layout::io("read", path, e))?.len();
    let bytes = read_range(&file, path, start, len, bytes)?;
    if let Some(hashes) = hashes {
        let index = group * row_group.num_columns() + column;
        if hashes.get(index) != Some(&XxHash64::oneshot(0, &bytes)) {
            return Err(corrupt(path, format!("column chunk {index} is not what was written")));
        }
    }
    let source = Arc::new(Chunk { start, bytes: bytes.into() });
    let pages = SerializedPageReader::new(source, chunk, row_group.num_rows() as usize, None)
        .map_err(|e| failed(path, e))?;
    let pages: Box<dyn PageReader> = Box::new(pages);
    Ok(get_column_reader(chunk.column_descr_ptr(), pages))
}

/// Part of a file in memory that answers to the offsets of the file.
struct Chunk {
    start: u64,
    bytes: Bytes,
}

impl Length for Chunk {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Chunk {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let from = start.checked_sub(self.start).filter(|f| *f <= self.bytes.len() as u64);
        let from = from.ok_or_else(|| ParquetError::EOF(format!("no byte {start} in this column chunk")))?;
        Ok(self.bytes.slice(from as usize..).reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let from = start.checked_sub(self.start).map(|f| f as usize);
        from.and_then(|f| Some(f..f.checked_add(length)?))
            .filter(|range| range.end <= self.bytes.len())
            .map(|range| self.bytes.slice(range))
            .ok_or_else(|| ParquetError::EOF(format!("no {length} bytes at {start} in this column chunk")))
    }
}

/// The error for a file that is not what was written.
pub(super) fn corrupt(path: &Path, problem: String) -> Error {
    Error::Corrupt { path: path.to_owned(), problem }
}

/// What a failure of the Parquet library means: a refused file operation or a damaged file.
pub(super) fn failed(path: &Path, error: ParquetError) -> Error {
    match error {
        ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(source) => layout::io("access", path, *source),
            Err(other) => corrupt(path, other.to_string()),
        },
        other => corrupt(path, other.to_string()),
    }
}
