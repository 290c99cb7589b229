//! Workers: threads that run tasks, each with a virtual CPU of its own.
//!
//! A worker owns a task from the moment it takes it off a queue until it parks, requeues or buries it. In between it
//! retries the waiting call, delivers signals, enters guest code and serves its exits; it never blocks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use platform::arch::RFLAGS_TF;
use platform::{Cpu, Exception, Exit};

use crate::checkpoint;
use crate::kernel::oom;
use crate::kernel::op::{Attempt, Flow};
use crate::kernel::ptrace::{self, After};
use crate::kernel::reactor::Wakeup;
use crate::kernel::seccomp;
use crate::kernel::signal::{self, Pending};
use crate::kernel::task::{CurrentTask, Task, TaskWaker, Waiting, flags};
use crate::kernel::timers::TimerTarget;
use crate::kernel::{Kernel, chaos, vsyscall};

/// The vector of debug exceptions, single steps among them.
const DEBUG: u8 = 1;
/// `TRAP_TRACE`: `si_code` of a single step.
const TRAP_TRACE: i32 = 2;

/// A sandbox that had nothing to do for so long gives back what it holds to be quick, milliseconds.
const QUIET_MS: u16 = 1000;

/// What becomes of a task when its worker lets go.
enum Outcome {
    Sleep,
    Yield,
    Dead,
}

struct Worker {
    kernel: Arc<Kernel>,
    index: usize,
    cpu: Box<dyn Cpu>,
}

/// The body of worker `index`: runs tasks until the kernel stops.
///
/// # Errors
/// What the platform says when it cannot give the first worker a CPU. The sandbox does without a further one.
pub fn run(kernel: Arc<Kernel>, index: usize) -> std::io::Result<()> {
    kernel.sched.enter(index);
    // A CPU costs the host memory and time (a stub process, a vCPU): a worker gets one with its first task, so that
    // a sandbox which never does two things at once never pays for the second.
    if let Some(task) = next_task(&kernel, index) {
        match kernel.platform.new_cpu() {
            Ok(cpu) => {
                kernel.sched.equip(index, cpu.kicker());
                Worker { kernel: kernel.clone(), index, cpu }.run(task);
            }
            Err(e) if index == 0 => return Err(e),
            Err(e) => {
                log::warn!("worker {index} has no CPU ({e}): the sandbox goes on with fewer");
                kernel.sched.enqueue_last(task);
            }
        }
    }
    // Others may still wait for the word.
    kernel.reactor.wake();
    Ok(())
}

/// The body of the reactor thread: handles events while all workers run guests.
pub fn run_reactor(kernel: Arc<Kernel>) {
    while !kernel.sched.is_stopped() {
        handle(&kernel, kernel.reactor.wait(None));
        if kernel.sched.has_idle() {
            // This event was an idle worker's, who was just about to wait. Waking it hands over the work that there
            // may be, and makes it the latest waiter again, who gets the next event.
            kernel.reactor.wake();
            std::thread::yield_now();
        }
    }
    kernel.reactor.wake();
}

fn handle(kernel: &Kernel, wakeup: Wakeup) {
    if wakeup == Wakeup::Timer {
        let _at_work = kernel.reactor.gate.read();
        kernel.timers.expire(kernel.clock.monotonic());
    }
}

/// Waits for a task to run; `None` when the kernel has stopped.
fn next_task(kernel: &Arc<Kernel>, index: usize) -> Option<Arc<Task>> {
    let mut patience = kernel.sched.is_lavish().then_some(QUIET_MS);
    loop {
        if kernel.sched.is_stopped() {
            return None;
        }
        if kernel.checkpoints.claim() {
            checkpoint::service::serve(kernel);
        }
        let now = kernel.clock.monotonic();
        if let Some(task) = kernel.sched.pick(index, now).or_else(|| kernel.sched.begin_idle(index, now)) {
            if kernel.sched.idle_could_work() {
                kernel.reactor.wake();
            }
            return Some(task);
        }
        let wakeup = kernel.reactor.wait(patience);
        if wakeup == Wakeup::Quiet {
            // Where others are still at work, one of them is the last to have nothing to do.
            patience = None;
            if kernel.sched.turn_frugal() {
                memory::program::give_back();
            }
        }
        kernel.sched.end_idle();
        handle(kernel, wakeup);
    }
}

impl Worker {
    fn run(mut self, first: Arc<Task>) {
        self.run_task(first);
        while let Some(task) = next_task(&self.kernel, self.index) {
            self.run_task(task);
        }
    }

    fn run_task(&mut self, task: Arc<Task>) {
        let kernel = self.kernel.clone();
        let _at_work = kernel.reactor.gate.read();
        kernel.sched.turn_lavish();
        task.run.start(self.index);
        task.last_cpu.store(self.index, Ordering::Relaxed);
        let started = self.kernel.clock.monotonic();
        task.on_cpu_since.store(started, Ordering::Relaxed);
        let outcome = {
            let mut own = task.own.lock();
            let mut cx = CurrentTask { task: &task, own: &mut own, cpu: &mut *self.cpu };
            let outcome = serve(&mut cx, self.index);
            cx.save_fpu();
            (outcome, cx.own.trace_own.announce.take())
        };
        let (outcome, stop) = outcome;
        let spent = self.kernel.clock.monotonic().saturating_sub(started);
        task.on_cpu_since.store(0, Ordering::SeqCst);
        let frozen = task.container().is_frozen().then(|| task.container().clone());
        task.cpu_time.fetch_add(spent.max(0).cast_unsigned(), Ordering::Relaxed);
        if let Some(stop) = stop {
            ptrace::stop::announce(&task, stop);
        }
        match outcome {
            Outcome::Sleep => {
                task.counts.waits.fetch_add(1, Ordering::Relaxed);
                if !task.run.park() {
                    self.kernel.sched.enqueue_last(task);
                }
            }
            Outcome::Yield => {
                task.counts.preemptions.fetch_add(1, Ordering::Relaxed);
                task.run.requeue();
                self.kernel.sched.enqueue_yielded(self.index, task);
            }
            Outcome::Dead => task.run.die(),
        }
        if let Some(container) = frozen {
            self.kernel.task_stood_still(&container);
        }
    }
}

/// Serves the current task until it sleeps, yields or dies.
fn serve(cx: &mut CurrentTask<'_>, index: usize) -> Outcome {
    let kernel = cx.kernel().clone();
    loop {
        cx.task.run.take_notification();
        if cx.own.trace_own.after != After::Nothing {
            ptrace::stop::go_on(cx);
        }
        if cx.task.container().is_frozen() && cx.task.flags.load(Ordering::SeqCst) & flags::EXIT == 0 {
            return Outcome::Sleep;
        }
        if !signal::is_stopped(cx.task) {
            retry_waiting(cx);
        }
        match signal::handle_pending(cx) {
            Pending::Continue => {}
            Pending::Stopped => return Outcome::Sleep,
            Pending::Dead => return Outcome::Dead,
        }
        if kernel.sched.is_stopped() {
            return Outcome::Sleep;
        }
        if let Some(waiting) = &cx.own.waiting {
            if waiting.again {
                return Outcome::Yield;
            }
            chaos::disturb(cx);
            return Outcome::Sleep;
        }
        if std::mem::take(&mut cx.own.starved) || kernel.sched.should_resched(index) || chaos::yields(cx) {
            return Outcome::Yield;
        }
        let entered = kernel.clock.monotonic();
        // A waker that goes on is not about to sleep: let an idle worker have whom it woke.
        kernel.sched.share_next(index, entered);
        kernel.sched.set_in_guest(index, true);
        if cx.task.run.is_notified() {
            kernel.sched.set_in_guest(index, false);
            continue;
        }
        let exit = enter_guest(cx);
        kernel.sched.set_in_guest(index, false);
        let spent = kernel.clock.monotonic().saturating_sub(entered).max(0);
        cx.task.user_time.fetch_add(spent.cast_unsigned(), Ordering::Relaxed);
        serve_exit(cx, exit);
    }
}

fn enter_guest(cx: &mut CurrentTask<'_>) -> Exit {
    let Some(mm) = &cx.own.mm else { return Exit::Broken { reason: "a task without memory was run", errno: 0 } };
    let set = cx.task.flags.load(Ordering::Relaxed);
    if set & flags::TRACE_STEP == 0 {
        return cx.cpu.run(&mm.space(), &mut cx.own.arch);
    }
    // The flag is the tracer's, unless the program has set it itself.
    let own_flag = cx.own.arch.regs.rflags & RFLAGS_TF;
    cx.own.arch.regs.rflags |= RFLAGS_TF;
    let exit = cx.cpu.run(&mm.space(), &mut cx.own.arch);
    cx.own.arch.regs.rflags = cx.own.arch.regs.rflags & !RFLAGS_TF | own_flag;
    match exit {
        Exit::Syscall => {
            cx.own.arch.regs.r11 = cx.own.arch.regs.r11 & !RFLAGS_TF | own_flag;
            exit
        }
        // Told here, since the flag that would tell is gone from the registers.
        Exit::Exception(step) if step.vector == DEBUG && step.si_code.is_none() => {
            Exit::Exception(Exception { si_code: Some(TRAP_TRACE), ..step })
        }
        _ => exit,
    }
}

fn serve_exit(cx: &mut CurrentTask<'_>, exit: Exit) {
    match exit {
        Exit::Syscall => serve_syscall(cx),
        Exit::Fault { addr, access, pkey } => {
            if access.exec && addr >= vsyscall::PAGE && vsyscall::emulate(cx) {
                return;
            }
            let served = match (&cx.own.mm, pkey) {
                (Some(mm), false) => mm.handle_fault(addr, access),
                _ => Err(crate::mm::FaultSignal::pkey()),
            };
            match served {
                Ok(()) => {
                    cx.task.counts.faults.fetch_add(1, Ordering::Relaxed);
                    oom::check_container(cx);
                }
                Err(bad) if bad == crate::mm::FaultSignal::out_of_memory() => oom::relieve(cx),
                Err(bad) => signal::force_fault(cx, addr, access, bad),
            }
        }
        Exit::BusError { addr } => {
            signal::force_fault(cx, addr, platform::Access::READ, crate::mm::FaultSignal::bus_adrerr());
        }
        Exit::Exception(exception) => signal::force_exception(cx, exception),
        Exit::Interrupted => {}
        Exit::Broken { reason, errno } => {
            log::error!("the platform cannot go on: {reason} (errno {errno}); the sandbox ends");
            cx.kernel().fail(reason);
        }
    }
}

fn serve_syscall(cx: &mut CurrentTask<'_>) {
    let nr = cx.own.arch.regs.rax;
    cx.own.arch.regs.orig_rax = nr;
    cx.own.syscall_nr = i64::try_from(nr).unwrap_or(-1);
    if !ptrace::stop::at_entry(cx) {
        run_call(cx, false);
    }
}

/// Serves the system call in `orig_rax`, which a tracer may have changed. `again`: filters have sent it to the tracer.
pub fn run_call(cx: &mut CurrentTask<'_>, again: bool) {
    let (nr, args) = (cx.own.arch.regs.orig_rax, cx.own.arch.regs.syscall_args());
    cx.own.syscall_nr = i64::try_from(nr).unwrap_or(-1);
    if nr.cast_signed() < 0 && cx.task.flags.load(Ordering::Relaxed) & flags::TRACED != 0 {
        // The tracer has called it off; rax is its answer.
        return ptrace::stop::at_exit(cx);
    }
    let filtered =
        if cx.task.seccomp.mode() == seccomp::DISABLED { None } else { seccomp::check(cx, nr, &args, again) };
    let answer = match filtered {
        None => crate::syscalls::dispatch(cx, nr, args),
        Some(Ok(answer)) => answer,
        Some(Err(data)) if ptrace::stop::at_seccomp(cx, data) => return,
        Some(Err(_)) => Err(abi::Errno::ENOSYS),
    };
    match answer {
        Ok(Flow::Return(value)) => finish(cx, Ok(value)),
        Ok(Flow::Block(op)) => {
            cx.own.waiting = Some(Waiting::new(op));
        }
        Ok(Flow::Resume) => {
            cx.own.syscall_nr = -1;
            if cx.own.trace_own.announce.is_none() {
                ptrace::stop::at_exit(cx);
            }
        }
        Err(errno) => finish(cx, Err(errno)),
    }
    oom::check(cx);
}

/// Gives the guest its answer. A restart code stays in `rax` until the signal code has seen it.
fn finish(cx: &mut CurrentTask<'_>, answer: Result<u64, abi::Errno>) {
    crate::syscalls::trace::exit(cx, answer);
    cx.own.arch.regs.rax = answer.unwrap_or_else(abi::Errno::to_rax);
    if !answer.is_err_and(abi::Errno::is_restart) {
        cx.own.syscall_nr = -1;
    }
    ptrace::stop::at_exit(cx);
}

struct Deadline(Arc<Task>);

impl TimerTarget for Deadline {
    fn expired(&self) {
        self.0.notify();
    }
}

/// Attempts the waiting call; enlists it the first time; gives up at its deadline.
fn retry_waiting(cx: &mut CurrentTask<'_>) {
    let Some(mut waiting) = cx.own.waiting.take() else { return };
    loop {
        match waiting.op.attempt(cx) {
            Attempt::Done(answer) => {
                drop(waiting);
                return finish(cx, answer);
            }
            Attempt::Then(Flow::Return(value)) => {
                drop(waiting);
                return finish(cx, Ok(value));
            }
            Attempt::Then(Flow::Resume) => {
                cx.own.syscall_nr = -1;
                return;
            }
            Attempt::Then(Flow::Block(op)) => {
                waiting = Waiting::new(op);
                continue;
            }
            Attempt::Again => {
                waiting.again = true;
                cx.own.waiting = Some(waiting);
                return;
            }
            Attempt::Pending => waiting.again = false,
        }
        if waiting.enlisted {
            if chaos::again(cx) {
                continue;
            }
            break;
        }
        waiting.guards = waiting.op.enlist(cx);
        waiting.enlisted = true;
        if let Some(deadline) = waiting.op.deadline() {
            waiting.timer = Some(cx.kernel().timers.add(deadline, Arc::new(Deadline(cx.task.clone()))));
        }
    }
    if waiting.op.deadline().is_some_and(|d| cx.kernel().clock.monotonic() >= d) {
        let answer = waiting.op.timed_out(cx);
        drop(waiting);
        return finish(cx, answer);
    }
    cx.own.waiting = Some(waiting);
}

/// Ends the wait of a task whose signal handler must run: the call answers what [`crate::kernel::op::Op::interrupted`]
/// says, a restart code included.
pub fn interrupt_waiting(cx: &mut CurrentTask<'_>) {
    if let Some(mut waiting) = cx.own.waiting.take() {
        let answer = waiting.op.interrupted(cx);
        drop(waiting);
        finish(cx, answer);
    }
}

/// `task` as a wait target.
#[must_use]
pub fn waker(task: &Arc<Task>) -> Arc<TaskWaker> {
    Arc::new(TaskWaker(task.clone()))
}
