//! The rows of the matrix, as data.

mod c;
mod languages;
mod real;

use crate::row::Row;

/// Every row, in the order of the table.
pub(crate) fn all() -> Vec<Row> {
    let rows = [c::rows(), languages::rows(), real::rows()].concat();
    for (index, row) in rows.iter().enumerate() {
        assert!(row.name.len() <= 15, "{}: the kernel keeps 15 bytes of a name", row.name);
        assert!(rows[..index].iter().all(|other| other.name != row.name), "{}: twice", row.name);
    }
    rows
}
