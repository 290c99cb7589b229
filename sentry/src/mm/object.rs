//! Memory objects: the content of tmpfs files, memfds and shared anonymous memory.
//!
//! A [`MemoryObject`] is a sparse array of frames with a length and a reverse map of who maps it. A file system's
//! regular file is a thin layer of attributes and locks over one. Its own lock is taken for moments only and never
//! across a copy to or from a guest: frames are pinned (one more holder) meanwhile, so a page that is punched out
//! during a read keeps its old content for that read.

pub mod saved;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::{AddrRange, Errno, PAGE_MASK, PAGE_SIZE, page_down, page_up};
use memory::{FileKind, Frame, MemoryFile, RangeMap};
use platform::Access;

use crate::checkpoint::{Refused, Saver};
use crate::mm::Mm;
use crate::mm::extents::{Extents, Place};
use crate::mm::mappable::{FileRange, Mappable, TranslateError, Translation};
use crate::mm::reverse_map::{Mapping, ReverseMap};
use crate::mm::saved::MappableState;
use crate::sync::{Level, Mutex, MutexGuard};
use crate::vfs::{InodeKey, IoSink, IoSource};

/// Longest file (`MAX_LFS_FILESIZE`, limited to what `off_t` and page rounding bear).
pub const MAX_SIZE: u64 = 1 << 62;
/// Where the last page of all begins.
const LAST_PAGE: u64 = !PAGE_MASK;
/// Longest piece pinned and copied at a time.
const PIECE: u64 = 1 << 20;
/// Device number of objects that lie in no visible file system (shared anonymous memory, memfds).
const SHMEM_DEV: u64 = 1;

/// `F_SEAL_SEAL`: no more seals.
pub const SEAL_SEAL: u32 = 1;
/// `F_SEAL_SHRINK`.
pub const SEAL_SHRINK: u32 = 2;
/// `F_SEAL_GROW`.
pub const SEAL_GROW: u32 = 4;
/// `F_SEAL_WRITE`.
pub const SEAL_WRITE: u32 = 8;
/// `F_SEAL_FUTURE_WRITE`.
pub const SEAL_FUTURE_WRITE: u32 = 16;

#[derive(Default)]
struct State {
    size: u64,
    frames: RangeMap<Place>,
    /// Frames that still are a snapshot's; disjoint from `frames`.
    saved: saved::Layer,
    extents: Extents,
    mappings: ReverseMap,
    seals: u32,
    /// What was copied from there and not told to those who map it.
    replaced: Vec<AddrRange>,
}

/// A piece of memory with a length, which files are made of and guests map.
pub struct MemoryObject {
    memory: Arc<MemoryFile>,
    key: InodeKey,
    state: Mutex<State>,
}

/// A number for an object that no file system names.
#[must_use]
pub fn anonymous_key() -> InodeKey {
    InodeKey { dev: SHMEM_DEV, ino: NEXT_KEY.fetch_add(1, Ordering::Relaxed) }
}

/// The next number of [`anonymous_key`].
static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

fn pages(start: u64, end: u64) -> AddrRange {
    AddrRange::new(page_down(start), page_up(end).unwrap_or(LAST_PAGE))
}

impl MemoryObject {
    /// An empty object. `key` names it for futexes and `/proc/PID/maps`: its inode's, or [`anonymous_key`].
    #[must_use]
    pub fn new(memory: Arc<MemoryFile>, key: InodeKey, size: u64) -> Arc<Self> {
        let state = State { size: size.min(MAX_SIZE), ..State::default() };
        Arc::new(MemoryObject { memory, key, state: Mutex::new(Level::Mappings, state) })
    }

    /// Length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.state.lock().size
    }

    /// Bytes of frames it holds (`st_blocks * 512`).
    #[must_use]
    pub fn resident(&self) -> u64 {
        let state = self.state.lock();
        state.frames.iter().chain(state.saved.map.iter()).map(|(r, _)| r.len()).sum()
    }

    /// How many mappings it has.
    #[must_use]
    pub fn mappings(&self) -> usize {
        self.state.lock().mappings.len()
    }

    /// Its seals (`F_GET_SEALS`).
    #[must_use]
    pub fn seals(&self) -> u32 {
        self.state.lock().seals
    }

    /// Adds seals (`F_ADD_SEALS`).
    ///
    /// # Errors
    /// `EPERM` once SEAL_SEAL is set; `EBUSY` for SEAL_WRITE while a writable mapping exists.
    pub fn add_seals(&self, seals: u32) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.seals & SEAL_SEAL != 0 {
            return Err(Errno::EPERM);
        }
        if seals & SEAL_WRITE != 0 && state.mappings.has_writable() {
            return Err(Errno::EBUSY);
        }
        state.seals |= seals;
        Ok(())
    }

    /// The first piece of `range` (not empty): its frames, pinned, or a hole.
    fn pin(&self, state: &State, range: AddrRange) -> (u64, Option<Frame>) {
        if let Some((r, place)) = state.frames.get(range.start) {
            let part = r.intersect(&range);
            let offset = place.0 + (range.start - r.start);
            self.memory.inc_ref(pages(offset, offset + part.len()));
            return (part.len(), Some(self.memory.frame(offset)));
        }
        if let Some((part, frame)) = state.saved.at(range) {
            return (part.len(), Some(frame));
        }
        let next = |map: &RangeMap<Place>| map.at_or_after(range.start).map_or(range.end, |(r, _)| r.start);
        let next = next(&state.frames).min(next(&state.saved.map));
        (next.min(range.end) - range.start, None)
    }

    fn unpin(&self, frame: &Frame, len: u64) {
        if frame.file.kind() == FileKind::Memory {
            self.memory.dec_ref(pages(frame.offset, frame.offset + len));
        }
    }

    /// Tells those who map it what was copied out of the snapshot, now that they can see the copies.
    fn settle(&self, mut state: MutexGuard<'_, State>) {
        if state.replaced.is_empty() {
            return;
        }
        let replaced = std::mem::take(&mut state.replaced);
        let seen: Vec<Mapping> = state.mappings.iter().collect();
        drop(state);
        for range in replaced {
            seen.iter().filter(|m| m.sees(range)).for_each(|m| m.invalidate(range));
        }
    }

    /// Reads at `offset`; answers the bytes read, 0 at or past the end.
    ///
    /// # Errors
    /// `EFAULT` where not even one byte could be stored.
    pub fn read_at(&self, dst: &mut IoSink<'_>, offset: u64) -> Result<usize, Errno> {
        let mut done = 0usize;
        while dst.remaining() > 0 {
            let at = offset.saturating_add(done as u64);
            let (len, frame) = {
                let state = self.state.lock();
                if at >= state.size {
                    break;
                }
                let end = state.size.min(at.saturating_add((dst.remaining() as u64).min(PIECE)));
                self.pin(&state, AddrRange::new(at, end))
            };
            let put = match frame {
                Some(from) => {
                    let put = dst.put_frame(&from, usize_of(len));
                    self.unpin(&from, len);
                    put
                }
                None => dst.put_zeros(usize_of(len)),
            };
            match put {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) => return if done > 0 { Ok(done) } else { Err(e) },
            }
        }
        Ok(done)
    }

    /// Writes at `offset`, growing the object; answers the bytes written.
    ///
    /// # Errors
    /// `EFBIG` past the longest file; `ENOSPC` out of memory; `EPERM` where sealed; `EFAULT`.
    pub fn write_at(&self, src: &mut IoSource<'_>, offset: u64) -> Result<usize, Errno> {
        let mut buf = vec![0u8; src.remaining().min(64 << 10)];
        let mut done = 0usize;
        while src.remaining() > 0 {
            let at = offset.saturating_add(done as u64);
            if at >= MAX_SIZE {
                return if done > 0 { Ok(done) } else { Err(Errno::EFBIG) };
            }
            let room = src.remaining().min(buf.len()).min(usize_of(MAX_SIZE - at));
            // What does not fit stays with the source: it was not written.
            match src.peek(&mut buf[..room]).and_then(|n| self.store(&buf[..n], at)) {
                Ok(0) => break,
                Ok(n) => {
                    src.skip(n);
                    done += n;
                }
                Err(e) => return if done > 0 { Ok(done) } else { Err(e) },
            }
        }
        Ok(done)
    }

    /// Stores `src` whole, or as far as memory reaches.
    fn store(&self, src: &[u8], offset: u64) -> Result<usize, Errno> {
        let mut state = self.state.lock();
        let end = offset + src.len() as u64;
        if state.seals & (SEAL_WRITE | SEAL_FUTURE_WRITE) != 0 || (end > state.size && state.seals & SEAL_GROW != 0) {
            return Err(Errno::EPERM);
        }
        let answer = self.store_locked(&mut state, src, (offset, end));
        self.settle(state);
        answer
    }

    fn store_locked(&self, state: &mut State, src: &[u8], (offset, end): (u64, u64)) -> Result<usize, Errno> {
        let mut done = 0usize;
        while done < src.len() {
            let at = offset + done as u64;
            let full = self.memory.is_short(0) && state.frames.get(page_down(at)).is_none();
            let frames =
                if full { Err(Errno::ENOSPC) } else { self.frame_at(state, pages(at, end), end.max(MIN_CHUNK)) };
            let (len, to) = match frames {
                Ok((range, place)) => (range.end.min(end) - at, place + (at - range.start)),
                Err(_) if done > 0 => break,
                Err(e) => return Err(if e == Errno::ENOMEM { Errno::ENOSPC } else { e }),
            };
            let n = usize_of(len);
            // The memory file is ours: a store fails only where the host has no more memory.
            if self.memory.file().write(to, &src[done..done + n]).is_err() {
                return if done > 0 { Ok(done) } else { Err(Errno::ENOSPC) };
            }
            done += n;
        }
        state.size = state.size.max(offset + done as u64);
        Ok(done)
    }

    /// The frames of (the start of) the page range `range`, made where there are none. `expect` is the size to expect.
    fn frame_at(&self, state: &mut State, range: AddrRange, expect: u64) -> Result<(AddrRange, u64), Errno> {
        if let Some((r, place)) = state.frames.get(range.start) {
            let part = r.intersect(&range);
            return Ok((part, place.0 + (part.start - r.start)));
        }
        let mut hole_end = state.frames.at_or_after(range.start).map_or(range.end, |(r, _)| r.start.min(range.end));
        let saved = state.saved.map.at_or_after(range.start).map(|(r, _)| r);
        let copies = saved.is_some_and(|r| r.contains(range.start));
        if let Some(r) = saved {
            // Up to where the snapshot's frames begin, or (in them) a window that is worth a copy.
            hole_end = hole_end.min(if copies { r.end.min(range.start + COPY_WINDOW) } else { r.start });
        }
        let bounds = pages(0, expect.max(range.end));
        let hole = AddrRange::new(range.start, hole_end);
        let (part, offset) = state.extents.commit(&self.memory, hole, bounds)?;
        if copies {
            if let Err(errno) = state.saved.copy(self, part, offset) {
                self.memory.dec_ref(AddrRange::new(offset, offset + part.len()));
                return Err(errno);
            }
            state.replaced.push(part);
        }
        state.frames.insert(part, Place(offset));
        self.memory.note_shared(part.len(), 0);
        Ok((part, offset))
    }

    /// Changes the length. What is cut off is gone for all who map it; what is added reads as zeros.
    ///
    /// # Errors
    /// `EFBIG`; `EPERM` where sealed.
    pub fn truncate(&self, size: u64) -> Result<(), Errno> {
        if size > MAX_SIZE {
            return Err(Errno::EFBIG);
        }
        {
            let mut state = self.state.lock();
            let sealed = if size < state.size { SEAL_SHRINK } else { SEAL_GROW };
            if size != state.size && state.seals & sealed != 0 {
                return Err(Errno::EPERM);
            }
            let old = state.size;
            state.size = size;
            if size >= old {
                return Ok(());
            }
        }
        self.clear(size, LAST_PAGE, true);
        self.drop_copies(page_up(size).unwrap_or(LAST_PAGE));
        Ok(())
    }

    /// Private copies of what lies past the new end go as well (`truncate_pagecache`: `even_cows`).
    fn drop_copies(&self, end: u64) {
        let past = AddrRange::new(end, LAST_PAGE);
        let seen: Vec<Mapping> = self.state.lock().mappings.iter().filter(|m| m.sees(past)).collect();
        for mapping in seen {
            if let Some(mm) = mapping.mm.upgrade() {
                mm.drop_copies(std::ptr::from_ref(self).cast(), mapping.at, end);
            }
        }
    }

    /// Makes a hole (`FALLOC_FL_PUNCH_HOLE`): the bytes read as zeros, whole pages give their memory back.
    ///
    /// # Errors
    /// `EPERM` where sealed.
    pub fn punch(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let size = {
            let state = self.state.lock();
            if state.seals & (SEAL_WRITE | SEAL_FUTURE_WRITE) != 0 {
                return Err(Errno::EPERM);
            }
            state.size
        };
        let end = offset.saturating_add(len);
        // Bytes past the end of the file are zero already; the last page goes whole.
        let end = if end >= size { page_up(end).unwrap_or(LAST_PAGE) } else { end };
        self.clear(offset, end, true);
        Ok(())
    }

    /// Zeroes partial pages at the ends of `start..end` and frees the whole ones between.
    fn clear(&self, start: u64, end: u64, invalidate: bool) {
        let mut state = self.state.lock();
        let (first, last) = (page_up(start).unwrap_or(end), page_down(end));
        if first > last {
            self.zero_part(&mut state, start, end);
            return self.settle(state);
        }
        self.zero_part(&mut state, start, first);
        self.zero_part(&mut state, last, end);
        let gone = state.frames.remove(AddrRange::new(first, last));
        let saved = state.saved.map.remove(AddrRange::new(first, last));
        if gone.is_empty() && saved.is_empty() {
            return self.settle(state);
        }
        state.replaced.clear();
        let affected = AddrRange::new(page_down(start), page_up(end).unwrap_or(LAST_PAGE));
        let seen: Vec<Mapping> = state.mappings.iter().filter(|m| invalidate && m.sees(affected)).collect();
        drop(state);
        // Only now may the frames be used for something else: nobody can see them any more.
        seen.iter().for_each(|m| m.invalidate(affected));
        let frames: Vec<_> = gone.iter().map(|(r, p)| AddrRange::new(p.0, p.0 + r.len())).collect();
        self.give_back(&frames);
    }

    /// Lets frames go that were taken out of the object.
    fn give_back(&self, frames: &[AddrRange]) {
        self.memory.note_shared(0, frames.iter().map(AddrRange::len).sum());
        self.memory.dec_refs(frames);
    }

    fn zero_part(&self, state: &mut State, start: u64, end: u64) {
        if start >= end {
            return;
        }
        if state.saved.map.get(start).is_some() {
            // A copy of the page that keeps the rest of it; without memory for it the bytes stay.
            let _ = self.frame_at(state, pages(start, start + 1), end);
        }
        if let Some((r, place)) = state.frames.get(start) {
            let end = end.min(r.end);
            let _ = self.memory.file().zero(place.0 + (start - r.start), usize_of(end - start));
        }
    }

    /// `fallocate(2)` without a hole: gives `offset..offset+len` frames, and grows the length unless `keep_size`.
    ///
    /// # Errors
    /// `ENOSPC`; `EFBIG`; `EPERM` where sealed.
    pub fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> Result<(), Errno> {
        let end = offset.checked_add(len).filter(|&e| e <= MAX_SIZE).ok_or(Errno::EFBIG)?;
        let mut state = self.state.lock();
        if end > state.size && !keep_size && state.seals & SEAL_GROW != 0 {
            return Err(Errno::EPERM);
        }
        let range = pages(offset, end);
        let gaps = state.frames.gaps(range).into_iter();
        let holes: Vec<AddrRange> = gaps.flat_map(|gap| state.saved.map.gaps(gap)).collect();
        if self.memory.is_short(holes.iter().map(AddrRange::len).sum()) {
            return Err(Errno::ENOSPC);
        }
        for hole in holes {
            let mut at = hole.start;
            while at < hole.end {
                let rest = AddrRange::new(at, hole.end);
                at = self.frame_at(&mut state, rest, end).map_err(|_| Errno::ENOSPC)?.0.end;
            }
        }
        if !keep_size {
            state.size = state.size.max(end);
        }
        Ok(())
    }

    /// `SEEK_DATA` (`data`) and `SEEK_HOLE`: the first offset from `from` on that is one.
    ///
    /// # Errors
    /// `ENXIO` at or past the end, or where no data follows.
    pub fn seek(&self, from: u64, data: bool) -> Result<u64, Errno> {
        let state = self.state.lock();
        if from >= state.size {
            return Err(Errno::ENXIO);
        }
        let found = if data {
            let next = |map: &RangeMap<Place>| map.at_or_after(from).map(|(r, _)| r.start.max(from));
            next(&state.frames).into_iter().chain(next(&state.saved.map)).min()
        } else {
            let mut at = from;
            while let Some((r, _)) = state.frames.get(at).or_else(|| state.saved.map.get(at)) {
                at = r.end;
            }
            Some(at.min(state.size))
        };
        found.filter(|&at| !data || at < state.size).ok_or(Errno::ENXIO)
    }
}

/// Longest piece copied out of a snapshot for one store.
const COPY_WINDOW: u64 = 64 << 10;
/// Offset space reserved for a small file at once.
const MIN_CHUNK: u64 = 64 << 10;

fn usize_of(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

impl Mappable for MemoryObject {
    fn translate(
        &self,
        range: FileRange,
        optional: FileRange,
        access: Access,
    ) -> Result<Vec<Translation>, TranslateError> {
        let mut state = self.state.lock();
        let end = page_up(state.size).unwrap_or(LAST_PAGE);
        if range.start >= end {
            return Err(TranslateError::Bus);
        }
        let size = state.size;
        let wanted = AddrRange::new(range.start, range.end.min(end).max(range.start + PAGE_SIZE));
        let mut at = wanted.start;
        while at < wanted.end {
            let rest = AddrRange::new(at, wanted.end);
            if let Some((part, _)) = state.saved.at(rest).filter(|_| !access.write) {
                at = part.end;
                continue;
            }
            match self.frame_at(&mut state, rest, size.max(MIN_CHUNK)) {
                Ok((part, _)) => at = part.end,
                Err(_) if at > wanted.start => break,
                Err(_) => return Err(TranslateError::NoMemory),
            }
        }
        let around = AddrRange::new(optional.start.min(range.start), optional.end.min(end).max(at));
        let translation = |(r, place): (AddrRange, &Place)| {
            let part = r.intersect(&around);
            Translation {
                source: FileRange { start: part.start, end: part.end },
                frame: self.memory.frame(place.0 + (part.start - r.start)),
                writable: true,
            }
        };
        let mut found: Vec<Translation> = state.frames.overlapping(around).map(translation).collect();
        let saved = state.saved.frames(around).into_iter();
        found.extend(saved.map(|(part, frame)| Translation {
            source: FileRange { start: part.start, end: part.end },
            frame,
            writable: false,
        }));
        self.settle(state);
        Ok(found)
    }

    fn add_mapping(&self, mm: &Weak<Mm>, at: AddrRange, offset: u64, writable: bool) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if writable && state.seals & (SEAL_WRITE | SEAL_FUTURE_WRITE) != 0 {
            return Err(Errno::EPERM);
        }
        state.mappings.add(Mapping { mm: mm.clone(), at, offset, writable });
        Ok(())
    }

    fn remove_mapping(&self, mm: &Weak<Mm>, at: AddrRange, offset: u64, writable: bool) {
        self.state.lock().mappings.remove(mm, at, offset, writable);
    }

    fn key(&self) -> InodeKey {
        self.key
    }

    fn punch(&self, range: FileRange) -> Result<(), Errno> {
        MemoryObject::punch(self, range.start, range.end.saturating_sub(range.start))
    }

    fn save(self: Arc<Self>, saver: &mut Saver) -> Result<MappableState, Refused> {
        Ok(MappableState::Object(saver.objects.id(&self)))
    }
}

impl Drop for MemoryObject {
    fn drop(&mut self) {
        let mut state = std::mem::take(self.state.get_mut());
        let frames: Vec<_> = state.frames.iter().map(|(r, p)| AddrRange::new(p.0, p.0 + r.len())).collect();
        self.give_back(&frames);
        state.extents.clear(&self.memory);
    }
}
