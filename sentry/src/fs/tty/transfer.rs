//! Reads and writes of a terminal by programs: job control, lines, VMIN and VTIME (`n_tty_read`, `n_tty_write`).

use std::sync::Arc;

use abi::Errno;
use serde::{Deserialize, Serialize};

use crate::checkpoint::op::OpState;
use crate::checkpoint::{Id, Refused, Restorer, Saver, Unusable};
use crate::fs::tty::termios::{cc, flag};
use crate::fs::tty::{SlaveFile, Tty, job};
use crate::kernel::op::{Attempt, Op};
use crate::kernel::task::{CurrentTask, Task};
use crate::kernel::timers::{TimerHandle, TimerTarget};
use crate::kernel::wait::{Events, WaitGuard};
use crate::vfs::saved::FileState;
use crate::vfs::{FileDescription, IoCursor, IoSink, IoSource};

/// VTIME's unit, nanoseconds.
const TENTH: i64 = 100_000_000;

fn slave(file: &FileDescription) -> Result<&SlaveFile, Errno> {
    file.ops.as_any().downcast_ref::<SlaveFile>().ok_or(Errno::EIO)
}

struct Alarm(Arc<Task>);

impl TimerTarget for Alarm {
    fn expired(&self) {
        self.0.notify();
    }
}

/// The timer of a raw read.
struct Patience {
    deadline: i64,
    _timer: TimerHandle,
}

/// What VMIN and VTIME said when the read began.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Terms {
    minimum: usize,
    /// Nanoseconds between bytes; 0 for no limit.
    between: i64,
    /// Nanoseconds for the whole; `None` waits forever.
    in_all: Option<i64>,
}

impl Terms {
    fn of(tty: &Tty) -> Self {
        let state = tty.state.lock();
        if state.termios.l(flag::ICANON) {
            return Terms { minimum: 0, between: 0, in_all: None };
        }
        let (min, time) = (state.termios.cc[cc::VMIN], i64::from(state.termios.cc[cc::VTIME]) * TENTH);
        match min {
            0 => Terms { minimum: 1, between: 0, in_all: Some(time) },
            min => Terms { minimum: usize::from(min), between: time, in_all: None },
        }
    }
}

/// A read or write that waits.
#[derive(Serialize, Deserialize)]
pub struct TtyTransfer {
    file: Id<FileState>,
    cursor: IoCursor,
    terms: Option<Terms>,
    deadline: Option<i64>,
    write: bool,
    begun: bool,
}

impl TtyTransfer {
    /// The call of `task`.
    ///
    /// # Errors
    /// Corrupt state.
    pub fn restore(self, task: &Arc<Task>, restorer: &mut Restorer) -> Result<Box<dyn Op>, Unusable> {
        let TtyTransfer { file, cursor, terms, deadline, write, begun } = self;
        let cursor = cursor.checked().ok_or(Unusable::Corrupt("a terminal's read or write"))?;
        let file = restorer.file(file)?;
        if write {
            return Ok(Box::new(WriteOp { file, cursor, begun }));
        }
        let timers = &restorer.kernel.timers;
        let patience =
            deadline.map(|deadline| Patience { deadline, _timer: timers.add(deadline, Arc::new(Alarm(task.clone()))) });
        Ok(Box::new(ReadOp { file, cursor, terms, patience }))
    }
}

/// `read(2)` of a slave.
pub struct ReadOp {
    file: Arc<FileDescription>,
    cursor: IoCursor,
    terms: Option<Terms>,
    patience: Option<Patience>,
}

impl ReadOp {
    pub(super) fn new(file: Arc<FileDescription>, cursor: IoCursor) -> Self {
        ReadOp { file, cursor, terms: None, patience: None }
    }

    fn wait_for(&mut self, cx: &CurrentTask<'_>, nanos: i64) {
        let deadline = cx.kernel().clock.monotonic().saturating_add(nanos);
        let timer = cx.kernel().timers.add(deadline, Arc::new(Alarm(cx.task.clone())));
        self.patience = Some(Patience { deadline, _timer: timer });
    }

    /// Checked once, at the start, as `n_tty_read` does.
    fn begin(&mut self, cx: &mut CurrentTask<'_>) -> Result<Terms, Errno> {
        if let Some(terms) = self.terms {
            return Ok(terms);
        }
        let tty = slave(&self.file)?.tty.clone();
        job::check(cx, &tty, libc::SIGTTIN)?;
        let terms = Terms::of(&tty);
        if let Some(nanos) = terms.in_all.filter(|n| *n > 0) {
            self.wait_for(cx, nanos);
        }
        self.terms = Some(terms);
        Ok(terms)
    }

    /// One look; `None` where it must wait.
    fn step(&mut self, cx: &mut CurrentTask<'_>) -> Result<Option<usize>, Errno> {
        let file = self.file.clone();
        let end = slave(&file)?;
        if end.is_dead() {
            return Ok(Some(0));
        }
        let terms = self.begin(cx)?;
        if self.cursor.remaining() == 0 {
            return Ok(Some(self.cursor.done()));
        }
        let mm = cx.mm()?;
        loop {
            let got = end.tty.with(|state, fx| {
                if !state.readable(false) {
                    return if state.master_open { Ok(None) } else { Err(Errno::EIO) };
                }
                let lines = state.canonical();
                state.read(&mut IoSink::guest(&mm, &mut self.cursor), fx).map(|_| Some(lines))
            })?;
            match got {
                Some(true) => return Ok(Some(self.cursor.done())),
                Some(false) if self.cursor.done() >= terms.minimum || self.cursor.remaining() == 0 => {
                    return Ok(Some(self.cursor.done()));
                }
                Some(false) if terms.between > 0 => self.wait_for(cx, terms.between),
                Some(false) => {}
                None => break,
            }
        }
        if terms.in_all == Some(0)
            || self.patience.as_ref().is_some_and(|p| cx.kernel().clock.monotonic() >= p.deadline)
        {
            return Ok(Some(self.cursor.done()));
        }
        if self.file.is_nonblocking() { Err(Errno::EAGAIN) } else { Ok(None) }
    }
}

impl Op for ReadOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        match self.step(cx) {
            Ok(None) => Attempt::Pending,
            Ok(Some(n)) => Attempt::Done(Ok(n as u64)),
            Err(_) if self.cursor.done() > 0 => Attempt::Done(Ok(self.cursor.done() as u64)),
            Err(e) => Attempt::Done(Err(e)),
        }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        let queue = self.file.ops.wait_queue();
        queue.map(|q| q.enlist(Events::READABLE, cx.waiter())).into_iter().collect()
    }

    fn interrupted(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        if self.cursor.done() > 0 { Ok(self.cursor.done() as u64) } else { Err(Errno::ERESTARTSYS) }
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        let ReadOp { file, cursor, terms, patience } = self;
        let state = TtyTransfer {
            file: saver.files.id(file),
            cursor: cursor.clone(),
            terms: *terms,
            deadline: patience.as_ref().map(|Patience { deadline, _timer: _ }| *deadline),
            write: false,
            begun: terms.is_some(),
        };
        Ok(OpState::Terminal(state))
    }

    fn name(&self) -> &'static str {
        "n_tty_read"
    }
}

/// `write(2)` to a slave.
pub struct WriteOp {
    file: Arc<FileDescription>,
    cursor: IoCursor,
    begun: bool,
}

impl WriteOp {
    pub(super) fn new(file: Arc<FileDescription>, cursor: IoCursor) -> Self {
        WriteOp { file, cursor, begun: false }
    }

    fn step(&mut self, cx: &mut CurrentTask<'_>) -> Result<usize, Errno> {
        let end = slave(&self.file)?;
        if end.is_dead() {
            return Err(Errno::EIO);
        }
        if !self.begun {
            if end.tty.state.lock().termios.l(flag::TOSTOP) {
                job::check(cx, &end.tty, libc::SIGTTOU)?;
            }
            self.begun = true;
        }
        let mm = cx.mm()?;
        end.tty.write_slave(&mut IoSource::guest(&mm, &mut self.cursor))
    }
}

impl Op for WriteOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        loop {
            match self.step(cx) {
                Ok(_) if self.cursor.remaining() == 0 => return Attempt::Done(Ok(self.cursor.done() as u64)),
                Ok(_) => {}
                Err(Errno::EAGAIN) if !self.file.is_nonblocking() => return Attempt::Pending,
                Err(_) if self.cursor.done() > 0 => return Attempt::Done(Ok(self.cursor.done() as u64)),
                Err(e) => return Attempt::Done(Err(e)),
            }
        }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        let queue = self.file.ops.wait_queue();
        queue.map(|q| q.enlist(Events::WRITABLE, cx.waiter())).into_iter().collect()
    }

    fn interrupted(&mut self, _cx: &mut CurrentTask<'_>) -> Result<u64, Errno> {
        if self.cursor.done() > 0 { Ok(self.cursor.done() as u64) } else { Err(Errno::ERESTARTSYS) }
    }

    fn save(&self, saver: &mut Saver) -> Result<OpState, Refused> {
        let WriteOp { file, cursor, begun } = self;
        let (file, cursor) = (saver.files.id(file), cursor.clone());
        Ok(OpState::Terminal(TtyTransfer { file, cursor, terms: None, deadline: None, write: true, begun: *begun }))
    }

    fn name(&self) -> &'static str {
        "n_tty_write"
    }
}
