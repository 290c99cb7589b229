//! Pipes as saved state, with what waits in them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::buffer::{Buffer, Segment};
use super::{Pipe, PipeEnd, State};
use crate::checkpoint::{Bytes, Id, Object, Refused, Restorer, Saver, Unusable};
use crate::kernel::wait::WaitQueue;
use crate::sync::{Level, Mutex};
use crate::vfs::Attr;

/// [`Pipe`]. Who reads and writes is counted again as the ends are made.
#[derive(Serialize, Deserialize)]
pub struct PipeState {
    bytes: Bytes,
    segments: Vec<(u32, bool)>,
    capacity: u32,
    reader_opens: u64,
    writer_opens: u64,
    attr: Attr,
}

impl Object for Pipe {
    type State = PipeState;

    fn save(self: &Arc<Self>, _saver: &mut Saver) -> Result<PipeState, Refused> {
        let Pipe { state, queue: _, attr } = &**self;
        let state = state.lock();
        let State { buffer, readers: _, writers: _, reader_opens, writer_opens } = &*state;
        let Buffer { bytes, segments, capacity } = buffer;
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(PipeState {
            bytes: Bytes(bytes.iter().copied().collect()),
            segments: segments.iter().map(|Segment { len, packet }| (small(*len), *packet)).collect(),
            capacity: small(*capacity),
            reader_opens: *reader_opens,
            writer_opens: *writer_opens,
            attr: *attr,
        })
    }
}

impl PipeState {
    /// The pipe, without ends.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, _restorer: &mut Restorer) -> Result<Arc<Pipe>, Unusable> {
        let total: u64 = self.segments.iter().map(|(len, _)| u64::from(*len)).sum();
        if total != self.bytes.0.len() as u64 {
            return Err(Unusable::Corrupt("a pipe"));
        }
        let segments = self.segments.into_iter().map(|(len, packet)| Segment { len: len as usize, packet });
        let buffer =
            Buffer { bytes: self.bytes.0.into(), segments: segments.collect(), capacity: self.capacity as usize };
        let (reader_opens, writer_opens) = (self.reader_opens, self.writer_opens);
        let state = State { buffer, readers: 0, writers: 0, reader_opens, writer_opens };
        Ok(Arc::new(Pipe { state: Mutex::new(Level::File, state), queue: WaitQueue::new(), attr: self.attr }))
    }
}

/// [`PipeEnd`].
#[derive(Serialize, Deserialize)]
pub struct PipeEndState {
    pipe: Id<PipeState>,
    read: bool,
    write: bool,
}

impl PipeEnd {
    /// Its state.
    pub fn state(&self, saver: &mut Saver) -> PipeEndState {
        let PipeEnd { pipe, read, write } = self;
        PipeEndState { pipe: saver.pipes.id(pipe), read: *read, write: *write }
    }
}

impl PipeEndState {
    /// The end.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<PipeEnd>, Unusable> {
        let pipe = restorer.pipe(self.pipe)?;
        let end = pipe.end(self.read, self.write);
        let mut state = pipe.state.lock();
        // It was counted when it was opened.
        state.reader_opens = state.reader_opens.saturating_sub(u64::from(self.read));
        state.writer_opens = state.writer_opens.saturating_sub(u64::from(self.write));
        drop(state);
        Ok(Arc::new(end))
    }
}
