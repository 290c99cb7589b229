//! The end of processes, containers, and of the sandbox with its last container.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use abi::Errno;

use crate::boot::ExitStatus;
use crate::boot::request::{Answer, Event, Token};
use crate::kernel::Kernel;
use crate::kernel::container::{Container, Phase};
use crate::kernel::exit;
use crate::kernel::task::Tid;
use crate::kernel::thread_group::ThreadGroup;

/// A `wait(2)` status as the end of a program.
fn exit_status(status: i32) -> ExitStatus {
    match status & 0x7f {
        0 => ExitStatus::Exited(u8::try_from(status >> 8 & 0xff).unwrap_or(0)),
        signo => ExitStatus::Signaled(signo),
    }
}

impl Container {
    /// Its first process has found its program.
    pub(super) fn created(&self) {
        self.state.lock().phase = Phase::Created;
    }

    /// Its first process runs.
    pub(super) fn running(&self) {
        self.state.lock().phase = Phase::Running;
    }

    /// Its first process did not find or could not execute its program; a container that was never created goes.
    pub(super) fn not_started(&self, errno: Errno, sentence: &str, uncreated: bool) {
        let mut state = self.state.lock();
        state.failure = Some(ExitStatus::NotStarted(errno, sentence.to_owned()));
        state.doomed |= uncreated;
    }

    /// Whether nothing of it runs or is about to.
    fn is_over(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Stopped(_)) && self.live.load(Ordering::SeqCst) == 0
    }
}

impl Kernel {
    /// The last thread of `group` has ended with `status`, in `wait(2)` form. Called once, without locks.
    pub fn process_ended(self: &Arc<Self>, group: &Arc<ThreadGroup>, status: i32) {
        let container = &group.container;
        let pid = group.tgid.0;
        if pid == 1 {
            // The end of its namespace (`zap_pid_ns_processes`).
            container.ns.pids.close().iter().for_each(|other| exit::kill_group(other, libc::SIGKILL));
        }
        let left = container.live.fetch_sub(1, Ordering::SeqCst) - 1;
        if pid == container.init() {
            container.state.lock().ended = Some((status, group.reported.load(Ordering::SeqCst)));
        } else if group.reported.load(Ordering::SeqCst) {
            self.report(container, pid, status);
        }
        // As a parent would, the outside hears of an init when the rest of its namespace is gone.
        if container.init() != 1 || left == 0 {
            self.init_ended(container);
        }
        if left == 0 {
            self.finish_destruction(container);
        }
        self.end_if_over();
    }

    fn init_ended(&self, container: &Arc<Container>) {
        let (ended, starter) = {
            let mut state = container.state.lock();
            let ended = state.ended.take();
            if let Some((status, _)) = ended {
                state.phase = Phase::Stopped(state.failure.take().unwrap_or_else(|| exit_status(status)));
            }
            (ended, if ended.is_some() { state.starter.take() } else { None })
        };
        let Some((status, reported)) = ended else { return };
        if let Some(token) = starter {
            let refusal = (Errno::ESRCH, "the process was killed before its program ran".to_owned());
            self.outside.reply(token, Err(refusal));
        }
        if reported {
            self.report(container, container.init(), status);
        }
    }

    /// Tells the outside of the end of a process that it knows, whose terminal goes when all it has written is out.
    fn report(&self, container: &Arc<Container>, pid: i32, status: i32) {
        let console = container.state.lock().consoles.remove(&pid);
        if let Some(console) = console {
            console.retire();
        }
        let event = Event::Exited { id: container.id.clone(), pid, status, when: SystemTime::now() };
        self.outside.event(event);
    }

    /// Kills what is left of `container`; the rest follows when that is gone.
    pub(super) fn destroy(self: &Arc<Self>, container: &Arc<Container>, token: Token) {
        {
            let mut state = container.state.lock();
            state.doomed = true;
            state.destroyers.push(token);
        }
        container.kill_all(true);
        if container.live.load(Ordering::SeqCst) == 0 {
            self.finish_destruction(container);
            self.end_if_over();
        }
    }

    fn finish_destruction(&self, container: &Arc<Container>) {
        if container.state.lock().doomed {
            let waiting = container.take_apart(self);
            waiting.into_iter().for_each(|token| self.outside.reply(token, Ok(Answer::Done)));
        }
    }

    /// The sandbox ends with its root container, or with the last of the others where that has ended before.
    fn end_if_over(&self) {
        let containers = self.containers.all();
        if containers.iter().any(|container| !container.is_over()) {
            return;
        }
        let root = containers.iter().find(|container| container.is_root).map(|container| container.status());
        if let Some(status) = root.or_else(|| self.containers.root_status()) {
            self.finish(status);
        }
    }
}

impl Container {
    /// Lets go of everything: tree, terminals, what is left in its pid namespace. Answers who waits for that.
    pub fn take_apart(self: &Arc<Self>, kernel: &Kernel) -> Vec<Token> {
        let (tree, gofer, consoles, terminal, destroyers) = {
            let mut state = self.state.lock();
            let consoles = std::mem::take(&mut state.consoles);
            (
                state.tree.take(),
                state.gofer.take(),
                consoles,
                state.terminal.take(),
                std::mem::take(&mut state.destroyers),
            )
        };
        consoles.into_values().for_each(|console| console.retire());
        kernel.containers.remove(self);
        let forgotten: Vec<_> = {
            let mut ids = self.ns.pids.tree();
            let mine: Vec<Tid> = ids.groups().filter(|g| Arc::ptr_eq(&g.container, self)).map(|g| g.tgid).collect();
            mine.into_iter().map(|tgid| ids.forget(tgid)).collect()
        };
        drop((tree, terminal, forgotten, gofer));
        destroyers
    }
}
