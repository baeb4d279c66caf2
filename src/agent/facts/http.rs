//! As much HTTP as a metadata service on the machine's own link needs: one request a connection, no redirects, no
//! proxies, bounded in time and bytes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longest answer, header included.
const MAX_ANSWER_BYTES: u64 = 256 << 10;
/// Time to connect; the service is one hop away.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// Time for a whole request.
const REQUEST_TIME: Duration = Duration::from_secs(3);

/// Sends one request and returns the body of a 200.
pub(super) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<String> {
    let deadline = Instant::now() + REQUEST_TIME;
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIME)?;
    stream.set_write_timeout(Some(CONNECT_TIME))?;
    let mut text = format!("{method} {path} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\n", address.ip());
    for (name, value) in headers {
        text.extend([name, ": ", value, "\r\n"]);
    }
    text += "Content-Length: 0\r\n\r\n";
    stream.write_all(text.as_bytes())?;
    body(&read(stream, deadline)?)
}

fn read(mut stream: TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        // A service that sends a byte now and then does not hold us longer than one that sends none.
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let bytes = stream.read(&mut part)?;
        if bytes == 0 {
            return Ok(answer);
        }
        answer.extend_from_slice(&part[..bytes]);
        if answer.len() as u64 > MAX_ANSWER_BYTES {
            return Err(invalid(format!("answer of more than {MAX_ANSWER_BYTES} bytes")));
        }
        if is_whole(&answer) {
            return Ok(answer);
        }
    }
}

/// Whether all bytes that the header announces are there. Some services leave the connection open.
fn is_whole(answer: &[u8]) -> bool {
    let Some((head, body)) = split(answer) else { return false };
    let length = header(head, "content-length").and_then(|text| text.parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}

fn body(answer: &[u8]) -> io::Result<String> {
    let (head, body) = split(answer).ok_or_else(|| invalid("answer without a header".into()))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        return Err(invalid(format!(
            "expected status 200, found {}",
            head.lines().next().unwrap_or_default()
        )));
    }
    let length = header(head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(body.len());
    let body = body.get(..length).ok_or_else(|| invalid("answer was cut".into()))?;
    String::from_utf8(body.to_vec()).map_err(|_| invalid("answer is no text".into()))
}

fn split(answer: &[u8]) -> Option<(&str, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some((std::str::from_utf8(&answer[..end]).ok()?, &answer[end + 4..]))
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_whole_or_refused() {
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc").unwrap(), "ab");
        assert_eq!(body(b"HTTP/1.1 200 OK\r\n\r\nabc").unwrap(), "abc");
        for answer in [
            &b"HTTP/1.1 404 Not Found\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\n\r\n\xff",
            b"HTTP/1.1 200 OK\r\n",
            b"",
        ] {
            assert!(body(answer).is_err(), "{answer:?}");
        }
        assert!(is_whole(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc"));
    }
}
