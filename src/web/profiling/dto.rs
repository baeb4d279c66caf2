//! Shapes of the answers, with the names that Elasticsearch gives them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::request::Request;
use crate::query::profiling::flamegraph::{Graph, Node};
use crate::query::profiling::functions::{Functions, SubGroups};
use crate::query::profiling::stacktraces::StackTraces;
use crate::query::profiling::{Frame, Scene};
use crate::store::StoreStatus;

/// Costs are told with four decimals.
#[derive(Clone, Copy, Debug)]
struct Rounded(f64);

impl Serialize for Rounded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((self.0 * 10_000.0).round() / 10_000.0)
    }
}

/// `GET /_profiling/status`
#[derive(Debug, Serialize)]
pub(super) struct StatusDto {
    profiling: Enabled,
    resource_management: Enabled,
    resources: Resources,
}

#[derive(Debug, Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Debug, Serialize)]
struct Resources {
    created: bool,
    pre_8_9_1_data: bool,
    has_data: bool,
}

impl StatusDto {
    pub(super) fn new(store: &StoreStatus) -> Self {
        Self {
            profiling: Enabled { enabled: true },
            resource_management: Enabled { enabled: true },
            resources: Resources {
                created: store.is_set_up,
                pre_8_9_1_data: false,
                has_data: store.is_set_up && store.samples > 0,
            },
        }
    }
}

/// `POST /_profiling/stacktraces`
#[derive(Debug, Serialize)]
pub(super) struct StackTracesDto<'s> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    stack_traces: BTreeMap<&'s str, StackTraceDto<'s>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    stack_frames: BTreeMap<&'s str, StackFrameDto<'s>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    executables: BTreeMap<&'s str, &'s str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    stack_trace_events: BTreeMap<&'s str, u64>,
    total_frames: u64,
    sampling_rate: f64,
}

#[derive(Debug, Serialize)]
struct StackTraceDto<'s> {
    address_or_lines: Vec<i32>,
    file_ids: Vec<&'s str>,
    frame_ids: Vec<&'s str>,
    type_ids: Vec<u8>,
    annual_co2_tons: Rounded,
    annual_costs_usd: Rounded,
    count: u64,
}

#[derive(Debug, Serialize)]
struct StackFrameDto<'s> {
    file_name: Vec<&'s str>,
    function_name: Vec<&'s str>,
    function_offset: Vec<i32>,
    line_number: Vec<u32>,
}

impl<'s> StackTracesDto<'s> {
    pub(super) fn new(scene: &'s Scene, found: &'s StackTraces) -> Self {
        let frame = |number: &u32| -> &'s Frame { &scene.frames[*number as usize] };
        let mut stack_frames = BTreeMap::new();
        let mut stack_traces = BTreeMap::new();
        for (id, stack) in &found.stacks {
            let frames: Vec<&Frame> = stack.frames.iter().map(frame).collect();
            for frame in frames.iter().filter(|frame| frame.is_named) {
                stack_frames.entry(frame.id.as_str()).or_insert_with(|| StackFrameDto {
                    file_name: frame.lines.iter().map(|line| &*line.file).collect(),
                    function_name: frame.lines.iter().map(|line| &*line.function).collect(),
                    function_offset: Vec::new(),
                    line_number: frame.lines.iter().map(|line| line.number).collect(),
                });
            }
            let stack = StackTraceDto {
                address_or_lines: frames.iter().map(|frame| frame.address_or_line).collect(),
                file_ids: frames.iter().map(|frame| frame.file_id.as_str()).collect(),
                frame_ids: frames.iter().map(|frame| frame.id.as_str()).collect(),
                type_ids: frames.iter().map(|frame| frame.kind.0).collect(),
                annual_co2_tons: Rounded(stack.annual.co2_tons),
                annual_costs_usd: Rounded(stack.annual.costs_usd),
                count: stack.events,
            };
            stack_traces.insert(id.as_str(), stack);
        }
        Self {
            stack_trace_events: stack_traces.iter().map(|(id, stack)| (*id, stack.count)).collect(),
            stack_traces,
            stack_frames,
            executables: found.executables.iter().map(|(id, name)| (id.as_str(), &**name)).collect(),
            total_frames: found.total_frames,
            sampling_rate: scene.sampling_rate,
        }
    }
}

/// `POST /_profiling/flamegraph`
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct FlamegraphDto<'s> {
    edges: Vec<&'s [u32]>,
    #[serde(rename = "FileID")]
    file_id: Vec<&'s str>,
    frame_type: Vec<u16>,
    inline: Vec<bool>,
    exe_filename: Vec<&'s str>,
    address_or_line: Vec<i32>,
    function_name: Vec<&'s str>,
    function_offset: Vec<i32>,
    source_filename: Vec<&'s str>,
    source_line: Vec<u32>,
    count_inclusive: Vec<u64>,
    count_exclusive: Vec<u64>,
    #[serde(rename = "AnnualCO2TonsInclusive")]
    co2_inclusive: Vec<Rounded>,
    #[serde(rename = "AnnualCO2TonsExclusive")]
    co2_exclusive: Vec<Rounded>,
    #[serde(rename = "AnnualCostsUSDInclusive")]
    costs_inclusive: Vec<Rounded>,
    #[serde(rename = "AnnualCostsUSDExclusive")]
    costs_exclusive: Vec<Rounded>,
    size: usize,
    sampling_rate: f64,
    #[serde(rename = "SelfCPU")]
    self_cpu: u64,
    #[serde(rename = "TotalCPU")]
    total_cpu: u64,
    total_samples: u64,
}

impl<'s> FlamegraphDto<'s> {
    pub(super) fn new(scene: &Scene, graph: &'s Graph) -> Self {
        fn column<'n, T>(graph: &'n Graph, value: impl Fn(&'n Node) -> T) -> Vec<T> {
            graph.nodes.iter().map(value).collect()
        }
        Self {
            edges: column(graph, |node| node.children.as_slice()),
            file_id: column(graph, |node| node.file_id.as_str()),
            frame_type: column(graph, |node| node.kind),
            inline: column(graph, |node| node.is_inlined),
            exe_filename: column(graph, |node| &*node.executable),
            address_or_line: column(graph, |node| node.address_or_line),
            function_name: column(graph, |node| &*node.function),
            function_offset: column(graph, |_| 0),
            source_filename: column(graph, |node| &*node.source),
            source_line: column(graph, |node| node.line),
            count_inclusive: column(graph, |node| node.inclusive),
            count_exclusive: column(graph, |node| node.exclusive),
            co2_inclusive: column(graph, |node| Rounded(node.inclusive_annual.co2_tons)),
            co2_exclusive: column(graph, |node| Rounded(node.exclusive_annual.co2_tons)),
            costs_inclusive: column(graph, |node| Rounded(node.inclusive_annual.costs_usd)),
            costs_exclusive: column(graph, |node| Rounded(node.exclusive_annual.costs_usd)),
            size: graph.nodes.len(),
            sampling_rate: scene.sampling_rate,
            self_cpu: graph.nodes.iter().map(|node| node.exclusive).sum(),
            total_cpu: graph.nodes.iter().map(|node| node.inclusive).sum(),
            total_samples: scene.total,
        }
    }
}

/// `POST /_profiling/topn/functions`
#[derive(Debug, Serialize)]
pub(super) struct FunctionsDto<'s> {
    self_count: u64,
    total_count: u64,
    self_annual_co2_tons: Rounded,
    self_annual_cost_usd: Rounded,
    topn: Vec<FunctionDto<'s>>,
}

#[derive(Debug, Serialize)]
struct FunctionDto<'s> {
    id: String,
    rank: usize,
    frame: FrameDto<'s>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_groups: Option<BTreeMap<&'s str, GroupsDto<'s>>>,
    self_count: u64,
    total_count: u64,
    self_annual_co2_tons: Rounded,
    total_annual_co2_tons: Rounded,
    self_annual_costs_usd: Rounded,
    total_annual_costs_usd: Rounded,
}

#[derive(Debug, Serialize)]
struct FrameDto<'s> {
    frame_type: u8,
    inline: bool,
    address_or_line: i32,
    function_name: &'s str,
    file_name: &'s str,
    line_number: u32,
    executable_file_name: &'s str,
}

/// Values of one field.
type GroupsDto<'s> = BTreeMap<&'s Arc<str>, GroupDto<'s>>;

#[derive(Debug, Serialize)]
struct GroupDto<'s> {
    count: u64,
    #[serde(flatten)]
    below: BTreeMap<&'s str, GroupsDto<'s>>,
}

impl<'s> FunctionsDto<'s> {
    pub(super) fn new(scene: &'s Scene, found: &'s Functions, request: &'s Request) -> Self {
        let fields = request.fields();
        let shown = found.list.iter().take(request.limit.unwrap_or(usize::MAX));
        let topn = shown.enumerate().map(|(i, function)| {
            let (frame, line) = function.place(scene);
            FunctionDto {
                id: function.id.to_string(),
                rank: i + 1,
                frame: FrameDto {
                    frame_type: frame.kind.0,
                    inline: function.frame.1 > 0,
                    address_or_line: frame.address_or_line,
                    function_name: &line.function,
                    file_name: &line.file,
                    line_number: line.number,
                    executable_file_name: &frame.executable,
                },
                sub_groups: (!fields.is_empty()).then(|| groups(fields, &function.sub_groups)),
                self_count: function.own,
                total_count: function.total,
                self_annual_co2_tons: Rounded(function.own_annual.co2_tons),
                total_annual_co2_tons: Rounded(function.total_annual.co2_tons),
                self_annual_costs_usd: Rounded(function.own_annual.costs_usd),
                total_annual_costs_usd: Rounded(function.total_annual.costs_usd),
            }
        });
        Self {
            self_count: found.own,
            total_count: found.total,
            self_annual_co2_tons: Rounded(found.own_annual.co2_tons),
            self_annual_cost_usd: Rounded(found.own_annual.costs_usd),
            topn: topn.collect(),
        }
    }
}

/// The values of a field under its name.
fn groups<'s>(fields: &'s [String], groups_of: &'s SubGroups) -> BTreeMap<&'s str, GroupsDto<'s>> {
    let Some((field, rest)) = fields.split_first() else { return BTreeMap::new() };
    let values = groups_of
        .iter()
        .map(|(value, group)| (value, GroupDto { count: group.events, below: groups(rest, &group.below) }));
    BTreeMap::from([(field.as_str(), values.collect())])
}
