//! What one frame of a stack is and what is known about it.

use std::fmt;
use std::sync::Arc;

use super::{FileId, FrameId};

/// Runtime that a frame belongs to. The number is the one of the documents; `0x80` on top marks an error frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameKind(pub u8);

impl FrameKind {
    /// Not in the table.
    pub const UNKNOWN: Self = Self(0);
    /// CPython.
    pub const PYTHON: Self = Self(1);
    /// PHP.
    pub const PHP: Self = Self(2);
    /// Compiled ahead of time.
    pub const NATIVE: Self = Self(3);
    /// Linux kernel or one of its modules.
    pub const KERNEL: Self = Self(4);
    /// JVM (HotSpot).
    pub const JVM: Self = Self(5);
    /// Ruby.
    pub const RUBY: Self = Self(6);
    /// Perl.
    pub const PERL: Self = Self(7);
    /// V8 / Node.js.
    pub const JAVASCRIPT: Self = Self(8);
    /// .NET.
    pub const DOTNET: Self = Self(10);
    /// Go, named by the agent.
    pub const GO: Self = Self(11);
    /// Erlang/OTP.
    pub const BEAM: Self = Self(12);
    /// LuaJIT.
    pub const LUAJIT: Self = Self(13);
    /// End of a stack that could not be completed; its line says why.
    pub const ABORT: Self = Self(0x80);

    /// Whether this is a marker instead of code.
    #[must_use]
    pub fn is_error(self) -> bool {
        self.0 & 0x80 != 0
    }

    /// Value of the OTLP attribute `profile.frame.type`.
    #[must_use]
    pub fn otlp_name(self) -> &'static str {
        match self.0 & 0x7f {
            _ if self.0 == 0x80 || self.0 == 0xff => "abort-marker",
            1 => "cpython",
            2 | 9 => "php",
            3 => "native",
            4 => "kernel",
            5 => "jvm",
            6 => "ruby",
            7 => "perl",
            8 => "v8js",
            10 => "dotnet",
            11 => "go",
            12 => "beam",
            13 => "luajit",
            _ => "unknown",
        }
    }

    /// Inverse of [`FrameKind::otlp_name`]; every other text is [`FrameKind::UNKNOWN`].
    #[must_use]
    pub fn from_otlp_name(name: &str) -> Self {
        match name {
            "cpython" => Self::PYTHON,
            "php" => Self::PHP,
            "native" => Self::NATIVE,
            "kernel" => Self::KERNEL,
            "jvm" => Self::JVM,
            "ruby" => Self::RUBY,
            "perl" => Self::PERL,
            "v8js" => Self::JAVASCRIPT,
            "dotnet" => Self::DOTNET,
            "go" => Self::GO,
            "beam" => Self::BEAM,
            "luajit" => Self::LUAJIT,
            "abort-marker" => Self::ABORT,
            _ => Self::UNKNOWN,
        }
    }
}

/// One function at one place in the source, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SourceLine {
    /// Demangled function name; empty when unknown.
    pub function: Arc<str>,
    /// Source file; empty when unknown.
    pub file: Arc<str>,
    /// Line in `file`, from 1; 0 when unknown.
    pub line: u32,
    /// Column, from 1; 0 when unknown.
    pub column: u32,
}

/// One frame as it travels in a [`super::Batch`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Runtime.
    pub kind: FrameKind,
    /// Executable by its index in [`super::Batch::executables`]; `None` for interpreted code and markers.
    pub executable: Option<u32>,
    /// ELF address in bytes (return addresses lowered by one); 0 when only lines identify the frame.
    pub address: u64,
    /// Names known to the sender, innermost inlined function first (order of OTLP). Empty when not yet named.
    pub lines: Vec<SourceLine>,
}

/// Why an address has no name. Shown to the person who looks at the frame.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UnknownReason {
    /// Nobody has tried yet.
    Pending,
    /// The executable could not be opened; the text says why.
    FileUnavailable(String),
    /// The file has no symbols of any kind that we read.
    NoSymbols,
    /// It has symbols, none of which covers the address.
    NotCovered,
    /// The file is malformed or beyond a limit; the text says where.
    BadFile(String),
}

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("not looked up yet"),
            Self::FileUnavailable(why) => write!(f, "executable not available: {why}"),
            Self::NoSymbols => f.write_str("executable has no symbols"),
            Self::NotCovered => f.write_str("no symbol covers this address"),
            Self::BadFile(why) => write!(f, "executable not readable: {why}"),
        }
    }
}

impl Frame {
    /// Identity of a frame with an executable: its file ID and address.
    #[must_use]
    pub fn native_id(&self, file: FileId) -> FrameId {
        FrameId { file, address_or_line: self.address }
    }
}
