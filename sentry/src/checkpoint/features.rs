//! What a guest has seen of the processor: a restore needs a host that has all of it.

use serde::{Deserialize, Serialize};

use platform::Platform;

use crate::checkpoint::Unusable;

/// Registers of a `cpuid` answer that hold feature bits: leaf, subleaf, and whether each of eax, ebx, ecx, edx does.
const LEAVES: [(u32, u32, [bool; 4]); 6] = [
    (1, 0, [false, false, true, true]),
    (7, 0, [false, true, true, true]),
    (7, 1, [true, true, true, true]),
    (0xd, 1, [true, false, false, false]),
    (0x8000_0001, 0, [false, false, true, true]),
    (0x8000_0008, 0, [false, true, false, false]),
];

/// CPU features.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// XSAVE components.
    xcr0: u64,
    /// Bytes of an XSAVE image.
    xsave_size: u64,
    /// Feature bits, in the order of [`LEAVES`].
    bits: Vec<[u32; 4]>,
}

impl Features {
    /// Of this host, as guests see it.
    #[must_use]
    pub fn of_host(platform: &dyn Platform) -> Self {
        let leaf = |(leaf, sub, keep): (u32, u32, [bool; 4])| {
            let found = std::arch::x86_64::__cpuid_count(leaf, sub);
            let all = [found.eax, found.ebx, found.ecx, found.edx];
            std::array::from_fn(|i| if keep[i] { all[i] } else { 0 })
        };
        Features {
            xcr0: platform.xcr0(),
            xsave_size: platform.xsave_size() as u64,
            bits: LEAVES.into_iter().map(leaf).collect(),
        }
    }

    /// Whether a guest that has seen these runs on `host`.
    ///
    /// # Errors
    /// [`Unusable::Features`] names what is missing.
    pub fn check(&self, host: &Features) -> Result<(), Unusable> {
        if self.xcr0 & !host.xcr0 != 0 || self.xsave_size > host.xsave_size {
            let (had, has) = (self.xcr0, host.xcr0);
            return Err(Unusable::Features(format!(
                "it was made with XSAVE components {had:#x}, and here are {has:#x}"
            )));
        }
        if self.bits.len() != LEAVES.len() {
            return Err(Unusable::Corrupt("CPU features"));
        }
        for ((leaf, sub, _), (had, has)) in LEAVES.iter().zip(self.bits.iter().zip(&host.bits)) {
            for (register, (had, has)) in ["eax", "ebx", "ecx", "edx"].iter().zip(had.iter().zip(has)) {
                let missing = had & !has;
                if missing != 0 {
                    let text = format!("CPU features {missing:#x} of cpuid {leaf:#x}.{sub} {register} are missing");
                    return Err(Unusable::Features(text));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(xcr0: u64, word: u32) -> Features {
        Features { xcr0, xsave_size: 2696, bits: vec![[word; 4]; LEAVES.len()] }
    }

    #[test]
    fn more_is_enough_and_less_is_named() {
        assert!(features(7, 3).check(&features(0x207, 7)).is_ok());
        let missing = features(7, 8).check(&features(7, 7)).unwrap_err().to_string();
        assert!(missing.contains("0x8 of cpuid 0x1.0 eax"), "{missing}");
        assert!(features(0x200, 0).check(&features(7, 0)).is_err());
    }
}
