//! Messages to bytes and back.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::{Answer, Request};
use crate::{Fault, MAX_MESSAGE};

/// Bytes of the request id in front.
const ID: usize = 8;

fn encode<T: Serialize>(id: u64, body: &T) -> Result<Vec<u8>, Fault> {
    let head = Vec::from(id.to_le_bytes());
    let bytes = postcard::to_extend(body, head).map_err(|_| Fault::TooLong)?;
    if bytes.len() > MAX_MESSAGE { Err(Fault::TooLong) } else { Ok(bytes) }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(u64, T), Fault> {
    if bytes.len() > MAX_MESSAGE {
        return Err(Fault::Malformed);
    }
    let (id, body) = bytes.split_first_chunk::<ID>().ok_or(Fault::Malformed)?;
    let (message, rest) = postcard::take_from_bytes(body).map_err(|_| Fault::Malformed)?;
    if rest.is_empty() { Ok((u64::from_le_bytes(*id), message)) } else { Err(Fault::Malformed) }
}

/// A request as bytes.
///
/// # Errors
/// `TooLong`.
pub fn encode_request(id: u64, request: &Request) -> Result<Vec<u8>, Fault> {
    encode(id, request)
}

/// A request and its id from bytes; its values are not checked.
///
/// # Errors
/// `Malformed`.
pub fn decode_request(bytes: &[u8]) -> Result<(u64, Request), Fault> {
    decode(bytes)
}

/// An answer as bytes.
///
/// # Errors
/// `TooLong`.
pub fn encode_answer(id: u64, answer: &Answer) -> Result<Vec<u8>, Fault> {
    encode(id, answer)
}

/// An answer and its request's id from bytes; its values are not checked.
///
/// # Errors
/// `Malformed`.
pub fn decode_answer(bytes: &[u8]) -> Result<(u64, Answer), Fault> {
    decode(bytes)
}
