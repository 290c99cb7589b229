//! Random bytes, from the host's generator at every request: nothing is kept that a fork of the sandbox would share.

/// Fills `dst`.
pub fn fill(dst: &mut [u8]) {
    if let Err(e) = getrandom::fill(dst) {
        // getrandom(2) cannot fail once the host has booted. Bytes that a guest could guess would be worse than none.
        log::error!("the host gives no random bytes: {e}; the sandbox ends");
        std::process::abort();
    }
}

/// A random number.
#[must_use]
pub fn next_u64() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
