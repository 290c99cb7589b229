//! Host threads that wait for disks, so that workers do not.
//!
//! Nothing is done here that a call would have to hear the result of: a job brings content into the host's page cache,
//! and the call that needs it tries again. So a checkpoint needs to know nothing of jobs under way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::kernel::wait::{Events, WaitQueue};

/// Most threads; more would only stand before the same disk.
const MAX_THREADS: usize = 4;

/// What a job brings near.
pub trait Content: Send + Sync {
    /// Brings `len` bytes from `offset` into memory, and waits for them.
    fn bring(&self, offset: u64, len: u64);
}

/// Content on its way.
pub struct Fetch {
    done: AtomicBool,
    queue: WaitQueue,
}

impl Fetch {
    /// Whether the wait is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Woken when it is.
    #[must_use]
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }
}

struct Job {
    content: Arc<dyn Content>,
    offset: u64,
    len: u64,
    fetch: Arc<Fetch>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    /// Below all locks of the kernel: nothing else is taken while it is held.
    state: Mutex<State>,
    more: Condvar,
}

/// The threads and their work. They are started when there is work for them.
#[derive(Default)]
pub struct IoPool(Arc<Shared>);

impl IoPool {
    /// Brings content near; whoever needs it waits for the [`Fetch`].
    #[must_use]
    pub fn fetch(&self, content: Arc<dyn Content>, offset: u64, len: u64) -> Arc<Fetch> {
        let fetch = Arc::new(Fetch { done: AtomicBool::new(false), queue: WaitQueue::new() });
        let mut state = self.0.state.lock();
        state.jobs.push_back(Job { content, offset, len, fetch: fetch.clone() });
        let start = state.idle < state.jobs.len() && state.threads < MAX_THREADS;
        if start && spawn(&self.0) {
            state.threads += 1;
        }
        // Without any thread the content does not come by itself: the caller reads it, and waits.
        let left = if state.threads == 0 { state.jobs.pop_back() } else { None };
        drop(state);
        self.0.more.notify_one();
        if let Some(job) = left {
            job.finish();
        }
        fetch
    }
}

impl Drop for IoPool {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.more.notify_all();
    }
}

impl Job {
    fn finish(self) {
        self.fetch.done.store(true, Ordering::Release);
        self.fetch.queue.wake(Events::READABLE);
    }
}

fn spawn(shared: &Arc<Shared>) -> bool {
    let shared = shared.clone();
    let thread = std::thread::Builder::new().name("io".to_owned()).stack_size(64 << 10);
    thread.spawn(move || work(&shared)).map_err(|e| log::warn!("no thread for the disk: {e}")).is_ok()
}

fn work(shared: &Shared) {
    loop {
        let job = {
            let mut state = shared.state.lock();
            loop {
                if let Some(job) = state.jobs.pop_front() {
                    break job;
                }
                if state.closed {
                    return;
                }
                state.idle += 1;
                shared.more.wait(&mut state);
                state.idle -= 1;
            }
        };
        job.content.bring(job.offset, job.len);
        job.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    struct Slow(Mutex<mpsc::Receiver<()>>);

    impl Content for Slow {
        fn bring(&self, _: u64, _: u64) {
            let _ = self.0.lock().recv();
        }
    }

    #[test]
    fn a_fetch_is_done_when_its_content_is_there() {
        let pool = IoPool::default();
        let (send, receive) = mpsc::channel();
        let fetch = pool.fetch(Arc::new(Slow(Mutex::new(receive))), 0, 4096);
        assert!(!fetch.is_done());
        send.send(()).unwrap();
        while !fetch.is_done() {
            std::thread::yield_now();
        }
    }
}
