//! The writer against a server that keeps documents by their identifiers and fails as told.

use std::collections::BTreeMap;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::model::StackId;
use crate::store::Writer as _;
use crate::store::document::{Event, EventResource};

/// What the server does with a request.
#[derive(Clone, Debug)]
enum Does {
    /// Judges each item by this: its number in the request, its text.
    Items(fn(usize, &str) -> (u16, &'static str)),
    /// Answers with a status and an error.
    Refuses(u16, &'static str),
    /// Stores everything and closes the connection without an answer.
    StoresAndCuts,
    /// Closes the connection.
    Cuts,
    /// Refuses what has more than so many bytes.
    Limits(usize),
}

/// A server, what it holds, and what it will do: one entry per request, the last one for ever.
#[derive(Clone)]
struct Server {
    address: String,
    stored: Arc<Mutex<BTreeMap<String, u32>>>,
    plan: Arc<Mutex<Vec<Does>>>,
    requests: Arc<Mutex<Vec<usize>>>,
}

fn fine() -> Does {
    Does::Items(|_, _| (201, ""))
}

async fn server(plan: Vec<Does>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server {
        address: listener.local_addr().unwrap().to_string(),
        stored: Arc::default(),
        plan: Arc::new(Mutex::new(plan)),
        requests: Arc::default(),
    };
    let serving = server.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serving = serving.clone();
            tokio::spawn(async move { serving.connection(stream).await });
        }
    });
    server
}

impl Server {
    async fn connection(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        loop {
            let (mut length, mut bulk, mut line) = (0, false, String::new());
            loop {
                line.clear();
                if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                    return;
                }
                bulk |= line.starts_with("POST /_bulk");
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; length];
            if stream.read_exact(&mut body).await.is_err() {
                return;
            }
            let answer =
                if bulk { self.bulk(&String::from_utf8(body).unwrap()) } else { Some((200, "{}".into())) };
            let Some((status, text)) = answer else { return };
            let head = format!(
                "HTTP/1.1 {status} X\r\nX-elastic-product: Elasticsearch\r\ncontent-length: {}\r\n\r\n{text}",
                text.len()
            );
            if stream.write_all(head.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn bulk(&self, body: &str) -> Option<(u16, String)> {
        let does = {
            let mut plan = self.plan.lock();
            if plan.len() > 1 { plan.remove(0) } else { plan[0].clone() }
        };
        self.requests.lock().push(body.len());
        let lines: Vec<&str> = body.lines().collect();
        let items: Vec<(String, String)> = lines
            .chunks(2)
            .map(|pair| {
                let action: Value = serde_json::from_str(pair[0]).unwrap();
                let id = action["create"]["_id"].as_str().unwrap_or_default();
                let index = action["create"]["_index"].as_str().unwrap_or_default();
                (format!("{index}/{id}"), pair[1].to_owned())
            })
            .collect();
        match does {
            Does::Items(judge) => {
                let mut answers = Vec::new();
                for (number, (id, text)) in items.iter().enumerate() {
                    let (mut status, mut kind) = judge(number, text);
                    if status == 201 {
                        let mut stored = self.stored.lock();
                        if stored.contains_key(id) {
                            (status, kind) = (409, "version_conflict_engine_exception");
                        } else {
                            stored.insert(id.clone(), 1);
                        }
                    }
                    answers.push(match kind {
                        "" => serde_json::json!({"create": {"status": status}}),
                        kind => serde_json::json!({"create": {"status": status, "error": {"type": kind, "reason": "told to"}}}),
                    });
                }
                let errors = answers.iter().any(|answer| answer["create"]["error"].is_object());
                Some((200, serde_json::json!({"errors": errors, "items": answers}).to_string()))
            }
            Does::Refuses(status, kind) => Some((
                status,
                format!("{{\"error\":{{\"type\":\"{kind}\",\"reason\":\"told to\"}},\"status\":{status}}}"),
            )),
            Does::StoresAndCuts => {
                self.stored.lock().extend(items.into_iter().map(|(id, _)| (id, 1)));
                None
            }
            Does::Cuts => None,
            Does::Limits(bytes) if body.len() > bytes => Some((413, String::new())),
            Does::Limits(_) => {
                self.stored.lock().extend(items.iter().map(|(id, _)| (id.clone(), 1)));
                let answers: Vec<_> =
                    items.iter().map(|_| serde_json::json!({"create": {"status": 201}})).collect();
                Some((200, serde_json::json!({"errors": false, "items": answers}).to_string()))
            }
        }
    }

    /// Events of the stream of all events.
    fn events(&self) -> usize {
        self.stored.lock().keys().filter(|id| id.starts_with("profiling-events-all/")).count()
    }

    fn output(&self) -> ElasticsearchOutput {
        ElasticsearchOutput {
            hosts: vec![self.address.clone()],
            backoff_init: Duration::from_millis(2),
            backoff_max: Duration::from_millis(20),
            timeout: Duration::from_secs(20),
            ..ElasticsearchOutput::default()
        }
    }

    fn writer(&self) -> Arc<ElasticWriter> {
        self.writer_with(None)
    }

    fn writer_with(&self, queue: Option<Arc<DiskQueue>>) -> Arc<ElasticWriter> {
        let output = self.output();
        let writer = ElasticWriter::assemble(&output, Arc::new(Client::new(&output).unwrap()), queue);
        writer.set_shape(Shape::of(Generation::Classic));
        writer
    }
}

/// A batch of `samples` of one stack; `number` makes it different from others.
fn batch(number: u64, samples: u64) -> Documents {
    Documents {
        resources: vec![EventResource { host_id: "h".into(), frequency_hz: 20, ..EventResource::default() }],
        events: vec![Event {
            stack: StackId(u128::from(number).to_be_bytes()),
            thread_name: "t".into(),
            times: (0..samples)
                .map(|at| UnixNanos(1_700_000_000_000_000_000 + number * 1_000_000_000 + at))
                .collect(),
            ..Event::default()
        }],
        ..Documents::default()
    }
}

#[tokio::test]
async fn a_batch_is_stored_and_a_repeat_of_it_is_not() {
    let server = server(vec![fine()]).await;
    let writer = server.writer();
    assert_eq!(writer.write(batch(1, 100)).await.unwrap(), Written::default());
    assert_eq!(writer.write(batch(1, 100)).await.unwrap(), Written::default());
    assert_eq!(server.events(), 100);
    assert!(writer.counters().get(Counter::DocumentsAlreadyThere) >= 100);
    writer.close().await;
    assert!(writer.write(batch(2, 1)).await.unwrap_err().is_retryable());
}

#[tokio::test]
async fn an_answer_that_was_cut_stores_once() {
    let server = server(vec![Does::StoresAndCuts, Does::Cuts, fine()]).await;
    let writer = server.writer();
    assert_eq!(writer.write(batch(1, 50)).await.unwrap(), Written::default());
    assert_eq!(server.events(), 50);
}

#[tokio::test]
async fn items_that_are_put_off_are_sent_again_by_themselves() {
    let busy = Does::Items(|number, _| {
        if number.is_multiple_of(3) { (429, "es_rejected_execution_exception") } else { (201, "") }
    });
    let server = server(vec![busy.clone(), busy, fine()]).await;
    let writer = server.writer();
    assert_eq!(writer.write(batch(1, 90)).await.unwrap(), Written::default());
    assert_eq!(server.events(), 90);
    let sizes = server.requests.lock().clone();
    assert_eq!(sizes.len(), 3);
    assert!(sizes[1] < sizes[0] / 2 && sizes[2] < sizes[1] / 2, "{sizes:?}");
}

#[tokio::test]
async fn one_conflict_in_a_thousand_costs_one_document() {
    let conflict = Does::Items(|_, text| {
        if text.contains(".000000077Z\"") { (400, "document_parsing_exception") } else { (201, "") }
    });
    let server = server(vec![conflict]).await;
    let writer = server.writer();
    let written = writer.write(batch(1, 1000)).await.unwrap();
    assert_eq!(written.rejected_samples, 1);
    assert_eq!(written.reason.as_deref(), Some("told to"));
    assert_eq!(server.events(), 999);
    assert_eq!(writer.counters().get(Counter::SamplesRejected), 1);
    assert!(writer.rejected().contains(&("event", "document_parsing_exception".into(), 1)));
}

#[tokio::test]
async fn when_nothing_is_taken_the_sender_is_asked_to_come_back() {
    for (does, cure) in [
        (Does::Refuses(429, "es_rejected_execution_exception"), None),
        (Does::Refuses(403, "security_exception"), Some("privileges")),
        (Does::Items(|_, _| (429, "cluster_block_exception")), Some("disk space")),
        (Does::Items(|_, _| (404, "index_not_found_exception")), Some("everflame setup")),
        (Does::Cuts, Some("protocol")),
    ] {
        let server = server(vec![does.clone()]).await;
        let writer = server.writer();
        let error = writer.write(batch(1, 10)).await.unwrap_err();
        assert!(error.is_retryable(), "{does:?}: {error}");
        let hint = error.hint().unwrap_or_default();
        assert!(cure.is_none_or(|cure| hint.contains(cure)), "{does:?}: {hint}");
        // The next one is refused without asking.
        let requests = server.requests.lock().len();
        assert!(writer.write(batch(2, 10)).await.unwrap_err().is_retryable());
        assert_eq!(server.requests.lock().len(), requests, "{does:?}");
        assert!(writer.problem().is_some());
        assert_eq!(writer.counters().get(Counter::RefusedUnavailable), 2);
        // It is mended, and works again by itself.
        *server.plan.lock() = vec![fine()];
        let mut attempts = 0;
        while writer.write(batch(3, 10)).await.is_err() {
            attempts += 1;
            assert!(attempts < 1000, "{does:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(server.events(), 10);
        assert_eq!(writer.problem(), None);
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_cut_and_later_ones_are_smaller() {
    let server = server(vec![Does::Limits(100_000)]).await;
    let writer = server.writer();
    assert_eq!(writer.write(batch(1, 2000)).await.unwrap(), Written::default());
    assert_eq!(server.events(), 2000);
    assert!(writer.courier.flush_bytes() <= 100_000, "{}", writer.courier.flush_bytes());
}

#[tokio::test]
async fn many_senders_share_requests() {
    let server = server(vec![fine()]).await;
    let writer = server.writer();
    let writes: Vec<_> = (0..300)
        .map(|number| {
            let writer = writer.clone();
            tokio::spawn(async move { writer.write(batch(number, 20)).await })
        })
        .collect();
    for write in writes {
        assert_eq!(write.await.unwrap().unwrap(), Written::default());
    }
    assert_eq!(server.events(), 6000);
    let requests = server.requests.lock().len();
    assert!(requests < 150, "{requests} requests for 300 batches");
}

#[tokio::test]
async fn what_is_beyond_the_room_is_refused() {
    let server = server(vec![fine()]).await;
    let writer = server.writer();
    let all = writer.room(ROOM_BYTES).await.unwrap();
    let error = writer.write(batch(1, 10)).await.unwrap_err();
    assert!(matches!(error, Error::Overloaded { .. }), "{error}");
    assert_eq!(writer.counters().get(Counter::RefusedOverloaded), 1);
    drop(all);
    writer.write(batch(1, 10)).await.unwrap();
}

#[tokio::test]
async fn the_queue_takes_while_elasticsearch_is_away_and_everything_arrives_once() {
    let folder = TempDir::new().unwrap();
    let server = server(vec![Does::Cuts]).await;
    let queue = Arc::new(DiskQueue::open(folder.path(), 1 << 30).unwrap());
    let writer = server.writer_with(Some(queue.clone()));
    for number in 0..20 {
        assert_eq!(writer.write(batch(number, 50)).await.unwrap(), Written::default());
    }
    assert_eq!(server.events(), 0);
    // The process ends before Elasticsearch is back.
    writer.close().await;
    drop((writer, queue));
    *server.plan.lock() = vec![Does::StoresAndCuts, Does::Refuses(429, ""), fine()];
    let queue = Arc::new(DiskQueue::open(folder.path(), 1 << 30).unwrap());
    let writer = server.writer_with(Some(queue));
    let mut waited = 0;
    while server.events() < 1000 || writer.counters().get(Counter::DocumentsWritten) < 1000 {
        waited += 1;
        assert!(waited < 3000, "{} events", server.events());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(server.events(), 1000);
    writer.close().await;
}
