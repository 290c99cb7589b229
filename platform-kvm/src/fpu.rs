//! FPU, SSE, AVX, ... state in and out of a virtual CPU.

use std::io;
use std::os::fd::AsRawFd;

use kvm_ioctls::VcpuFd;
use platform::FpuState;

/// `KVM_GET_XSAVE`
pub const KVM_GET_XSAVE: u64 = 0x9000_aea4;
/// `KVM_SET_XSAVE`
pub const KVM_SET_XSAVE: u64 = 0x5000_aea5;
/// `KVM_GET_XSAVE2`
pub const KVM_GET_XSAVE2: u64 = 0x9000_aecf;

/// Offset of XSTATE_BV in an XSAVE image.
pub const XSTATE_BV: usize = 512;
/// Bytes of the legacy area and the header.
pub const HEADER_END: usize = 576;

const X87: u64 = 1;
const SSE: u64 = 2;

/// A buffer of the size that KVM copies.
pub struct XsaveBuffer {
    words: Vec<u64>,
    large: bool,
}

impl XsaveBuffer {
    /// For a VM whose `KVM_CAP_XSAVE2` is `size` (0 on kernels without it).
    pub fn new(size: i32) -> Self {
        let size = usize::try_from(size).unwrap_or(0).max(4096);
        XsaveBuffer { words: vec![0; size.div_ceil(8)], large: size > 4096 }
    }

    /// The image.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: u64s are plain bytes; the length is theirs.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.words.len() * 8) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; every byte pattern is a u64.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.words.len() * 8) }
    }

    /// Fetches the state of `vcpu`.
    ///
    /// # Errors
    /// What KVM says.
    pub fn get(&mut self, vcpu: &VcpuFd) -> io::Result<()> {
        let request = if self.large { KVM_GET_XSAVE2 } else { KVM_GET_XSAVE };
        // SAFETY: the buffer has the size that KVM_CAP_XSAVE2 told.
        match unsafe { libc::ioctl(vcpu.as_raw_fd(), request, self.words.as_mut_ptr()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Loads the state into `vcpu`.
    ///
    /// # Errors
    /// What KVM says, `EINVAL` for components that it does not carry.
    pub fn set(&self, vcpu: &VcpuFd) -> io::Result<()> {
        // SAFETY: as in `get`.
        match unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_SET_XSAVE, self.words.as_ptr()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Fills the buffer from a task's state, which may come from a signal frame: only components in `xcr0`, no reserved
    /// header or MXCSR bits, since KVM would refuse them all.
    pub fn fill(&mut self, state: &FpuState, xcr0: u64) {
        let bytes = self.bytes_mut();
        bytes.fill(0);
        match state {
            FpuState::Initial => {
                bytes[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
                bytes[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
            }
            FpuState::Saved(image) => {
                let len = image.len().min(bytes.len());
                bytes[..len].copy_from_slice(&image[..len]);
            }
        }
        let mxcsr = word32(bytes, 24) & 0xffff;
        bytes[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        bytes[28..32].copy_from_slice(&0u32.to_le_bytes());
        let held = self.components();
        let bytes = self.bytes_mut();
        // KVM takes MXCSR only together with the legacy components, so these are always there.
        if held & X87 == 0 {
            bytes[..24].fill(0);
            bytes[32..160].fill(0);
            bytes[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
        }
        if held & SSE == 0 {
            bytes[160..416].fill(0);
        }
        let present = held & xcr0 | X87 | SSE;
        bytes[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&present.to_le_bytes());
        bytes[XSTATE_BV + 8..HEADER_END].fill(0);
    }

    /// The components that the image holds (XSTATE_BV).
    pub fn components(&self) -> u64 {
        self.words[XSTATE_BV / 8]
    }

    /// The state as a task keeps it: no longer than the components in use need. `size` is that of all of them.
    pub fn to_state(&self, size: usize) -> FpuState {
        let bytes = self.bytes();
        // Components from 2 on lie behind the header; without them the first 576 bytes say all.
        let len = if self.components() >> 2 == 0 { HEADER_END } else { size.clamp(HEADER_END, bytes.len()) };
        FpuState::Saved(bytes[..len].into())
    }

    /// Loads the image from elsewhere (an XSAVE made by guest code).
    pub fn load(&mut self, read: impl FnOnce(&mut [u8])) {
        let bytes = self.bytes_mut();
        let len = bytes.len().min(crate::layout::XSAVE_BYTES);
        read(&mut bytes[..len]);
    }
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}
