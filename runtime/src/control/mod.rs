//! What the command line and the sandbox process say to each other, over one pair of message sockets.
//!
//! Before boot: [`Go`], then the sandbox's [`config`](crate::sandbox::config) with the descriptors. After boot: [`wire`]
//! messages of fixed size, which the sentry's event loop reads without a parser.

pub mod client;
pub mod protocol;
pub mod wire;

use std::os::fd::{BorrowedFd, OwnedFd};

use hostsys::SeqPacket;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, Result};

/// First message: the new process has its identity; it may go on to its exec.
pub const GO: &[u8] = b"go";

/// Largest configuration accepted: arguments and environment (Linux allows 2 MiB of them) with JSON's escapes.
const MAX_CONFIG: usize = 16 << 20;

/// Sends `value` as JSON with `fds`: a header with the length and the descriptors, then pieces.
///
/// # Errors
/// The other end is gone.
pub fn send_config<T: Serialize>(socket: &SeqPacket, value: &T, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let doing = |e| Failure::host("handing over the configuration", e);
    let json = serde_json::to_vec(value).map_err(|e| Failure::runtime(format!("encoding the configuration: {e}")))?;
    if json.len() > MAX_CONFIG {
        return Err(Failure::runtime("arguments and environment are longer than 16 MiB; pass them in a file"));
    }
    socket.send(&(json.len() as u64).to_le_bytes(), fds).map_err(doing)?;
    json.chunks(hostsys::seqpacket::MAX_MESSAGE).try_for_each(|piece| socket.send(piece, &[])).map_err(doing)
}

/// Receives what [`send_config`] sent.
///
/// # Errors
/// The other end is gone, or speaks another version.
pub fn receive_config<T: DeserializeOwned>(socket: &SeqPacket) -> Result<(T, Vec<OwnedFd>)> {
    let doing = |e| Failure::host("taking over the configuration", e);
    let gone = || Failure::runtime("the command line ended before the sandbox was configured");
    let header = socket.receive().map_err(doing)?;
    let len = header.bytes.as_slice().try_into().map(u64::from_le_bytes).map_err(|_| gone())?;
    let len = usize::try_from(len).ok().filter(|&n| n <= MAX_CONFIG).ok_or_else(gone)?;
    let mut json = Vec::with_capacity(len);
    while json.len() < len {
        let piece = socket.receive().map_err(doing)?;
        if piece.is_eof() {
            return Err(gone());
        }
        json.extend_from_slice(&piece.bytes);
    }
    let value = serde_json::from_slice(&json)
        .map_err(|e| Failure::runtime(format!("the configuration does not fit this version of nanovisor: {e}")))?;
    Ok((value, header.fds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_configuration_crosses_in_pieces() {
        let (a, b) = SeqPacket::pair().unwrap();
        let words: Vec<String> = (0..30_000).map(|n| format!("argument {n}")).collect();
        let expected = words.clone();
        let sender = std::thread::spawn(move || send_config(&a, &words, &[]));
        let (got, fds): (Vec<String>, _) = receive_config(&b).unwrap();
        sender.join().unwrap().unwrap();
        assert_eq!(got, expected);
        assert!(fds.is_empty());
    }

    #[test]
    fn an_early_end_is_an_error() {
        let (a, b) = SeqPacket::pair().unwrap();
        drop(a);
        assert!(receive_config::<String>(&b).is_err());
    }
}
