//! Random bytes, from the host's generator.

/// Fills `dst`.
pub fn fill(dst: &mut [u8]) {
    if let Err(e) = getrandom::fill(dst) {
        // getrandom(2) cannot fail once the host has booted; nothing else would be random.
        log::error!("the host gives no random bytes: {e}");
    }
}
