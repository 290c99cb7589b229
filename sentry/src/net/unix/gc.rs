//! Descriptors in flight: what is dropped while it waits in a queue, and sockets that only hold each other.
//!
//! Dropping a queue may close a socket, whose queue is dropped with it, as deep as a guest cares to nest them: so what
//! queues held is dropped from a list, by a loop. And sockets sent over each other (unix_gc, net/unix/garbage.c) are
//! never closed by counting references: a collector looks for those that nobody can reach.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::net::SocketFile;
use crate::net::control::Control;
use crate::net::unix::UnixSocket;
use crate::sync::{Level, Mutex};
use crate::vfs::FileDescription;

/// Sends of descriptors between two looks for unreachable sockets, at least.
const MIN_INTERVAL: usize = 64;

/// Descriptors in flight of one kernel.
pub struct InFlight {
    dead: Mutex<Vec<Control>>,
    draining: AtomicBool,
    /// Sockets whose queues have held descriptors since the last look.
    carriers: Mutex<HashMap<usize, Weak<UnixSocket>>>,
    /// Sends and closes until the next look.
    until_look: AtomicUsize,
}

impl Default for InFlight {
    fn default() -> Self {
        InFlight {
            dead: Mutex::new(Level::Leaf, Vec::new()),
            draining: AtomicBool::new(false),
            carriers: Mutex::new(Level::Leaf, HashMap::new()),
            until_look: AtomicUsize::new(MIN_INTERVAL),
        }
    }
}

fn address(file: &Arc<FileDescription>) -> usize {
    Arc::as_ptr(file) as usize
}

/// What one look found in a queue.
struct Seen {
    socket: Arc<UnixSocket>,
    generation: u64,
    holds: Vec<Weak<FileDescription>>,
}

/// A file in flight: how often, and the socket it is, if it is one.
struct Flying {
    file: Weak<FileDescription>,
    times: usize,
}

impl InFlight {
    /// Drops what queues held, however deep that goes. No lock is held.
    pub fn bury(&self, dropped: Vec<Control>) {
        if dropped.iter().all(|c| c.rights.is_empty()) {
            return;
        }
        self.dead.lock().extend(dropped);
        while !self.draining.swap(true, Ordering::SeqCst) {
            loop {
                let next = self.dead.lock().pop();
                let Some(control) = next else { break };
                drop(control);
            }
            self.draining.store(false, Ordering::SeqCst);
            if self.dead.lock().is_empty() {
                break;
            }
        }
    }

    /// Descriptors were put into the queue of `socket`.
    pub fn sent_to(&self, socket: &Arc<UnixSocket>) {
        self.carriers.lock().insert(Arc::as_ptr(socket) as usize, Arc::downgrade(socket));
        self.count_down();
    }

    /// One more reason to look: a socket was closed, or descriptors were sent.
    pub fn count_down(&self) {
        let less = |n: usize| Some(n.saturating_sub(1));
        let before = self.until_look.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if before == Ok(1) || before == Ok(0) && self.carriers.lock().len() > MIN_INTERVAL {
            self.collect();
        }
    }

    /// Closes the sockets in flight that nobody can reach any more.
    pub fn collect(&self) {
        let seen = self.look();
        // The next look when as much again has happened: looking costs in proportion to what is in flight.
        self.until_look.store(MIN_INTERVAL.max(seen.len()), Ordering::Relaxed);
        let mut flying: HashMap<usize, Flying> = HashMap::new();
        for file in seen.iter().flat_map(|s| &s.holds) {
            let entry = flying.entry(file.as_ptr() as usize);
            entry.or_insert_with(|| Flying { file: file.clone(), times: 0 }).times += 1;
        }
        let garbage = unreachable(&seen, &flying);
        // Nothing may have moved since the look: otherwise the counts are of no moment, and the next look will tell.
        let still = |s: &&Seen| s.socket.inbox.lock().generation == s.generation;
        if garbage.is_empty() || !seen.iter().filter(|s| garbage.contains(&key(&s.socket))).all(|s| still(&s)) {
            return;
        }
        let dropped = seen.iter().filter(|s| garbage.contains(&key(&s.socket)));
        let dropped: Vec<Control> = dropped.flat_map(|s| s.socket.inbox.lock().clear()).collect();
        drop(seen);
        self.bury(dropped);
    }

    fn look(&self) -> Vec<Seen> {
        let carriers: Vec<Arc<UnixSocket>> = {
            let mut carriers = self.carriers.lock();
            carriers.retain(|_, socket| socket.strong_count() > 0);
            carriers.values().filter_map(Weak::upgrade).collect()
        };
        let mut seen = Vec::new();
        for socket in carriers {
            let (generation, holds) = {
                let inbox = socket.inbox.lock();
                (inbox.generation, inbox.rights().map(Arc::downgrade).collect::<Vec<_>>())
            };
            if holds.is_empty() {
                self.carriers.lock().remove(&key(&socket));
            } else {
                seen.push(Seen { socket, generation, holds });
            }
        }
        seen
    }
}

fn key(socket: &Arc<UnixSocket>) -> usize {
    Arc::as_ptr(socket) as usize
}

/// The carriers (by address) that only files in unreachable queues lead to.
fn unreachable(seen: &[Seen], flying: &HashMap<usize, Flying>) -> HashSet<usize> {
    // Files whose every holder is a queue, by the socket they are.
    let mut candidates: HashSet<usize> = HashSet::new();
    let mut socket_of: HashMap<usize, usize> = HashMap::new();
    for (at, flight) in flying {
        let Some(file) = flight.file.upgrade() else { continue };
        let Ok(socket) = SocketFile::of(&file) else { continue };
        let Some(unix) = socket.socket.as_any().downcast_ref::<UnixSocket>() else { continue };
        let me = std::ptr::from_ref(unix) as usize;
        socket_of.insert(*at, me);
        // One more is ours.
        if Arc::strong_count(&file) == flight.times + 1 {
            candidates.insert(me);
        }
        debug_assert_eq!(address(&file), *at);
    }
    // Whatever a reachable queue holds is reachable.
    let by_key: HashMap<usize, &Seen> = seen.iter().map(|s| (key(&s.socket), s)).collect();
    let mut next: Vec<&Seen> = seen.iter().filter(|s| !candidates.contains(&key(&s.socket))).collect();
    while let Some(reached) = next.pop() {
        for file in &reached.holds {
            let Some(socket) = socket_of.get(&(file.as_ptr() as usize)) else { continue };
            if candidates.remove(socket)
                && let Some(more) = by_key.get(socket)
            {
                next.push(more);
            }
        }
    }
    candidates.retain(|c| by_key.contains_key(c));
    candidates
}
