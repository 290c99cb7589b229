//! Who asks for a checkpoint, and who makes it.
//!
//! A request freezes the scheduler: every worker puts its task back at its next boundary and comes for another. The
//! first that finds the request takes it, waits until nobody else is at work (the *gate* of the reactor), saves, and
//! lets all go on. A program asks by a write to `/proc/nanovisor/checkpoint`, which is a waiting call like any other: it
//! is saved with everything else, and so returns in the restored sandbox too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use abi::Errno;

use crate::boot::{Answer, ExitStatus};
use crate::checkpoint::op::OpState;
use crate::checkpoint::{Destination, Failure, Refused, Saver};
use crate::kernel::container::Owed;
use crate::kernel::op::{Attempt, Op};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitGuard, WaitQueue};
use crate::kernel::{Kernel, random};
use crate::sync::{Level, Mutex};

/// Where a sandbox comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was started.
    Original,
    /// From a snapshot on disk.
    Restored,
    /// From a template in memory.
    Forked,
}

/// Which instance this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Where from.
    pub origin: Origin,
    /// Its own random id.
    pub id: [u8; 16],
}

impl Identity {
    /// A new instance.
    #[must_use]
    pub fn new(origin: Origin) -> Self {
        let mut id = [0; 16];
        random::fill(&mut id);
        // Version 4, variant 1 (RFC 9562).
        id[6] = id[6] & 0x0f | 0x40;
        id[8] = id[8] & 0x3f | 0x80;
        Identity { origin, id }
    }

    /// The id in its usual form.
    #[must_use]
    pub fn uuid(&self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let [a, b, c, d, e] = [&self.id[0..4], &self.id[4..6], &self.id[6..8], &self.id[8..10], &self.id[10..16]];
        [hex(a), hex(b), hex(c), hex(d), hex(e)].join("-")
    }
}

struct State {
    destination: Option<Destination>,
    /// Who outside is told when it is written.
    owed: Option<Owed>,
    identity: Identity,
    failure: Option<(Errno, String)>,
}

/// A kernel's checkpoints.
pub struct Service {
    requested: AtomicBool,
    /// Checkpoints that were tried.
    done: AtomicU64,
    state: Mutex<State>,
    queue: WaitQueue,
}

impl Default for Service {
    fn default() -> Self {
        let state = State { destination: None, owed: None, identity: Identity::new(Origin::Original), failure: None };
        Service {
            requested: AtomicBool::new(false),
            done: AtomicU64::new(0),
            state: Mutex::new(Level::Leaf, state),
            queue: WaitQueue::new(),
        }
    }
}

impl Service {
    /// Where the next checkpoint goes.
    pub fn set_destination(&self, destination: Option<Destination>) {
        let old = std::mem::replace(&mut self.state.lock().destination, destination);
        drop(old);
    }

    /// This instance.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.state.lock().identity
    }

    /// It is another instance from now on.
    pub fn set_identity(&self, identity: Identity) {
        self.state.lock().identity = identity;
    }

    /// What `/proc/nanovisor/checkpoint` says: where this instance comes from, its id, and why the last checkpoint
    /// failed, if it did.
    #[must_use]
    pub fn describe(&self) -> String {
        let state = self.state.lock();
        let origin = match state.identity.origin {
            Origin::Original => "original",
            Origin::Restored => "restored",
            Origin::Forked => "forked",
        };
        let failure = state.failure.as_ref().map_or(String::new(), |(_, text)| format!("failed: {text}\n"));
        format!("{origin} {}\n{failure}", state.identity.uuid())
    }

    /// Asks for a checkpoint. `false` where nobody wants one.
    fn request(&self, kernel: &Kernel) -> bool {
        if self.state.lock().destination.is_none() {
            return false;
        }
        self.requested.store(true, Ordering::SeqCst);
        kernel.sched.freeze();
        true
    }

    /// Takes a request, if there is one: the caller serves it by [`serve`].
    #[must_use]
    pub(crate) fn claim(&self) -> bool {
        self.requested.load(Ordering::Relaxed) && self.requested.swap(false, Ordering::SeqCst)
    }

    fn count(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }
}

/// Makes the checkpoint that was asked for. On a thread that runs no task.
pub(crate) fn serve(kernel: &Arc<Kernel>) {
    let (destination, owed) = {
        let mut state = kernel.checkpoints.state.lock();
        (state.destination.take(), state.owed.take())
    };
    let Some(destination) = destination else { return kernel.sched.thaw() };
    let outcome = kernel.checkpoint(&destination);
    let failure = match &outcome {
        Ok(()) => None,
        Err(failure) => {
            log::error!("no checkpoint was made: {failure}");
            Some((failure.errno(), failure.to_string()))
        }
    };
    let stop = destination.stop_after && failure.is_none();
    if stop {
        // To whoever asked from outside it looks killed; a program that asked has done what it was started for.
        kernel.finish(if owed.is_some() { ExitStatus::Signaled(libc::SIGKILL) } else { ExitStatus::Exited(0) });
    } else {
        let mut state = kernel.checkpoints.state.lock();
        // What was refused may be asked for again, by the program; who asks from outside brings new files.
        state.destination = (failure.is_some() && owed.is_none()).then_some(destination);
        state.failure.clone_from(&failure);
    }
    if let Some(owed) = owed {
        owed.give(failure.map_or(Ok(Answer::Done), Err));
    }
    kernel.checkpoints.done.fetch_add(1, Ordering::SeqCst);
    kernel.checkpoints.queue.wake(Events::IN);
    kernel.sched.thaw();
}

impl Kernel {
    /// Makes a checkpoint for somebody outside, who is answered when it is there: now, or when a program is ready.
    pub(crate) fn checkpoint_for(&self, owed: Owed, destination: Destination, at_ready: bool) {
        {
            let mut state = self.checkpoints.state.lock();
            if state.destination.is_none() && !self.checkpoints.requested.load(Ordering::SeqCst) {
                (state.destination, state.owed) = (Some(destination), Some(owed));
            } else {
                drop(state);
                return owed.give(Err((Errno::EBUSY, "another checkpoint is waited for".to_owned())));
            }
        }
        if !at_ready {
            self.checkpoints.request(self);
            // All workers may be waiting for events; one of them makes the checkpoint.
            self.reactor.wake();
        }
    }

    /// Saves the kernel while all workers stand still, and lets them go on. Not to be called by one that runs a task.
    ///
    /// # Errors
    /// See [`Failure`]; nothing has changed then.
    pub fn checkpoint(self: &Arc<Self>, destination: &Destination) -> Result<(), Failure> {
        self.sched.freeze();
        let alone = self.reactor.gate.write();
        let outcome = destination.save(self);
        drop(alone);
        self.sched.thaw();
        outcome
    }
}

/// A write to `/proc/nanovisor/checkpoint`.
pub struct CheckpointOp {
    /// Checkpoints tried when it began.
    begun: Option<u64>,
    len: u64,
}

impl CheckpointOp {
    /// A write of `len` bytes.
    #[must_use]
    pub fn new(len: u64) -> Self {
        CheckpointOp { begun: None, len }
    }

    /// The write in a restored sandbox, which is over.
    #[must_use]
    pub fn restored(kernel: &Kernel, len: u64) -> Self {
        CheckpointOp { begun: Some(kernel.checkpoints.count().wrapping_sub(1)), len }
    }
}

impl Op for CheckpointOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        let kernel = cx.kernel();
        let service = &kernel.checkpoints;
        match self.begun {
            None => {
                self.begun = Some(service.count());
                if service.request(kernel) { Attempt::Pending } else { Attempt::Done(Ok(self.len)) }
            }
            Some(begun) if begun == service.count() => Attempt::Pending,
            Some(_) => match &service.state.lock().failure {
                None => Attempt::Done(Ok(self.len)),
                Some((errno, _)) => Attempt::Done(Err(*errno)),
            },
        }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![cx.kernel().checkpoints.queue.enlist(Events::IN, cx.waiter())]
    }

    fn save(&self, _saver: &mut Saver) -> Result<OpState, Refused> {
        let CheckpointOp { begun: _, len } = self;
        Ok(OpState::Checkpoint { len: *len })
    }

    fn name(&self) -> &'static str {
        "checkpoint"
    }
}
