//! Address spaces.
//!
//! A space is a map of translations here, in the sandbox process, and one stub process for each CPU that ran in it:
//! a *view*, which catches up with the map whenever that CPU enters. So `apply` injects nothing; it notes differences,
//! which merge, and only has to wait where a CPU runs guest code in the space right now and a translation went away.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use abi::{AddrRange, Errno, PAGE_MASK};
use memory::{RangeMap, RangeValue};
use parking_lot::{Condvar, Mutex, MutexGuard};
use platform::{AddressSpace, MapOp, Prot, USER_END};

use crate::files::Files;
use crate::layout::COMMAND_WORDS;
use crate::master::Master;
use crate::stub::StubProcess;
use crate::view::{LACKS, STALE, Translation, View, change};

/// An injected system call: number and arguments.
pub type Command = [u64; COMMAND_WORDS];

/// Stubs without a space that a CPU keeps for the next one.
pub const POOL: usize = 4;

/// Translations above which a second CPU's stub is filled by its faults instead of in advance.
const FILL_LIMIT: usize = 1024;

/// An address space.
pub struct PtraceSpace {
    /// Never reused.
    pub id: u64,
    inner: Mutex<Inner>,
    left: Condvar,
}

#[derive(Default)]
struct Inner {
    map: RangeMap<Translation>,
    views: Vec<View>,
}

/// What the space knows about a faulting address.
pub enum Known {
    /// The stub was behind; these calls bring it up to date there.
    Behind(Vec<Command>),
    /// It is translated, with this access.
    Mapped(Prot),
    /// It is not.
    Missing,
}

impl PtraceSpace {
    /// An empty space.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        PtraceSpace { id, inner: Mutex::default(), left: Condvar::new() }
    }

    /// Adds the calling CPU's fresh, empty stub.
    pub fn add_view(&self, cpu: usize, stub: Arc<StubProcess>, idle: Arc<AtomicUsize>) {
        let mut inner = self.inner.lock();
        let lazy = inner.map.len() > FILL_LIMIT;
        let dirty = inner.everything_lacking();
        inner.views.retain(|v| v.cpu != cpu);
        inner.views.push(View {
            cpu,
            owner: std::thread::current().id(),
            idle,
            stub,
            dirty,
            lazy,
            in_guest: false,
            entries: 0,
        });
    }

    /// Forgets a CPU's stub.
    pub fn remove_view(&self, cpu: usize) {
        self.inner.lock().views.retain(|v| v.cpu != cpu);
    }

    /// Enters guest code on `cpu`, or answers the calls that its stub must make first.
    ///
    /// # Errors
    /// A file that could not be handed to the stubs.
    pub fn enter(&self, cpu: usize, master: &Master, files: &Files) -> io::Result<Option<Vec<Command>>> {
        let mut inner = self.inner.lock();
        let Inner { map, views } = &mut *inner;
        let Some(view) = views.iter_mut().find(|v| v.cpu == cpu) else {
            return Err(io::Error::other("a CPU without a stub in this space"));
        };
        let lazy = view.lazy;
        let due: Vec<(AddrRange, u32)> =
            view.dirty.iter().filter(|&(_, &how)| how == STALE || !lazy).map(|(r, &how)| (r, how)).collect();
        if due.is_empty() {
            view.in_guest = true;
            view.entries += 1;
            return Ok(None);
        }
        let mut commands = Vec::new();
        for (range, how) in due {
            view.dirty.remove(range);
            catch_up(map, range, how, &mut commands, &mut |t| files.descriptor(master, &t.frame.file))?;
        }
        Ok(Some(commands))
    }

    /// Leaves guest code on `cpu`.
    pub fn leave(&self, cpu: usize) {
        let mut inner = self.inner.lock();
        if let Some(view) = inner.views.iter_mut().find(|v| v.cpu == cpu) {
            view.in_guest = false;
        }
        drop(inner);
        self.left.notify_all();
    }

    /// What is known about `addr`, where `cpu`'s stub has just faulted.
    ///
    /// # Errors
    /// As [`PtraceSpace::enter`].
    pub fn explain(&self, cpu: usize, addr: u64, master: &Master, files: &Files) -> io::Result<Known> {
        let mut inner = self.inner.lock();
        let Inner { map, views } = &mut *inner;
        let translation = map.get(addr).map(|(r, t)| (r, t.prot));
        let view = views.iter_mut().find(|v| v.cpu == cpu);
        if let Some((view, (dirty, how))) =
            view.and_then(|v| v.dirty.get(addr).map(|(r, &how)| (r, how)).map(|d| (v, d)))
        {
            let whole = translation.map_or(dirty, |(r, _)| r);
            let part = AddrRange::new(dirty.start.max(whole.start), dirty.end.min(whole.end));
            view.dirty.remove(part);
            let mut commands = Vec::new();
            catch_up(map, part, how, &mut commands, &mut |t| files.descriptor(master, &t.frame.file))?;
            return Ok(Known::Behind(commands));
        }
        Ok(translation.map_or(Known::Missing, |(_, prot)| Known::Mapped(prot)))
    }

    /// Notes that `cpu`'s stub was emptied, since the host had no room for its mappings.
    pub fn emptied(&self, cpu: usize) {
        let mut inner = self.inner.lock();
        let dirty = inner.everything_lacking();
        if let Some(view) = inner.views.iter_mut().find(|v| v.cpu == cpu) {
            view.dirty = dirty;
            view.lazy = true;
        }
    }

    /// The code at `addr`, as the guest would fetch it: as many bytes as there are in one translation, at most 15.
    pub fn fetch(&self, addr: u64, bytes: &mut [u8; 15]) -> usize {
        let inner = self.inner.lock();
        let Some((range, t)) = inner.map.get(addr) else { return 0 };
        let len = (range.end - addr).min(15) as usize;
        let frame = t.frame.advance(addr - range.start);
        drop(inner);
        if frame.file.read(frame.offset, &mut bytes[..len]).is_ok() { len } else { 0 }
    }

    /// Waits until every CPU that is in guest code now has left it (or has entered anew, up to date).
    fn shoot_down(&self, mut inner: MutexGuard<'_, Inner>) {
        let running: Vec<(usize, u64)> =
            inner.views.iter().filter(|v| v.in_guest).map(|v| (v.cpu, v.entries)).collect();
        if running.is_empty() {
            return;
        }
        inner.views.iter().filter(|v| v.in_guest).for_each(|v| v.stub.nudge());
        let still = |inner: &mut Inner| inner.views.iter().any(|v| v.in_guest && running.contains(&(v.cpu, v.entries)));
        self.left.wait_while(&mut inner, still);
    }
}

impl Inner {
    fn everything_lacking(&self) -> RangeMap<u32> {
        let mut dirty = RangeMap::new();
        self.map.iter().for_each(|(r, _)| dirty.insert(r, LACKS));
        dirty
    }
}

/// The calls that make a stub show what `map` has in `range`.
fn catch_up(
    map: &RangeMap<Translation>,
    range: AddrRange,
    how: u32,
    commands: &mut Vec<Command>,
    descriptor: &mut dyn FnMut(&Translation) -> io::Result<i32>,
) -> io::Result<()> {
    if how == STALE {
        for gap in map.gaps(range) {
            commands.push([libc::SYS_munmap as u64, gap.start, gap.len(), 0, 0, 0, 0]);
        }
    }
    for (r, t) in map.overlapping(range) {
        let part = AddrRange::new(r.start.max(range.start), r.end.min(range.end));
        let fd = descriptor(t)?;
        let t = t.advance(part.start - r.start);
        let prot = host_prot(&t);
        let flags = (libc::MAP_SHARED | libc::MAP_FIXED) as u64;
        commands.push([libc::SYS_mmap as u64, part.start, part.len(), prot, flags, fd as u64, t.frame.offset]);
        if t.pkey != 0 {
            commands.push([libc::SYS_pkey_mprotect as u64, part.start, part.len(), prot, u64::from(t.pkey), 0, 0]);
        }
    }
    Ok(())
}

fn host_prot(t: &Translation) -> u64 {
    let bit = |has: bool, bit: i32| if has { bit as u64 } else { 0 };
    bit(t.prot.contains(Prot::READ), libc::PROT_READ)
        | bit(t.prot.contains(Prot::WRITE) && t.frame.file.is_writable(), libc::PROT_WRITE)
        | bit(t.prot.contains(Prot::EXEC), libc::PROT_EXEC)
}

fn is_valid(op: &MapOp) -> bool {
    let (MapOp::Map { range, .. } | MapOp::Unmap { range }) = op;
    let placed = range.start < range.end && range.end <= USER_END && (range.start | range.end) & PAGE_MASK == 0;
    match op {
        MapOp::Unmap { .. } => placed,
        MapOp::Map { frame, pkey, .. } => {
            let end = frame.offset.checked_add(range.len());
            placed && *pkey < 16 && frame.offset & PAGE_MASK == 0 && end.is_some() && frame.file.fd().is_some()
        }
    }
}

impl AddressSpace for PtraceSpace {
    /// Also answers `EINVAL` for ranges that are not page-aligned or reach past `USER_END`, and for frames of a file
    /// without a descriptor.
    fn apply(&self, ops: &[MapOp]) -> Result<(), Errno> {
        if !ops.iter().all(is_valid) {
            return Err(Errno::EINVAL);
        }
        let mut inner = self.inner.lock();
        let Inner { map, views } = &mut *inner;
        let mut replaced = false;
        for op in ops {
            replaced |= match op {
                MapOp::Map { range, frame, prot, pkey } => {
                    let new = Translation { frame: frame.clone(), prot: *prot, pkey: *pkey };
                    change(map, views, *range, Some(new))
                }
                MapOp::Unmap { range } => change(map, views, *range, None),
            };
        }
        if replaced {
            self.shoot_down(inner);
        }
        Ok(())
    }

    fn invalidate(&self, range: AddrRange) {
        if range.start >= range.end {
            return;
        }
        let mut inner = self.inner.lock();
        let Inner { map, views } = &mut *inner;
        if change(map, views, range, None) {
            self.shoot_down(inner);
        }
    }
}

impl Drop for PtraceSpace {
    fn drop(&mut self) {
        let here = std::thread::current().id();
        for view in &self.inner.get_mut().views {
            // The CPU of this very thread recycles a few stubs when it needs the next. All others end at once, so that
            // nothing outlives the space on a CPU that may sleep for long.
            let kept = view.owner == here && view.idle.fetch_add(1, Ordering::Relaxed) < POOL;
            if !kept {
                view.stub.end();
            }
        }
    }
}
