//! `/proc/PID/fd` and `/proc/PID/fdinfo`.

use std::sync::Arc;

use abi::Errno;

use super::pid::{Of, may_look, show, target_of};
use crate::fs::pseudo::{Entry, Listing, PseudoFile, PseudoLink};
use crate::vfs::{Caller, FdNum, FdTable, FileDescription, FileType, Inode, OpenFlags};

/// One of the two directories.
pub(super) struct Fds {
    of: Of,
    info: bool,
}

fn ino(of: &Of, fd: i32, info: bool) -> u64 {
    let space = if info { 1 << 51 } else { 1 << 50 };
    space | (u64::from(of.tid.0.unsigned_abs()) << 21) | u64::from(fd.unsigned_abs())
}

fn table(of: &Of) -> Result<Arc<FdTable>, Errno> {
    of.task().map_err(|_| Errno::ENOENT)?.fds().ok_or(Errno::ENOENT)
}

fn file(of: &Of, fd: i32) -> Result<(Arc<FileDescription>, bool), Errno> {
    table(of)?.get_with_flags(FdNum(fd)).map_err(|_| Errno::ENOENT)
}

impl Fds {
    pub(super) fn new(of: &Of, info: bool) -> Self {
        Fds { of: of.clone(), info }
    }

    fn link(&self, fd: i32, flags: OpenFlags) -> Arc<dyn Inode> {
        // The mode tells how it is open (proc_fd_link).
        let read = if flags.readable() { 0o500 } else { 0 };
        let write = if flags.writable() { 0o300 } else { 0 };
        let mut attr = self.of.attr(0, FileType::Symlink, read | write);
        attr.key.ino = ino(&self.of, fd, false);
        attr.size = 64;
        let (shown, jump) = (self.of.clone(), self.of.clone());
        let target = move |of: &Of, caller: &Caller<'_>| {
            may_look(caller, &*of.task()?)?;
            Ok::<_, Errno>(target_of(file(of, fd)?.0))
        };
        Arc::new(PseudoLink::magic(
            &self.of.proc.fs,
            attr,
            Box::new(move |caller| Ok(show(&target(&shown, caller)?, &caller.root))),
            Box::new(move |caller| target(&jump, caller)),
        ))
    }

    fn info(&self, fd: i32) -> Arc<dyn Inode> {
        let mut attr = self.of.attr(0, FileType::Regular, 0o400);
        attr.key.ino = ino(&self.of, fd, true);
        let (of, guard) = (self.of.clone(), self.of.clone());
        let render = move || {
            let (file, cloexec) = file(&of, fd)?;
            let position = file.offset.try_lock().map_or(0, |p| *p);
            let flags = (file.flags() | OpenFlags::LARGEFILE).bits();
            let flags = flags | if cloexec { OpenFlags::CLOEXEC.bits() } else { 0 };
            let mount = file.path.as_ref().map_or(0, |p| p.mount.id);
            let ino = file.inode.as_ref().map_or(0, |i| i.attr().key.ino);
            Ok(format!("pos:\t{position}\nflags:\t0{flags:o}\nmnt_id:\t{mount}\nino:\t{ino}\n").into_bytes())
        };
        let info = PseudoFile::passing(&self.of.proc.fs, attr, Box::new(render));
        Arc::new(info.guarded(Box::new(move |caller| may_look(caller, &*guard.task()?))))
    }
}

impl Listing for Fds {
    fn lookup(&self, _caller: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let text = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let fd: i32 = text.parse().map_err(|_| Errno::ENOENT)?;
        if fd.to_string() != text {
            return Err(Errno::ENOENT);
        }
        let (file, _) = file(&self.of, fd)?;
        Ok(if self.info { self.info(fd) } else { self.link(fd, file.flags()) })
    }

    fn entries(&self, caller: &Caller<'_>) -> Vec<Entry> {
        self.from(caller, 0).into_iter().map(|(_, e)| e).collect()
    }

    fn from(&self, caller: &Caller<'_>, from: u64) -> Vec<(u64, Entry)> {
        let allowed = self.of.task().is_ok_and(|task| may_look(caller, &task).is_ok());
        let numbers = table(&self.of).map(|t| t.numbers()).unwrap_or_default();
        let kind = if self.info { FileType::Regular } else { FileType::Symlink };
        let entry = |fd: i32| {
            (u64::from(fd.unsigned_abs()) + 1, (fd.to_string().into_bytes(), ino(&self.of, fd, self.info), kind))
        };
        numbers.into_iter().filter(|_| allowed).map(entry).filter(|(next, _)| *next > from).collect()
    }
}
