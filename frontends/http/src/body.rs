//! The body of a request: read whole, within a size, a time, and the room that is left for all bodies. Bodies of strangers have a room of
//! their own, so that they keep nobody else waiting.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::web::Payload;
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_runtime::Gate;
use keymill_runtime::gate::Buffered;

/// Large bodies of strangers that are read at once, at most.
const STRANGERS: usize = 64;

/// Whose body it is, and so what room it takes.
#[derive(Clone, Copy)]
pub(crate) enum Whose<'a> {
    /// Of somebody who has signed: of the room that all have.
    Known(&'a Gate),
    /// Of whoever sends it: its signature covers the body.
    Stranger(&'a Strangers),
}

/// Large bodies of strangers that are being read.
#[derive(Clone, Default)]
pub(crate) struct Strangers(Arc<AtomicUsize>);

/// Room that a body takes; it is given back when it is dropped.
pub(crate) enum Room {
    /// Of that which all have.
    Shared { _bytes: Buffered },
    /// Of that which strangers have.
    Stranger(Strangers),
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Room::Stranger(strangers) = self {
            strangers.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Bodies up to here take no room from the others: connections bound their number.
const SMALL_BYTES: usize = 64 * 1024;

/// How large a body may be.
#[derive(Clone, Copy)]
pub(crate) struct Announced {
    limit: usize,
    /// What `content-length` says; of chunks nobody knows.
    length: Option<usize>,
}

impl Announced {
    /// Reads the length that a request announces.
    ///
    /// # Errors
    /// `BodyTooLarge` where it exceeds `limit`.
    pub(crate) fn of(request: &HttpRequest, limit: usize) -> Result<Self> {
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        // What does not fit a number is more than any limit; actix has refused what is none.
        let length = length.map(|length| length.trim().parse().unwrap_or(usize::MAX));
        if length.is_some_and(|length| length > limit) {
            return Err(too_large(limit));
        }
        Ok(Self { limit, length })
    }

    /// Reads the body. The room that it took is given back with the second value.
    ///
    /// # Errors
    /// `BodyTooLarge`, `Deadline`, `Busy`, or `MalformedRequest` for broken chunks.
    pub(crate) async fn read(
        self,
        whose: Whose<'_>,
        payload: &mut Payload,
        timeout: Duration,
    ) -> Result<(Bytes, Option<Room>)> {
        match tokio::time::timeout(timeout, self.gather(whose, payload)).await {
            Ok(read) => read,
            Err(_) => Err(Error::new(
                ErrorKind::Deadline,
                format!("the body did not come within {} ms", timeout.as_millis()),
            )),
        }
    }

    async fn gather(self, whose: Whose<'_>, payload: &mut Payload) -> Result<(Bytes, Option<Room>)> {
        let mut room = match self.length {
            Some(length) if length > SMALL_BYTES => Some(take_room(whose, length)?),
            _ => None,
        };
        let Some(first) = next(payload).await? else { return Ok((Bytes::new(), room)) };
        // Most bodies come in one piece, and stay where they were read.
        let Some(second) = next(payload).await? else {
            return if first.len() > self.limit { Err(too_large(self.limit)) } else { Ok((first, room)) };
        };
        let mut body = BytesMut::with_capacity(self.length.unwrap_or(0).max(first.len() + second.len()));
        body.extend_from_slice(&first);
        let mut chunk = Some(second);
        while let Some(more) = chunk {
            if body.len() + more.len() > self.limit {
                return Err(too_large(self.limit));
            }
            if room.is_none() && body.len() + more.len() > SMALL_BYTES {
                room = Some(take_room(whose, self.limit)?);
            }
            body.extend_from_slice(&more);
            chunk = next(payload).await?;
        }
        Ok((body.freeze(), room))
    }
}

/// Takes room for a body and for its answer, which is about as large.
fn take_room(whose: Whose<'_>, bytes: usize) -> Result<Room> {
    let room = match whose {
        Whose::Known(gate) => gate.buffer(2 * bytes).map(|bytes| Room::Shared { _bytes: bytes }),
        Whose::Stranger(strangers) => {
            let taken = strangers.0.try_update(Ordering::Relaxed, Ordering::Relaxed, |reading| {
                (reading < STRANGERS).then_some(reading + 1)
            });
            taken.ok().map(|_| Room::Stranger(strangers.clone()))
        }
    };
    room.ok_or_else(|| {
        Error::new(ErrorKind::Busy, "requests and answers fill the room that there is for them")
            .retry_after_ms(100)
    })
}

async fn next(payload: &mut Payload) -> Result<Option<Bytes>> {
    let chunk = std::future::poll_fn(|cx| Pin::new(&mut *payload).poll_next(cx)).await;
    chunk.transpose().map_err(|error| match error {
        PayloadError::Incomplete(_) | PayloadError::Io(_) => {
            Error::new(ErrorKind::Cancelled, "the connection ended within the body")
        }
        _ => Error::new(ErrorKind::MalformedRequest, "the body is not framed as its headers say"),
    })
}

fn too_large(limit: usize) -> Error {
    Error::new(ErrorKind::BodyTooLarge, format!("the body exceeds the limit of {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_have_so_many_places_and_give_them_back() {
        let strangers = Strangers::default();
        let take = || take_room(Whose::Stranger(&strangers), 100_000);
        let rooms: Vec<_> = (0..STRANGERS).map(|_| take().unwrap()).collect();
        assert_eq!(take().err().unwrap().kind(), ErrorKind::Busy);
        drop(rooms);
        assert!(take().is_ok());
    }
}
