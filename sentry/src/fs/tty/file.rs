//! The two sides of a pty as open files.

use std::sync::Arc;

use abi::{Errno, Timespec, UserAddr};

use crate::checkpoint::ops::OpsState;
use crate::checkpoint::{Refused, Saver};
use crate::fs::anon;
use crate::fs::tty::transfer::{ReadOp, WriteOp};
use crate::fs::tty::{Ptys, Tty, ioctl};
use crate::kernel::op::{Op, SyscallResult};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitQueue};
use crate::vfs::walk::{Resolve, Walk};
use crate::vfs::{Attr, Caller, FileDescription, FileOps, FileType, InodeKey, IoCursor, IoSink, IoSource, OpenFlags};

/// Device number of the devpts file system, as `stat` shows it.
pub const DEVPTS_DEV: u64 = 0x15;

/// An open slave.
pub struct SlaveFile {
    /// The terminal.
    pub tty: Arc<Tty>,
    /// Hang-ups of it when we were opened: one more, and we are dead.
    pub(super) hangups: u32,
}

impl SlaveFile {
    /// Opens the slave side.
    ///
    /// # Errors
    /// `EIO` where it is locked or the master is gone; `EBUSY` where TIOCEXCL forbids it and `privileged` does not help.
    pub fn open(tty: &Arc<Tty>, privileged: bool) -> Result<Self, Errno> {
        let hangups = tty.with(|state, _| {
            if state.locked || !state.master_open {
                return Err(Errno::EIO);
            }
            if state.exclusive && !privileged {
                return Err(Errno::EBUSY);
            }
            state.slaves += 1;
            state.was_open = true;
            Ok(state.hangups)
        })?;
        Ok(SlaveFile { tty: tty.clone(), hangups })
    }

    /// Opens the slave side not by its name (TIOCGPTPEER, consoles). Its place is its name's, where `root` has it, so
    /// that ttyname(3) finds it.
    ///
    /// # Errors
    /// As [`SlaveFile::open`].
    pub fn description(
        caller: &Caller<'_>,
        tty: &Arc<Tty>,
        privileged: bool,
        flags: OpenFlags,
    ) -> Result<Arc<FileDescription>, Errno> {
        let ops = Arc::new(Self::open(tty, privileged)?);
        let name = format!("/dev/pts/{}", tty.index);
        let place = Walk::new(caller, caller.root.clone(), Resolve::empty()).path(name.as_bytes(), false);
        Ok(match place.ok().filter(|p| p.inode().attr().rdev == tty.device()) {
            Some(place) => {
                let inode = place.inode().clone();
                FileDescription::new(ops, flags, Some(place), Some(inode))
            }
            None => FileDescription::anonymous(ops, flags),
        })
    }

    /// Whether the terminal has hung up since this was opened.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.tty.state.lock().hangups != self.hangups
    }
}

impl FileOps for SlaveFile {
    fn save(&self, _file: &FileDescription, saver: &mut Saver) -> Result<OpsState, Refused> {
        let SlaveFile { tty, hangups } = self;
        Ok(OpsState::Terminal { tty: tty.met(saver)?, hangups: *hangups })
    }

    /// Without job control: for transfers between files. Calls of programs come as [`ReadOp`].
    fn read(&self, _file: &FileDescription, dst: &mut IoSink<'_>, _offset: u64) -> Result<usize, Errno> {
        if self.is_dead() {
            return Ok(0);
        }
        self.tty.with(|state, fx| {
            if state.readable(false) {
                return state.read(dst, fx);
            }
            Err(if state.master_open { Errno::EAGAIN } else { Errno::EIO })
        })
    }

    fn write(&self, _file: &FileDescription, src: &mut IoSource<'_>, _offset: u64) -> Result<usize, Errno> {
        if self.is_dead() { Err(Errno::EIO) } else { self.tty.write_slave(src) }
    }

    fn transfer_op(&self, file: &Arc<FileDescription>, cursor: &IoCursor, write: bool) -> Option<Box<dyn Op>> {
        Some(if write {
            Box::new(WriteOp::new(file.clone(), cursor.clone()))
        } else {
            Box::new(ReadOp::new(file.clone(), cursor.clone()))
        })
    }

    fn poll(&self, _file: &FileDescription) -> Events {
        if self.is_dead() {
            return Events::READABLE | Events::WRITABLE | Events::ERR | Events::HUP;
        }
        self.tty.state.lock().poll_slave()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.tty.slave_queue)
    }

    fn ioctl(&self, cx: &mut CurrentTask<'_>, file: &FileDescription, cmd: u32, arg: UserAddr) -> SyscallResult {
        if self.is_dead() {
            return Err(if u64::from(cmd) == libc::TIOCSPGRP { Errno::ENOTTY } else { Errno::EIO });
        }
        ioctl::slave(cx, &self.tty, file, cmd, arg)
    }

    fn allocate(&self, _file: &FileDescription, _mode: u32, _offset: u64, _len: u64) -> Result<(), Errno> {
        Err(Errno::ENODEV)
    }

    fn attr(&self) -> Option<Attr> {
        Some(slave_attr(&self.tty))
    }

    fn describe(&self) -> String {
        format!("/dev/pts/{}", self.tty.index)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Attributes of `/dev/pts/N` as devpts makes it.
#[must_use]
pub fn slave_attr(tty: &Tty) -> Attr {
    let base = anon::attr(FileType::CharDevice, 0o620, u64::from(tty.index) + 3, Timespec::from_nanos(0));
    Attr { key: InodeKey { dev: DEVPTS_DEV, ..base.key }, gid: 5, rdev: tty.device(), blksize: 1024, ..base }
}

impl Drop for SlaveFile {
    fn drop(&mut self) {
        self.tty.with(|state, fx| {
            state.slaves -= 1;
            if state.slaves == 0 {
                state.exclusive = false;
                fx.master = Events::all();
            }
        });
    }
}

/// The open master. There is one for a pty.
pub struct MasterFile {
    /// The terminal.
    pub tty: Arc<Tty>,
}

impl MasterFile {
    /// A new pty's master, opened by user `owner`: what opening `/dev/ptmx` gives.
    ///
    /// # Errors
    /// `ENOSPC` where there are too many.
    pub fn open(kernel: &Arc<crate::kernel::Kernel>, ptys: &Arc<Ptys>, owner: u32) -> Result<Self, Errno> {
        let tty = ptys.allocate(kernel)?;
        // Just made: nobody else can have set it.
        let _ = tty.owner.set(owner);
        Ok(MasterFile { tty })
    }
}

impl FileOps for MasterFile {
    fn save(&self, _file: &FileDescription, saver: &mut Saver) -> Result<OpsState, Refused> {
        let MasterFile { tty } = self;
        Ok(OpsState::PtyMaster(tty.met(saver)?))
    }

    fn read(&self, _file: &FileDescription, dst: &mut IoSink<'_>, _offset: u64) -> Result<usize, Errno> {
        self.tty.read_master(dst)
    }

    fn write(&self, _file: &FileDescription, src: &mut IoSource<'_>, _offset: u64) -> Result<usize, Errno> {
        self.tty.type_in(src)
    }

    fn poll(&self, _file: &FileDescription) -> Events {
        self.tty.state.lock().poll_master()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.tty.master_queue)
    }

    fn ioctl(&self, cx: &mut CurrentTask<'_>, file: &FileDescription, cmd: u32, arg: UserAddr) -> SyscallResult {
        ioctl::master(cx, &self.tty, file, cmd, arg)
    }

    fn allocate(&self, _file: &FileDescription, _mode: u32, _offset: u64, _len: u64) -> Result<(), Errno> {
        Err(Errno::ENODEV)
    }

    fn describe(&self) -> String {
        "/dev/ptmx".to_owned()
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl Drop for MasterFile {
    fn drop(&mut self) {
        self.tty.master_closed();
    }
}
