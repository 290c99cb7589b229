//! Calls that need answers from outside of the sandbox, and never wait for them on a worker.
//!
//! A file system whose files lie outside ([`crate::fs::gofer`]) [`ask`]s. Where the answer is not there yet, the question
//! is sent and the handler leaves with `EIOCBQUEUED`; the call becomes a [`TripOp`] (its number, its arguments and its
//! [`Trip`]: plain data), and when the answer has come the handler runs again. It finds in the trip what it took in
//! before ([`inputs`]: guest memory, descriptors, the places of its paths) and the answers, so that
//! - nothing of the guest's is read twice;
//! - a question that changes something is asked exactly once: the n-th change of a call is answered by the n-th
//!   answer, whatever became of the world meanwhile. (A change that failed changed nothing; what was found before it is
//!   asked anew.)
//!
//! A trip may hold directories ([`DirLock`], sleeping locks): lookups share them, changes have them alone, from the
//! question until the call has entered the change into the tree of names.
//!
//! Without a trip (at boot, in Ops of other kinds) a question waits for its answer.

mod dir_lock;
pub mod inputs;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use abi::Errno;
use gofer_proto::client::Done;
use gofer_proto::{Request, Ticket};

use crate::fs::gofer::{Answer, GoferFs, GoferInode};
use crate::kernel::op::{Attempt, Flow, Op, SyscallResult};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitGuard, WaitQueue};
use crate::syscalls::Syscall;

pub use dir_lock::{DirLock, hold, release};

type Result<T> = std::result::Result<T, Errno>;

thread_local! {
    /// The trip of the call that this worker serves now.
    static CURRENT: RefCell<Option<Box<Trip>>> = const { RefCell::new(None) };
    /// One that is over, for the next call.
    static SPARE: Cell<Option<Box<Trip>>> = const { Cell::new(None) };
}

enum State {
    UnderWay(Ticket),
    Answered(Result<Arc<Answer>>),
}

struct Asked {
    fs: Arc<GoferFs>,
    request: Request,
    state: State,
}

/// What one call has asked and taken in so far.
#[derive(Default)]
pub struct Trip {
    asked: Vec<Asked>,
    /// Where this run of the handler is among the changes: behind the last one it came to.
    next_change: usize,
    /// Behind the last change that failed in this run. What was found before it is not to be believed any more: the
    /// world is not what the handler took it for.
    floor: usize,
    /// For each file system that was looked at: its tick then.
    began: Vec<(Arc<GoferFs>, u64)>,
    inputs: inputs::Inputs,
    ahead: Vec<Ahead>,
    holds: Vec<dir_lock::Hold>,
    wake: Option<WaitQueue>,
}

impl Trip {
    fn wake(&mut self) -> WaitQueue {
        self.wake.get_or_insert_with(WaitQueue::new).clone()
    }

    /// The question that `request` is, if it has been asked.
    fn find(&mut self, fs: &Arc<GoferFs>, request: &Request) -> Option<usize> {
        let same = |a: &Asked| Arc::ptr_eq(&a.fs, fs) && a.request == *request;
        if request.is_look() {
            let asked = self.asked.iter().enumerate().skip(self.floor);
            return asked.filter(|(_, a)| same(a)).map(|(at, _)| at).next();
        }
        let made = || self.asked.iter().enumerate().skip(self.next_change).filter(|(_, a)| !a.request.is_look());
        // What failed changed nothing: a run that goes another way since may leave it out.
        let lasting = |a: &Asked| !matches!(a.state, State::Answered(Err(_)));
        let at = made().find(|(_, a)| same(a)).or_else(|| made().find(|(_, a)| lasting(a))).map(|(at, _)| at)?;
        self.next_change = at + 1;
        if !self.asked.get(at).is_some_and(lasting) {
            self.floor = at + 1;
        }
        Some(at)
    }

    /// `fs`'s tick when it was first looked at.
    fn began(&mut self, fs: &Arc<GoferFs>) -> u64 {
        if let Some((_, tick)) = self.began.iter().find(|(f, _)| Arc::ptr_eq(f, fs)) {
            return *tick;
        }
        let tick = fs.tick();
        self.began.push((fs.clone(), tick));
        tick
    }

    fn is_under_way(&self) -> bool {
        self.asked.iter().any(|a| matches!(&a.state, State::UnderWay(ticket) if !ticket.is_done()))
    }

    fn rewind(&mut self) {
        (self.next_change, self.floor) = (0, 0);
        self.inputs.rewind();
    }

    /// Ends it: what it holds is given back.
    fn finish(&mut self) {
        // A change that nobody will enter into the tree of names: its directories are not to be believed any more.
        let lost = self.asked.iter().any(|a| !a.request.is_look() && matches!(a.state, State::UnderWay(_)));
        if lost {
            self.holds.iter().for_each(dir_lock::Hold::suspect);
        }
        self.holds.clear();
        self.asked.clear();
        self.began.clear();
        self.ahead.clear();
        self.inputs.clear();
        self.wake = None;
    }
}

impl Drop for Trip {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Works on the current trip; `None` where there is none.
fn with<T>(f: impl FnOnce(&mut Trip) -> T) -> Option<T> {
    CURRENT.with(|current| {
        // What is dropped while a trip is worked on may look for one as well: then there is none.
        let mut current = current.try_borrow_mut().ok()?;
        current.as_deref_mut().map(f)
    })
}

enum Step {
    Ready(Result<Arc<Answer>>),
    /// The answer of this question has come and is to be taken in.
    Came(usize, Result<Done>),
}

/// The answer to `request`.
///
/// # Errors
/// What the gofer says; `EIOCBQUEUED` where the call must wait for it.
pub fn ask(fs: &Arc<GoferFs>, request: Request) -> Result<Arc<Answer>> {
    match with(|trip| step(trip, fs, &request)) {
        None => fs.take(fs.client().call(request)).map(Arc::new),
        Some(Step::Ready(answer)) => answer,
        Some(Step::Came(at, done)) => {
            let answer = fs.take(done).map(Arc::new);
            with(|trip| {
                if let Some(asked) = trip.asked.get_mut(at) {
                    asked.state = State::Answered(answer.clone());
                }
                if !request.is_look() && answer.is_err() {
                    trip.floor = at + 1;
                    trip.ahead.clear();
                }
            });
            answer
        }
    }
}

fn step(trip: &mut Trip, fs: &Arc<GoferFs>, request: &Request) -> Step {
    let Some(at) = trip.find(fs, request) else {
        trip.began(fs);
        let wake = trip.wake();
        let ticket = fs.client().start(request.clone(), Some(Box::new(move || wake.wake(Events::READABLE))));
        if !request.is_look() {
            trip.next_change = trip.asked.len() + 1;
        }
        trip.asked.push(Asked { fs: fs.clone(), request: request.clone(), state: State::UnderWay(ticket) });
        return Step::Ready(Err(Errno::EIOCBQUEUED));
    };
    let Some(asked) = trip.asked.get(at) else { return Step::Ready(Err(Errno::EIO)) };
    if std::mem::discriminant(&asked.request) != std::mem::discriminant(request) {
        return Step::Ready(Err(Errno::EIO));
    }
    match &asked.state {
        State::Answered(answer) => Step::Ready(answer.clone()),
        State::UnderWay(ticket) => match ticket.take() {
            Some(done) => Step::Came(at, done),
            None => Step::Ready(Err(Errno::EIOCBQUEUED)),
        },
    }
}

/// Whether the current trip has the answer to `request`, taken in before.
#[must_use]
pub fn knows(fs: &Arc<GoferFs>, request: &Request) -> bool {
    let same = |a: &Asked| Arc::ptr_eq(&a.fs, fs) && a.request == *request;
    let answered = |a: &Asked| same(a) && matches!(a.state, State::Answered(_));
    with(|t| t.asked.iter().skip(t.floor).any(answered)).unwrap_or(false)
}

/// What was found for a name before the walk came to it.
pub struct Ahead {
    /// Where.
    pub dir: Arc<GoferInode>,
    /// The name.
    pub name: Vec<u8>,
    /// What.
    pub found: Result<Arc<GoferInode>>,
}

/// Keeps what was found for names to come, for this trip.
pub fn note_ahead(found: Vec<Ahead>) {
    with(|trip| trip.ahead.extend(found));
}

/// What was found for `name` in `dir` ahead.
#[must_use]
pub fn ahead(dir: &GoferInode, name: &[u8]) -> Option<Result<Arc<GoferInode>>> {
    let is_it = |a: &&Ahead| std::ptr::eq(Arc::as_ptr(&a.dir), dir) && a.name == name;
    with(|trip| trip.ahead.iter().rfind(is_it).map(|a| a.found.clone())).flatten()
}

/// `fs`'s tick when the current trip first looked at it: what was learnt later is as new as this call needs. `None`
/// without a trip.
#[must_use]
pub fn began(fs: &Arc<GoferFs>) -> Option<u64> {
    with(|trip| trip.began(fs))
}

/// Runs `f` with `trip` as the current one.
fn run<T>(trip: &mut Option<Box<Trip>>, f: impl FnOnce() -> T) -> T {
    let mut current = trip.take().or_else(|| SPARE.take()).unwrap_or_default();
    current.rewind();
    CURRENT.set(Some(current));
    let answer = f();
    *trip = CURRENT.take();
    answer
}

/// A call that waits for answers.
struct TripOp {
    trip: Option<Box<Trip>>,
    wake: WaitQueue,
    /// Its number, for the table.
    nr: u16,
    args: [u64; 6],
}

/// Serves a call whose handler may ask.
///
/// # Errors
/// What the handler answers.
pub fn serve(cx: &mut CurrentTask<'_>, call: &Syscall, args: [u64; 6]) -> SyscallResult {
    let mut trip = None;
    let answer = run(&mut trip, || (call.handler)(cx, &args));
    match (answer, trip) {
        (Err(Errno::EIOCBQUEUED), Some(mut trip)) => {
            let wake = trip.wake();
            Ok(Flow::Block(Box::new(TripOp { trip: Some(trip), wake, nr: call.nr, args })))
        }
        (answer, trip) => {
            retire(trip);
            answer
        }
    }
}

/// Keeps a trip that is over for the next call.
fn retire(trip: Option<Box<Trip>>) {
    if let Some(mut trip) = trip {
        trip.finish();
        SPARE.set(Some(trip));
    }
}

impl Op for TripOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        if self.trip.as_ref().is_some_and(|t| t.is_under_way()) {
            return Attempt::Pending;
        }
        let Some(call) = cx.kernel().syscalls.get(u64::from(self.nr)) else { return Attempt::Done(Err(Errno::ENOSYS)) };
        match run(&mut self.trip, || (call.handler)(cx, &self.args)) {
            Err(Errno::EIOCBQUEUED) => Attempt::Pending,
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

    fn save(
        &self,
        _saver: &mut crate::checkpoint::Saver,
    ) -> std::result::Result<crate::checkpoint::op::OpState, crate::checkpoint::Refused> {
        Err(crate::checkpoint::Refused::new("a call that waits for a host directory"))
    }

    fn name(&self) -> &'static str {
        "gofer"
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A trip under way, for tests of what it keeps.
    pub fn trip() -> Option<Box<Trip>> {
        Some(Box::default())
    }

    /// Runs `f` twice over `trip`, as a handler that had to wait once: run 0 and run 1.
    pub fn twice<T>(trip: &mut Option<Box<Trip>>, f: impl Fn(u8) -> T) -> (T, T) {
        let first = run(trip, || f(0));
        let again = run(trip, || f(1));
        (first, again)
    }
}
