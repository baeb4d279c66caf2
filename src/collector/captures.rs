//! Bulk bodies made of captured exports against those that the public exporter made of the same exports, document by
//! document.
//!
//! [`CORRECTIONS`] lists every deliberate difference. A difference that is not on the list fails the test, and so does a
//! correction that no capture shows, unless it names the test that shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::mapping::{Dropped, documents};
use super::seen::Seen;
use crate::model::{FileId, FrameKind, Resource, UnixNanos};
use crate::store::Documents;
use crate::store::document::encode;
use crate::store::elastic::{Encoder, Generation, Kind, Shape};
use crate::wire::otlp::decode;

/// One deliberate difference.
struct Correction {
    name: &'static str,
    why: &'static str,
    touches: Touches,
}

/// What a correction does to the documents of a capture.
enum Touches {
    /// Changes lines of ours; undone here. True when there was something to undo.
    Changes(fn(&mut Line) -> bool),
    /// Ours has lines that theirs has not.
    Adds(fn(&Line, &Scene) -> bool),
    /// Ours lacks lines that theirs has.
    LeavesOut(fn(&Line, &Scene) -> bool),
    /// No capture has a case of it; this test does.
    ShownBy(&'static str),
}

use Touches::{Adds, Changes, LeavesOut, ShownBy};

const EVENTS: &str = "profiling-events-all";
const QUEUED_FILES: &str = "profiling-sq-executables";
const QUEUED_FRAMES: &str = "profiling-sq-leafframes";

const CORRECTIONS: [Correction; 17] = [
    Correction {
        name: "events have an _id",
        why: "a bulk repeated after a cut connection, from the disk queue or by the agent stores each event once",
        touches: Changes(|line| {
            line.index == EVENTS && {
                assert_eq!(std::mem::take(&mut line.id).len(), 20);
                line.action.remove("_id").is_some()
            }
        }),
    },
    Correction {
        name: "ecs.version of executables",
        why: "theirs sends it under a name that its script does not read, so it ends up null (5.9 #8)",
        touches: Changes(|line| {
            let params = line.document.pointer_mut("/script/params").and_then(Value::as_object_mut);
            params.is_some_and(|params| {
                let version = params.remove("ecsversion");
                version.is_some_and(|version| params.insert("ecs.version".into(), version).is_none())
            })
        }),
    },
    Correction {
        name: "down-sampled streams are sent",
        why: "theirs puts them into a bulk request that is never sent (5.10 #2)",
        touches: Adds(|line, scene| {
            let twin = (line.id.clone(), line.document.to_string());
            line.index.starts_with("profiling-events-5pow") && scene.events.contains(&twin)
        }),
    },
    Correction {
        name: "hosts are written",
        why: "theirs never sets the host that the document is about (5.9 #1)",
        touches: Adds(|line, scene| {
            line.index == "profiling-hosts"
                && scene.hosts.contains(line.document["host.id"].as_str().unwrap())
        }),
    },
    Correction {
        name: "code of no file is not queued",
        why: "its file ID is that of nothing, so nobody can name it (5.9 #6); theirs queues it for error frames too, \
              because it looks for their mark at the mirrored place of the stack (5.10 #4)",
        touches: LeavesOut(|line, _| line.is_queue() && line.id.starts_with(&encode::file_id(FileId::NONE))),
    },
    Correction {
        name: "only compiled code is queued",
        why: "the kernel and interpreted code are named by the agent or by nobody",
        touches: ShownBy("mapping::tests::only_compiled_code_waits_for_names_and_not_only_leaves"),
    },
    Correction {
        name: "callers are queued, not only leaves",
        why: "symbols are looked up by sampled address instead of for every call in an executable",
        touches: Adds(|line, scene| {
            line.index == QUEUED_FRAMES && scene.is_compiled(&line.id) && !scene.theirs.contains(&line.id)
        }),
    },
    Correction {
        name: "a leaf that was queued as a caller before is not queued again",
        why: "follows from queueing callers",
        touches: LeavesOut(|line, scene| line.index == QUEUED_FRAMES && scene.queued.contains(&line.id)),
    },
    Correction {
        name: "names that are empty are no names",
        why: "a document of empty names hides that nobody has named the frame (5.9 #7)",
        touches: ShownBy("mapping::tests::a_frame_of_empty_names_has_no_name"),
    },
    Correction {
        name: "inlined functions come outermost first",
        why: "readers expect it; theirs copies the order of OTLP (5.9 #5)",
        touches: ShownBy("mapping::tests::inlined_functions_come_outermost_first"),
    },
    Correction {
        name: "hosts keep the case of values and leave processes out",
        why: "lower-cased identifiers and machine types match neither events nor prices (5.9 #2)",
        touches: ShownBy("mapping::tests::hosts_keep_the_case_of_values_and_leave_processes_out"),
    },
    Correction {
        name: "facts of hosts have the type of their field",
        why: "cores as text break the reader (5.9 #3), and one bad value loses the document",
        touches: ShownBy("encode::tests::hosts_keep_the_case_of_values_and_have_the_types_of_their_mapping"),
    },
    Correction {
        name: "values are capped",
        why: "one number must not make documents without end (5.9 #10)",
        touches: ShownBy("mapping::tests::huge_values_are_capped_and_counted"),
    },
    Correction {
        name: "the executable of a sample wins over that of the resource",
        why: "older agents say it there (5.10 #5)",
        touches: ShownBy("mapping::tests::the_executable_of_a_sample_wins_over_that_of_the_resource"),
    },
    Correction {
        name: "executables of the second generation have a base64url _id",
        why: "readers look for that; theirs is hex (5.9 #4)",
        touches: ShownBy("encode::tests::the_golden_profile_in_the_second_generation"),
    },
    Correction {
        name: "stacks beyond 1,023 frames keep both ends",
        why: "the list of their frames is one term, and Lucene's terms end at 32,766 bytes",
        touches: ShownBy("encode::tests::a_stack_longer_than_a_term_keeps_both_ends"),
    },
    Correction {
        name: "lines are at most 2,147,483,647",
        why: "the field is a 32-bit integer",
        touches: ShownBy("encode::tests::frames_list_their_functions_outermost_first"),
    },
];

/// One action with its document.
#[derive(Clone, Debug)]
struct Line {
    index: String,
    id: String,
    verb: String,
    action: serde_json::Map<String, Value>,
    document: Value,
}

impl Line {
    fn is_queue(&self) -> bool {
        self.index == QUEUED_FILES || self.index == QUEUED_FRAMES
    }

    fn key(&self) -> (String, String, String) {
        (self.index.clone(), self.id.clone(), format!("{} {:?} {}", self.verb, self.action, self.document))
    }
}

/// Reads a bulk body. What hangs on the clock of the writer becomes `now`. The text of scripts is left out: what it does
/// is tested on a real server, and the parameters stay.
fn lines(body: &str) -> Vec<Line> {
    let mut lines = body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut found = Vec::new();
    while let Some(action) = lines.next() {
        let (verb, target) = action.as_object().unwrap().iter().next().unwrap();
        let mut document = lines.next().unwrap();
        if let Some(script) = document["script"].as_object_mut() {
            assert!(script.remove("source").is_some());
            script.remove("lang");
        }
        if document.get("Time.created").is_some() {
            assert_eq!(document["Time.created"], document["Symbolization.time.next"]);
            document["Time.created"] = "now".into();
            document["Symbolization.time.next"] = "now".into();
        }
        found.push(Line {
            index: target["_index"].as_str().unwrap().to_owned(),
            id: target["_id"].as_str().unwrap_or_default().to_owned(),
            verb: verb.clone(),
            action: target.as_object().unwrap().clone(),
            document,
        });
    }
    found
}

/// What rules need to know of the request in hand.
struct Scene {
    /// Kinds of unnamed frames with a file, by frame.
    unnamed: BTreeMap<String, FrameKind>,
    /// Identifiers that theirs queues.
    theirs: BTreeSet<String>,
    /// Identifiers that ours queued for earlier requests.
    queued: BTreeSet<String>,
    /// Identifier and document of our events.
    events: BTreeSet<(String, String)>,
    hosts: BTreeSet<String>,
}

impl Scene {
    fn new(all: &Documents, ours: &[Line], theirs: &[Line], queued: BTreeSet<String>) -> Self {
        let named: BTreeSet<String> =
            all.stackframes.iter().map(|frame| encode::frame_id(frame.id)).collect();
        let frames = all.stacktraces.iter().flat_map(|stack| &stack.frames);
        let unnamed =
            frames.map(|(id, kind)| (encode::frame_id(*id), *kind)).filter(|(id, _)| !named.contains(id));
        let events = ours.iter().filter(|line| line.index == EVENTS);
        Self {
            unnamed: unnamed.collect(),
            theirs: theirs.iter().filter(|line| line.is_queue()).map(|line| line.id.clone()).collect(),
            queued,
            events: events.map(|line| (line.id.clone(), line.document.to_string())).collect(),
            hosts: all.hosts.iter().map(|host| host.id.to_string()).collect(),
        }
    }

    /// Whether a frame, or any unnamed frame of a file, is compiled code.
    fn is_compiled(&self, id: &str) -> bool {
        let of = self.unnamed.range(id.to_owned()..).take_while(|(frame, _)| frame.starts_with(id));
        let mut kinds = of.map(|(_, kind)| *kind);
        kinds.any(|kind| matches!(kind, FrameKind::NATIVE | FrameKind::GO))
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/otlp").join(name)
}

fn requests(name: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "pb"));
    files.sort();
    files
}

fn unpacked(file: &Path) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(file).unwrap()).read_to_string(&mut text).unwrap();
    text
}

/// What the public exporter made of a request.
fn answer(request: &Path) -> Vec<Line> {
    let name = request.file_name().unwrap().to_str().unwrap();
    let number = name.trim_start_matches("request-").trim_end_matches(".otlp.pb");
    lines(&unpacked(&request.with_file_name(format!("bulk-{number}.ndjson.gz"))))
}

/// What the `resource` processor in front of the exporter added in `c-host`.
fn describe_host_as_processor(resource: &mut Resource) {
    resource.host_id = "0A1B2C3D4E5F60718293A4B5C6D7E8F9".into();
    resource.host_name = "Demo-Host".into();
    resource.container_id = "4f6a0c9d".into();
    resource.container_name = "demo-container".into();
    resource.pod_name = "demo-pod-1".into();
    resource.namespace_name = "demo-ns".into();
    resource.service_name = "demo-service".into();
}

/// Compares a folder's requests, in order, with the answers in `expected`. Returns events, and lines by correction.
fn check(name: &str, expected: &str, shown: &mut BTreeMap<&'static str, usize>) -> usize {
    let seen = Seen::default();
    let mut queued = BTreeSet::new();
    let mut events = 0;
    let encoder = Encoder::new(Shape::of(Generation::Classic), 0);
    for (request, answered) in requests(name).iter().zip(requests(expected)) {
        let scene = format!("{name}/{}", request.file_name().unwrap().display());
        let theirs = answer(&answered);
        let mut decoded = decode(&std::fs::read(request).unwrap()).unwrap();
        assert!(decoded.batch.check(), "{scene}");
        assert_eq!((decoded.revision, decoded.left_out.profiles()), ("1.11", 0), "{scene}");
        if name == "c-host" {
            decoded.batch.resources.iter_mut().for_each(describe_host_as_processor);
        }
        let mapped = documents(&decoded.batch);
        assert_eq!(mapped.dropped, Dropped::default(), "{scene}");
        let all = mapped.documents.clone();
        let mut new = mapped.documents;
        let fresh = seen.retain_new(&mut new, UnixNanos(1));
        seen.mark(fresh, UnixNanos(1));
        // Any time of the week in which theirs was made.
        let week = theirs.iter().find_map(|line| line.document.pointer("/script/params/timestamp")?.as_u64());
        let body = encoder.encode(&new, UnixNanos((week.unwrap_or(1_794_787_200) + 3600) * 1_000_000_000));
        let written = body.items.iter().filter(|item| item.kind == Kind::Event).count();
        assert_eq!(written as u64, mapped.samples, "{scene}");
        events += written;
        let ours = lines(std::str::from_utf8(&body.bytes).unwrap());
        let scene_facts = Scene::new(&all, &ours, &theirs, queued.clone());
        queued.extend(ours.iter().filter(|line| line.is_queue()).map(|line| line.id.clone()));
        compare(ours, theirs, &scene_facts, &scene, shown);
    }
    events
}

/// Fails unless each difference is on the list.
fn compare(
    ours: Vec<Line>,
    theirs: Vec<Line>,
    facts: &Scene,
    scene: &str,
    shown: &mut BTreeMap<&'static str, usize>,
) {
    let mut both: BTreeMap<_, (isize, Line)> = BTreeMap::new();
    for mut line in ours {
        for correction in &CORRECTIONS {
            if let Changes(undo) = correction.touches
                && undo(&mut line)
            {
                *shown.entry(correction.name).or_default() += 1;
            }
        }
        both.entry(line.key()).or_insert((0, line)).0 += 1;
    }
    for line in theirs {
        both.entry(line.key()).or_insert((0, line)).0 -= 1;
    }
    let mut unlisted = Vec::new();
    for (count, line) in both.into_values().filter(|(count, _)| *count != 0) {
        let listed = CORRECTIONS.iter().find(|correction| match correction.touches {
            Adds(applies) => count > 0 && applies(&line, facts),
            LeavesOut(applies) => count < 0 && applies(&line, facts),
            Changes(_) | ShownBy(_) => false,
        });
        match listed {
            Some(correction) => *shown.entry(correction.name).or_default() += count.unsigned_abs(),
            None => unlisted.push(format!(
                "  {} {count:+}: {} {:?} {}",
                if count > 0 { "only ours" } else { "only theirs" },
                line.verb,
                line.action,
                line.document
            )),
        }
    }
    let (all, some) = (unlisted.len(), unlisted.iter().take(8).cloned().collect::<Vec<_>>().join("\n"));
    assert_eq!(all, 0, "{scene}: differences that are on no list:\n{some}");
}

#[test]
fn bulk_bodies_of_captures_are_those_of_the_public_exporter_but_for_the_corrections() {
    let mut shown = BTreeMap::new();
    for folder in ["c", "c-host", "go", "node", "python-debian", "python-shared", "error-frames"] {
        let events = check(folder, folder, &mut shown);
        assert!(events > 400, "{folder}: {events}");
    }
    for correction in &CORRECTIONS {
        let lines = shown.get(correction.name).copied().unwrap_or_default();
        match correction.touches {
            ShownBy(test) => println!("{}: {test} ({})", correction.name, correction.why),
            _ => println!("{}: {lines} lines ({})", correction.name, correction.why),
        }
        let elsewhere = matches!(correction.touches, ShownBy(_));
        assert_eq!(lines > 0, !elsewhere, "{}: {lines} lines in the captures", correction.name);
    }
}

#[test]
fn references_into_the_string_table_give_the_same_documents() {
    assert!(check("string-refs", "c", &mut BTreeMap::new()) > 400);
}
