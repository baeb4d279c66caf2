//! Time on the wall clock. Other clocks are converted before they leave `agent::trace`.

/// Nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixNanos(pub u64);

impl UnixNanos {
    /// From milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Whole milliseconds, rounded down.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }
}

/// Half-open range `[from, to)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First instant inside.
    pub from: UnixNanos,
    /// First instant behind.
    pub to: UnixNanos,
}

impl TimeRange {
    /// Whether `time` lies inside.
    #[must_use]
    pub fn contains(&self, time: UnixNanos) -> bool {
        self.from <= time && time < self.to
    }

    /// Length in nanoseconds, 0 when the ends are swapped.
    #[must_use]
    pub fn nanos(&self) -> u64 {
        self.to.0.saturating_sub(self.from.0)
    }
}
