//! Random bytes, from the host's generator at every request: nothing is kept that a fork of the sandbox would share.

/// The source.
#[derive(Debug, Default)]
pub struct Random;

impl Random {
    /// Fills `out`.
    pub fn fill(&self, out: &mut [u8]) {
        if let Err(e) = getrandom::fill(out) {
            // Only a host without getrandom(2), or a filter without it, comes here: bytes that a guest could guess
            // would be worse than none.
            log::error!("the host gives no random bytes: {e}");
            std::process::abort();
        }
    }

    /// A random number.
    #[must_use]
    pub fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// Fills `dst`.
pub fn fill(dst: &mut [u8]) {
    Random.fill(dst);
}
