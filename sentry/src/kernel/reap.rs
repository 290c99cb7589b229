//! Waiting for children: `wait4(2)` and `waitid(2)` (`do_wait` in `kernel/exit.c`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;

use crate::kernel::exit::{release_traced, wait_code};
use crate::kernel::pids::{Forgotten, Tree};
use crate::kernel::ptrace::tracer;
use crate::kernel::signal::info::code;
use crate::kernel::task::{CurrentTask, Task};
use crate::kernel::thread_group::{JobEvent, ThreadGroup};
use crate::kernel::usage::Usage;

/// Which children.
#[derive(Clone, Debug)]
pub enum Which {
    /// Any.
    Any,
    /// This one.
    Process(i32),
    /// Those of this process group.
    Group(i32),
    /// The one behind a pidfd, held.
    Held(Arc<ThreadGroupRef>),
}

/// A process named by a descriptor.
pub struct ThreadGroupRef(pub Arc<ThreadGroup>);

impl std::fmt::Debug for ThreadGroupRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pidfd of {}", self.0.tgid.0)
    }
}

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Wanted {
    /// WEXITED.
    pub exited: bool,
    /// WSTOPPED (WUNTRACED).
    pub stopped: bool,
    /// WCONTINUED.
    pub continued: bool,
    /// WNOWAIT.
    pub keep: bool,
    /// `__WALL`: children of either kind.
    pub all: bool,
    /// `__WCLONE`: children whose exit signal is not SIGCHLD.
    pub clone: bool,
}

/// What happened to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Its id.
    pub pid: i32,
    /// Its real user id.
    pub uid: u32,
    /// `CLD_*`.
    pub code: i32,
    /// `si_status`.
    pub status: i32,
    /// The status in `wait(2)` form.
    pub raw: i32,
    /// What it used.
    pub usage: Usage,
}

fn matches(child: &Arc<ThreadGroup>, which: &Which, wanted: &Wanted) -> bool {
    let state = child.state.lock();
    let named = match which {
        Which::Any => true,
        Which::Process(pid) => child.tgid.0 == *pid,
        Which::Group(pgid) => state.pgid == *pgid,
        Which::Held(held) => Arc::ptr_eq(&held.0, child),
    };
    named && (wanted.all || wanted.clone == (state.exit_signal != libc::SIGCHLD))
}

/// What `child` has to tell, which is taken unless it is to be kept.
fn event(child: &Arc<ThreadGroup>, wanted: &Wanted) -> Option<(i32, i32, i32)> {
    let mut state = child.state.lock();
    if let Some(raw) = state.zombie {
        let (code, status) = wait_code(raw);
        return wanted.exited.then_some((code, status, raw));
    }
    let found = match state.job_event {
        Some(JobEvent::Stopped(signo)) if wanted.stopped => (code::CLD_STOPPED, signo, signo << 8 | 0x7f),
        Some(JobEvent::Continued) if wanted.continued => (code::CLD_CONTINUED, libc::SIGCONT, 0xffff),
        None => {
            child.news.store(false, Ordering::SeqCst);
            return None;
        }
        Some(_) => return None,
    };
    if !wanted.keep {
        state.job_event = None;
    }
    Some(found)
}

/// Takes a zombie out of the tree. The answer is dropped after the tree lock.
fn reap(tree: &mut Tree, parent: &Arc<ThreadGroup>, child: &Arc<ThreadGroup>) -> Forgotten {
    let used = {
        let state = child.state.lock();
        state.dead_threads.plus(state.children_usage)
    };
    let mut state = parent.state.lock();
    state.forget_child(child);
    state.tracees.retain(|t| !(t.is_leader() && Arc::ptr_eq(&t.group, child)));
    state.children_usage = state.children_usage.plus(used);
    drop(state);
    tree.forget(child.tgid)
}

/// Whether a tracer's wait for `which` means `task`.
fn traced_matches(task: &Arc<Task>, which: &Which) -> bool {
    match which {
        Which::Any => true,
        Which::Process(pid) => task.tid.0 == *pid,
        Which::Group(pgid) => task.group.pgid() == *pgid,
        Which::Held(held) => task.is_leader() && Arc::ptr_eq(&held.0, &task.group),
    }
}

/// Whether the child led by `leader` has nothing to tell `parent` now because of a tracer: another's it is first, and
/// of a child that we trace ourselves stops are told as a tracer's.
fn hidden_by_tracer(leader: &Arc<Task>, parent: &Arc<ThreadGroup>) -> bool {
    match leader.ptrace.tracer() {
        None => false,
        Some(tracer) if Arc::ptr_eq(&tracer, parent) => !leader.group.is_zombie(),
        Some(_) => leader.group.is_zombie(),
    }
}

/// Looks for a child with something to tell. `Ok(None)`: there are such children, but nothing has happened yet.
///
/// # Errors
/// `ECHILD` where no child matches.
pub fn look(cx: &CurrentTask<'_>, which: &Which, wanted: &Wanted) -> Result<Option<Reaped>, Errno> {
    let parent = &cx.task.group;
    let mut tree = cx.task.pids().tree();
    let tracees = parent.state.lock().tracees.clone();
    let mut any = false;
    for task in tracees.iter().filter(|t| traced_matches(t, which)) {
        any = true;
        let Some((raw, code, status, ended)) = tracer::news(task, wanted.exited, wanted.keep) else { continue };
        drop(tree);
        if ended && !wanted.keep {
            release_traced(cx.kernel(), task);
        }
        let uid = task.creds().uid[0];
        return Ok(Some(Reaped { pid: task.tid.0, uid, code, status, raw, usage: Usage::default() }));
    }
    // With thousands of children each look must cost next to nothing for those without news, and for those behind the
    // one that is found. The tree lock keeps the list as it is.
    let mut from = 0;
    let newsworthy = || {
        let state = parent.state.lock();
        let at = from + state.children.get(from..)?.iter().position(|c| c.news.load(Ordering::SeqCst))?;
        from = at + 1;
        state.children.get(at).cloned()
    };
    for child in std::iter::from_fn(newsworthy).filter(|c| matches(c, which, wanted)) {
        let child = &child;
        if let Some(leader) = tree.task(child.tgid)
            && hidden_by_tracer(leader, parent)
        {
            any = true;
            continue;
        }
        let Some((code, status, raw)) = event(child, wanted) else { continue };
        let uid = tree.task(child.tgid).map_or(0, |t| t.creds().uid[0]);
        let usage = child.usage_with_children();
        let dropped = (child.is_zombie() && !wanted.keep).then(|| reap(&mut tree, parent, child));
        drop(tree);
        drop(dropped);
        return Ok(Some(Reaped { pid: child.tgid.0, uid, code, status, raw, usage }));
    }
    let child = |n: usize| parent.state.lock().children.get(n).cloned();
    let any = any || (0..).map_while(child).any(|c| matches(&c, which, wanted));
    drop(tree);
    if any { Ok(None) } else { Err(Errno::ECHILD) }
}
