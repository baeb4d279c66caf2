//! Bodies of requests, gathered byte by byte within their room and their time.
//!
//! gRPC frames are read here and not by tonic, because tonic holds a message before anybody can ask how large it is.

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body::Body;
use http_body_util::BodyExt as _;

use super::export::{Refusal, Room};
use super::limits::MAX_MESSAGE_BYTES;

/// Room taken first; doubled from there.
const FIRST: usize = 16 << 10;
/// Flag and length in front of a gRPC message.
const PREFIX: usize = 5;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A gRPC message and whether its flag says that it is packed.
pub(super) struct Framed {
    pub(super) message: Bytes,
    pub(super) packed: bool,
}

/// Gathers a whole body.
pub(super) async fn whole<B>(body: B, room: &mut impl Room, time: Duration) -> Result<Bytes, Refusal>
where
    B: Body + Send,
    B::Error: Into<BoxError>,
{
    in_time(time, gather(body, room, |held| (held.len() > MAX_MESSAGE_BYTES).then(too_large)))
        .await
        .map(Bytes::from)
}

/// Gathers the message of a gRPC request. What follows it is left unread.
pub(super) async fn framed<B>(body: B, room: &mut impl Room, time: Duration) -> Result<Framed, Refusal>
where
    B: Body + Send,
    B::Error: Into<BoxError>,
{
    let check = |held: &[u8]| (announced(held)? > MAX_MESSAGE_BYTES).then(too_large);
    let bytes = in_time(time, gather(body, room, check)).await?;
    if bytes.is_empty() {
        return Err(Refusal::Malformed("body: expected a message, found nothing".into()));
    }
    let found = bytes.len().saturating_sub(PREFIX);
    match announced(&bytes) {
        Some(expected) if expected <= found => {
            let packed = bytes[0] & 1 == 1;
            let mut message = Bytes::from(bytes);
            message.advance(PREFIX);
            message.truncate(expected);
            Ok(Framed { message, packed })
        }
        Some(expected) => {
            Err(Refusal::Malformed(format!("body: expected a message of {expected} bytes, found {found}")))
        }
        None => {
            Err(Refusal::Malformed(format!("body: expected {PREFIX} bytes before a message, found fewer")))
        }
    }
}

/// Length that the prefix announces, once it has arrived.
fn announced(held: &[u8]) -> Option<usize> {
    let length: [u8; 4] = held.get(1..PREFIX)?.try_into().ok()?;
    Some(u32::from_be_bytes(length) as usize)
}

fn too_large() -> Refusal {
    Refusal::TooLarge(format!("body: expected at most {MAX_MESSAGE_BYTES} bytes, found more"))
}

async fn in_time<T>(time: Duration, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    match tokio::time::timeout(time, work).await {
        Ok(done) => done,
        Err(_) => Err(Refusal::Late(format!("expected the whole message within {time:?}"))),
    }
}

/// Holds what arrives until the end of the body; `refuse` sees what is held after each part.
async fn gather<B>(
    body: B,
    room: &mut impl Room,
    refuse: impl Fn(&[u8]) -> Option<Refusal>,
) -> Result<Vec<u8>, Refusal>
where
    B: Body + Send,
    B::Error: Into<BoxError>,
{
    let mut body = std::pin::pin!(body);
    let mut held: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::Cut(error.into().to_string()))?;
        let Ok(mut data) = frame.into_data() else { continue };
        let needed = data.remaining().saturating_sub(held.capacity() - held.len());
        if needed > 0 {
            let more = needed.max(held.capacity().clamp(FIRST, MAX_MESSAGE_BYTES / 4));
            room.grow(more)?;
            held.reserve_exact(more);
        }
        while data.has_remaining() {
            let part = data.chunk();
            held.extend_from_slice(part);
            let taken = part.len();
            data.advance(taken);
        }
        if let Some(refusal) = refuse(&held) {
            return Err(refusal);
        }
        if held.len() > MAX_MESSAGE_BYTES + PREFIX {
            return Err(too_large());
        }
    }
    Ok(held)
}
