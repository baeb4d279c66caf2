//! Names of data streams, aliases and indices of both generations of documents.

/// Down-sampled event streams of the first generation: `5pow01` to `5pow11`.
pub const LEVELS: u8 = 11;

/// Shape of documents and the names they go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Generation {
    /// Flat dotted fields in `profiling-*`, look-up tables behind aliases; Elasticsearch up to 9.5 (G1).
    #[default]
    Classic,
    /// `resource.attributes` in `*.otel-default` data streams; Elasticsearch 9.6 and later (G2).
    Otel,
}

/// Names that documents of one generation are written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Every event.
    pub events: &'static str,
    /// Call stacks.
    pub stacktraces: &'static str,
    /// Names of frames.
    pub stackframes: &'static str,
    /// Names of executables.
    pub executables: &'static str,
    /// Facts of hosts.
    pub hosts: &'static str,
    /// Queue of executables without symbols; the first generation only.
    pub queued_executables: Option<&'static str>,
    /// Queue of leaf frames without symbols; the first generation only.
    pub queued_frames: Option<&'static str>,
}

const CLASSIC: Names = Names {
    events: "profiling-events-all",
    stacktraces: "profiling-stacktraces",
    stackframes: "profiling-stackframes",
    executables: "profiling-executables",
    hosts: "profiling-hosts",
    queued_executables: Some("profiling-sq-executables"),
    queued_frames: Some("profiling-sq-leafframes"),
};

const OTEL: Names = Names {
    events: "profiling-events-all.otel-default",
    stacktraces: "profiling-stacktraces.otel-default",
    stackframes: "profiling-stackframes.otel-default",
    executables: "profiling-executables.otel-default",
    hosts: "profiling-hosts.otel-default",
    queued_executables: None,
    queued_frames: None,
};

impl Generation {
    /// Where its documents go.
    #[must_use]
    pub fn names(self) -> &'static Names {
        match self {
            Self::Classic => &CLASSIC,
            Self::Otel => &OTEL,
        }
    }

    /// Stream that holds each event of `profiling-events-all` with probability 5^-`level`, `level` from 1 to
    /// [`LEVELS`].
    #[must_use]
    pub fn sampled_events(self, level: u8) -> String {
        let suffix = match self {
            Self::Classic => "",
            Self::Otel => ".otel-default",
        };
        format!("profiling-events-5pow{level:02}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_levels_have_two_digits() {
        assert_eq!(Generation::Classic.sampled_events(1), "profiling-events-5pow01");
        assert_eq!(Generation::Otel.sampled_events(11), "profiling-events-5pow11.otel-default");
    }
}
