//! Calls that need answers from outside of the sandbox, and never wait for them on a worker.
//!
//! A file system whose files lie outside ([`crate::fs::gofer`]) [`ask`]s. Where the answer is not there yet, the question
//! is sent and the handler leaves with `EIOCBQUEUED`; the call becomes a [`TripOp`], and when the answer has come the
//! handler runs again and finds it in the call's [`Trip`]. What it read before is read no second time: descriptors and
//! strings come out of the trip as well. A question that changes something is asked exactly once: the n-th change of
//! a call is answered by the n-th answer, whatever became of the world meanwhile. (A change that failed changed nothing;
//! what was found before it is asked anew.)
//!
//! A trip may hold directories ([`DirLock`], sleeping locks): lookups share them, changes have them alone, from the
//! question until the call has entered the change into the tree of names. Contention suspends the task.
//!
//! Without a trip (at boot, in Ops of other kinds) a question waits for its answer.

use std::cell::RefCell;
use std::sync::Arc;

use abi::{Errno, UserAddr};
use gofer_proto::{Request, Ticket};

use crate::fs::gofer::{Answer, GoferFs};
use crate::kernel::op::{Attempt, Flow, Op, SyscallResult};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitGuard, WaitQueue};
use crate::sync::{Level, Mutex};
use crate::vfs::{FdNum, FileDescription};

/// Most descriptors that a trip remembers; calls that look up more change nothing outside.
const MAX_FILES: usize = 8;

type Handler = fn(&mut CurrentTask<'_>, &[u64; 6]) -> SyscallResult;
type Result<T> = std::result::Result<T, Errno>;

thread_local!(static CURRENT: RefCell<Option<Trip>> = const { RefCell::new(None) });

enum State {
    UnderWay(Ticket),
    Answered(Result<Arc<Answer>>),
}

struct Asked {
    fs: Arc<GoferFs>,
    request: Request,
    state: State,
}

/// What one call has asked and read so far.
#[derive(Default)]
pub struct Trip {
    asked: Vec<Asked>,
    /// Where this run of the handler is among the changes: behind the last one it came to.
    next_change: usize,
    /// Behind the last change that failed in this run. What was found before it is not to be believed any more: the
    /// world is not what the handler took it for.
    floor: usize,
    holds: Vec<Hold>,
    files: Vec<(usize, FdNum, Arc<FileDescription>)>,
    texts: Vec<(UserAddr, Vec<u8>)>,
    wake: Option<WaitQueue>,
}

impl Trip {
    fn wake(&mut self) -> WaitQueue {
        self.wake.get_or_insert_with(WaitQueue::new).clone()
    }

    /// The question that `request` is, if it has been asked.
    fn find(&mut self, fs: &Arc<GoferFs>, request: &Request) -> Option<usize> {
        let same = |a: &Asked| Arc::ptr_eq(&a.fs, fs) && a.request == *request;
        if !changes(request) {
            let asked = self.asked.iter().enumerate().skip(self.floor);
            return asked.filter(|(_, a)| same(a)).map(|(at, _)| at).next();
        }
        let made = || self.asked.iter().enumerate().skip(self.next_change).filter(|(_, a)| changes(&a.request));
        // What failed changed nothing: a run that goes another way since may leave it out.
        let lasting = |a: &Asked| !matches!(a.state, State::Answered(Err(_)));
        let at = made().find(|(_, a)| same(a)).or_else(|| made().find(|(_, a)| lasting(a))).map(|(at, _)| at)?;
        self.next_change = at + 1;
        if !self.asked.get(at).is_some_and(lasting) {
            self.floor = at + 1;
        }
        Some(at)
    }

    fn is_under_way(&self) -> bool {
        self.asked.iter().any(|a| matches!(&a.state, State::UnderWay(ticket) if !ticket.is_done()))
    }
}

impl Drop for Trip {
    fn drop(&mut self) {
        // A change that nobody will enter into the tree of names: its directories are not to be believed any more.
        let lost = self.asked.iter().any(|a| changes(&a.request) && matches!(a.state, State::UnderWay(_)));
        for hold in self.holds.iter().filter(|h| lost && h.alone) {
            hold.lock.state.lock().suspect = true;
        }
    }
}

fn changes(request: &Request) -> bool {
    !matches!(
        request,
        Request::Attach(_)
            | Request::Walk { .. }
            | Request::GetAttr(_)
            | Request::StatFs(_)
            | Request::Open { .. }
            | Request::ReadDir { .. }
            | Request::ReadLink(_)
            | Request::GetXattr { .. }
            | Request::ListXattr(_)
    )
}

enum Step {
    Ready(Result<Arc<Answer>>),
    /// The answer of this question has come and is to be taken in.
    Came(usize, std::result::Result<gofer_proto::client::Done, Errno>),
}

/// The answer to `request`.
///
/// # Errors
/// What the gofer says; `EIOCBQUEUED` where the call must wait for it.
pub fn ask(fs: &Arc<GoferFs>, request: Request) -> Result<Arc<Answer>> {
    let change = changes(&request);
    let step = CURRENT.with_borrow_mut(|trip| {
        let trip = trip.as_mut()?;
        let Some(at) = trip.find(fs, &request) else {
            let wake = trip.wake();
            let ticket = fs.client().start(request.clone(), Some(Box::new(move || wake.wake(Events::READABLE))));
            if change {
                trip.next_change = trip.asked.len() + 1;
            }
            trip.asked.push(Asked { fs: fs.clone(), request: request.clone(), state: State::UnderWay(ticket) });
            return Some(Step::Ready(Err(Errno::EIOCBQUEUED)));
        };
        let asked = trip.asked.get(at)?;
        if std::mem::discriminant(&asked.request) != std::mem::discriminant(&request) {
            return Some(Step::Ready(Err(Errno::EIO)));
        }
        Some(match &asked.state {
            State::Answered(answer) => Step::Ready(answer.clone()),
            State::UnderWay(ticket) => match ticket.take() {
                Some(done) => Step::Came(at, done),
                None => Step::Ready(Err(Errno::EIOCBQUEUED)),
            },
        })
    });
    match step {
        None => fs.take(fs.client().call(request)).map(Arc::new),
        Some(Step::Ready(answer)) => answer,
        Some(Step::Came(at, done)) => {
            let answer = fs.take(done).map(Arc::new);
            CURRENT.with_borrow_mut(|trip| {
                if let Some(asked) = trip.as_mut().and_then(|t| t.asked.get_mut(at)) {
                    asked.state = State::Answered(answer.clone());
                }
                if let Some(trip) = trip.as_mut().filter(|_| change && answer.is_err()) {
                    trip.floor = at + 1;
                }
            });
            answer
        }
    }
}

/// Whether the current trip has the answer to `request`, taken in before.
#[must_use]
pub fn knows(fs: &Arc<GoferFs>, request: &Request) -> bool {
    CURRENT.with_borrow(|trip| {
        let same = |a: &Asked| Arc::ptr_eq(&a.fs, fs) && a.request == *request;
        let answered = |a: &Asked| same(a) && matches!(a.state, State::Answered(_));
        trip.as_ref().is_some_and(|t| t.asked.iter().skip(t.floor).any(answered))
    })
}

/// The string at `at`, read by `read` the first time only.
///
/// # Errors
/// What `read` says.
pub fn text(at: UserAddr, read: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    let known = CURRENT.with_borrow(|trip| {
        let trip = trip.as_ref()?;
        trip.texts.iter().find(|(a, _)| *a == at).map(|(_, text)| text.clone())
    });
    if let Some(text) = known {
        return Ok(text);
    }
    let text = read()?;
    CURRENT.with_borrow_mut(|trip| {
        if let Some(trip) = trip.as_mut().filter(|t| t.texts.len() < MAX_FILES) {
            trip.texts.push((at, text.clone()));
        }
    });
    Ok(text)
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
    let known = CURRENT.with_borrow(|trip| {
        let trip = trip.as_ref()?;
        trip.files.iter().find(|(t, f, _)| *t == table && *f == fd).map(|(_, _, file)| file.clone())
    });
    if let Some(file) = known {
        return Ok(file);
    }
    let file = get()?;
    CURRENT.with_borrow_mut(|trip| {
        if let Some(trip) = trip.as_mut().filter(|t| t.files.len() < MAX_FILES) {
            trip.files.push((table, fd, file.clone()));
        }
    });
    Ok(file)
}

#[derive(Default)]
struct LockState {
    shared: u32,
    alone: bool,
    /// A change of it was made that the tree of names does not know.
    suspect: bool,
    waiters: Vec<WaitQueue>,
}

/// A directory's sleeping lock.
pub struct DirLock {
    state: Mutex<LockState>,
}

impl Default for DirLock {
    fn default() -> Self {
        DirLock { state: Mutex::new(Level::Leaf, LockState::default()) }
    }
}

impl DirLock {
    /// Whether cached names of the directory are not to be believed.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.state.lock().suspect
    }

    fn try_take(self: &Arc<Self>, alone: bool, wake: &WaitQueue) -> Option<Hold> {
        let mut state = self.state.lock();
        if state.alone || (alone && state.shared > 0) {
            state.waiters.push(wake.clone());
            return None;
        }
        if alone {
            state.alone = true;
        } else {
            state.shared += 1;
        }
        drop(state);
        Some(Hold { lock: self.clone(), alone })
    }
}

struct Hold {
    lock: Arc<DirLock>,
    alone: bool,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let waiters = {
            let mut state = self.lock.state.lock();
            if self.alone {
                state.alone = false;
            } else {
                state.shared = state.shared.saturating_sub(1);
            }
            std::mem::take(&mut state.waiters)
        };
        waiters.iter().for_each(|w| w.wake(Events::READABLE));
    }
}

/// Holds `locks` for the current trip: all of them or none.
///
/// # Errors
/// `EIOCBQUEUED` where the call must wait for another.
pub fn hold(locks: &[&Arc<DirLock>], alone: bool) -> Result<()> {
    CURRENT.with_borrow_mut(|trip| {
        let Some(trip) = trip.as_mut() else { return Ok(()) };
        let held = |t: &Trip, l: &Arc<DirLock>| t.holds.iter().any(|h| Arc::ptr_eq(&h.lock, l) && (h.alone || !alone));
        if locks.iter().all(|l| held(trip, l)) {
            return Ok(());
        }
        // In the middle of a change: what is looked up again beside it waits for nobody.
        if !alone && trip.holds.iter().any(|h| h.alone) {
            return Ok(());
        }
        // Nothing is held while another is waited for, so that nobody waits in a circle.
        trip.holds.clear();
        let wake = trip.wake();
        for lock in locks {
            if held(trip, lock) {
                continue;
            }
            match lock.try_take(alone, &wake) {
                Some(hold) => trip.holds.push(hold),
                None => {
                    trip.holds.clear();
                    return Err(Errno::EIOCBQUEUED);
                }
            }
        }
        Ok(())
    })
}

/// Gives back what the current trip shares of `lock`.
pub fn release(lock: &Arc<DirLock>) {
    let gone = CURRENT.with_borrow_mut(|trip| {
        let trip = trip.as_mut()?;
        let at = trip.holds.iter().position(|h| Arc::ptr_eq(&h.lock, lock) && !h.alone)?;
        Some(trip.holds.swap_remove(at))
    });
    drop(gone);
}

/// A call that waits for answers.
struct TripOp {
    trip: Option<Trip>,
    wake: WaitQueue,
    handler: Handler,
    args: [u64; 6],
}

fn run(cx: &mut CurrentTask<'_>, mut trip: Trip, handler: Handler, args: &[u64; 6]) -> (SyscallResult, Option<Trip>) {
    (trip.next_change, trip.floor) = (0, 0);
    CURRENT.set(Some(trip));
    let answer = handler(cx, args);
    (answer, CURRENT.take())
}

/// Serves a call by `handler`, which may ask.
///
/// # Errors
/// What the handler answers.
pub fn serve(cx: &mut CurrentTask<'_>, handler: Handler, args: [u64; 6]) -> SyscallResult {
    match run(cx, Trip::default(), handler, &args) {
        (Err(Errno::EIOCBQUEUED), Some(mut trip)) => {
            let wake = trip.wake();
            Ok(Flow::Block(Box::new(TripOp { trip: Some(trip), wake, handler, args })))
        }
        (answer, _) => answer,
    }
}

impl Op for TripOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        if self.trip.as_ref().is_some_and(Trip::is_under_way) {
            return Attempt::Pending;
        }
        let (answer, trip) = run(cx, self.trip.take().unwrap_or_default(), self.handler, &self.args);
        match answer {
            Err(Errno::EIOCBQUEUED) => {
                self.trip = trip;
                Attempt::Pending
            }
            Err(errno) => Attempt::Done(Err(errno)),
            Ok(flow) => Attempt::Then(flow),
        }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![self.wake.enlist(Events::READABLE, cx.waiter())]
    }

    fn is_killable_only(&self) -> bool {
        true
    }

    fn name(&self) -> &'static str {
        "gofer"
    }
}
