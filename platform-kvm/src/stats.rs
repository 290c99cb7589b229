//! Counts of exits by kind: where the time of a start goes, on hosts where an exit is dear.

/// What one CPU's exits were.
#[derive(Debug, Default)]
pub struct Stats {
    /// System calls, and those of them that left by the interrupt window.
    pub syscalls: u64,
    /// See `syscalls`.
    pub by_window: u64,
    /// Page faults of the guest.
    pub faults: u64,
    /// Other exceptions.
    pub exceptions: u64,
    /// Kicks and signals.
    pub interrupts: u64,
    /// Interrupt windows elsewhere than at a system call.
    pub stray_windows: u64,
    /// Entries with another root than before.
    pub switches: u64,
    /// FPU states taken out and put in.
    pub fpu_swaps: u64,
}

impl Drop for Stats {
    fn drop(&mut self) {
        log::debug!("kvm: a CPU's exits: {self:?}");
    }
}
