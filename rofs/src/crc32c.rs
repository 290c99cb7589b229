//! CRC32C (Castagnoli), as EROFS uses it on its superblock: seeded with all ones, not inverted at the end.

const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut byte = 0usize;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// Continues the CRC `crc` over `bytes`; no pre- or post-inversion, like the kernel's `crc32c()`.
pub(crate) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, &byte| {
        let index = (crc ^ u32::from(byte)) & 0xff;
        TABLE.get(index as usize).copied().unwrap_or(0) ^ (crc >> 8)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn check_value() {
        // The catalogue's check value for CRC-32C is over "123456789" with both inversions.
        assert_eq!(super::crc32c(!0, b"123456789") ^ !0, 0xe306_9283);
    }
}
