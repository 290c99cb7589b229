//! `inotify(7)`: a queue of what happened to watched inodes.

pub mod saved;

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use abi::{Errno, UserAddr};

use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::kernel::op::{SyscallResult, ok};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitQueue};
use crate::sync::{Level, Mutex};
use crate::vfs::notify::{Event, Watch, Watcher, Watches, event};
use crate::vfs::{FileDescription, FileOps, Inode, IoSink, OpenFlags};

/// Most events in a queue (`fs.inotify.max_queued_events`).
pub const MAX_QUEUED: usize = 16_384;
/// Most instances (`fs.inotify.max_user_instances`, of the whole sandbox here).
pub const MAX_INSTANCES: usize = 128;
/// Most watches (`fs.inotify.max_user_watches`, likewise).
pub const MAX_WATCHES: usize = 65_536;

/// `IN_Q_OVERFLOW`.
const Q_OVERFLOW: u32 = 0x4000;
/// `IN_EXCL_UNLINK`.
pub const EXCL_UNLINK: u32 = 0x0400_0000;
/// `IN_MASK_CREATE`.
pub const MASK_CREATE: u32 = 0x1000_0000;
/// `IN_MASK_ADD`.
pub const MASK_ADD: u32 = 0x2000_0000;
/// `IN_ONESHOT`.
pub const ONESHOT: u32 = 0x8000_0000;
/// `IN_ALL_EVENTS`.
pub const ALL_EVENTS: u32 = 0xfff;
/// Reported whatever the mask says.
const ALWAYS: u32 = event::UNMOUNT | event::IGNORED;
/// `sizeof(struct inotify_event)`, which names are padded to.
const HEADER: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Queued {
    wd: i32,
    mask: u32,
    cookie: u32,
    name: Vec<u8>,
}

impl Queued {
    fn len(&self) -> usize {
        HEADER + if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(HEADER) }
    }

    fn cost(&self) -> usize {
        EVENT_COST + self.name.len()
    }

    fn bytes(&self) -> Vec<u8> {
        let len = self.len();
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&self.wd.to_le_bytes());
        out.extend_from_slice(&self.mask.to_le_bytes());
        out.extend_from_slice(&self.cookie.to_le_bytes());
        out.extend_from_slice(&u32::try_from(len - HEADER).unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&self.name);
        out.resize(len, 0);
        out
    }
}

/// Most bytes of events that wait in all instances together.
const MAX_BYTES: usize = 16 << 20;
/// What an event costs, roughly, with its name's allocation.
const EVENT_COST: usize = 96;

/// What the instances of a kernel use together.
#[derive(Default)]
pub struct Usage {
    instances: AtomicUsize,
    bytes: AtomicUsize,
}

impl Usage {
    /// Charges an event; `false` where there are too many.
    fn take(&self, event: &Queued) -> bool {
        let more = |n: usize| n.checked_add(event.cost()).filter(|n| *n <= MAX_BYTES);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give(&self, event: &Queued) {
        self.bytes.fetch_sub(event.cost(), Ordering::Relaxed);
    }
}

#[derive(Default)]
struct State {
    /// Watches with their masks, by number.
    watches: BTreeMap<i32, (Arc<Watch>, u32)>,
    last_wd: i32,
    events: VecDeque<Queued>,
}

impl State {
    fn push(&mut self, usage: &Usage, queued: Queued) {
        // Twice the same in a row tells nothing new.
        if self.events.back() == Some(&queued) {
            return;
        }
        if self.events.len() < MAX_QUEUED && usage.take(&queued) {
            self.events.push_back(queued);
            return;
        }
        let overflow = Queued { wd: -1, mask: Q_OVERFLOW, cookie: 0, name: Vec::new() };
        if self.events.back() != Some(&overflow) {
            // One an instance, whose number is limited: charged all the same, so that the sums agree.
            usage.bytes.fetch_add(overflow.cost(), Ordering::Relaxed);
            self.events.push_back(overflow);
        }
    }
}

/// An inotify instance.
pub struct Inotify {
    myself: Weak<Inotify>,
    state: Mutex<State>,
    queue: WaitQueue,
    watches: Arc<Watches>,
    usage: Arc<Usage>,
}

impl Inotify {
    /// A new instance, as an open file.
    ///
    /// # Errors
    /// `EMFILE` where there are too many.
    pub fn open(watches: &Arc<Watches>, usage: &Arc<Usage>, flags: OpenFlags) -> Result<Arc<FileDescription>, Errno> {
        let more = |n: usize| (n < MAX_INSTANCES).then_some(n + 1);
        usage.instances.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| Errno::EMFILE)?;
        let instance = Arc::new_cyclic(|myself| Inotify {
            myself: myself.clone(),
            state: Mutex::new(Level::Leaf, State::default()),
            queue: WaitQueue::new(),
            watches: watches.clone(),
            usage: usage.clone(),
        });
        Ok(FileDescription::anonymous(instance, flags))
    }

    /// Watches `inode` for `mask`; answers the watch's number.
    ///
    /// # Errors
    /// `EEXIST` with IN_MASK_CREATE; `ENOSPC` where there are too many.
    pub fn watch(&self, inode: &Arc<dyn Inode>, mask: u32) -> Result<i32, Errno> {
        let key = inode.attr().key;
        let kept = mask & (ALL_EVENTS | EXCL_UNLINK | ONESHOT);
        let mut state = self.state.lock();
        let known = state.watches.iter().find(|(_, (w, _))| w.key == key).map(|(wd, _)| *wd);
        if let Some(wd) = known {
            if mask & MASK_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            if let Some((_, old)) = state.watches.get_mut(&wd) {
                *old = if mask & MASK_ADD != 0 { *old | kept } else { kept };
            }
            return Ok(wd);
        }
        if self.watches.len() >= MAX_WATCHES {
            return Err(Errno::ENOSPC);
        }
        let wd = state.last_wd.checked_add(1).ok_or(Errno::ENOSPC)?;
        state.last_wd = wd;
        let watcher: Weak<dyn Watcher> = self.myself.clone();
        let watch = Arc::new(Watch { inode: inode.clone(), key, wd, watcher });
        state.watches.insert(wd, (watch.clone(), kept));
        drop(state);
        self.watches.add(watch);
        Ok(wd)
    }

    /// Ends a watch (`inotify_rm_watch`).
    ///
    /// # Errors
    /// `EINVAL` where there is none.
    pub fn unwatch(&self, wd: i32) -> Result<(), Errno> {
        let watch = self.state.lock().watches.get(&wd).map(|(w, _)| w.clone()).ok_or(Errno::EINVAL)?;
        self.watches.remove(&watch);
        self.gone(wd);
        Ok(())
    }

    fn pending_bytes(&self) -> usize {
        self.state.lock().events.iter().map(Queued::len).sum()
    }
}

impl Watcher for Inotify {
    fn event(&self, wd: i32, event: &Event<'_>) {
        // Declared before the lock: where this reference is the last, the inode is dropped after it.
        let watch;
        let mut state = self.state.lock();
        let Some((known, mask)) = state.watches.get(&wd) else { return };
        let mask = *mask;
        watch = known.clone();
        let wanted = event.mask & (mask | ALWAYS) & (ALL_EVENTS | ALWAYS) != 0;
        if !wanted || (event.unlinked && mask & EXCL_UNLINK != 0) {
            return;
        }
        let name = event.name.map(<[u8]>::to_vec).unwrap_or_default();
        state.push(&self.usage, Queued { wd, mask: event.mask, cookie: event.cookie, name });
        drop(state);
        if mask & ONESHOT != 0 {
            self.watches.remove(&watch);
            self.gone(wd);
        }
        self.queue.wake(Events::READABLE);
    }

    fn gone(&self, wd: i32) {
        let mut state = self.state.lock();
        let watch = state.watches.remove(&wd);
        if watch.is_some() {
            state.push(&self.usage, Queued { wd, mask: event::IGNORED, cookie: 0, name: Vec::new() });
        }
        drop(state);
        drop(watch);
        self.queue.wake(Events::READABLE);
    }
}

impl FileOps for Inotify {
    fn save(&self, _file: &FileDescription, saver: &mut Saver) -> Result<OpsState, Refused> {
        Ok(OpsState::Inotify(self.state(saver)?))
    }

    fn read(&self, _file: &FileDescription, dst: &mut IoSink<'_>, _offset: u64) -> Result<usize, Errno> {
        let mut done = 0;
        loop {
            let next = {
                let mut state = self.state.lock();
                match state.events.front() {
                    Some(e) if e.len() <= dst.remaining() => state.events.pop_front(),
                    Some(_) if done == 0 => return Err(Errno::EINVAL),
                    _ => None,
                }
            };
            let Some(next) = next else { break };
            self.usage.give(&next);
            match dst.put(&next.bytes()) {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) }
    }

    fn poll(&self, _file: &FileDescription) -> Events {
        if self.state.lock().events.is_empty() { Events::empty() } else { Events::READABLE }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn ioctl(&self, cx: &mut CurrentTask<'_>, _file: &FileDescription, cmd: u32, arg: UserAddr) -> SyscallResult {
        if u64::from(cmd) != libc::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let bytes = i32::try_from(self.pending_bytes()).unwrap_or(i32::MAX);
        cx.mm()?.write_obj(arg, &bytes)?;
        ok()
    }

    fn release(&self, _file: &FileDescription) {
        let watches = std::mem::take(&mut self.state.lock().watches);
        for (watch, _) in watches.values() {
            self.watches.remove(watch);
        }
    }

    fn can_splice(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        "anon_inode:inotify".to_owned()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        self.state.get_mut().events.iter().for_each(|e| self.usage.give(e));
        self.usage.instances.fetch_sub(1, Ordering::Relaxed);
    }
}
