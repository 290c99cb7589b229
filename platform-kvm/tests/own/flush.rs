//! Changes of mappings, with other CPUs running, in batches, with large pages, and when the pool runs dry.

use std::sync::atomic::{AtomicBool, Ordering};

use abi::AddrRange;
use memory::{FileKind, Frame, FrameFile};
use platform::suite::asm::{Asm, Reg};
use platform::suite::lab::{DATA, RW, RX, map, range, run, set_word, start_state, word};
use platform::{Access, Exit, MapOp, Prot};

fn reader() -> Asm {
    let code = Asm::new().set(Reg::Rsi, DATA);
    let top = code.here();
    code.load(Reg::Rax, Reg::Rsi).syscall().back_to(top)
}

/// A second CPU copies [DATA] to [DATA + page] without end while the first thread changes what DATA shows.
#[test]
fn a_running_cpu_sees_changes() {
    let lab = crate::lab();
    let copier = Asm::new().set(Reg::Rsi, DATA).set(Reg::Rdi, DATA + 4096);
    let top = copier.here();
    let copier = copier.load(Reg::Rax, Reg::Rsi).store(Reg::Rdi, Reg::Rax).back_to(top);
    let space = lab.program(&copier);
    let out = lab.pages(1);
    let frames: Vec<_> = (0..4u8).map(|i| lab.page_of(&[i + 1])).collect();
    map(&*space, DATA, &frames[0], 1, RW);
    map(&*space, DATA + 4096, &out, 1, RW);
    let stop = AtomicBool::new(false);
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut cpu = lab.cpu();
            send.send(cpu.kicker()).unwrap();
            let mut state = start_state();
            while !stop.load(Ordering::Acquire) {
                match cpu.run(&space, &mut state) {
                    Exit::Interrupted | Exit::Fault { .. } => {}
                    other => panic!("{other:?} {:x?}", state.regs),
                }
            }
        });
        let kicker = receive.recv().unwrap();
        let settle = |want: u64| {
            for _ in 0..20_000_000u32 {
                if word(&out) == want {
                    return;
                }
                std::thread::yield_now();
            }
            panic!("the running CPU still reads {} instead of {want}", word(&out));
        };
        settle(1);
        for i in 0..100 {
            let next = (i + 1) % 4;
            map(&*space, DATA, &frames[next], 1, if i % 2 == 0 { RW } else { Prot::READ });
            settle(next as u64 + 1);
            // Nobody may read the old frame any more.
            set_word(&frames[i % 4], 99);
            for _ in 0..100 {
                assert_ne!(word(&out), 99);
            }
            set_word(&frames[i % 4], (i % 4) as u64 + 1);
            space.invalidate(range(DATA, 1));
            map(&*space, DATA, &frames[next], 1, RW);
        }
        stop.store(true, Ordering::Release);
        kicker.kick();
    });
}

#[test]
fn copy_on_write_moves_readers_and_writers() {
    let lab = crate::lab();
    // mov rax,[rsi]; syscall; mov [rsi],rbx; syscall; again
    let code = Asm::new().set(Reg::Rsi, DATA);
    let top = code.here();
    let code = code.load(Reg::Rax, Reg::Rsi).syscall().store(Reg::Rsi, Reg::Rbx).syscall().back_to(top);
    let (parent, child) = (lab.program(&code), lab.program(&code));
    let shared = lab.page_of(&[5]);
    map(&*parent, DATA, &shared, 1, RW);
    let mut cpu = lab.cpu();
    let (mut a, mut b) = (start_state(), start_state());
    (a.regs.rbx, b.regs.rbx) = (100, 200);
    assert_eq!(run(&mut *cpu, &parent, &mut a), Exit::Syscall);
    // fork: both read-only
    map(&*parent, DATA, &shared, 1, Prot::READ);
    map(&*child, DATA, &shared, 1, Prot::READ);
    assert_eq!(run(&mut *cpu, &child, &mut b), Exit::Syscall);
    assert_eq!(b.regs.rax, 5);
    let denied = Exit::Fault { addr: DATA, access: Access::WRITE, pkey: false };
    assert_eq!(run(&mut *cpu, &parent, &mut a), denied);
    assert_eq!(run(&mut *cpu, &child, &mut b), denied);
    let copy = lab.page_of(&[5]);
    map(&*parent, DATA, &copy, 1, RW);
    map(&*child, DATA, &shared, 1, RW);
    assert_eq!(run(&mut *cpu, &parent, &mut a), Exit::Syscall);
    assert_eq!(run(&mut *cpu, &child, &mut b), Exit::Syscall);
    assert_eq!((word(&copy), word(&shared)), (100, 200));
}

#[test]
fn large_pages_split_and_keep_their_content() {
    let lab = crate::lab();
    const LARGE: u64 = 2 << 20;
    let block = lab.memory.frame(lab.memory.allocate(2 * LARGE, LARGE).unwrap());
    for i in 0..1024u64 {
        block.file.write(block.offset + i * 4096, &(i + 1).to_le_bytes()).unwrap();
    }
    // mov rax, [rdi]; syscall; mov [rdi], rbx; syscall; back
    let code = Asm::new();
    let space = lab.program(&code.load(Reg::Rax, Reg::Rdi).syscall().store(Reg::Rdi, Reg::Rbx).syscall().back_to(0));
    map(&*space, DATA, &block, 1024, RW);
    let mut cpu = lab.cpu();
    let mut at = |addr: u64, write: Option<u64>| {
        let mut state = start_state();
        state.regs.rdi = addr;
        let exit = run(&mut *cpu, &space, &mut state);
        if let (Some(value), Exit::Syscall) = (write, exit) {
            state.regs.rbx = value;
            return (run(&mut *cpu, &space, &mut state), value);
        }
        (exit, state.regs.rax)
    };
    assert_eq!(at(DATA + 511 * 4096, None), (Exit::Syscall, 512));
    assert_eq!(at(DATA + 512 * 4096, None), (Exit::Syscall, 513));
    map(&*space, DATA + 5 * 4096, &block.advance(5 * 4096), 1, Prot::READ);
    assert_eq!(at(DATA + 5 * 4096, None), (Exit::Syscall, 6));
    let denied = Exit::Fault { addr: DATA + 5 * 4096, access: Access::WRITE, pkey: false };
    assert_eq!(at(DATA + 5 * 4096, Some(1)).0, denied);
    assert_eq!(at(DATA + 6 * 4096, Some(1)).0, Exit::Syscall);
    space.invalidate(range(DATA + 700 * 4096, 1));
    let missing = |page: u64| Exit::Fault { addr: DATA + page * 4096, access: Access::READ, pkey: false };
    assert_eq!(at(DATA + 700 * 4096, None).0, missing(700));
    assert_eq!(at(DATA + 701 * 4096, None), (Exit::Syscall, 702));
    space.invalidate(range(DATA, 1024));
    assert_eq!(at(DATA, None).0, missing(0));
    assert_eq!(at(DATA + 900 * 4096, None).0, missing(900));
    map(&*space, DATA, &block, 1024, Prot::READ);
    assert_eq!(at(DATA + 900 * 4096, None), (Exit::Syscall, 901));
}

fn file_of(kind: FileKind, pages: u64, writable: bool) -> (std::fs::File, std::sync::Arc<FrameFile>) {
    use std::os::fd::FromRawFd;
    // SAFETY: a fresh memfd of ours.
    let file = unsafe { std::fs::File::from_raw_fd(libc::memfd_create(c"file".as_ptr(), 0)) };
    file.set_len(pages * 4096).unwrap();
    for i in 0..pages {
        std::os::unix::fs::FileExt::write_all_at(&file, &(i + 1).to_le_bytes(), i * 4096).unwrap();
    }
    let mapped = FrameFile::map(kind, Some(file.try_clone().unwrap().into()), pages * 4096, writable).unwrap();
    (file, mapped)
}

#[test]
fn images_are_read_only_and_can_be_taken_away() {
    let lab = crate::lab();
    let (_file, image) = file_of(FileKind::Image, 4, false);
    let frame = Frame { file: image, offset: 4096 };
    let space = lab.program(&reader());
    let mut cpu = lab.cpu();
    let mut state = start_state();
    for _ in 0..3 {
        map(&*space, DATA, &frame, 2, RW);
        assert_eq!(run(&mut *cpu, &space, &mut state), Exit::Syscall);
        assert_eq!(state.regs.rax, 2);
        map(&*space, DATA, &frame.advance(4096), 1, Prot::READ);
        assert_eq!(run(&mut *cpu, &space, &mut state), Exit::Syscall);
        assert_eq!(state.regs.rax, 3);
        space.invalidate(range(DATA, 2));
        let exit = run(&mut *cpu, &space, &mut state);
        assert_eq!(exit, Exit::Fault { addr: DATA, access: Access::READ, pkey: false });
    }
    let mut guest = lab.guest(&Asm::new().set(Reg::Rdi, DATA).store(Reg::Rdi, Reg::Rax).syscall());
    map(&*guest.space, DATA, &frame, 1, RW);
    assert_eq!(guest.run(), Exit::Fault { addr: DATA, access: Access::WRITE, pkey: false });
}

#[test]
fn a_shrunken_file_is_a_bus_error() {
    let lab = crate::lab();
    let (file, donated) = file_of(FileKind::Donated, 4, true);
    let frame = Frame { file: donated, offset: 0 };
    let code = Asm::new().load(Reg::Rax, Reg::Rdi).syscall();
    let mut guest = lab.guest(&code);
    map(&*guest.space, DATA, &frame, 4, RW);
    guest.state.regs.rdi = DATA + 0x2008;
    file.set_len(4096).unwrap();
    assert_eq!(guest.run(), Exit::BusError { addr: DATA + 0x2008 });
    guest.state.regs.rdi = DATA;
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!(guest.state.regs.rax, 1);
}

#[test]
fn spaces_come_and_go() {
    let lab = crate::lab();
    let mut cpu = lab.cpu();
    let frames: Vec<_> = (0..8u8).map(|i| lab.page_of(&[i + 1])).collect();
    let code = lab.page_of(reader().bytes());
    for round in 0..3000usize {
        let space = lab.space();
        map(&*space, platform::suite::lab::CODE, &code, 1, RX);
        map(&*space, DATA, &frames[round % 8], 1, RW);
        let mut state = start_state();
        if round % 8 < 2 || round > 2900 {
            assert_eq!(run(&mut *cpu, &space, &mut state), Exit::Syscall, "round {round}");
            assert_eq!(state.regs.rax, round as u64 % 8 + 1, "round {round}");
            cpu.forget(&space);
        }
    }
}

#[test]
fn an_exhausted_pool_empties_the_space() {
    let lab = crate::lab();
    let mut cpu = lab.cpu();
    let frame = lab.page_of(&[9]);
    let space = lab.program(&reader());
    let mut failed = false;
    // A page in every gigabyte: two tables each.
    for i in 0..40_000u64 {
        let at = (i * (1 << 30)) % (1 << 46) + (i >> 16) * (2 << 20) + (1 << 30);
        let op = MapOp::Map { range: AddrRange::new(at, at + 4096), frame: frame.clone(), prot: RW, pkey: 0 };
        if space.apply(&[op]).is_err() {
            failed = true;
            break;
        }
    }
    assert!(failed, "the pool has no limit");
    let code = lab.page_of(reader().bytes());
    let mut state = start_state();
    let exit = run(&mut *cpu, &space, &mut state);
    assert!(matches!(exit, Exit::Fault { access: Access::EXEC, .. }), "{exit:?}");
    map(&*space, platform::suite::lab::CODE, &code, 1, RX);
    map(&*space, DATA, &frame, 1, RW);
    assert_eq!(run(&mut *cpu, &space, &mut state), Exit::Syscall);
    assert_eq!(state.regs.rax, 9);
}
