//! What waits in a pipe: bytes, with the borders of packets (O_DIRECT writes).

use std::collections::VecDeque;

use abi::Errno;

use crate::vfs::{IoSink, IoSource};

/// A packet is split at this many bytes, and each takes one of the pipe's page-sized slots.
const PAGE: usize = 4096;

/// A stretch of the queue.
pub(super) struct Segment {
    pub(super) len: usize,
    /// Read by itself: what the reader has no room for is dropped.
    pub(super) packet: bool,
}

/// A bounded byte queue. Costs memory only for what waits in it.
pub struct Buffer {
    pub(super) bytes: VecDeque<u8>,
    pub(super) segments: VecDeque<Segment>,
    pub(super) capacity: usize,
}

impl Buffer {
    /// An empty queue for `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Buffer { bytes: VecDeque::new(), segments: VecDeque::new(), capacity }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that still fit; none where packets have used up the slots.
    pub fn room(&self) -> usize {
        if self.segments.len() >= self.capacity / PAGE {
            return 0;
        }
        self.capacity.saturating_sub(self.bytes.len())
    }

    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    fn note(&mut self, len: usize, packet: bool) {
        match self.segments.back_mut() {
            Some(last) if !packet && !last.packet => last.len += len,
            _ => self.segments.push_back(Segment { len, packet }),
        }
    }

    /// Adds bytes, whatever the room: those that were taken from elsewhere and must not be lost.
    pub fn force(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes.extend(bytes);
            self.note(bytes.len(), false);
        }
    }

    /// Puts bytes back that were read.
    pub fn unread(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        bytes.iter().rev().for_each(|b| self.bytes.push_front(*b));
        match self.segments.front_mut() {
            Some(first) if !first.packet => first.len += bytes.len(),
            _ => self.segments.push_front(Segment { len: bytes.len(), packet: false }),
        }
    }

    /// The first `max` bytes, left where they are.
    pub fn peek(&self, max: usize) -> Vec<u8> {
        self.bytes.iter().take(max).copied().collect()
    }

    /// Takes `len` bytes (that fit) from `src`.
    pub fn write(&mut self, src: &mut IoSource<'_>, len: usize, packet: bool) -> Result<usize, Errno> {
        let mut chunk = [0u8; PAGE];
        let mut written = 0;
        while written < len && (!packet || written == 0 || self.room() > 0) {
            let want = (len - written).min(chunk.len());
            match src.take(&mut chunk[..want]) {
                Ok(0) => break,
                Ok(n) => {
                    self.bytes.extend(&chunk[..n]);
                    self.note(n, packet);
                    written += n;
                }
                Err(e) => return if written > 0 { Ok(written) } else { Err(e) },
            }
        }
        Ok(written)
    }

    /// Gives what waits, as far as `dst` holds it, up to the end of a packet.
    pub fn read(&mut self, dst: &mut IoSink<'_>) -> Result<usize, Errno> {
        let mut read = 0;
        while let Some(segment) = self.segments.front_mut().filter(|_| dst.remaining() > 0) {
            let (front, _) = self.bytes.as_slices();
            let n = match dst.put(&front[..front.len().min(segment.len)]) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) => return if read > 0 { Ok(read) } else { Err(e) },
            };
            self.bytes.drain(..n);
            segment.len -= n;
            read += n;
            let packet = segment.packet;
            if packet && dst.remaining() == 0 {
                let rest = segment.len;
                self.bytes.drain(..rest);
                segment.len = 0;
            }
            if segment.len == 0 {
                self.segments.pop_front();
                if packet {
                    break;
                }
            }
        }
        if self.bytes.is_empty() {
            self.bytes.shrink_to(PAGE);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(buffer: &mut Buffer, bytes: &[u8], packet: bool) {
        assert_eq!(buffer.write(&mut IoSource::kernel(bytes), bytes.len(), packet), Ok(bytes.len()));
    }

    fn get(buffer: &mut Buffer, room: usize) -> Vec<u8> {
        let mut out = vec![0u8; room];
        let n = buffer.read(&mut IoSink::kernel(&mut out)).unwrap_or(0);
        out.truncate(n);
        out
    }

    #[test]
    fn packets_keep_their_borders() {
        let mut buffer = Buffer::new(65536);
        put(&mut buffer, b"abc", true);
        put(&mut buffer, b"defg", true);
        assert_eq!(get(&mut buffer, 2), b"ab");
        assert_eq!(get(&mut buffer, 10), b"defg");
        assert!(buffer.is_empty());
    }

    #[test]
    fn streams_and_packets_follow_each_other() {
        let mut buffer = Buffer::new(65536);
        put(&mut buffer, b"abc", false);
        put(&mut buffer, b"pp", true);
        put(&mut buffer, b"xyz", false);
        assert_eq!(get(&mut buffer, 2), b"ab");
        assert_eq!(get(&mut buffer, 10), b"cpp");
        assert_eq!(get(&mut buffer, 10), b"xyz");
    }

    #[test]
    fn packets_use_up_slots() {
        let mut buffer = Buffer::new(2 * PAGE);
        put(&mut buffer, b"a", true);
        assert!(buffer.room() > 0);
        put(&mut buffer, b"b", true);
        assert_eq!(buffer.room(), 0);
    }

    #[test]
    fn a_stream_is_read_in_any_pieces_and_put_back() {
        let mut buffer = Buffer::new(65536);
        put(&mut buffer, b"abc", false);
        put(&mut buffer, b"def", false);
        assert_eq!(get(&mut buffer, 5), b"abcde");
        buffer.unread(b"de");
        assert_eq!(get(&mut buffer, 5), b"def");
        assert!(buffer.is_empty());
    }
}
