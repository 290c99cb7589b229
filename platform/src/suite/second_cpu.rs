//! Changes made while another CPU runs guest code in the same space.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use memory::Frame;

use super::asm::{Asm, Reg};
use super::lab::{DATA, Lab, RW, map, range, set_word, start_state, word};
use crate::{AddressSpace, Cpu, Exit, Prot};

const PATIENCE: Duration = Duration::from_secs(20);
/// Where the guest shows what it saw, and counts.
const OUT: u64 = 0x20_0000_0000;

/// mov rax, [rsi]; mov [rdi], rax; inc rbx; mov [rdi + 8], rbx; again.
fn copier() -> Asm {
    let code = Asm::new().set(Reg::Rsi, DATA).set(Reg::Rdi, OUT);
    let top = code.here();
    let code = code.load(Reg::Rax, Reg::Rsi).store(Reg::Rdi, Reg::Rax).inc(Reg::Rbx);
    code.raw(&[0x48, 0x89, 0x5f, 0x08]).back_to(top)
}

/// inc qword [rsi]; again.
fn incrementer() -> Asm {
    let code = Asm::new().set(Reg::Rsi, DATA);
    let top = code.here();
    code.raw(&[0x48, 0xff, 0x06]).back_to(top)
}

struct Rig<'a> {
    space: &'a dyn AddressSpace,
    out: Frame,
    faults: Receiver<Exit>,
    go_on: Sender<()>,
}

impl Rig<'_> {
    /// Waits until the guest has gone round twice more, so that what it shows is new.
    fn two_rounds(&self) {
        let start = word(&self.out.advance(8));
        let begun = Instant::now();
        while word(&self.out.advance(8)) < start + 2 {
            assert!(begun.elapsed() < PATIENCE, "the guest does not run");
            std::thread::yield_now();
        }
    }

    fn fault(&self) -> u64 {
        match self.faults.recv_timeout(PATIENCE).expect("a fault") {
            Exit::Fault { addr, .. } => addr,
            exit => panic!("{exit:?}"),
        }
    }
}

/// Runs `code` on a CPU of another thread, which hands its faults over and waits; `work` changes the space meanwhile.
fn beside(lab: &Lab, code: &Asm, work: impl FnOnce(&Rig<'_>)) {
    let space = lab.program(code);
    let out = lab.pages(1);
    map(&*space, OUT, &out, 1, RW);
    let (tell, faults) = mpsc::channel();
    let (go_on, gone_on) = mpsc::channel::<()>();
    let (kicker_to, kicker_from) = mpsc::channel();
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        let done = &done;
        let runner = space.clone();
        s.spawn(move || {
            let mut cpu: Box<dyn Cpu> = lab.cpu();
            kicker_to.send(cpu.kicker()).expect("the case listens");
            let mut state = start_state();
            while !done.load(Ordering::SeqCst) {
                match cpu.run(&runner, &mut state) {
                    Exit::Interrupted => {}
                    exit => {
                        if tell.send(exit).is_err() || gone_on.recv().is_err() {
                            return;
                        }
                    }
                }
            }
        });
        let kicker = kicker_from.recv().expect("a kicker");
        let rig = Rig { space: &*space, out, faults, go_on };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&rig)));
        done.store(true, Ordering::SeqCst);
        kicker.kick();
        drop(rig);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Another frame at the same address, as copy-on-write does it.
pub fn remap(lab: &Lab) {
    let frames = [lab.page_of(&[1]), lab.page_of(&[2])];
    beside(lab, &copier(), |rig| {
        assert_eq!(rig.fault(), DATA);
        map(rig.space, DATA, &frames[0], 1, RW);
        rig.go_on.send(()).expect("runner");
        for n in 0..200 {
            let frame = &frames[n % 2];
            map(rig.space, DATA, frame, 1, if n % 3 == 0 { Prot::READ } else { RW });
            rig.two_rounds();
            assert_eq!(word(&rig.out), word(frame));
        }
    });
}

/// A page taken away is a fault at once, and its frame can be reused.
pub fn unmap(lab: &Lab) {
    beside(lab, &copier(), |rig| {
        for n in 0..100u64 {
            assert_eq!(rig.fault(), DATA);
            let frame = lab.pages(1);
            set_word(&frame, n + 1000);
            map(rig.space, DATA, &frame, 1, RW);
            rig.go_on.send(()).expect("runner");
            rig.two_rounds();
            super::lab::unmap(rig.space, DATA, 1);
            // Nobody may read this any more.
            set_word(&frame, 5);
            assert_ne!(word(&rig.out), 5);
        }
        rig.fault();
        assert_ne!(word(&rig.out), 5);
    });
}

/// A page made read-only does not change after the call has returned.
pub fn protect(lab: &Lab) {
    let frame = lab.pages(1);
    beside(lab, &incrementer(), |rig| {
        for _ in 0..100 {
            assert_eq!(rig.fault(), DATA);
            map(rig.space, DATA, &frame, 1, RW);
            let before = word(&frame);
            rig.go_on.send(()).expect("runner");
            while word(&frame) == before {
                std::thread::yield_now();
            }
            map(rig.space, DATA, &frame, 1, Prot::READ);
            let frozen = word(&frame);
            (0..100).for_each(|_| assert_eq!(word(&frame), frozen));
        }
        rig.fault();
    });
}

/// Invalidations from a thread that owns no CPU, while a second one maps.
pub fn third_thread(lab: &Lab) {
    let frame = lab.page_of(&[9]);
    beside(lab, &copier(), |rig| {
        let space = rig.space;
        for _ in 0..100 {
            assert_eq!(rig.fault(), DATA);
            map(space, DATA, &frame, 1, RW);
            rig.go_on.send(()).expect("runner");
            rig.two_rounds();
            std::thread::scope(|s| {
                s.spawn(|| space.invalidate(range(DATA, 1)));
            });
        }
        rig.fault();
    });
}
