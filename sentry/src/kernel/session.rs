//! Sessions, process groups and controlling terminals (credentials(7), `drivers/tty/tty_jobctrl.c`).
//!
//! The terminal itself lives in `fs`; here is who it belongs to and who may use it.

pub mod saved;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use abi::Errno;

use crate::kernel::Kernel;
use crate::kernel::pids::PidTable;
use crate::kernel::signal::action::SIG_IGN;
use crate::kernel::signal::info::{SigInfo, bit};
use crate::kernel::signal::send_to_pgrp;
use crate::kernel::task::{CurrentTask, Task, Tid};
use crate::kernel::thread_group::ThreadGroup;
use crate::sync::{Level, Mutex};

/// A terminal, as the process side sees it.
pub trait Terminal: Send + Sync {
    /// The session has let go of it: its leader died (`exiting`: files open now see a hang-up), or TIOCNOTTY.
    fn disassociated(&self, _exiting: bool) {}
    /// Device number, for `/proc/PID/stat`.
    fn device(&self) -> u64;
    /// For downcasts by the terminal's own code.
    fn as_any(&self) -> &dyn std::any::Any;
}

#[derive(Clone)]
struct Control {
    terminal: Arc<dyn Terminal>,
    foreground: i32,
    pids: Weak<PidTable>,
}

/// Which session controls which terminal, by pid namespace and session id.
pub struct Sessions(Mutex<BTreeMap<(u32, i32), Control>>);

impl Default for Sessions {
    fn default() -> Self {
        Sessions(Mutex::new(Level::Leaf, BTreeMap::new()))
    }
}

fn same(a: &Arc<dyn Terminal>, b: &Arc<dyn Terminal>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

impl Sessions {
    /// The controlling terminal of session `sid`.
    #[must_use]
    pub fn terminal(&self, pids: &PidTable, sid: i32) -> Option<Arc<dyn Terminal>> {
        self.0.lock().get(&(pids.ino, sid)).map(|c| c.terminal.clone())
    }

    /// The session that `terminal` controls.
    #[must_use]
    pub fn of_terminal(&self, terminal: &Arc<dyn Terminal>) -> Option<(Arc<PidTable>, i32)> {
        let sessions = self.0.lock();
        let ((_, sid), control) = sessions.iter().find(|(_, c)| same(&c.terminal, terminal))?;
        Some((control.pids.upgrade()?, *sid))
    }

    /// The foreground process group of session `sid`'s terminal.
    #[must_use]
    pub fn foreground(&self, pids: &PidTable, sid: i32) -> Option<i32> {
        self.0.lock().get(&(pids.ino, sid)).map(|c| c.foreground)
    }

    /// The foreground process group of `terminal`, for the signals of its keys.
    #[must_use]
    pub fn foreground_of(&self, terminal: &Arc<dyn Terminal>) -> Option<(Arc<PidTable>, i32)> {
        let sessions = self.0.lock();
        let control = sessions.values().find(|c| same(&c.terminal, terminal))?;
        Some((control.pids.upgrade()?, control.foreground))
    }

    /// Makes `terminal` the controlling terminal of session `sid`, `foreground` its foreground group (boot, TIOCSCTTY).
    pub fn attach(&self, pids: &Arc<PidTable>, sid: i32, terminal: Arc<dyn Terminal>, foreground: i32) {
        let control = Control { terminal, foreground, pids: Arc::downgrade(pids) };
        let old = self.0.lock().insert((pids.ino, sid), control);
        drop(old);
    }

    fn detach(&self, pids: &PidTable, sid: i32) -> Option<Control> {
        self.0.lock().remove(&(pids.ino, sid))
    }
}

/// The controlling terminal of the caller's session: `/dev/tty`.
#[must_use]
pub fn controlling(task: &Task) -> Option<Arc<dyn Terminal>> {
    task.kernel.sessions.terminal(task.pids(), task.group.sid())
}

/// TIOCSCTTY, and opening a terminal without O_NOCTTY (`force` false, errors ignored).
///
/// # Errors
/// `EPERM` where the caller does not lead a session, has a terminal, or `terminal` is another session's (unless
/// `force` and CAP_SYS_ADMIN, which steals it).
pub fn acquire(task: &Task, terminal: &Arc<dyn Terminal>, force: bool) -> Result<(), Errno> {
    const CAP_SYS_ADMIN: u32 = 21;
    let sessions = &task.kernel.sessions;
    let (sid, pgid) = (task.group.sid(), task.group.pgid());
    if sid != task.group.tgid.0 {
        return Err(Errno::EPERM);
    }
    match sessions.terminal(task.pids(), sid) {
        Some(mine) if same(&mine, terminal) => return Ok(()),
        Some(_) => return Err(Errno::EPERM),
        None => {}
    }
    if let Some((pids, other)) = sessions.of_terminal(terminal) {
        if !force || !task.creds().has_cap(CAP_SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let _ = sessions.detach(&pids, other);
    }
    sessions.attach(task.pids(), sid, terminal.clone(), pgid);
    Ok(())
}

/// TIOCNOTTY: the session leader's session loses its terminal, the foreground group gets SIGHUP and SIGCONT.
///
/// # Errors
/// `ENOTTY` where `terminal` is not the caller's controlling terminal.
pub fn release(cx: &CurrentTask<'_>, terminal: &Arc<dyn Terminal>) -> Result<(), Errno> {
    let mine = controlling(cx.task).filter(|t| same(t, terminal)).ok_or(Errno::ENOTTY)?;
    drop(mine);
    if cx.task.group.sid() == cx.task.group.tgid.0 {
        leader_gone(cx.kernel(), cx.task.pids(), cx.task.group.sid(), false);
    }
    Ok(())
}

/// A session leader has died or given its terminal up.
pub fn leader_gone(kernel: &Kernel, pids: &PidTable, sid: i32, exiting: bool) {
    if let Some(control) = kernel.sessions.detach(pids, sid) {
        hang_up(pids, control.foreground);
        control.terminal.disassociated(exiting);
    }
}

/// SIGHUP and SIGCONT for a process group: its terminal has gone.
pub fn hang_up(pids: &PidTable, pgid: i32) {
    send_to_pgrp(pids, pgid, SigInfo::kernel(libc::SIGHUP));
    send_to_pgrp(pids, pgid, SigInfo::kernel(libc::SIGCONT));
}

/// The terminal has hung up (its other side was closed): SIGHUP and SIGCONT for the session leader and the foreground.
pub fn terminal_hung_up(kernel: &Kernel, terminal: &Arc<dyn Terminal>) {
    let Some((pids, sid)) = kernel.sessions.of_terminal(terminal) else { return };
    if let Some(leader) = pids.group(Tid(sid)) {
        for signo in [libc::SIGHUP, libc::SIGCONT] {
            // Standard signals are never refused.
            let _ = crate::kernel::signal::send_to_group(&leader, SigInfo::kernel(signo));
        }
    }
    leader_gone(kernel, &pids, sid, false);
}

/// TIOCSPGRP.
///
/// # Errors
/// `ENOTTY` where it is not the caller's controlling terminal; `EINVAL` for a negative id; `ESRCH` for no such group;
/// `EPERM` for a group of another session; `ERESTARTSYS` after SIGTTOU for a background caller.
pub fn set_foreground(cx: &mut CurrentTask<'_>, terminal: &Arc<dyn Terminal>, pgid: i32) -> Result<(), Errno> {
    check_access(cx, terminal, libc::SIGTTOU)?;
    let sid = cx.task.group.sid();
    controlling(cx.task).filter(|t| same(t, terminal)).ok_or(Errno::ENOTTY)?;
    if pgid < 0 {
        return Err(Errno::EINVAL);
    }
    let members = cx.task.pids().tree().process_group(pgid);
    let first = members.first().ok_or(Errno::ESRCH)?;
    if first.sid() != sid {
        return Err(Errno::EPERM);
    }
    if let Some(control) = cx.kernel().sessions.0.lock().get_mut(&(cx.task.pids().ino, sid)) {
        control.foreground = pgid;
    }
    Ok(())
}

/// Whether the caller may read from (`signo` SIGTTIN) or change (SIGTTOU) `terminal`: always, unless it is its
/// controlling terminal and the caller is in the background (`__tty_check_change`).
///
/// # Errors
/// `EIO` for a background reader whose group is orphaned or that blocks or ignores SIGTTIN; `ERESTARTSYS` after the
/// signal was sent to its group.
pub fn check_access(cx: &CurrentTask<'_>, terminal: &Arc<dyn Terminal>, signo: i32) -> Result<(), Errno> {
    let group = &cx.task.group;
    let (sid, pgid) = (group.sid(), group.pgid());
    let sessions = &cx.kernel().sessions;
    let pids = cx.task.pids();
    if !sessions.terminal(pids, sid).is_some_and(|t| same(&t, terminal)) || sessions.foreground(pids, sid) == Some(pgid)
    {
        return Ok(());
    }
    let deaf = cx.task.signals.mask() & bit(signo) != 0 || group.signals.actions().get(signo).handler == SIG_IGN;
    if deaf {
        return if signo == libc::SIGTTIN { Err(Errno::EIO) } else { Ok(()) };
    }
    if is_orphaned(cx.task) {
        return Err(Errno::EIO);
    }
    send_to_pgrp(pids, pgid, SigInfo::kernel(signo));
    Err(Errno::ERESTARTSYS)
}

/// Whether `members`, a process group, has no parent outside it in its session: no shell to continue it.
///
/// Linux leaves its global init out of the parents. Our first process is a container's init, as likely a shell as not.
fn orphaned(members: &[Arc<ThreadGroup>]) -> bool {
    !members.iter().any(|member| {
        let (parent, pgid, sid, dead) = {
            let state = member.state.lock();
            (state.parent.upgrade(), state.pgid, state.sid, state.zombie.is_some())
        };
        let Some(parent) = parent.filter(|_| !dead) else { return false };
        let state = parent.state.lock();
        state.pgid != pgid && state.sid == sid
    })
}

/// Whether `task`'s process group is orphaned.
#[must_use]
pub fn is_orphaned(task: &Task) -> bool {
    let pgid = task.group.pgid();
    orphaned(&task.pids().tree().process_group(pgid))
}

/// Of the process groups `pgids`, whose members have just lost a parent: those that are orphaned now and have stopped
/// members get SIGHUP and SIGCONT (setpgid(2), exit(3)).
pub fn wake_orphans(pids: &PidTable, pgids: &[i32]) {
    if !pids.ever_stopped.load(Ordering::SeqCst) {
        return;
    }
    for pgid in pgids {
        let members = pids.tree().process_group(*pgid);
        let stopped = members.iter().any(|g| g.state.lock().stop_complete);
        if stopped && orphaned(&members) {
            hang_up(pids, *pgid);
        }
    }
}
