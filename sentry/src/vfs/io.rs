//! Where bytes of a read go and where those of a write come from: guest vectors or a kernel buffer.
//!
//! A vector is parsed once ([`IoCursor`]) and remembers its progress, so that an Op continues where it stopped.

use std::sync::Arc;

use abi::{Errno, UserAddr};
use memory::Frame;

use crate::kernel::io_pool::Fetch;
use crate::mm::Mm;

/// Most bytes that one read or write moves (`MAX_RW_COUNT`, `include/linux/fs.h`).
pub const MAX_RW_COUNT: usize = 0x7fff_f000;
/// Most vectors of one call (`UIO_MAXIOV`).
pub const IOV_MAX: usize = 1024;

/// A parsed vector of guest buffers and how far it has been used.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct IoCursor {
    parts: Vec<(UserAddr, usize)>,
    index: usize,
    within: usize,
    done: usize,
    total: usize,
}

impl IoCursor {
    /// One buffer.
    ///
    /// # Errors
    /// `EINVAL` for a length that is negative as ssize_t.
    pub fn single(addr: UserAddr, len: usize) -> Result<Self, Errno> {
        Self::new(vec![(addr, len)])
    }

    /// A vector, limited to [`MAX_RW_COUNT`] bytes in all as `import_iovec` does.
    ///
    /// # Errors
    /// `EINVAL` for a length that is negative as ssize_t.
    pub fn new(mut parts: Vec<(UserAddr, usize)>) -> Result<Self, Errno> {
        let mut total = 0usize;
        for (_, len) in &mut parts {
            if isize::try_from(*len).is_err() {
                return Err(Errno::EINVAL);
            }
            *len = (*len).min(MAX_RW_COUNT - total);
            total += *len;
        }
        Ok(IoCursor { parts, index: 0, within: 0, done: 0, total })
    }

    /// Parses a guest's `struct iovec` array, once.
    ///
    /// # Errors
    /// `EINVAL` for more than [`IOV_MAX`] entries or a negative length; `EFAULT`.
    pub fn from_guest(mm: &Mm, iov: UserAddr, count: usize) -> Result<Self, Errno> {
        if count > IOV_MAX {
            return Err(Errno::EINVAL);
        }
        let mut raw = vec![[0u64; 2]; count];
        mm.read_bytes(iov, zerocopy::IntoBytes::as_mut_bytes(raw.as_mut_slice()))?;
        let part = |[base, len]: [u64; 2]| usize::try_from(len).map(|len| (UserAddr(base), len));
        Self::new(raw.into_iter().map(part).collect::<Result<_, _>>().map_err(|_| Errno::EINVAL)?)
    }

    /// One that came from a snapshot, where its numbers agree.
    #[must_use]
    pub fn checked(self) -> Option<Self> {
        let sum = self.parts.iter().try_fold(0usize, |sum, (_, len)| sum.checked_add(*len))?;
        let inside = self.parts.get(self.index).map_or(self.within == 0, |(_, len)| self.within <= *len);
        let good = sum == self.total && self.total <= MAX_RW_COUNT && self.done <= self.total && inside;
        (good && self.parts.len() <= IOV_MAX && self.index <= self.parts.len()).then_some(self)
    }

    /// Bytes moved so far.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done
    }

    /// Bytes left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.total - self.done
    }

    /// The next contiguous piece, at most `max` bytes: where it lies.
    #[must_use]
    pub fn peek(&mut self, max: usize) -> Option<(UserAddr, usize)> {
        loop {
            let (addr, len) = *self.parts.get(self.index)?;
            if self.within < len {
                let at = addr.0.wrapping_add(self.within as u64);
                return Some((UserAddr(at), (len - self.within).min(max)));
            }
            self.index += 1;
            self.within = 0;
        }
    }

    /// Passes over `n` bytes, across pieces.
    pub fn skip(&mut self, mut n: usize) {
        while let Some((_, len)) = self.peek(n).filter(|_| n > 0) {
            self.advance(len);
            n -= len;
        }
    }

    /// Notes that `n` bytes of the current piece were moved.
    pub fn advance(&mut self, n: usize) {
        self.within += n;
        self.done += n;
    }
}

enum End<'a> {
    Guest { mm: &'a Mm, cursor: &'a mut IoCursor },
    Write { buf: &'a mut [u8], done: usize },
    Read { buf: &'a [u8], done: usize },
}

/// Whether a read may leave content that is not in memory yet for later.
enum Later {
    No,
    Yes,
    /// It has, and this is on its way.
    Fetching(Arc<Fetch>),
}

/// The destination of a read.
pub struct IoSink<'a> {
    end: End<'a>,
    later: Later,
    /// Bytes that may still be put.
    left: usize,
}

impl<'a> IoSink<'a> {
    /// Guest memory.
    pub fn guest(mm: &'a Mm, cursor: &'a mut IoCursor) -> Self {
        IoSink { end: End::Guest { mm, cursor }, later: Later::No, left: usize::MAX }
    }

    /// The same for a reader that comes again when the content is there ([`IoSink::fetching`]).
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.later = Later::Yes;
        self
    }

    /// Whether the reader would come again.
    #[must_use]
    pub fn is_patient(&self) -> bool {
        matches!(self.later, Later::Yes)
    }

    /// Tells a patient reader what to wait for.
    pub fn set_fetching(&mut self, fetch: Arc<Fetch>) {
        self.later = Later::Fetching(fetch);
    }

    /// What the reader is to wait for, where not all that it wanted was there.
    #[must_use]
    pub fn fetching(self) -> Option<Arc<Fetch>> {
        match self.later {
            Later::Fetching(fetch) => Some(fetch),
            Later::No | Later::Yes => None,
        }
    }

    /// A buffer of ours.
    pub fn kernel(buf: &'a mut [u8]) -> Self {
        IoSink { end: End::Write { buf, done: 0 }, later: Later::No, left: usize::MAX }
    }

    /// Takes no more than `room` bytes.
    #[must_use]
    pub fn with_room(mut self, room: usize) -> Self {
        self.left = room;
        self
    }

    /// Bytes that still fit.
    #[must_use]
    pub fn remaining(&self) -> usize {
        let all = match &self.end {
            End::Guest { cursor, .. } => cursor.remaining(),
            End::Write { buf, done } => buf.len() - done,
            End::Read { .. } => 0,
        };
        all.min(self.left)
    }

    /// Bytes put so far (for a guest vector: over its whole life).
    #[must_use]
    pub fn done(&self) -> usize {
        match &self.end {
            End::Guest { cursor, .. } => cursor.done(),
            End::Write { done, .. } | End::Read { done, .. } => *done,
        }
    }

    /// Puts as much of `src` as fits; answers how much.
    ///
    /// # Errors
    /// `EFAULT` where not even one byte could be stored.
    pub fn put(&mut self, src: &[u8]) -> Result<usize, Errno> {
        let mut put = 0;
        let src = &src[..src.len().min(self.left)];
        while put < src.len() {
            let n = match &mut self.end {
                End::Guest { mm, cursor } => {
                    let Some((addr, n)) = cursor.peek(src.len() - put) else { break };
                    if let Err(e) = mm.write_bytes(addr, &src[put..put + n]) {
                        return if put > 0 { Ok(put) } else { Err(e) };
                    }
                    cursor.advance(n);
                    self.left -= n;
                    n
                }
                End::Write { buf, done } => {
                    let n = (src.len() - put).min(buf.len() - *done);
                    if n == 0 {
                        break;
                    }
                    buf[*done..*done + n].copy_from_slice(&src[put..put + n]);
                    *done += n;
                    self.left -= n;
                    n
                }
                End::Read { .. } => break,
            };
            put += n;
        }
        Ok(put)
    }

    /// Puts `len` bytes of a frame file.
    ///
    /// # Errors
    /// `EFAULT` where not even one byte could be stored; `EIO` where the frame is gone.
    pub fn put_frame(&mut self, frame: &Frame, len: usize) -> Result<usize, Errno> {
        let mut chunk = [0u8; 4096];
        let mut put = 0;
        while put < len && self.remaining() > 0 {
            let n = (len - put).min(chunk.len()).min(self.remaining());
            let at = frame.offset.checked_add(put as u64).ok_or(Errno::EIO)?;
            frame.file.read(at, &mut chunk[..n]).map_err(|_| Errno::EIO)?;
            match self.put(&chunk[..n]) {
                Ok(0) => break,
                Ok(done) => put += done,
                Err(e) => return if put > 0 { Ok(put) } else { Err(e) },
            }
        }
        Ok(put)
    }

    /// Lets `f` put bytes straight into guest memory, where that is what this is: it gets a frame and how many bytes it
    /// may put there, at most `max`, and answers how many it did (`None`: none for now). `Ok(None)` where there is no
    /// such place.
    ///
    /// # Errors
    /// `EFAULT`; what `f` answers.
    pub fn put_with(
        &mut self,
        max: usize,
        f: impl FnMut(&Frame, usize) -> Result<Option<usize>, Errno>,
    ) -> Result<Option<Option<usize>>, Errno> {
        let End::Guest { mm, cursor } = &mut self.end else { return Ok(None) };
        let Some((addr, n)) = cursor.peek(max) else { return Ok(None) };
        let put = mm.fill_with(addr, n, f)?;
        if let Some(put) = put {
            cursor.advance(put.min(n));
        }
        Ok(Some(put))
    }

    /// Puts `len` zero bytes.
    ///
    /// # Errors
    /// As [`IoSink::put`].
    pub fn put_zeros(&mut self, len: usize) -> Result<usize, Errno> {
        static ZEROS: [u8; 4096] = [0; 4096];
        let mut put = 0;
        while put < len {
            match self.put(&ZEROS[..(len - put).min(ZEROS.len())]) {
                Ok(0) => break,
                Ok(n) => put += n,
                Err(e) => return if put > 0 { Ok(put) } else { Err(e) },
            }
        }
        Ok(put)
    }
}

/// The source of a write.
pub struct IoSource<'a> {
    end: End<'a>,
    /// Bytes that may still be taken.
    left: usize,
    /// RLIMIT_FSIZE of who writes.
    file_limit: u64,
}

impl<'a> IoSource<'a> {
    /// Guest memory.
    pub fn guest(mm: &'a Mm, cursor: &'a mut IoCursor) -> Self {
        IoSource { end: End::Guest { mm, cursor }, left: usize::MAX, file_limit: u64::MAX }
    }

    /// A buffer of ours.
    #[must_use]
    pub fn kernel(buf: &'a [u8]) -> Self {
        IoSource { end: End::Read { buf, done: 0 }, left: usize::MAX, file_limit: u64::MAX }
    }

    /// The same, for a writer whose files must not become longer than `limit` bytes.
    #[must_use]
    pub fn with_file_limit(mut self, limit: u64) -> Self {
        self.file_limit = limit;
        self
    }

    /// Leaves out what would go past the writer's limit on file sizes when written at `at` of a regular file.
    ///
    /// # Errors
    /// `EFBIG` where nothing is left.
    pub fn restrict_at(&mut self, at: u64) -> Result<(), Errno> {
        match self.file_limit.checked_sub(at) {
            Some(room) if room > 0 => {
                self.left = self.left.min(usize::try_from(room).unwrap_or(usize::MAX));
                Ok(())
            }
            _ => Err(Errno::EFBIG),
        }
    }

    /// Leaves out all but `room` bytes.
    pub fn restrict(&mut self, room: u64) {
        self.left = self.left.min(usize::try_from(room).unwrap_or(usize::MAX));
    }

    /// Bytes left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        let all = match &self.end {
            End::Guest { cursor, .. } => cursor.remaining(),
            End::Read { buf, done } => buf.len() - done,
            End::Write { .. } => 0,
        };
        all.min(self.left)
    }

    /// As [`IoSource::take`], but leaves the bytes in the source: for writers that must look before they consume.
    ///
    /// # Errors
    /// As [`IoSource::take`].
    pub fn peek(&mut self, dst: &mut [u8]) -> Result<usize, Errno> {
        match &mut self.end {
            End::Guest { mm, cursor } => {
                let mut ahead = cursor.clone();
                IoSource::guest(mm, &mut ahead).take(dst)
            }
            End::Read { buf, done } => IoSource::kernel(&buf[*done..]).take(dst),
            End::Write { .. } => Ok(0),
        }
    }

    /// Consumes `n` bytes that [`IoSource::peek`] has shown.
    pub fn skip(&mut self, n: usize) {
        self.left = self.left.saturating_sub(n);
        match &mut self.end {
            End::Guest { cursor, .. } => cursor.skip(n),
            End::Read { buf, done } => *done = (*done + n).min(buf.len()),
            End::Write { .. } => {}
        }
    }

    /// Takes as many bytes as there are and `dst` holds; answers how many.
    ///
    /// # Errors
    /// `EFAULT` where not even one byte could be loaded.
    pub fn take(&mut self, dst: &mut [u8]) -> Result<usize, Errno> {
        let mut taken = 0;
        let room = dst.len().min(self.left);
        let dst = &mut dst[..room];
        while taken < dst.len() {
            let n = match &mut self.end {
                End::Guest { mm, cursor } => {
                    let Some((addr, n)) = cursor.peek(dst.len() - taken) else { break };
                    if let Err(e) = mm.read_data(addr, &mut dst[taken..taken + n]) {
                        return if taken > 0 { Ok(taken) } else { Err(e) };
                    }
                    cursor.advance(n);
                    self.left -= n;
                    n
                }
                End::Read { buf, done } => {
                    let n = (dst.len() - taken).min(buf.len() - *done);
                    if n == 0 {
                        break;
                    }
                    dst[taken..taken + n].copy_from_slice(&buf[*done..*done + n]);
                    *done += n;
                    self.left -= n;
                    n
                }
                End::Write { .. } => break,
            };
            taken += n;
        }
        Ok(taken)
    }
}
