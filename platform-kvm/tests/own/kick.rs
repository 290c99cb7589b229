//! Kicks: never lost, never blocking.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use platform::Exit;
use platform::suite::asm::Asm;
use platform::suite::lab::start_state;

#[test]
fn a_kick_before_a_run_counts() {
    let mut guest = crate::lab().guest(&Asm::new().spin());
    guest.cpu.kicker().kick();
    guest.cpu.kicker().kick();
    assert_eq!(guest.cpu.run(&guest.space, &mut guest.state), Exit::Interrupted);
}

#[test]
fn thousands_of_kicks_end_thousands_of_runs() {
    let rounds = if crate::emulated() { 100 } else { 2000 };
    let lab = crate::lab();
    let space = lab.program(&Asm::new().spin());
    let mut cpu = lab.cpu();
    let done = AtomicU32::new(0);
    let kicker = cpu.kicker();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..rounds {
                kicker.kick();
                while done.load(Ordering::Acquire) <= round {
                    std::thread::yield_now();
                }
            }
        });
        let mut state = start_state();
        for _ in 0..rounds {
            assert_eq!(cpu.run(&space, &mut state), Exit::Interrupted);
            done.fetch_add(1, Ordering::Release);
        }
    });
}

#[test]
fn kicks_do_not_disturb_system_calls_and_faults() {
    let lab = crate::lab();
    // again: inc rbx; mov eax, [rdi] (faults); add rdi, 0x1000 ...; jmp: here a system call in each round
    let code = Asm::new();
    let space = lab.program(&code.inc(platform::suite::asm::Reg::Rbx).syscall().raw(&[0x0f, 0x0b]));
    let mut cpu = lab.cpu();
    let kicker = cpu.kicker();
    let (stop, done) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // At ever different moments, with room for progress in between: time alone gives none on a machine where
            // an entry may take longer than any pause.
            let unit = if crate::emulated() { 20_000 } else { 1000 };
            let mut seen = 0;
            for n in 1u64.. {
                while n % 8 == 0 && done.load(Ordering::Acquire) == seen && !stop.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                if stop.load(Ordering::Acquire) {
                    break;
                }
                seen = done.load(Ordering::Acquire);
                kicker.kick();
                for _ in 0..n % 64 * unit {
                    std::hint::spin_loop();
                }
            }
        });
        for round in 0..if crate::emulated() { 50 } else { 500 } {
            let mut state = start_state();
            state.regs.rbx = round;
            let mut run = || loop {
                match cpu.run(&space, &mut state) {
                    Exit::Interrupted => {}
                    exit => {
                        done.fetch_add(1, Ordering::Release);
                        return (exit, state.regs);
                    }
                }
            };
            let (exit, regs) = run();
            assert_eq!((exit, regs.rbx), (Exit::Syscall, round + 1));
            let (exit, regs) = run();
            assert!(matches!(exit, Exit::Exception(e) if e.vector == 6), "{exit:?}");
            assert_eq!(regs.rbx, round + 1);
        }
        stop.store(true, Ordering::Release);
    });
}
