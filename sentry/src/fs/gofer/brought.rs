//! What listings bring along: the files that whoever lists a directory is likely to ask for next.
//!
//! Each is good for one lookup. In a shared tree it is believed for [`LIFE`], as an attribute cache of NFS or FUSE would
//! believe it; a change of ours of the name, or of the directory while it was listed, takes it away at once.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use gofer_proto::Reply;

use super::{Answer, GoferInode, dir};
use crate::sync::{Level, Mutex};

/// How long what a listing says of a shared tree is believed.
const LIFE: Duration = Duration::from_secs(1);
/// Most files (and names of a listing not yet handed out) that a tree keeps so.
const MOST: usize = 4096;
/// Bounds of the appetite: how much use outweighs how much waste.
const APPETITE: i32 = 256;
/// One file used outweighs as many brought.
const WORTH: i32 = 8;

/// What a directory's listing left.
#[derive(Default)]
struct Left {
    files: HashMap<Vec<u8>, Arc<GoferInode>>,
    /// A piece that did not fit the guest's buffer.
    rest: Option<Arc<Answer>>,
    /// When it came, and the file system's tick when it was asked for.
    since: Option<(Instant, u64)>,
}

impl Left {
    fn len(&self) -> usize {
        self.files.len() + self.rest.as_ref().map_or(0, |r| items(r).len())
    }
}

fn items(answer: &Answer) -> &[gofer_proto::DirItem] {
    if let Reply::Items { items, .. } = &answer.reply { items } else { &[] }
}

/// What a directory keeps of its listings.
pub struct Brought {
    left: Mutex<Left>,
    /// It was last listed without its files.
    plain: AtomicBool,
}

impl Default for Brought {
    fn default() -> Self {
        Brought { left: Mutex::new(Level::Leaf, Left::default()), plain: AtomicBool::new(false) }
    }
}

/// What all directories of a tree keep.
pub struct Shelf {
    /// Directories that keep something, the oldest first.
    dirs: Mutex<VecDeque<Weak<GoferInode>>>,
    held: AtomicUsize,
    /// Below zero, listings come without files: few were used.
    appetite: AtomicI32,
}

impl Default for Shelf {
    fn default() -> Self {
        let dirs = Mutex::new(Level::Leaf, VecDeque::new());
        Shelf { dirs, held: AtomicUsize::new(0), appetite: AtomicI32::new(0) }
    }
}

impl Shelf {
    fn feed(&self, by: i32) {
        let now = self.appetite.load(Ordering::Relaxed);
        self.appetite.store(now.saturating_add(by).clamp(-APPETITE, APPETITE), Ordering::Relaxed);
    }

    /// Makes room for `more` of `dir`'s; answers whether there is.
    fn make_room(&self, dir: &Weak<GoferInode>, more: usize) -> bool {
        loop {
            let oldest = {
                let mut dirs = self.dirs.lock();
                if self.held.load(Ordering::Relaxed).saturating_add(more) <= MOST && dirs.len() < MOST {
                    dirs.push_back(dir.clone());
                    return true;
                }
                dirs.pop_front()
            };
            match oldest {
                None => return false,
                Some(oldest) => oldest.upgrade().iter().for_each(|dir| dir.put_away()),
            }
        }
    }
}

impl GoferInode {
    /// Whether a listing should bring the files.
    pub(super) fn wants_files(&self) -> bool {
        let wanted = self.fs.shelf.appetite.load(Ordering::Relaxed) >= 0;
        self.brought.plain.store(!wanted, Ordering::Relaxed);
        wanted
    }

    /// Keeps what `answer`, a listing asked for at tick `began`, brought along.
    pub(super) fn bring(&self, answer: &Answer, began: u64) {
        if self.changed_since(began) || answer.inodes.is_empty() {
            return;
        }
        self.fs.shelf.feed(-(i32::try_from(answer.inodes.len()).unwrap_or(i32::MAX) / WORTH));
        let names = items(answer).iter().filter(|i| i.entry.is_some()).map(|i| i.name.clone());
        let new: Vec<_> = names.zip(answer.inodes.iter().cloned()).collect();
        if self.is_stale() {
            self.put_away();
        }
        let Some(this) = self.this() else { return };
        if !self.fs.shelf.make_room(&Arc::downgrade(&this), new.len()) {
            return;
        }
        let mut replaced = Vec::new();
        let mut left = self.brought.left.lock();
        let before = left.len();
        left.since = Some((Instant::now(), began));
        for (name, inode) in new {
            inode.listed(LIFE);
            replaced.extend(left.files.insert(name, inode));
        }
        self.fs.shelf.held.fetch_add(left.len() - before, Ordering::Relaxed);
    }

    /// Keeps a listing whose end the guest's buffer had no room for.
    pub(super) fn keep_rest(&self, answer: &Arc<Answer>, began: u64) {
        let Some(this) = self.this() else { return };
        if self.changed_since(began) || !self.fs.shelf.make_room(&Arc::downgrade(&this), items(answer).len()) {
            return;
        }
        let mut left = self.brought.left.lock();
        let before = left.len();
        left.since.get_or_insert((Instant::now(), began));
        let old = left.rest.replace(answer.clone());
        let after = left.len();
        self.recount(before, after);
        drop(left);
        drop(old);
    }

    /// The listing that goes on behind the guest's cookie `from`, and where in it, if it was kept.
    pub(super) fn rest(&self, from: u64) -> Option<(Arc<Answer>, usize)> {
        if from == 0 || self.is_stale() {
            return None;
        }
        let rest = self.brought.left.lock().rest.clone()?;
        let at = items(&rest).iter().position(|i| dir::guest_cookie(i.next) == from)? + 1;
        (at < items(&rest).len()).then_some((rest, at))
    }

    /// The file that a listing brought for `name`, once.
    pub(super) fn brought(&self, name: &[u8]) -> Option<Arc<GoferInode>> {
        if self.lock.is_suspect() {
            return None;
        }
        if self.is_stale() {
            self.put_away();
        }
        let found = self.take_away(name);
        match found {
            Some(_) => self.fs.shelf.feed(1),
            None if self.brought.plain.load(Ordering::Relaxed) => self.fs.shelf.feed(1),
            None => {}
        }
        found
    }

    fn take_away(&self, name: &[u8]) -> Option<Arc<GoferInode>> {
        let mut left = self.brought.left.lock();
        let found = left.files.remove(name);
        if found.is_some() {
            self.fs.shelf.held.fetch_sub(1, Ordering::Relaxed);
        }
        found
    }

    /// What is behind `name` has changed by a call of ours.
    pub(super) fn touched(&self, name: &[u8]) {
        let gone = self.take_away(name);
        let rest = {
            let mut left = self.brought.left.lock();
            let before = left.len();
            let rest = left.rest.take();
            let after = left.len();
            self.recount(before, after);
            rest
        };
        drop((gone, rest));
    }

    /// What is kept is too old to be believed.
    fn is_stale(&self) -> bool {
        let since = self.brought.left.lock().since;
        self.fs.is_shared() && since.is_some_and(|(since, _)| since.elapsed() > LIFE)
    }

    fn changed_since(&self, began: u64) -> bool {
        self.changed.load(Ordering::Acquire) > began
    }

    fn recount(&self, before: usize, after: usize) {
        let held = &self.fs.shelf.held;
        held.fetch_add(after, Ordering::Relaxed);
        held.fetch_sub(before, Ordering::Relaxed);
    }

    /// Gives all of it up.
    pub(super) fn put_away(&self) {
        let left = std::mem::take(&mut *self.brought.left.lock());
        self.fs.shelf.held.fetch_sub(left.len(), Ordering::Relaxed);
        // A loop, not recursion: directories may keep one another in a chain as long as a guest cares to make it.
        let Left { files, rest, .. } = left;
        let mut next: Vec<_> = files.into_values().collect();
        drop(rest);
        while let Some(inode) = next.pop() {
            if let Some(last) = Arc::into_inner(inode) {
                let below = std::mem::take(&mut *last.brought.left.lock());
                last.fs.shelf.held.fetch_sub(below.len(), Ordering::Relaxed);
                next.extend(below.files.into_values());
            }
        }
    }
}
