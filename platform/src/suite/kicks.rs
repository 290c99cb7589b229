//! Kicks: none is lost, whenever it comes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::asm::Asm;
use super::lab::{Guest, Lab};
use crate::Exit;

const PATIENCE: Duration = Duration::from_secs(20);

/// A kick before the run makes it return at once; several count as one.
pub fn before_run(lab: &Lab) {
    let mut guest = lab.guest(&Asm::new().syscall().syscall());
    let kicker = guest.cpu.kicker();
    for _ in 0..3 {
        kicker.kick();
    }
    let before = guest.state.regs;
    assert_eq!(guest.cpu.run(&guest.space, &mut guest.state), Exit::Interrupted);
    assert_eq!(guest.state.regs.rip, before.rip);
    assert_eq!(guest.run(), Exit::Syscall);
}

/// Kicks of a guest that spins: each is answered, and the guest goes on counting.
pub fn while_spinning(lab: &Lab) {
    answered(lab, &mut lab.guest(&Asm::new().spin()), 300);
}

/// Kicks of a guest that makes system calls without pause, so that they meet every moment of entry and exit.
pub fn racing_entry(lab: &Lab) {
    let code = Asm::new().syscall().back_to(0);
    answered(lab, &mut lab.guest(&code), 3000);
}

/// Sends `kicks` kicks one by one, each as soon as the last was answered by an interruption.
fn answered(_lab: &Lab, guest: &mut Guest, kicks: u64) {
    let kicker = guest.cpu.kicker();
    let (answer, answers) = mpsc::channel();
    let done = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let (done, sent) = (&done, &sent);
    std::thread::scope(|s| {
        s.spawn(move || {
            for _ in 0..kicks {
                sent.fetch_add(1, Ordering::SeqCst);
                kicker.kick();
                if answers.recv_timeout(PATIENCE).is_err() {
                    eprintln!("kick {} was lost", sent.load(Ordering::SeqCst));
                    std::process::abort();
                }
            }
            done.store(true, Ordering::SeqCst);
            kicker.kick();
        });
        let mut answered = 0;
        while !done.load(Ordering::SeqCst) {
            let exit = guest.cpu.run(&guest.space, &mut guest.state);
            assert!(matches!(exit, Exit::Interrupted | Exit::Syscall), "{exit:?}");
            // An interruption without a kick is allowed; one is owed for each kick.
            if exit == Exit::Interrupted && sent.load(Ordering::SeqCst) > answered {
                answered += 1;
                answer.send(()).expect("the kicker listens");
            }
        }
    });
}
