//! Frames of files other than the sandbox's memory.

use std::fs::File;
use std::os::fd::OwnedFd;

use memory::{FileKind, Frame, FrameFile};

use super::asm::{Asm, Reg};
use super::lab::{DATA, Lab, RW, map, word};
use crate::{Access, Exit, Prot};

/// An unlinked file of `pages` pages.
fn file(pages: u64) -> File {
    let path =
        std::env::temp_dir().join(format!("platform-suite-{}-{:?}", std::process::id(), std::thread::current().id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("a file");
    std::fs::remove_file(&path).expect("unlink");
    file.set_len(pages * 4096).expect("set_len");
    file
}

fn frames(kind: FileKind, file: &File, writable: bool) -> Frame {
    let fd: OwnedFd = file.try_clone().expect("dup").into();
    let len = file.metadata().expect("fstat").len();
    Frame { file: FrameFile::map(kind, Some(fd), len, writable).expect("map"), offset: 0 }
}

/// Stores to a donated file, registered long after boot, reach the file.
pub fn donated(lab: &Lab) {
    let code = Asm::new().set(Reg::Rdi, DATA).set(Reg::Rax, 99).store(Reg::Rdi, Reg::Rax).syscall();
    let mut guest = lab.guest(&code);
    for _ in 0..20 {
        let frame = frames(FileKind::Donated, &file(2), true);
        map(&*guest.space, DATA, &frame.advance(4096), 1, RW);
        guest.state.regs.rip = super::lab::CODE;
        guest.syscall();
        assert_eq!(word(&frame.advance(4096)), 99);
    }
}

/// A donated file that shrinks under its mapping is a bus error, and grows back to life.
pub fn shrunken(lab: &Lab) {
    let code = Asm::new().set(Reg::Rsi, DATA + 4096 + 8).load(Reg::Rax, Reg::Rsi).syscall();
    let mut guest = lab.guest(&code);
    let file = file(2);
    let frame = frames(FileKind::Donated, &file, true);
    map(&*guest.space, DATA, &frame, 2, RW);
    guest.syscall();
    file.set_len(4096).expect("shrink");
    guest.state.regs.rip = super::lab::CODE;
    assert_eq!(guest.run(), Exit::BusError { addr: DATA + 4096 + 8 });
    file.set_len(2 * 4096).expect("grow");
    assert_eq!(guest.run(), Exit::Syscall);
}

/// An image's frames can be read and executed; a store faults.
pub fn image(lab: &Lab) {
    let code = Asm::new().set(Reg::Rsi, DATA).load(Reg::Rax, Reg::Rsi).store(Reg::Rsi, Reg::Rax).syscall();
    let mut guest = lab.guest(&code);
    let file = file(1);
    std::os::unix::fs::FileExt::write_all_at(&file, &[7], 0).expect("write");
    let frame = frames(FileKind::Image, &file, false);
    map(&*guest.space, DATA, &frame, 1, Prot::READ);
    assert_eq!(guest.run(), Exit::Fault { addr: DATA, access: Access::WRITE, pkey: false });
    assert_eq!(guest.state.regs.rax, 7);
}
