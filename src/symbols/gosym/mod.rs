//! Go's own tables: function, file, line and inlined calls of every Go program, stripped or not.
//!
//! The runtime needs them for its stack traces, so `-ldflags "-s -w"` cannot take them out. Read here: tables of
//! Go 1.16 and later ([`locate`] finds them, [`table`] reads them). Nothing is converted: a look-up walks the bytes of
//! the file as the runtime would, within named bounds.

mod locate;
mod table;

pub use locate::find;
pub use table::GoTable;
