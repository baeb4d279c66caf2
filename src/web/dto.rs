//! Shapes of the answers: the only place of this room that knows serde. `docs/api.md` says what each field means.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use crate::model::{Dimension, TimeRange, UnixNanos};
use crate::query::functions::FunctionRow;
use crate::query::pipeline::{Answer, FunctionList, Summary};
use crate::query::{DrawnFunction, FlameTree, FunctionNames};
use crate::query::{flamegraph::Flamegraph, sandwich::Sandwich};
use crate::store::{self, GroupCount, Precision, StoreStatus, TimeGrid, Timeline};

use super::roles::{AgentStatus, CollectorStatus, Counter};

/// Body of every answer that is not 200.
#[derive(Debug, Serialize)]
pub(super) struct ErrorDto {
    pub(super) error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) position: Option<usize>,
}

/// `GET /api/v1/status`
#[derive(Debug, Serialize)]
pub(super) struct StatusDto {
    version: &'static str,
    now: u64,
    started: u64,
    store: StoreDto,
    agent: Option<AgentDto>,
    collector: Option<CollectorDto>,
}

#[derive(Debug, Serialize)]
struct StoreDto {
    description: String,
    event_bytes: u64,
    dictionary_bytes: u64,
    samples: u64,
    stacks: u64,
    frames: u64,
    executables: u64,
    first: Option<u64>,
    last: Option<u64>,
    refusing: Option<String>,
}

#[derive(Debug, Serialize)]
struct AgentDto {
    running: bool,
    problem: Option<String>,
    hint: Option<String>,
    frequency_hz: u32,
    cpus: u32,
    kernel: String,
    object: String,
    processes: u64,
    tables: u64,
    pool_bytes: u64,
    resident_bytes: u64,
    notes: Vec<String>,
    counters: Vec<CounterDto>,
}

#[derive(Debug, Serialize)]
struct CollectorDto {
    address: String,
    counters: Vec<CounterDto>,
}

#[derive(Debug, Serialize)]
struct CounterDto {
    name: String,
    value: u64,
}

fn counters(counters: Vec<Counter>) -> Vec<CounterDto> {
    counters.into_iter().map(|c| CounterDto { name: c.name.into_owned(), value: c.value }).collect()
}

impl StatusDto {
    pub(super) fn new(
        now: UnixNanos,
        started: UnixNanos,
        store: StoreStatus,
        agent: Option<AgentStatus>,
        collector: Option<CollectorStatus>,
    ) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            now: now.millis(),
            started: started.millis(),
            store: StoreDto {
                description: store.description,
                event_bytes: store.event_bytes,
                dictionary_bytes: store.dictionary_bytes,
                samples: store.samples,
                stacks: store.stacks,
                frames: store.frames,
                executables: store.executables,
                first: store.extent.map(|extent| extent.from.millis()),
                last: store.extent.map(|extent| extent.to.millis()),
                refusing: store.refusing,
            },
            agent: agent.map(|agent| AgentDto {
                running: agent.running,
                problem: agent.problem,
                hint: agent.hint,
                frequency_hz: agent.frequency_hz,
                cpus: agent.cpus,
                kernel: agent.kernel,
                object: agent.object,
                processes: agent.processes,
                tables: agent.tables,
                pool_bytes: agent.pool_bytes,
                resident_bytes: agent.resident_bytes,
                notes: agent.notes,
                counters: counters(agent.counters),
            }),
            collector: collector.map(|c| CollectorDto { address: c.address, counters: counters(c.counters) }),
        }
    }
}

/// `GET /live`, `GET /ready`
#[derive(Debug, Serialize)]
pub(super) struct HealthDto {
    pub(super) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// `GET /api/v1/fields`
#[derive(Debug, Serialize)]
pub(super) struct FieldsDto {
    fields: Vec<FieldDto>,
}

#[derive(Debug, Serialize)]
struct FieldDto {
    field: &'static str,
    aliases: &'static [&'static str],
}

impl FieldsDto {
    pub(super) fn new() -> Self {
        Self {
            fields: Dimension::ALL
                .into_iter()
                .map(|dimension| FieldDto { field: dimension.field(), aliases: dimension.aliases() })
                .collect(),
        }
    }
}

/// `GET /api/v1/values`
#[derive(Debug, Serialize)]
pub(super) struct ValuesDto {
    values: Vec<ValueDto>,
}

#[derive(Debug, Serialize)]
struct ValueDto {
    value: Arc<str>,
    samples: u64,
}

impl ValuesDto {
    pub(super) fn new(values: Vec<GroupCount>) -> Self {
        Self { values: values.into_iter().map(|v| ValueDto { value: v.value, samples: v.samples }).collect() }
    }
}

#[derive(Debug, Serialize)]
struct PrecisionDto {
    exact: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<f64>,
}

impl From<Precision> for PrecisionDto {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Exact => Self { exact: true, factor: None },
            Precision::Sampled { factor } => Self { exact: false, factor: Some(factor) },
        }
    }
}

/// `GET /api/v1/timeline`
#[derive(Debug, Serialize)]
pub(super) struct TimelineDto {
    from: u64,
    to: u64,
    start: u64,
    width: u64,
    buckets: u32,
    samples: u64,
    cpu_ns: u64,
    complete: u64,
    hosts: u64,
    groups: u64,
    precision: PrecisionDto,
    series: Vec<SeriesDto>,
    other: SeriesDto,
}

#[derive(Debug, Serialize)]
struct SeriesDto {
    group: Arc<str>,
    total: u64,
    samples: Vec<u64>,
}

impl From<store::Series> for SeriesDto {
    fn from(series: store::Series) -> Self {
        Self { group: series.group, total: series.total, samples: series.samples }
    }
}

impl TimelineDto {
    pub(super) fn new(range: TimeRange, grid: TimeGrid, timeline: Timeline) -> Self {
        Self {
            from: range.from.millis(),
            to: range.to.millis(),
            start: grid.start.millis(),
            width: grid.width_ns / 1_000_000,
            buckets: grid.buckets,
            samples: crate::query::timeline::samples(&timeline),
            cpu_ns: timeline.cpu_ns,
            complete: timeline.complete,
            hosts: timeline.hosts,
            groups: timeline.groups,
            precision: timeline.precision.into(),
            series: timeline.series.into_iter().map(Into::into).collect(),
            other: timeline.other.into(),
        }
    }
}

/// What all answers about stacks begin with.
#[derive(Debug, Serialize)]
struct HeadDto {
    from: u64,
    to: u64,
    samples: u64,
    cpu_ns: u64,
    complete: u64,
    precision: PrecisionDto,
}

impl HeadDto {
    fn new(range: TimeRange, summary: Summary) -> Self {
        Self {
            from: range.from.millis(),
            to: range.to.millis(),
            samples: summary.samples,
            cpu_ns: summary.cpu_ns,
            complete: summary.complete,
            precision: summary.precision.into(),
        }
    }
}

/// Each text once, by number; 0 is the empty text.
#[derive(Debug)]
struct Strings<'a> {
    list: Vec<&'a str>,
    numbers: HashMap<&'a str, u32>,
}

impl<'a> Strings<'a> {
    fn new() -> Self {
        Self { list: vec![""], numbers: HashMap::from([("", 0)]) }
    }

    fn number(&mut self, text: &'a str) -> u32 {
        *self.numbers.entry(text).or_insert_with(|| {
            self.list.push(text);
            self.list.len() as u32 - 1
        })
    }
}

/// Columns of functions; texts are numbers in the strings of the same answer.
#[derive(Debug, Serialize)]
struct FunctionsDto<'a> {
    name: Vec<u32>,
    library: Vec<u32>,
    file: Vec<u32>,
    kind: Vec<u16>,
    inlined: Vec<u8>,
    reason: Vec<u32>,
    key: Vec<String>,
    #[serde(rename = "self", skip_serializing_if = "Option::is_none")]
    own: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<Vec<u64>>,
    #[serde(skip)]
    strings: Strings<'a>,
}

impl<'a> FunctionsDto<'a> {
    fn new(
        names: &'a FunctionNames,
        reasons: &'a Reasons,
        drawn: impl Iterator<Item = DrawnFunction>,
    ) -> Self {
        let mut columns = Self {
            name: Vec::new(),
            library: Vec::new(),
            file: Vec::new(),
            kind: Vec::new(),
            inlined: Vec::new(),
            reason: Vec::new(),
            key: Vec::new(),
            own: None,
            total: None,
            strings: Strings::new(),
        };
        for DrawnFunction { function, inlined } in drawn {
            let index = function as usize;
            let function = &names.functions()[index];
            columns.name.push(columns.strings.number(&function.name));
            columns.library.push(columns.strings.number(&function.library));
            columns.file.push(columns.strings.number(&function.file));
            columns.kind.push(function.kind.0);
            columns.inlined.push(u8::from(inlined));
            columns.reason.push(reasons.0.get(&index).map_or(0, |text| columns.strings.number(text)));
            let is_root = function.kind == crate::query::NodeKind::ROOT;
            columns.key.push(if is_root { String::new() } else { function.key.to_string() });
        }
        columns
    }
}

/// Reasons as text, by index of the function.
#[derive(Debug)]
pub(super) struct Reasons(HashMap<usize, String>);

impl Reasons {
    pub(super) fn new(names: &FunctionNames) -> Self {
        let with_reason = |(i, function): (usize, &crate::query::Function)| {
            function.reason.as_ref().map(|reason| (i, reason.to_string()))
        };
        Self(names.functions().iter().enumerate().filter_map(with_reason).collect())
    }
}

#[derive(Debug, Serialize)]
struct NodesDto<'a> {
    parent: &'a [u32],
    function: &'a [u32],
    #[serde(rename = "self")]
    own: &'a [u64],
    total: &'a [u64],
    line: &'a [u32],
    folded: FoldedDto,
}

/// Where something was folded away: sparse, most nodes have nothing folded.
#[derive(Debug, Serialize)]
struct FoldedDto {
    node: Vec<u32>,
    nodes: Vec<u64>,
    samples: Vec<u64>,
}

impl<'a> From<&'a FlameTree> for NodesDto<'a> {
    fn from(tree: &'a FlameTree) -> Self {
        Self {
            parent: &tree.parent,
            function: &tree.function,
            own: &tree.own,
            total: &tree.total,
            line: &tree.line,
            folded: FoldedDto {
                node: tree.folded.iter().map(|(node, _)| *node).collect(),
                nodes: tree.folded.iter().map(|(_, fold)| fold.nodes).collect(),
                samples: tree.folded.iter().map(|(_, fold)| fold.samples).collect(),
            },
        }
    }
}

/// `GET /api/v1/flamegraph`
#[derive(Debug, Serialize)]
pub(super) struct FlamegraphDto<'a> {
    #[serde(flatten)]
    head: HeadDto,
    folded_nodes: u64,
    nodes: NodesDto<'a>,
    functions: FunctionsDto<'a>,
    strings: Vec<&'a str>,
}

impl<'a> FlamegraphDto<'a> {
    pub(super) fn new(range: TimeRange, answer: &'a Answer<Flamegraph>, reasons: &'a Reasons) -> Self {
        let mut functions =
            FunctionsDto::new(&answer.names, reasons, answer.content.functions.iter().copied());
        Self {
            head: HeadDto::new(range, answer.summary),
            folded_nodes: answer.content.tree.folded_nodes(),
            nodes: (&answer.content.tree).into(),
            strings: std::mem::take(&mut functions.strings.list),
            functions,
        }
    }
}

#[derive(Debug, Serialize)]
struct TreeDto<'a> {
    nodes: NodesDto<'a>,
}

/// `GET /api/v1/flamegraph?focus=…`
#[derive(Debug, Serialize)]
pub(super) struct SandwichDto<'a> {
    #[serde(flatten)]
    head: HeadDto,
    folded_nodes: u64,
    callees: TreeDto<'a>,
    callers: TreeDto<'a>,
    functions: FunctionsDto<'a>,
    strings: Vec<&'a str>,
}

impl<'a> SandwichDto<'a> {
    pub(super) fn new(range: TimeRange, answer: &'a Answer<Sandwich>, reasons: &'a Reasons) -> Self {
        let Sandwich { callees, callers, functions } = &answer.content;
        let mut functions = FunctionsDto::new(&answer.names, reasons, functions.iter().copied());
        Self {
            head: HeadDto::new(range, answer.summary),
            folded_nodes: callees.folded_nodes() + callers.folded_nodes(),
            callees: TreeDto { nodes: callees.into() },
            callers: TreeDto { nodes: callers.into() },
            strings: std::mem::take(&mut functions.strings.list),
            functions,
        }
    }
}

/// `GET /api/v1/functions`
#[derive(Debug, Serialize)]
pub(super) struct FunctionListDto<'a> {
    #[serde(flatten)]
    head: HeadDto,
    functions_in_range: u64,
    functions: FunctionsDto<'a>,
    strings: Vec<&'a str>,
}

impl<'a> FunctionListDto<'a> {
    pub(super) fn new(range: TimeRange, answer: &'a Answer<FunctionList>, reasons: &'a Reasons) -> Self {
        let rows = &answer.content.rows;
        let drawn = |row: &FunctionRow| DrawnFunction { function: row.function, inlined: row.inlined };
        let mut functions = FunctionsDto::new(&answer.names, reasons, rows.iter().map(drawn));
        functions.own = Some(rows.iter().map(|row| row.own).collect());
        functions.total = Some(rows.iter().map(|row| row.total).collect());
        Self {
            head: HeadDto::new(range, answer.summary),
            functions_in_range: answer.content.in_range,
            strings: std::mem::take(&mut functions.strings.list),
            functions,
        }
    }
}
