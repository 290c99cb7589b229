//! What waits in a pipe: bytes, with the borders of packets (O_DIRECT writes).

use std::collections::VecDeque;

use abi::Errno;

use crate::vfs::{IoSink, IoSource};

/// A bounded byte queue. Costs memory only for what waits in it.
pub struct Buffer {
    bytes: VecDeque<u8>,
    /// Lengths of packets at the front of `bytes`, where there are any; 0-free. Bytes written without O_DIRECT make
    /// one open packet per write only when packets are in use.
    packets: VecDeque<usize>,
    capacity: usize,
}

impl Buffer {
    /// An empty queue for `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Buffer { bytes: VecDeque::new(), packets: VecDeque::new(), capacity }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.bytes.len())
    }

    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// Takes `len` bytes (that fit) from `src`.
    pub fn write(&mut self, src: &mut IoSource<'_>, len: usize, packet: bool) -> Result<usize, Errno> {
        let mut chunk = [0u8; 4096];
        let mut written = 0;
        while written < len {
            let want = (len - written).min(chunk.len());
            match src.take(&mut chunk[..want]) {
                Ok(0) => break,
                Ok(n) => {
                    self.bytes.extend(&chunk[..n]);
                    if packet || !self.packets.is_empty() {
                        self.packets.push_back(n);
                    }
                    written += n;
                }
                Err(e) => return if written > 0 { Ok(written) } else { Err(e) },
            }
        }
        Ok(written)
    }

    /// Gives what waits, as far as `dst` holds it: of packets exactly one, whose rest is dropped.
    pub fn read(&mut self, dst: &mut IoSink<'_>) -> Result<usize, Errno> {
        let limit = self.packets.front().copied().unwrap_or(self.bytes.len());
        let mut read = 0;
        while read < limit {
            let (front, _) = self.bytes.as_slices();
            let n = front.len().min(limit - read);
            match dst.put(&front[..n]) {
                Ok(0) => break,
                Ok(n) => {
                    self.bytes.drain(..n);
                    read += n;
                }
                Err(e) => return if read > 0 { Ok(read) } else { Err(e) },
            }
        }
        if self.packets.pop_front().is_some() {
            self.bytes.drain(..limit - read);
        }
        if self.bytes.is_empty() {
            self.bytes.shrink_to(4096);
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

    #[test]
    fn packets_keep_their_borders() {
        let mut buffer = Buffer::new(100);
        put(&mut buffer, b"abc", true);
        put(&mut buffer, b"defg", true);
        let mut out = [0u8; 2];
        assert_eq!(buffer.read(&mut IoSink::kernel(&mut out)), Ok(2));
        let mut out = [0u8; 10];
        assert_eq!(buffer.read(&mut IoSink::kernel(&mut out)), Ok(4));
        assert_eq!(&out[..4], b"defg");
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_stream_is_read_in_any_pieces() {
        let mut buffer = Buffer::new(100);
        put(&mut buffer, b"abc", false);
        put(&mut buffer, b"def", false);
        let mut out = [0u8; 5];
        assert_eq!(buffer.read(&mut IoSink::kernel(&mut out)), Ok(5));
        assert_eq!(&out, b"abcde");
        assert_eq!(buffer.len(), 1);
    }
}
