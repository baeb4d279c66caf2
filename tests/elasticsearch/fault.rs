//! A proxy between a collector and Elasticsearch that makes things go wrong: connections cut at a given byte of a bulk
//! request or of its answer, refusals, slowness. Everything else passes untouched.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// What happens to one bulk request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// This share of its bytes, head and body, gets through; then both connections are cut.
    CutRequest(f64),
    /// It gets through; of the answer only this share does.
    CutAnswer(f64),
    /// It does not get through and is answered with this status.
    Refuse(u16),
    /// It gets through; its answer comes later.
    Delay(Duration),
}

/// A running proxy. Ends with the process.
#[derive(Clone)]
pub(crate) struct FaultProxy {
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    /// For the bulk requests to come, one each.
    faults: Mutex<VecDeque<Fault>>,
}

impl FaultProxy {
    /// Listens on a free port and passes everything to `upstream`.
    pub(crate) fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let shared =
            Arc::new(Shared { upstream: upstream.parse().expect("an address"), faults: Mutex::default() });
        let theirs = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = theirs.clone();
                // A connection that fails is what this proxy is for.
                std::thread::spawn(move || drop(shared.connection(&client)));
            }
        });
        Self { address, shared }
    }

    /// Lets these faults happen to the next bulk requests, one each.
    pub(crate) fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().extend(faults);
    }

    /// Faults that have not happened yet.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.faults.lock().len()
    }
}

/// Head and body of a request or an answer.
struct Message {
    bytes: Vec<u8>,
    bulk: bool,
}

impl Shared {
    fn connection(&self, client: &TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let server = TcpStream::connect(self.upstream)?;
        server.set_nodelay(true)?;
        let (mut from_client, mut from_server) = (BufReader::new(client), BufReader::new(&server));
        let outcome = loop {
            let Some(request) = read(&mut from_client)? else { break Ok(()) };
            let fault = if request.bulk { self.faults.lock().pop_front() } else { None };
            match fault {
                Some(Fault::Refuse(status)) => {
                    let body = "{\"error\":{\"type\":\"es_rejected_execution_exception\",\"reason\":\"told to\"},\"status\":429}";
                    let head = "X-elastic-product: Elasticsearch\r\ncontent-type: application/json";
                    write!(
                        { client },
                        "HTTP/1.1 {status} X\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    )?;
                    continue;
                }
                Some(Fault::CutRequest(share)) => {
                    (&server).write_all(&request.bytes[..part(share, request.bytes.len())])?;
                    break Ok(());
                }
                _ => (&server).write_all(&request.bytes)?,
            }
            let Some(answer) = read(&mut from_server)? else { break Ok(()) };
            match fault {
                Some(Fault::CutAnswer(share)) => {
                    { client }.write_all(&answer.bytes[..part(share, answer.bytes.len())])?;
                    break Ok(());
                }
                Some(Fault::Delay(time)) => std::thread::sleep(time),
                _ => {}
            }
            { client }.write_all(&answer.bytes)?;
        };
        // The other side may be gone already.
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
        outcome
    }
}

fn part(share: f64, bytes: usize) -> usize {
    ((bytes as f64 * share) as usize).min(bytes)
}

/// One message with a length or in chunks; nothing at the end of the connection.
fn read(stream: &mut BufReader<&TcpStream>) -> io::Result<Option<Message>> {
    let mut bytes = Vec::new();
    let (mut length, mut chunked, mut bulk) = (0, false, false);
    loop {
        let start = bytes.len();
        if stream.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&bytes[start..]).to_ascii_lowercase();
        bulk |= start == 0 && line.contains("/_bulk");
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        chunked |= line.starts_with("transfer-encoding: chunked");
        if line == "\r\n" {
            break;
        }
    }
    if chunked {
        loop {
            let start = bytes.len();
            stream.read_until(b'\n', &mut bytes)?;
            let size = String::from_utf8_lossy(&bytes[start..]).trim().to_owned();
            let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
            let end = bytes.len() + size + 2;
            let from = bytes.len();
            bytes.resize(end, 0);
            stream.read_exact(&mut bytes[from..])?;
            if size == 0 {
                break;
            }
        }
    } else {
        let from = bytes.len();
        bytes.resize(from + length, 0);
        stream.read_exact(&mut bytes[from..])?;
    }
    Ok(Some(Message { bytes, bulk }))
}
