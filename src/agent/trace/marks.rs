//! The sentences that stand where a stack is not whole. Pure.

use std::sync::Arc;

use crate::agent::bpf::EndReason;

/// What stands at the root of a stack that ended for `reason`; `None` when nothing is missing. `place` names what the
/// last frame lies in, where that is known.
pub(crate) fn at_root(reason: EndReason, place: Option<&str>) -> Option<Arc<str>> {
    let place = place.unwrap_or("unknown memory");
    let text = match reason {
        EndReason::Complete | EndReason::KernelThread | EndReason::UserWorker => return None,
        EndReason::UnknownProcess => "[truncated: process or mapping not known yet]".into(),
        EndReason::NoMapping => "[truncated: caller lies in no executable mapping]".into(),
        EndReason::TablePending => format!("[truncated: no unwind table yet for {place}]"),
        EndReason::NoTable => format!("[truncated: no unwind table for {place}]"),
        EndReason::NoRule => format!("[truncated: no unwind rule in {place}]"),
        EndReason::UnreadableStack => format!("[truncated: stack memory not readable in {place}]"),
        EndReason::NotGrowing => format!("[truncated: stack does not grow in {place}]"),
        EndReason::BadReturnAddress => format!("[truncated: bad return address in {place}]"),
        EndReason::Compat => "[truncated: 32-bit process]".into(),
        EndReason::TableMoved => format!("[truncated: unwind table of {place} replaced meanwhile]"),
        EndReason::NoMemory => {
            "[truncated: process ends or begins another program, its stack is gone]".into()
        }
        EndReason::StackCopyEnded => "[truncated: stack larger than the copy of it]".into(),
        EndReason::TooDeep => "[truncated: stack too deep]".into(),
    };
    Some(text.into())
}

/// What stands between the innermost and the outermost frames of a stack beyond the limit.
pub(crate) fn at_gap() -> Arc<str> {
    "[frames left out: stack too deep]".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_name_the_place() {
        assert_eq!(at_root(EndReason::Complete, Some("a")), None);
        assert_eq!(at_root(EndReason::KernelThread, None), None);
        assert_eq!(at_root(EndReason::UserWorker, None), None);
        let check =
            |reason, place, expected: &str| assert_eq!(at_root(reason, place).as_deref(), Some(expected));
        check(EndReason::NoTable, Some("libfoo.so"), "[truncated: no unwind table for libfoo.so]");
        check(EndReason::NoRule, None, "[truncated: no unwind rule in unknown memory]");
        check(EndReason::Compat, Some("x"), "[truncated: 32-bit process]");
    }
}
