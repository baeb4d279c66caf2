//! Documents that events point to, and the queues of what has no name yet. Their identity is their content, so a
//! second `create` is answered 409, which says that all is well.

use crate::model::{FileId, FrameId, FrameKind, UnixNanos};
use crate::store::document::{Executable, StackFrame, StackTrace, encode};

use super::json::{push_number, push_quoted, push_raw, push_text, push_time, week_start};
use super::{ECS_VERSION, Shape, push_create};

/// Frames of one document: `Stacktrace.frame.ids` is one term of 32 bytes a frame, and Lucene takes terms of at most
/// 32,766 bytes. Beyond, Elasticsearch refuses the document, and readers drop every event that points to it.
pub(super) const MAX_FRAMES: usize = 1023;
/// Innermost and outermost frames kept of a longer stack, with a mark between them.
const KEPT: (usize, usize) = (MAX_FRAMES / 2, MAX_FRAMES / 2);

/// Creates the document, or moves its week on. Compared as text, because a source made up from the index holds the
/// week as text.
const TOUCH_EXECUTABLE: &str = "if (ctx.op == 'create') { \
    ctx._source['@timestamp'] = params.timestamp; \
    ctx._source['Executable.build.id'] = params.buildid; \
    ctx._source['Executable.file.name'] = params.filename; \
    ctx._source['ecs.version'] = params.ecsversion; \
    } else if (String.valueOf(ctx._source['@timestamp']) == String.valueOf(params.timestamp)) { ctx.op = 'noop'; \
    } else { ctx._source['@timestamp'] = params.timestamp; }";

/// `{` and what every document of the shape begins with.
fn begin(out: &mut Vec<u8>, shape: Shape, time: UnixNanos) {
    out.push(b'{');
    if shape.streams_lookups() {
        push_raw(out, "\"@timestamp\":");
        push_time(out, time);
        out.push(b',');
    }
    if !shape.is_otel() {
        push_raw(out, "\"ecs.version\":");
        push_quoted(out, ECS_VERSION);
        out.push(b',');
    }
}

pub(super) fn stack_trace(out: &mut Vec<u8>, shape: Shape, index: &str, stack: &StackTrace, time: UnixNanos) {
    push_create(out, index, &encode::stack_id(stack.id));
    begin(out, shape, time);
    let cut;
    let frames = if stack.frames.len() > MAX_FRAMES {
        cut = shortened(&stack.frames);
        &cut
    } else {
        &stack.frames
    };
    let prefix = if shape.is_otel() { "" } else { "Stacktrace." };
    for part in ["\"", prefix, "frame.ids\":\""] {
        push_raw(out, part);
    }
    for (id, _) in frames {
        encode::push_frame_id(out, *id);
    }
    for part in ["\",\"", prefix, "frame.types\":"] {
        push_raw(out, part);
    }
    push_quoted(out, &encode::frame_types(frames.iter().map(|(_, kind)| *kind)));
    push_raw(out, "}\n");
}

/// Both ends of a stack with a marker between them, whose address is the number of frames left out.
fn shortened(frames: &[(FrameId, FrameKind)]) -> Vec<(FrameId, FrameKind)> {
    let (outer, inner) = KEPT;
    let left_out = frames.len() - outer - inner;
    let marker = (FrameId { file: FileId::NONE, address_or_line: left_out as u64 }, FrameKind::ABORT);
    [&frames[..outer], &[marker], &frames[frames.len() - inner..]].concat()
}

pub(super) fn stack_frame(out: &mut Vec<u8>, shape: Shape, index: &str, frame: &StackFrame, time: UnixNanos) {
    push_create(out, index, &encode::frame_id(frame.id));
    begin(out, shape, time);
    let (function, file, line) = if shape.is_otel() {
        ("function.name", "function.filename", "line.number")
    } else {
        ("Stackframe.function.name", "Stackframe.file.name", "Stackframe.line.number")
    };
    push_quoted(out, function);
    push_list(out, &frame.lines, |out, line| push_text(out, &line.function));
    out.push(b',');
    push_quoted(out, file);
    push_list(out, &frame.lines, |out, line| push_text(out, &line.file));
    out.push(b',');
    push_quoted(out, line);
    // The field is a 32-bit integer; a line beyond is no line.
    push_list(out, &frame.lines, |out, line| push_number(out, u64::from(line.line.min(i32::MAX as u32))));
    push_raw(out, "}\n");
}

fn push_list<T>(out: &mut Vec<u8>, list: &[T], mut push: impl FnMut(&mut Vec<u8>, &T)) {
    push_raw(out, ":[");
    for (at, entry) in list.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push(out, entry);
    }
    out.push(b']');
}

pub(super) fn executable(
    out: &mut Vec<u8>,
    shape: Shape,
    index: &str,
    executable: &Executable,
    now: UnixNanos,
) {
    let id = encode::file_id(executable.id);
    let week = week_start(now);
    if shape.is_otel() {
        push_create(out, index, &id);
        push_raw(out, "{\"@timestamp\":");
        push_number(out, week);
        push_raw(out, ",\"resource\":{\"attributes\":{\"process.executable.build_id.htlhash\":");
        push_quoted(out, &executable.id.to_string());
        push_raw(out, ",\"process.executable.name\":");
        push_text(out, &executable.name);
        push_raw(out, "}}}\n");
    } else if shape.streams_lookups() {
        push_create(out, index, &id);
        push_raw(out, "{\"@timestamp\":");
        push_number(out, week);
        push_raw(out, ",\"ecs.version\":");
        push_quoted(out, ECS_VERSION);
        push_raw(out, ",\"Executable.build.id\":");
        push_quoted(out, &id);
        push_raw(out, ",\"Executable.file.name\":");
        push_text(out, &executable.name);
        push_raw(out, "}\n");
    } else {
        push_raw(out, "{\"update\":{\"_index\":");
        push_quoted(out, index);
        push_raw(out, ",\"_id\":");
        push_quoted(out, &id);
        push_raw(
            out,
            "}}\n{\"scripted_upsert\":true,\"upsert\":{},\"script\":{\"lang\":\"painless\",\"source\":\"",
        );
        push_raw(out, TOUCH_EXECUTABLE);
        push_raw(out, "\",\"params\":{\"timestamp\":");
        push_number(out, week);
        push_raw(out, ",\"buildid\":");
        push_quoted(out, &id);
        push_raw(out, ",\"filename\":");
        push_text(out, &executable.name);
        push_raw(out, ",\"ecsversion\":");
        push_quoted(out, ECS_VERSION);
        push_raw(out, "}}}\n");
    }
}

pub(super) fn queued_executable(out: &mut Vec<u8>, index: &str, file: FileId, now: UnixNanos) {
    queued(out, index, "Executable.file.id", &encode::file_id(file), now);
}

pub(super) fn queued_frame(out: &mut Vec<u8>, index: &str, frame: FrameId, now: UnixNanos) {
    queued(out, index, "Stacktrace.frame.id", &encode::frame_id(frame), now);
}

/// An entry that has not been tried yet and is due at once.
fn queued(out: &mut Vec<u8>, index: &str, field: &str, id: &str, now: UnixNanos) {
    push_create(out, index, id);
    push_raw(out, "{\"ecs.version\":");
    push_quoted(out, ECS_VERSION);
    out.push(b',');
    push_quoted(out, field);
    push_raw(out, ":[");
    push_quoted(out, id);
    push_raw(out, "],\"Time.created\":");
    push_time(out, now);
    push_raw(out, ",\"Symbolization.time.next\":");
    push_time(out, now);
    push_raw(out, ",\"Symbolization.retries\":0}\n");
}
