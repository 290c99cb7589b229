//! What a call has taken in: its guest memory, its descriptors, the places its paths led to.
//!
//! A handler that runs again takes its inputs from here, in the order in which it took them first, so that nothing is
//! read twice and nothing that became of the world meanwhile leads it elsewhere.

use std::sync::Arc;

use abi::{Errno, UserAddr};

use super::with;
use crate::vfs::walk::Parent;
use crate::vfs::{FdNum, FileDescription, PathRef};

/// Most bytes of guest memory that a call's inputs keep: more than the arguments of any program (`ARG_MAX` and ours).
const MAX_BYTES: usize = 8 << 20;

type Result<T> = std::result::Result<T, Errno>;

/// Things in the order in which they came, and how far the present run has taken them.
struct Log<T> {
    entries: Vec<T>,
    next: usize,
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Log { entries: Vec::new(), next: 0 }
    }
}

impl<T> Log<T> {
    /// The next entry if it is the one; where it is not, this run goes another way than the last, and the rest is void.
    fn next(&mut self, is_it: impl FnOnce(&T) -> bool) -> Option<&T> {
        if !self.entries.get(self.next).is_some_and(is_it) {
            self.entries.truncate(self.next);
            return None;
        }
        self.next += 1;
        self.entries.get(self.next - 1)
    }

    fn push(&mut self, entry: T) {
        self.entries.truncate(self.next);
        self.entries.push(entry);
        self.next = self.entries.len();
    }
}

/// A piece of guest memory: whose, where, and which part of the bytes kept.
struct Piece {
    mm: u64,
    at: UserAddr,
    start: usize,
    len: usize,
}

/// How a path was walked: from where, which, and whether a link at its end was followed.
struct Walked {
    start: PathRef,
    path: Vec<u8>,
    to: Place,
}

/// Where a path led.
#[derive(Clone)]
pub enum Place {
    /// The whole path.
    Path(PathRef, bool),
    /// All but its last name.
    Parent(Parent),
}

/// All inputs of a call.
#[derive(Default)]
pub struct Inputs {
    bytes: Vec<u8>,
    pieces: Log<Piece>,
    files: Log<(usize, FdNum, Arc<FileDescription>)>,
    places: Log<Walked>,
}

impl Inputs {
    /// The handler begins (again).
    pub fn rewind(&mut self) {
        (self.pieces.next, self.files.next, self.places.next) = (0, 0, 0);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.pieces.entries.clear();
        self.files.entries.clear();
        self.places.entries.clear();
        self.rewind();
    }
}

/// Guest memory at `at` of the address space `mm`, read by `read` the first time only.
///
/// # Errors
/// What `read` says.
pub fn memory(mm: u64, at: UserAddr, dst: &mut [u8], read: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
    let known = with(|trip| {
        let Inputs { bytes, pieces, .. } = &mut trip.inputs;
        let piece = pieces.next(|p| p.mm == mm && p.at == at && p.len == dst.len())?;
        let kept = bytes.get(piece.start..piece.start + piece.len)?;
        dst.copy_from_slice(kept);
        Some(())
    });
    if known.flatten().is_some() {
        return Ok(());
    }
    read(dst)?;
    with(|trip| {
        let Inputs { bytes, pieces, .. } = &mut trip.inputs;
        let start = pieces.entries.last().map_or(0, |p| p.start + p.len);
        bytes.truncate(start);
        if dst.len() <= MAX_BYTES - start {
            bytes.extend_from_slice(dst);
            pieces.push(Piece { mm, at, start, len: dst.len() });
        }
    });
    Ok(())
}

/// The open file that `fd` of the table at `table` was when the call first looked; `get` looks.
///
/// # Errors
/// What `get` says.
pub fn file(
    table: usize,
    fd: FdNum,
    get: impl FnOnce() -> Result<Arc<FileDescription>>,
) -> Result<Arc<FileDescription>> {
    let known =
        with(|trip| trip.inputs.files.next(|(t, f, _)| *t == table && *f == fd).map(|(_, _, file)| file.clone()));
    if let Some(file) = known.flatten() {
        return Ok(file);
    }
    let file = get()?;
    with(|trip| trip.inputs.files.push((table, fd, file.clone())));
    Ok(file)
}

/// Where `path` from `start` led when the call first walked it; `walk` walks. `is_it` tells the kinds of walk apart.
///
/// # Errors
/// What `walk` says.
pub fn place(
    start: &PathRef,
    path: &[u8],
    is_it: impl FnOnce(&Place) -> bool,
    walk: impl FnOnce() -> Result<Place>,
) -> Result<Place> {
    let known = with(|trip| {
        let same = |w: &Walked| w.start == *start && w.path == path && is_it(&w.to);
        trip.inputs.places.next(same).map(|w| w.to.clone())
    });
    if let Some(to) = known.flatten() {
        return Ok(to);
    }
    let to = walk()?;
    with(|trip| trip.inputs.places.push(Walked { start: start.clone(), path: path.to_vec(), to: to.clone() }));
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn read(at: u64, value: u8) -> u8 {
        let mut byte = [0u8];
        memory(1, UserAddr(at), &mut byte, |dst| {
            dst.fill(value);
            Ok(())
        })
        .unwrap();
        byte[0]
    }

    #[test]
    fn memory_is_read_once_however_often_a_call_runs() {
        let mut trip = testing::trip();
        let (first, again) = testing::twice(&mut trip, |run| (read(0x1000, run), read(0x2000, run), read(0x1000, 9)));
        assert_eq!(first, (0, 0, 9));
        // The second look of one run at the same place is one of its own.
        assert_eq!(again, (0, 0, 9));
    }

    #[test]
    fn a_run_that_goes_another_way_reads_anew() {
        let mut trip = testing::trip();
        let (_, again) = testing::twice(&mut trip, |run| (read(0x1000, run), read(0x2000 + u64::from(run), run)));
        assert_eq!(again, (0, 1));
    }
}
