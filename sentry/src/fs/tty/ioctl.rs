//! Terminal controls (`ioctl_tty(2)`). On the master, settings are the slave's.

use std::sync::Arc;

use abi::{Errno, UserAddr};
use zerocopy::IntoBytes;

use crate::fs::tty::state::WinSize;
use crate::fs::tty::termios::{TERMIOS_LEN, Termios, cc};
use crate::fs::tty::{SlaveFile, Tty, job};
use crate::kernel::op::{SyscallResult, ok};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::Events;
use crate::vfs::{Caller, FileDescription, OpenFlags};

/// Numbers that `libc` does not have for every target.
mod cmd {
    pub const TCGETS2: u32 = 0x802c_542a;
    pub const TCSETS2: u32 = 0x402c_542b;
    pub const TCSETSF2: u32 = 0x402c_542d;
    pub const TCGETS: u32 = 0x5401;
    pub const TCSETS: u32 = 0x5402;
    pub const TCSETSF: u32 = 0x5404;
    pub const TCGETA: u32 = 0x5405;
    pub const TCSETA: u32 = 0x5406;
    pub const TCSETAF: u32 = 0x5408;
    pub const TCSBRK: u32 = 0x5409;
    pub const TCXONC: u32 = 0x540a;
    pub const TCFLSH: u32 = 0x540b;
    pub const TIOCEXCL: u32 = 0x540c;
    pub const TIOCNXCL: u32 = 0x540d;
    pub const TIOCSCTTY: u32 = 0x540e;
    pub const TIOCGPGRP: u32 = 0x540f;
    pub const TIOCSPGRP: u32 = 0x5410;
    pub const TIOCOUTQ: u32 = 0x5411;
    pub const TIOCSTI: u32 = 0x5412;
    pub const TIOCGWINSZ: u32 = 0x5413;
    pub const TIOCSWINSZ: u32 = 0x5414;
    pub const FIONREAD: u32 = 0x541b;
    pub const TIOCPKT: u32 = 0x5420;
    pub const TIOCNOTTY: u32 = 0x5422;
    pub const TIOCSETD: u32 = 0x5423;
    pub const TIOCGETD: u32 = 0x5424;
    pub const TCSBRKP: u32 = 0x5425;
    pub const TIOCSBRK: u32 = 0x5427;
    pub const TIOCCBRK: u32 = 0x5428;
    pub const TIOCGSID: u32 = 0x5429;
    pub const TIOCGPTN: u32 = 0x8004_5430;
    pub const TIOCSPTLCK: u32 = 0x4004_5431;
    pub const TIOCGDEV: u32 = 0x8004_5432;
    pub const TIOCSIG: u32 = 0x4004_5436;
    pub const TIOCVHANGUP: u32 = 0x5437;
    pub const TIOCGPKT: u32 = 0x8004_5438;
    pub const TIOCGPTLCK: u32 = 0x8004_5439;
    pub const TIOCGEXCL: u32 = 0x8004_5440;
    pub const TIOCGPTPEER: u32 = 0x5441;
}

const CAP_SYS_ADMIN: u32 = 21;

fn get_int(cx: &CurrentTask<'_>, at: UserAddr) -> Result<i32, Errno> {
    cx.mm()?.read_obj::<i32>(at)
}

fn put_int(cx: &CurrentTask<'_>, at: UserAddr, value: i32) -> SyscallResult {
    cx.mm()?.write_obj(at, &value)?;
    ok()
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// Controls of an open slave.
pub fn slave(
    cx: &mut CurrentTask<'_>,
    tty: &Arc<Tty>,
    file: &FileDescription,
    cmd: u32,
    arg: UserAddr,
) -> SyscallResult {
    match cmd {
        cmd::TIOCGPGRP | cmd::TIOCGSID if !job::controls(cx.task, tty) => Err(Errno::ENOTTY),
        cmd::TIOCNOTTY => {
            job::release(cx, tty)?;
            ok()
        }
        cmd::FIONREAD => put_int(cx, arg, count(tty.state.lock().readable_bytes())),
        cmd::TCFLSH => {
            job::check(cx, tty, libc::SIGTTOU)?;
            let (input, output) = flush_of(arg)?;
            tty.with(|state, fx| {
                if input {
                    state.flush_input(fx);
                }
                if output {
                    state.flush_output(fx);
                }
            });
            ok()
        }
        cmd::TCXONC => flow(cx, tty, arg),
        cmd::TIOCGPTN
        | cmd::TIOCSPTLCK
        | cmd::TIOCGPTLCK
        | cmd::TIOCPKT
        | cmd::TIOCGPKT
        | cmd::TIOCGPTPEER
        | cmd::TIOCSIG => Err(Errno::ENOTTY),
        _ => both(cx, tty, file, cmd, arg),
    }
}

/// Controls of a master.
pub fn master(
    cx: &mut CurrentTask<'_>,
    tty: &Arc<Tty>,
    file: &FileDescription,
    cmd: u32,
    arg: UserAddr,
) -> SyscallResult {
    match cmd {
        cmd::TIOCGPTN => {
            cx.mm()?.write_obj(arg, &tty.index)?;
            ok()
        }
        cmd::TIOCSPTLCK => {
            let locked = get_int(cx, arg)? != 0;
            tty.state.lock().locked = locked;
            ok()
        }
        cmd::TIOCGPTLCK => put_int(cx, arg, i32::from(tty.state.lock().locked)),
        cmd::TIOCGPTPEER => open_peer(cx, tty, arg),
        cmd::TIOCPKT => {
            let on = get_int(cx, arg)? != 0;
            let mut state = tty.state.lock();
            if on && !state.packet {
                state.status = 0;
            }
            state.packet = on;
            drop(state);
            ok()
        }
        cmd::TIOCGPKT => put_int(cx, arg, i32::from(tty.state.lock().packet)),
        cmd::TIOCSIG => {
            let signo = i32::try_from(arg.0).map_err(|_| Errno::EINVAL)?;
            if ![libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP].contains(&signo) {
                return Err(Errno::EINVAL);
            }
            job::signal_foreground(cx.kernel(), tty, signo);
            ok()
        }
        cmd::FIONREAD => put_int(cx, arg, count(tty.state.lock().output.len())),
        cmd::TCFLSH => {
            if flush_of(arg)?.0 {
                tty.with(|state, fx| {
                    state.output.clear();
                    fx.slave |= Events::WRITABLE;
                });
            }
            ok()
        }
        cmd::TIOCSCTTY | cmd::TIOCNOTTY => Err(Errno::ENOTTY),
        _ => both(cx, tty, file, cmd, arg),
    }
}

/// TCIFLUSH, TCOFLUSH, TCIOFLUSH: whether input and output are meant.
fn flush_of(arg: UserAddr) -> Result<(bool, bool), Errno> {
    match arg.0 {
        0 => Ok((true, false)),
        1 => Ok((false, true)),
        2 => Ok((true, true)),
        _ => Err(Errno::EINVAL),
    }
}

/// TCXONC: TCOOFF, TCOON, TCIOFF, TCION.
fn flow(cx: &CurrentTask<'_>, tty: &Arc<Tty>, arg: UserAddr) -> SyscallResult {
    job::check(cx, tty, libc::SIGTTOU)?;
    tty.with(|state, fx| {
        match arg.0 {
            0 => {
                state.stop_output(fx);
                state.output.stopped_by_call = true;
            }
            1 => {
                state.output.stopped_by_call = false;
                state.start_output(fx);
            }
            // The terminal is asked to stop or start sending.
            2 | 3 => {
                let key = state.termios.cc[if arg.0 == 2 { cc::VSTOP } else { cc::VSTART }];
                if key != 0 {
                    state.output.send(key);
                    fx.master |= Events::READABLE;
                }
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    })?;
    ok()
}

/// TIOCGPTPEER: the slave, as a descriptor, whatever /dev/pts shows.
fn open_peer(cx: &mut CurrentTask<'_>, tty: &Arc<Tty>, arg: UserAddr) -> SyscallResult {
    let flags = OpenFlags::from_bits_truncate((arg.0 & 0xffff_ffff) as u32);
    let file = SlaveFile::description(&Caller::of(cx.task)?, tty, cx.creds().has_cap(CAP_SYS_ADMIN), flags)?;
    if !flags.contains(OpenFlags::NOCTTY) && flags.readable() {
        // As open(2) does; that it does not become the controlling terminal is no error.
        let _ = job::acquire(cx.task, tty, false);
    }
    crate::syscalls::fd::install(cx, file, flags)
}

/// Controls that are the same on both sides.
fn both(cx: &mut CurrentTask<'_>, tty: &Arc<Tty>, file: &FileDescription, cmd: u32, arg: UserAddr) -> SyscallResult {
    match cmd {
        cmd::TCGETS | cmd::TCGETS2 | cmd::TCGETA => get_termios(cx, tty, cmd, arg),
        cmd::TCSETS..=cmd::TCSETSF | cmd::TCSETA..=cmd::TCSETAF | cmd::TCSETS2..=cmd::TCSETSF2 => {
            set_termios(cx, tty, cmd, arg)
        }
        cmd::TIOCGWINSZ => {
            let size = tty.state.lock().size;
            cx.mm()?.write_obj(arg, &size)?;
            ok()
        }
        cmd::TIOCSWINSZ => {
            let size: WinSize = cx.mm()?.read_obj(arg)?;
            tty.resize(size);
            ok()
        }
        cmd::TIOCGPGRP => put_int(cx, arg, job::foreground(cx.kernel(), tty)),
        cmd::TIOCSPGRP => {
            let pgid = get_int(cx, arg)?;
            job::set_foreground(cx, tty, pgid)?;
            ok()
        }
        cmd::TIOCGSID => {
            let sid = job::session_of(cx.kernel(), tty).ok_or(Errno::ENOTTY)?;
            put_int(cx, arg, sid)
        }
        cmd::TIOCSCTTY => {
            if !file.flags().readable() && !cx.creds().has_cap(CAP_SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            job::acquire(cx.task, tty, arg.0 == 1)?;
            ok()
        }
        cmd::TIOCEXCL | cmd::TIOCNXCL => {
            tty.state.lock().exclusive = cmd == cmd::TIOCEXCL;
            ok()
        }
        cmd::TIOCGEXCL => put_int(cx, arg, i32::from(tty.state.lock().exclusive)),
        cmd::TIOCOUTQ => put_int(cx, arg, 0),
        cmd::TIOCGETD => put_int(cx, arg, 0),
        // N_TTY is the only line discipline.
        cmd::TIOCSETD => {
            if get_int(cx, arg)? == 0 {
                ok()
            } else {
                Err(Errno::EINVAL)
            }
        }
        // A pty has no line to break, and what was written has arrived.
        cmd::TCSBRK | cmd::TCSBRKP | cmd::TIOCSBRK | cmd::TIOCCBRK => {
            job::check(cx, tty, libc::SIGTTOU)?;
            ok()
        }
        cmd::TIOCGDEV => {
            let device = u32::try_from(tty.device()).map_err(|_| Errno::EOVERFLOW)?;
            cx.mm()?.write_obj(arg, &device)?;
            ok()
        }
        cmd::TIOCSTI => type_for(cx, tty, arg),
        cmd::TIOCVHANGUP => {
            if !cx.creds().has_cap(CAP_SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            tty.hang_up();
            ok()
        }
        _ => Err(Errno::ENOTTY),
    }
}

/// TIOCSTI: types a byte, for whoever may (`dev.tty.legacy_tiocsti` is off).
fn type_for(cx: &CurrentTask<'_>, tty: &Arc<Tty>, arg: UserAddr) -> SyscallResult {
    if !cx.creds().has_cap(CAP_SYS_ADMIN) {
        return Err(Errno::EIO);
    }
    let byte: u8 = cx.mm()?.read_obj(arg)?;
    tty.with(|state, fx| state.receive(&[byte], fx));
    ok()
}

fn get_termios(cx: &CurrentTask<'_>, tty: &Arc<Tty>, cmd: u32, arg: UserAddr) -> SyscallResult {
    let termios = tty.state.lock().termios;
    let raw = termios.as_bytes();
    let mm = cx.mm()?;
    match cmd {
        cmd::TCGETS2 => mm.write_bytes(arg, raw)?,
        cmd::TCGETS => mm.write_bytes(arg, &raw[..TERMIOS_LEN])?,
        _ => mm.write_bytes(arg, &to_termio(&termios))?,
    }
    ok()
}

/// System V's `struct termio`: 16-bit modes, line discipline, eight control characters.
fn to_termio(termios: &Termios) -> [u8; 18] {
    let mut raw = [0; 18];
    for (at, mode) in [termios.iflag, termios.oflag, termios.cflag, termios.lflag].into_iter().enumerate() {
        raw[at * 2..at * 2 + 2].copy_from_slice(&mode.to_le_bytes()[..2]);
    }
    raw[8] = termios.line;
    raw[9..17].copy_from_slice(&termios.cc[..8]);
    raw
}

fn from_termio(raw: &[u8; 18], old: &Termios) -> Termios {
    let mode = |at: usize, old: u32| old & 0xffff_0000 | u32::from(u16::from_le_bytes([raw[at], raw[at + 1]]));
    let mut new = *old;
    (new.iflag, new.oflag) = (mode(0, old.iflag), mode(2, old.oflag));
    (new.cflag, new.lflag) = (mode(4, old.cflag), mode(6, old.lflag));
    new.cc[..8].copy_from_slice(&raw[9..17]);
    new
}

fn set_termios(cx: &CurrentTask<'_>, tty: &Arc<Tty>, cmd: u32, arg: UserAddr) -> SyscallResult {
    job::check(cx, tty, libc::SIGTTOU)?;
    let mm = cx.mm()?;
    let old = tty.state.lock().termios;
    let new = match cmd {
        cmd::TCSETS2..=cmd::TCSETSF2 => mm.read_obj::<Termios>(arg)?,
        cmd::TCSETS..=cmd::TCSETSF => {
            let mut new = old;
            mm.read_bytes(arg, &mut new.as_mut_bytes()[..TERMIOS_LEN])?;
            new
        }
        _ => from_termio(&mm.read_obj::<[u8; 18]>(arg)?, &old),
    };
    // Waiting for output to drain (TCSETSW) has nothing to wait for: it is at the master already.
    let flush = [cmd::TCSETSF, cmd::TCSETAF, cmd::TCSETSF2].contains(&cmd);
    tty.with(|state, fx| {
        if flush {
            state.flush_input(fx);
        }
        state.set_termios(&new, fx);
    });
    ok()
}
