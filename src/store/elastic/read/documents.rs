//! Documents as they come back: nested where the source is synthetic, with dotted keys where it is stored as written.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::model::{FileId, FrameId, FrameKind, SourceLine, StackId};
use crate::store::document::encode;

/// Characters of a frame ID.
const FRAME_CHARS: usize = 32;
/// Frames of one stack beyond which a document is not read: senders stop at some hundreds.
const MAX_FRAMES: usize = 16_384;
/// Functions inlined into one place, at most.
const MAX_LINES: usize = 10_000;

/// Value at a dotted path, however it is divided into objects.
pub(super) fn field<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    let object = value.as_object()?;
    if let Some(found) = object.get(path) {
        return Some(found);
    }
    path.match_indices('.').find_map(|(at, _)| field(object.get(&path[..at])?, &path[at + 1..]))
}

/// The first of several paths that is there.
fn any<'v>(value: &'v Value, paths: &[&str]) -> Option<&'v Value> {
    paths.iter().find_map(|path| field(value, path))
}

/// A value or a list of values as a list.
fn list(value: Option<&Value>) -> &[Value] {
    match value {
        None | Some(Value::Null) => &[],
        Some(Value::Array(values)) => values,
        Some(one) => std::slice::from_ref(one),
    }
}

fn text(value: Option<&Value>) -> &str {
    list(value).first().and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_f64().map(|n| n.max(0.0) as u64))
        .or_else(|| value.as_str()?.parse().ok())
}

/// Identity of a stack from its text; text of another kind stands for a stack that nobody knows.
pub(super) fn stack_id(text: &str) -> StackId {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    StackId(bytes.unwrap_or_else(|| {
        let mut hash = crate::model::hash::Fnv128::default();
        hash.write(text.as_bytes());
        hash.finish()
    }))
}

/// Identity of a file from its text.
pub(super) fn file_id(text: &str) -> Option<FileId> {
    Some(FileId(URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?))
}

/// Frames of a stack trace, root first; `None` when the document is none.
pub(super) fn stack_trace(source: &Value) -> Option<Vec<(FrameId, FrameKind)>> {
    let ids = text(any(source, &["Stacktrace.frame.ids", "frame.ids"]));
    let types = text(any(source, &["Stacktrace.frame.types", "frame.types"]));
    if !ids.is_ascii() || !ids.len().is_multiple_of(FRAME_CHARS) || ids.len() > MAX_FRAMES * FRAME_CHARS {
        return None;
    }
    let runs = URL_SAFE_NO_PAD.decode(types).unwrap_or_default();
    let mut kinds =
        runs.chunks_exact(2).flat_map(|run| std::iter::repeat_n(FrameKind(run[1]), run[0].into()));
    let frames = ids.as_bytes().chunks_exact(FRAME_CHARS).map(|id| {
        let id = encode::parse_frame_id(std::str::from_utf8(id).ok()?)?;
        // Frames beyond the types that are there are of no known kind.
        Some((id, kinds.next().unwrap_or(FrameKind::UNKNOWN)))
    });
    frames.collect()
}

/// Functions of a frame, outermost first; empty when the document says nothing about it.
pub(super) fn stack_frame(source: &Value) -> Vec<SourceLine> {
    let functions = list(any(source, &["Stackframe.function.name", "function.name"]));
    let files = list(any(source, &["Stackframe.file.name", "function.filename"]));
    let lines = list(any(source, &["Stackframe.line.number", "line.number"]));
    let text =
        |values: &[Value], at: usize| values.get(at).and_then(Value::as_str).unwrap_or_default().into();
    let line = |at: usize| lines.get(at).and_then(number).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let all: Vec<SourceLine> = (0..functions.len().min(MAX_LINES))
        .map(|at| SourceLine {
            function: text(functions, at),
            file: text(files, at),
            line: line(at),
            column: 0,
        })
        .collect();
    // Some writers store a document of empty texts for a frame that they know nothing of.
    if all.iter().all(|line| line.function.is_empty() && line.file.is_empty()) { Vec::new() } else { all }
}

/// Name of an executable; `None` when the document has none.
pub(super) fn executable_name(source: &Value) -> Option<&str> {
    let paths =
        ["Executable.file.name", "resource.attributes.process.executable.name", "process.executable.name"];
    Some(text(any(source, &paths))).filter(|name| !name.is_empty())
}

/// A text field of a host document of either generation.
pub(super) fn host_fact(source: &Value, key: &str) -> Option<String> {
    let nested = format!("resource.attributes.{key}");
    match any(source, &[key, &nested])? {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(values) => {
            let texts: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
            (!texts.is_empty()).then(|| texts.join(";"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FRAME: &str = "YA3K_koRAADyvzjEk_X7kgAAAAAAAABv";

    #[test]
    fn stacks_are_read_nested_and_dotted_and_of_both_generations() {
        for source in [
            json!({ "Stacktrace.frame.ids": FRAME, "Stacktrace.frame.types": "AQM" }),
            json!({ "Stacktrace": { "frame": { "ids": FRAME, "types": "AQM" } } }),
            json!({ "Stacktrace": { "frame.ids": FRAME, "frame": { "types": ["AQM"] } } }),
            json!({ "@timestamp": 1, "frame": { "ids": FRAME, "types": "AQM" } }),
        ] {
            let frames = stack_trace(&source).unwrap();
            assert_eq!(frames.len(), 1, "{source}");
            assert_eq!((frames[0].0.address_or_line, frames[0].1), (111, FrameKind::NATIVE));
        }
    }

    #[test]
    fn runs_of_types_are_spread_over_the_frames() {
        let kinds = |types: &str, frames: usize| -> Vec<u8> {
            let source = json!({ "frame.ids": FRAME.repeat(frames), "frame.types": types });
            stack_trace(&source).unwrap().iter().map(|(_, kind)| kind.0).collect()
        };
        assert_eq!(kinds("BQADAg", 8), [0, 0, 0, 0, 0, 2, 2, 2]);
        assert_eq!(kinds("AQkBCAEHAQYBBQEEAQMBAgEBAQA", 10), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(kinds("CgQ", 10), [4; 10]);
        assert_eq!(kinds("AwI", 5), [2, 2, 2, 0, 0]);
        let long = kinds("CAMsBQIDEAQ", 70);
        assert_eq!((long[7], long[8], long[51], long[52], long[69]), (3, 5, 5, 3, 4));
    }

    #[test]
    fn broken_stacks_are_none() {
        for ids in ["x", &FRAME[1..], &"é".repeat(16), &"*".repeat(32), &FRAME.repeat(MAX_FRAMES + 1)] {
            assert_eq!(stack_trace(&json!({ "frame.ids": ids })), None);
        }
        assert_eq!(stack_trace(&json!({})), Some(vec![]));
    }

    #[test]
    fn frames_are_lists_or_single_values() {
        let source = json!({
            "Stackframe.function.name": ["deflate", "inner"],
            "Stackframe.file.name": ["deflate.c"],
            "Stackframe.line.number": [978, "1002"],
        });
        let lines = stack_frame(&source);
        let seen: Vec<_> = lines.iter().map(|l| (&*l.function, &*l.file, l.line)).collect();
        assert_eq!(seen, [("deflate", "deflate.c", 978), ("inner", "", 1002)]);
        let lines =
            stack_frame(&json!({ "function": { "name": "f", "filename": "a.c" }, "line": { "number": 7 } }));
        assert_eq!((&*lines[0].function, &*lines[0].file, lines[0].line), ("f", "a.c", 7));
        assert!(
            stack_frame(&json!({ "Stackframe.function.name": [""], "Stackframe.file.name": [""] }))
                .is_empty()
        );
        assert!(stack_frame(&json!({ "Stackframe.line.number": [7] })).is_empty());
    }

    #[test]
    fn executables_have_their_name_in_either_place() {
        let otel = json!({ "resource": { "attributes": { "process.executable.name": "vmlinux" } } });
        assert_eq!(executable_name(&otel), Some("vmlinux"));
        assert_eq!(executable_name(&json!({ "Executable": { "file": { "name": "a" } } })), Some("a"));
        assert_eq!(executable_name(&json!({ "Executable.build.id": "x" })), None);
    }

    #[test]
    fn unreadable_identities_stand_for_stacks_that_nobody_knows() {
        assert_eq!(encode::stack_id(stack_id("02VzuClbpt_P3xxwox83Ng")), "02VzuClbpt_P3xxwox83Ng");
        assert_ne!(stack_id("a"), stack_id("b"));
    }
}
