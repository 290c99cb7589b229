//! Making a CPU leave guest code.
//!
//! `immediate_exit` (in the page that KVM shares with us) and a signal together are free of races: the flag is set
//! first, so that an entry which misses the signal sees the flag, and one that missed the flag takes the signal.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use platform::Kicker;

/// What other threads know of a CPU.
pub struct CpuShared {
    /// Where to send the signal and set the flag; `None` once the CPU is gone.
    target: Mutex<Option<Target>>,
    kicked: AtomicBool,
    in_guest: AtomicBool,
    /// Id of the address space that the CPU runs in, 0 outside.
    space: AtomicU64,
    /// Counts the returns from guest mode; other threads wait for it to move.
    exits: AtomicU32,
    waiters: AtomicU32,
}

struct Target {
    tid: libc::pid_t,
    immediate_exit: *const AtomicU8,
}

// SAFETY: the pointer leads into the CPU's shared page; it is only used under the lock, and taken out before unmapping.
unsafe impl Send for Target {}

/// The signal that interrupts `KVM_RUN`.
pub fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN() + 3
}

extern "C" fn on_kick(_: libc::c_int) {}

fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: an all-zero sigaction is valid; the handler does nothing. No SA_RESTART: KVM_RUN shall return.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_kick as *const () as usize;
            libc::sigaction(kick_signal(), &raw const action, std::ptr::null_mut());
        }
    });
}

impl CpuShared {
    /// For the CPU of the calling thread, whose `immediate_exit` flag lies at `flag`.
    pub fn new(flag: *mut u8) -> Self {
        install_handler();
        // SAFETY: gettid has no preconditions.
        let tid = unsafe { libc::gettid() };
        CpuShared {
            target: Mutex::new(Some(Target { tid, immediate_exit: flag.cast::<AtomicU8>() })),
            kicked: AtomicBool::new(false),
            in_guest: AtomicBool::new(false),
            space: AtomicU64::new(0),
            exits: AtomicU32::new(0),
            waiters: AtomicU32::new(0),
        }
    }

    /// Forgets the CPU: kicks do nothing from now on.
    pub fn retire(&self) {
        *self.target.lock() = None;
    }

    /// Makes `KVM_RUN` return, now or at its next entry.
    fn interrupt(&self) {
        let target = self.target.lock();
        let Some(target) = &*target else { return };
        // SAFETY: mapped until `retire`, which takes the same lock.
        unsafe { (*target.immediate_exit).store(1, Ordering::SeqCst) };
        if self.in_guest.load(Ordering::SeqCst) {
            // SAFETY: the thread lives: it owns the CPU, which retires before it ends.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), target.tid, kick_signal()) };
        }
    }

    /// Takes note of a pending kick.
    pub fn take_kick(&self) -> bool {
        self.kicked.load(Ordering::SeqCst) && self.kicked.swap(false, Ordering::SeqCst)
    }

    /// Whether a kick is pending.
    pub fn is_kicked(&self) -> bool {
        self.kicked.load(Ordering::SeqCst)
    }

    /// Says that the CPU is about to run in `space`. What was changed there before this is seen by a later load.
    pub fn enter(&self, space: u64) {
        self.space.store(space, Ordering::SeqCst);
        self.in_guest.store(true, Ordering::SeqCst);
    }

    /// Says that the CPU is back.
    pub fn leave(&self) {
        self.in_guest.store(false, Ordering::Relaxed);
        self.space.store(0, Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) != 0 {
            self.exits.fetch_add(1, Ordering::SeqCst);
            futex(&self.exits, libc::FUTEX_WAKE, u32::MAX >> 1);
        }
    }

    /// Returns once the CPU is (or has been) outside `space`.
    pub fn expel(&self, space: u64) {
        if self.space.load(Ordering::SeqCst) != space {
            return;
        }
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let seen = self.exits.load(Ordering::SeqCst);
        if self.space.load(Ordering::SeqCst) == space {
            self.interrupt();
            while self.exits.load(Ordering::SeqCst) == seen && self.space.load(Ordering::SeqCst) == space {
                futex(&self.exits, libc::FUTEX_WAIT, seen);
            }
        }
        self.waiters.fetch_sub(1, Ordering::SeqCst);
    }
}

fn futex(word: &AtomicU32, op: libc::c_int, value: u32) {
    let op = op | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word outlives the call; no timeout.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, value, std::ptr::null::<libc::timespec>()) };
}

impl Kicker for CpuShared {
    fn kick(&self) {
        self.kicked.store(true, Ordering::SeqCst);
        self.interrupt();
    }
}
