//! Memory objects as saved state, and the layer of frames that a restored one still has in its snapshot.
//!
//! A frame of that layer is copied once, when somebody stores to the object there; then all who map it are told.

use std::sync::Arc;

use abi::{AddrRange, Errno};
use memory::{Frame, FrameFile, RangeMap};
use serde::{Deserialize, Serialize};

use super::{MAX_SIZE, MemoryObject, NEXT_KEY, SHMEM_DEV, State};
use crate::checkpoint::pages::PageRun;
use crate::checkpoint::{Object, Refused, Restorer, Saver, Unusable};
use crate::mm::extents::Place;
use crate::mm::saved::raise;
use crate::vfs::InodeKey;

/// Frames of a snapshot behind an object's offsets.
#[derive(Default)]
pub(super) struct Layer {
    file: Option<Arc<FrameFile>>,
    pub(super) map: RangeMap<Place>,
}

impl Layer {
    /// The first part of `range` that lies in the snapshot, and its frame, if it begins `range`.
    pub(super) fn at(&self, range: AddrRange) -> Option<(AddrRange, Frame)> {
        let (r, place) = self.map.get(range.start)?;
        let offset = place.0 + (range.start - r.start);
        let file = self.file.clone()?;
        Some((r.intersect(&range), Frame { file, offset }))
    }

    /// All frames of `range`.
    pub(super) fn frames(&self, range: AddrRange) -> Vec<(AddrRange, Frame)> {
        let Some(file) = &self.file else { return Vec::new() };
        let frame = |(r, place): (AddrRange, &Place)| {
            let part = r.intersect(&range);
            (part, Frame { file: file.clone(), offset: place.0 + (part.start - r.start) })
        };
        self.map.overlapping(range).map(frame).collect()
    }

    /// Copies the frames behind `range`, all of which lie here, to `offset` of the memory file; they are the object's own
    /// from then on.
    pub(super) fn copy(&mut self, object: &MemoryObject, range: AddrRange, offset: u64) -> Result<(), Errno> {
        for (part, from) in self.frames(range) {
            let len = usize::try_from(part.len()).map_err(|_| Errno::ENOMEM)?;
            let to = offset + (part.start - range.start);
            object.memory.file().copy_from(to, &from.file, from.offset, len).map_err(|_| Errno::EIO)?;
        }
        self.map.remove(range);
        Ok(())
    }
}

/// [`MemoryObject`].
#[derive(Serialize, Deserialize)]
pub struct ObjectState {
    key: InodeKey,
    size: u64,
    seals: u32,
    pages: Vec<PageRun>,
}

impl Object for MemoryObject {
    type State = ObjectState;

    fn save(self: &Arc<Self>, saver: &mut Saver) -> Result<ObjectState, Refused> {
        let MemoryObject { memory, key, state } = &**self;
        let state = state.lock();
        // Who maps it is told anew by those who do.
        let State { size, frames, saved, extents: _, mappings: _, seals, replaced: _ } = &*state;
        let mut pages = Vec::new();
        for (range, place) in frames.iter() {
            // Frames that are zero are left out: st_blocks shrinks, content does not change.
            saver.pages.place(range.start, &memory.frame(place.0), range.len(), true, &mut pages);
        }
        for (range, frame) in saved.frames(AddrRange::new(0, u64::MAX)) {
            saver.pages.place(range.start, &frame, range.len(), true, &mut pages);
        }
        Ok(ObjectState { key: *key, size: *size, seals: *seals, pages })
    }
}

impl ObjectState {
    /// The object.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, restorer: &mut Restorer) -> Result<Arc<MemoryObject>, Unusable> {
        if self.size > MAX_SIZE {
            return Err(Unusable::Corrupt("a file's size"));
        }
        if self.key.dev == SHMEM_DEV {
            raise(&NEXT_KEY, self.key.ino);
        }
        let object = MemoryObject::new(restorer.kernel.memory.clone(), self.key, self.size);
        {
            let mut state = object.state.lock();
            state.seals = self.seals;
            state.saved.file = Some(restorer.frames.clone());
            for run in &self.pages {
                let (range, frame) = run.frame(&restorer.frames)?;
                if range.end > MAX_SIZE || state.saved.map.overlapping(range).next().is_some() {
                    return Err(Unusable::Corrupt("a file's pages"));
                }
                state.saved.map.insert(range, Place(frame.offset));
            }
        }
        Ok(object)
    }
}
