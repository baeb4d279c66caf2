//! Every metric by name. `docs/collector.md` holds the table of them; a test keeps both equal.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often a duration fell into which bucket, in seconds.
    Histogram,
}

/// A metric. Its labels, where it has some, are said in its help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// CPU time of this process, in seconds.
    ProcessCpuSeconds,
    /// Resident memory, in bytes.
    ProcessResidentBytes,
    /// Address space, in bytes.
    ProcessVirtualBytes,
    /// Open file descriptors.
    ProcessOpenFds,
    /// Most file descriptors that may be open.
    ProcessMaxFds,
    /// Threads.
    ProcessThreads,
    /// Start of the process, in seconds since 1970.
    ProcessStartSeconds,
    /// Requests begun.
    GrpcStarted,
    /// Messages that arrived whole.
    GrpcMessagesReceived,
    /// Requests answered, by `grpc_code`.
    GrpcHandled,
    /// Time from a request's header to its answer.
    GrpcHandlingSeconds,
    /// Exports over HTTP answered, by `status`.
    HttpHandled,
    /// Bulk requests to Elasticsearch that failed as a whole.
    BulkFailures,
    /// Documents written, by `index`.
    DocumentsWritten,
    /// Bulk requests to Elasticsearch that were answered.
    BulkRequests,
    /// Bytes of bulk requests.
    BulkBytes,
    /// Documents sent again.
    DocumentsRetried,
    /// Documents that were there already.
    DocumentsAlreadyThere,
    /// Documents that Elasticsearch will never take, by `kind` and `error`.
    DocumentsRejected,
    /// Batches that the output did not take, by `reason`.
    OutputRefused,
    /// Bytes in the disk queue.
    QueueBytes,
    /// Batches that went to the disk queue.
    QueueBatches,
    /// Records of the disk queue that could not be read any more.
    QueueDamaged,
    /// Exports, by `outcome`.
    CollectorBatches,
    /// Senders refused, by `reason`.
    CollectorRefusedRequests,
    /// Samples in exports that could be read.
    CollectorSamplesReceived,
    /// Samples written.
    CollectorSamplesWritten,
    /// Samples not written, by `reason`.
    CollectorSamplesDropped,
    /// Oddities in exports, by `kind`.
    CollectorOddities,
    /// Connections now open.
    Connections,
    /// Connections taken.
    ConnectionsAccepted,
    /// Connections closed without a request, by `reason`.
    ConnectionsRefused,
    /// Most bytes that requests and queues may hold together.
    BudgetBytes,
    /// Bytes that they hold now.
    BudgetUsedBytes,
    /// Requests refused because they would have held more.
    BudgetRefusals,
}

/// Name, shape and help of one metric.
type Row = (&'static str, Shape, &'static str);

impl Metric {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 35] = [
        Self::ProcessCpuSeconds,
        Self::ProcessResidentBytes,
        Self::ProcessVirtualBytes,
        Self::ProcessOpenFds,
        Self::ProcessMaxFds,
        Self::ProcessThreads,
        Self::ProcessStartSeconds,
        Self::GrpcStarted,
        Self::GrpcMessagesReceived,
        Self::GrpcHandled,
        Self::GrpcHandlingSeconds,
        Self::HttpHandled,
        Self::BulkFailures,
        Self::DocumentsWritten,
        Self::BulkRequests,
        Self::BulkBytes,
        Self::DocumentsRetried,
        Self::DocumentsAlreadyThere,
        Self::DocumentsRejected,
        Self::OutputRefused,
        Self::QueueBytes,
        Self::QueueBatches,
        Self::QueueDamaged,
        Self::CollectorBatches,
        Self::CollectorRefusedRequests,
        Self::CollectorSamplesReceived,
        Self::CollectorSamplesWritten,
        Self::CollectorSamplesDropped,
        Self::CollectorOddities,
        Self::Connections,
        Self::ConnectionsAccepted,
        Self::ConnectionsRefused,
        Self::BudgetBytes,
        Self::BudgetUsedBytes,
        Self::BudgetRefusals,
    ];

    #[allow(clippy::too_many_lines, reason = "a table, one row a metric")]
    const fn row(self) -> Row {
        use Shape::{Counter, Gauge, Histogram};
        match self {
            // Seconds are fractions, which the counters of the exporter are not.
            Self::ProcessCpuSeconds => {
                ("process_cpu_seconds_total", Gauge, "CPU time of this process, user and system, in seconds")
            }
            Self::ProcessResidentBytes => ("process_resident_memory_bytes", Gauge, "Resident memory"),
            Self::ProcessVirtualBytes => ("process_virtual_memory_bytes", Gauge, "Address space"),
            Self::ProcessOpenFds => ("process_open_fds", Gauge, "Open file descriptors"),
            Self::ProcessMaxFds => ("process_max_fds", Gauge, "Most file descriptors that may be open"),
            Self::ProcessThreads => ("process_threads", Gauge, "Threads"),
            Self::ProcessStartSeconds => {
                ("process_start_time_seconds", Gauge, "Start of the process, in seconds since 1970")
            }
            Self::GrpcStarted => ("grpc_server_started_total", Counter, "gRPC requests begun"),
            Self::GrpcMessagesReceived => {
                ("grpc_server_msg_received_total", Counter, "Messages that arrived whole over gRPC")
            }
            Self::GrpcHandled => {
                ("grpc_server_handled_total", Counter, "gRPC requests answered, by grpc_code")
            }
            Self::GrpcHandlingSeconds => (
                "grpc_server_handling_seconds",
                Histogram,
                "Time from the header of a gRPC request to its answer, in seconds",
            ),
            Self::HttpHandled => {
                ("everflame_http_exports_total", Counter, "Exports over HTTP answered, by status")
            }
            Self::BulkFailures => (
                "collection_agent.indexing.bulk_indexer_failure_count",
                Counter,
                "Bulk requests to Elasticsearch that failed as a whole",
            ),
            Self::DocumentsWritten => (
                "collection_agent.indexing.document_count",
                Counter,
                "Documents written to Elasticsearch, by index",
            ),
            Self::BulkRequests => (
                "everflame_elasticsearch_bulk_requests_total",
                Counter,
                "Bulk requests that Elasticsearch has answered",
            ),
            Self::BulkBytes => (
                "everflame_elasticsearch_bulk_bytes_total",
                Counter,
                "Bytes of bulk requests before compression, repeats included",
            ),
            Self::DocumentsRetried => (
                "everflame_elasticsearch_documents_retried_total",
                Counter,
                "Documents sent again, each time",
            ),
            Self::DocumentsAlreadyThere => (
                "everflame_elasticsearch_documents_already_there_total",
                Counter,
                "Documents found to be in Elasticsearch already",
            ),
            Self::DocumentsRejected => (
                "everflame_elasticsearch_documents_rejected_total",
                Counter,
                "Documents that Elasticsearch will never take, by kind and error; they are lost",
            ),
            Self::OutputRefused => (
                "everflame_elasticsearch_batches_refused_total",
                Counter,
                "Batches whose senders were asked to come back, by reason: overloaded, unavailable, queue",
            ),
            Self::QueueBytes => ("everflame_disk_queue_bytes", Gauge, "Bytes in the files of the disk queue"),
            Self::QueueBatches => {
                ("everflame_disk_queue_batches_total", Counter, "Batches that went to the disk queue")
            }
            Self::QueueDamaged => (
                "everflame_disk_queue_damaged_total",
                Counter,
                "Records of the disk queue that could not be read any more; they are lost",
            ),
            Self::CollectorBatches => (
                "everflame_collector_batches_total",
                Counter,
                "Exports, by outcome: received, and what became of them",
            ),
            Self::CollectorRefusedRequests => {
                ("everflame_collector_requests_refused_total", Counter, "Requests not read, by reason")
            }
            Self::CollectorSamplesReceived => (
                "everflame_collector_samples_received_total",
                Counter,
                "Samples in exports that could be read",
            ),
            Self::CollectorSamplesWritten => {
                ("everflame_collector_samples_written_total", Counter, "Samples that the store answers for")
            }
            Self::CollectorSamplesDropped => {
                ("everflame_collector_samples_dropped_total", Counter, "Samples not written, by reason")
            }
            Self::CollectorOddities => (
                "everflame_collector_oddities_total",
                Counter,
                "Things in exports that were left out, by kind",
            ),
            Self::Connections => ("everflame_connections", Gauge, "Connections now open"),
            Self::ConnectionsAccepted => {
                ("everflame_connections_accepted_total", Counter, "Connections taken")
            }
            Self::ConnectionsRefused => (
                "everflame_connections_refused_total",
                Counter,
                "Connections closed without a request, by reason: silent, tls",
            ),
            Self::BudgetBytes => (
                "everflame_memory_budget_bytes",
                Gauge,
                "Most bytes that requests and queues may hold together",
            ),
            Self::BudgetUsedBytes => ("everflame_memory_used_bytes", Gauge, "Bytes that they hold now"),
            Self::BudgetRefusals => (
                "everflame_memory_refusals_total",
                Counter,
                "Requests refused because the budget had no room for them",
            ),
        }
    }

    /// Name on JSON pages. Prometheus knows no dots and gets underscores for them.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// What kind of number it is.
    #[must_use]
    pub const fn shape(self) -> Shape {
        self.row().1
    }

    /// One sentence for people.
    #[must_use]
    pub const fn help(self) -> &'static str {
        self.row().2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_is_listed_once_under_its_own_name() {
        let names: std::collections::HashSet<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        assert_eq!(names.len(), Metric::ALL.len());
        for (at, metric) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(metric as usize, at, "{metric:?}");
            assert!(metric.name().chars().all(|c| c.is_ascii_lowercase() || "._".contains(c)), "{metric:?}");
        }
    }

    #[test]
    fn the_documentation_lists_every_metric() {
        let docs = include_str!("../../docs/collector.md");
        for metric in Metric::ALL {
            assert!(
                docs.contains(&format!("`{}`", metric.name())),
                "{} is not in docs/collector.md",
                metric.name()
            );
        }
    }
}
