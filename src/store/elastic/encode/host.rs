//! Hosts: what is known of a machine, in the types that its mapping wants.
//!
//! Facts come from attributes that anybody may set. One value of the wrong type would make Elasticsearch refuse the
//! whole document, so a fact that its field cannot take is left out.

use std::net::IpAddr;

use crate::model::UnixNanos;
use crate::store::document::Host;

use super::identity::{self, Ids};
use super::json::{push_field, push_number, push_quoted, push_raw, push_text, seconds};
use super::{ECS_VERSION, Shape, push_create};

/// What a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Text,
    Whole { least: i64, most: i64 },
    Yes,
    Address,
}

const SHORT: Field = Field::Whole { least: i16::MIN as i64, most: i16::MAX as i64 };
const INTEGER: Field = Field::Whole { least: i32::MIN as i64, most: i32::MAX as i64 };
const LONG: Field = Field::Whole { least: i64::MIN, most: i64::MAX };
const COUNT: Field = Field::Whole { least: 0, most: i64::MAX };

/// Fields of the hosts' mapping that are no text.
const TYPED: [(&str, Field); 20] = [
    ("profiling.agent.build_timestamp", COUNT),
    ("profiling.agent.start_time", COUNT),
    ("profiling.agent.config.bpf_log_level", LONG),
    ("profiling.agent.config.bpf_log_size", LONG),
    ("profiling.agent.config.known_traces_entries", LONG),
    ("profiling.agent.config.max_elements_per_interval", LONG),
    ("profiling.agent.config.map_scale_factor", SHORT),
    ("profiling.agent.config.present_cpu_cores", INTEGER),
    ("profiling.agent.config.sampling_frequency", INTEGER),
    ("profiling.agent.config.probabilistic_threshold", COUNT),
    ("profiling.agent.config.disable_tls", Field::Yes),
    ("profiling.agent.config.elastic_mode", Field::Yes),
    ("profiling.agent.config.no_kernel_version_check", Field::Yes),
    ("profiling.agent.config.upload_symbols", Field::Yes),
    ("profiling.agent.config.verbose", Field::Yes),
    ("profiling.host.sysctl.kernel.bpf_stats_enabled", INTEGER),
    ("profiling.host.sysctl.kernel.unprivileged_bpf_disabled", INTEGER),
    ("profiling.host.sysctl.net.core.bpf_jit_enable", INTEGER),
    ("ec2.local_ipv4", Field::Address),
    ("ec2.public_ipv4", Field::Address),
];

/// Fields that the document has anyway.
const OWN: [&str; 4] = ["@timestamp", "ecs.version", "host.id", "host.name"];

pub(super) fn host(out: &mut Vec<u8>, shape: Shape, index: &str, host: &Host, now: UnixNanos) {
    let id = Ids::new(now, identity::of_host(host)).next();
    push_create(out, index, std::str::from_utf8(&id).expect("identifiers are ASCII"));
    push_raw(out, "{\"@timestamp\":");
    push_number(out, seconds(now));
    if shape.is_otel() {
        push_raw(out, ",\"resource\":{\"attributes\":{");
    } else {
        push_raw(out, ",\"ecs.version\":");
        push_quoted(out, ECS_VERSION);
        out.push(b',');
    }
    push_raw(out, "\"host.id\":");
    push_text(out, &host.id);
    push_field(out, "host.name", &host.name);
    let mut placed = Vec::new();
    for (key, value) in &host.facts {
        if is_placeable(key, &placed) {
            push_fact(out, key, value);
            placed.push(&**key);
        }
    }
    push_raw(out, if shape.is_otel() { "}}}\n" } else { "}\n" });
}

/// Whether a dotted key names a place of its own: no empty part, and neither above nor below a field that the document
/// or the mapping has.
fn is_placeable(key: &str, placed: &[&str]) -> bool {
    let below =
        |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
    let mut others = OWN.iter().chain(TYPED.iter().map(|(name, _)| name)).chain(placed);
    key.split('.').all(|part| !part.trim().is_empty())
        && !OWN.contains(&key)
        && !placed.contains(&key)
        && !others.any(|other| below(key, other) || below(other, key))
}

fn push_fact(out: &mut Vec<u8>, key: &str, value: &str) {
    let field = TYPED.iter().find(|(name, _)| *name == key).map_or(Field::Text, |(_, field)| *field);
    let start = out.len();
    out.push(b',');
    push_text(out, key);
    out.push(b':');
    match field {
        Field::Text => push_text(out, value),
        Field::Whole { least, most } => match value.parse::<i64>() {
            Ok(number) if (least..=most).contains(&number) => push_raw(out, &number.to_string()),
            _ => out.truncate(start),
        },
        Field::Yes if matches!(value, "true" | "false") => push_raw(out, value),
        Field::Address if value.parse::<IpAddr>().is_ok() => push_text(out, value),
        Field::Yes | Field::Address => out.truncate(start),
    }
}
