//! Netlink messages as bytes.

use abi::Errno;

/// Bytes of `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// `NLM_F_REQUEST`.
pub const F_REQUEST: u16 = 1;
/// `NLM_F_MULTI`.
pub const F_MULTI: u16 = 2;
/// `NLM_F_ACK`.
pub const F_ACK: u16 = 4;
/// `NLM_F_DUMP` (`NLM_F_ROOT | NLM_F_MATCH`).
pub const F_DUMP: u16 = 0x300;
/// `NLMSG_ERROR`.
pub const ERROR: u16 = 2;
/// `NLMSG_DONE`.
pub const DONE: u16 = 3;
/// The first type that is not control.
pub const MIN_TYPE: u16 = 0x10;

/// A parsed request.
pub struct Request<'a> {
    /// Type.
    pub kind: u16,
    /// NLM_F_*.
    pub flags: u16,
    /// Sequence number, given back.
    pub seq: u32,
    /// What follows the header.
    pub body: &'a [u8],
    header: [u8; HEADER],
}

/// Splits a datagram into requests; what is cut off ends it, as in `netlink_rcv_skb`.
pub fn requests(mut raw: &[u8]) -> Vec<Request<'_>> {
    let mut out = Vec::new();
    while let Some(header) = raw.get(..HEADER).and_then(|h| <[u8; HEADER]>::try_from(h).ok()) {
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let len = usize::try_from(word(0)).unwrap_or(usize::MAX);
        let Some(body) = raw.get(HEADER..len) else { break };
        out.push(Request { kind: half(4), flags: half(6), seq: word(8), body, header });
        raw = raw.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    out
}

/// A message being built.
pub struct Message(Vec<u8>);

impl Message {
    /// A header and its type's own fixed part.
    pub fn new(kind: u16, flags: u16, seq: u32, port: u32, fixed: &[u8]) -> Self {
        let mut raw = vec![0u8; 4];
        raw.extend_from_slice(&kind.to_le_bytes());
        raw.extend_from_slice(&flags.to_le_bytes());
        raw.extend_from_slice(&seq.to_le_bytes());
        raw.extend_from_slice(&port.to_le_bytes());
        raw.extend_from_slice(fixed);
        Message(raw)
    }

    /// Adds an attribute (`struct rtattr`).
    pub fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&len.to_le_bytes());
        self.0.extend_from_slice(&kind.to_le_bytes());
        self.0.extend_from_slice(value);
        self
    }

    /// The bytes, padded, with their length filled in.
    pub fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&len.to_le_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.0
    }
}

/// `NLMSG_ERROR`: the answer to `request`; no error is an acknowledgement.
pub fn error(request: &Request<'_>, port: u32, errno: Option<Errno>) -> Vec<u8> {
    let code = errno.map_or(0, |e| -e.raw());
    let mut fixed = code.to_le_bytes().to_vec();
    fixed.extend_from_slice(&request.header);
    if errno.is_some() {
        fixed.extend_from_slice(request.body);
    }
    Message::new(ERROR, 0, request.seq, port, &fixed).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_split_and_bad_lengths_end_them() {
        let one = Message::new(18, F_REQUEST, 7, 0, &[0; 16]).finish();
        let two = [one.clone(), one.clone()].concat();
        assert_eq!(requests(&two).iter().map(|r| (r.kind, r.seq, r.body.len())).collect::<Vec<_>>(), [(18, 7, 16); 2]);
        assert_eq!(requests(&two[..one.len() + 3]).len(), 1);
        let mut bad = one.clone();
        bad[0] = 3;
        assert!(requests(&bad).is_empty());
        bad[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(requests(&bad).is_empty());
    }
}
