//! The virtual machine: memory slots, and the windows through which guests see frame files.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use abi::Errno;
use kvm_bindings::{CpuId, KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VmFd};
use memory::{FileId, FileKind, FrameFile};
use parking_lot::{Mutex, RwLock};

use crate::host_area::HostArea;
use crate::layout::*;
use crate::stub;

/// A piece of a frame file that has a memory slot.
#[derive(Clone)]
pub struct Window {
    /// The file; held, so that the slot never points at a mapping that is gone.
    pub file: Arc<FrameFile>,
    /// Offset of the window's first byte in the file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    slot: u32,
}

#[derive(Default)]
struct Windows {
    by_file: HashMap<(FileId, u64), u64>,
    list: Vec<Option<Window>>,
    vacant: Vec<u64>,
}

struct Slots {
    next: u32,
    free: Vec<u32>,
}

/// One VM and what it maps. Works only in the process that made it.
pub struct Vm {
    /// The VM.
    pub fd: VmFd,
    /// What KVM supports, asked once: on hosts that trap the instruction the answer takes half a millisecond.
    pub cpuid: CpuId,
    /// The private area.
    pub private: HostArea,
    slots: Mutex<Slots>,
    windows: RwLock<Windows>,
    max_slots: u32,
    max_windows: u64,
    flush_slot: u32,
    flush_page: HostArea,
    flushing: Mutex<()>,
}

fn kvm_error(e: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(e.errno())
}

impl Vm {
    /// Creates a VM with the private area in place. `kvm` is closed then: nobody makes another VM in this process.
    ///
    /// # Errors
    /// What KVM or `mmap` say.
    pub fn new(kvm: Kvm) -> io::Result<Self> {
        let fd = kvm.create_vm().map_err(kvm_error)?;
        let max_slots = u32::try_from(kvm.get_nr_memslots()).unwrap_or(32);
        // Only Intel processors without unrestricted guests need it, and only they mind that it is missing.
        let _ = fd.set_tss_address(0xfffb_d000);
        let private = HostArea::new(PRIVATE_PAGES * PAGE)?;
        let flush_page = HostArea::new(PAGE)?;
        stub::build_shared(&private);
        let cpuid = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).map_err(kvm_error)?;
        let vm = Vm {
            max_windows: max_windows(&cpuid),
            cpuid,
            fd,
            private,
            slots: Mutex::new(Slots { next: 0, free: Vec::new() }),
            windows: RwLock::default(),
            max_slots,
            flush_slot: 1,
            flush_page,
            flushing: Mutex::new(()),
        };
        vm.add_slot(PRIVATE_GPA, vm.private.host_addr(0), PRIVATE_PAGES * PAGE, false)?;
        vm.add_slot(FLUSH_GPA, vm.flush_page.host_addr(0), PAGE, false)?;
        Ok(vm)
    }

    fn set_slot(&self, slot: u32, gpa: u64, hva: u64, len: u64, read_only: bool) -> io::Result<()> {
        let flags = if read_only { KVM_MEM_READONLY } else { 0 };
        let region =
            kvm_userspace_memory_region { slot, flags, guest_phys_addr: gpa, memory_size: len, userspace_addr: hva };
        // SAFETY: the host range is a live mapping that its owner keeps as long as the slot stands.
        unsafe { self.fd.set_user_memory_region(region) }.map_err(kvm_error)
    }

    /// Adds a memory slot; answers its number.
    ///
    /// # Errors
    /// `OutOfMemory` when all numbers are taken; what KVM says.
    pub fn add_slot(&self, gpa: u64, hva: u64, len: u64, read_only: bool) -> io::Result<u32> {
        let mut slots = self.slots.lock();
        let slot = match slots.free.pop() {
            Some(slot) => slot,
            None if slots.next < self.max_slots => {
                slots.next += 1;
                slots.next - 1
            }
            None => return Err(io::ErrorKind::OutOfMemory.into()),
        };
        match self.set_slot(slot, gpa, hva, len, read_only) {
            Ok(()) => Ok(slot),
            Err(e) => {
                slots.free.push(slot);
                Err(e)
            }
        }
    }

    /// Makes KVM forget everything that it derived from guest page tables. Removing any slot does that
    /// (`kvm_arch_flush_shadow_memslot`), so a slot that no guest can reach is removed and added again.
    pub fn forget_shadows(&self) {
        let _serial = self.flushing.lock();
        let hva = self.flush_page.host_addr(0);
        for len in [0, PAGE] {
            if let Err(e) = self.set_slot(self.flush_slot, FLUSH_GPA, hva, len, false) {
                log::error!("kvm: cannot flush shadow page tables: {e}");
            }
        }
    }

    /// The guest-physical address of `offset` in `file`, and how many bytes follow it in the same window.
    ///
    /// # Errors
    /// `ENOMEM` where the VM has no room for another window.
    pub fn window(&self, file: &Arc<FrameFile>, offset: u64) -> Result<(u64, u64), Errno> {
        if offset >= file.size() {
            return Err(Errno::ENOMEM);
        }
        let key = (file.id(), offset / WINDOW);
        let within = offset % WINDOW;
        let known = self.windows.read().by_file.get(&key).copied();
        let index = match known {
            Some(index) => index,
            None => self.open_window(file, key)?,
        };
        let start = offset - within;
        let len = WINDOW.min(file.size() - start);
        Ok((WINDOWS_GPA + index * WINDOW + within, len.next_multiple_of(PAGE) - within))
    }

    fn open_window(&self, file: &Arc<FrameFile>, key: (FileId, u64)) -> Result<u64, Errno> {
        let mut windows = self.windows.write();
        if let Some(&index) = windows.by_file.get(&key) {
            return Ok(index);
        }
        if file.kind() != FileKind::Memory {
            self.close_unused(&mut windows);
        }
        let index = windows.vacant.pop().unwrap_or(windows.list.len() as u64);
        if index >= self.max_windows {
            return Err(Errno::ENOMEM);
        }
        let offset = key.1 * WINDOW;
        let len = WINDOW.min(file.size() - offset).next_multiple_of(PAGE);
        let hva = file.host_addr(offset) as u64;
        let slot = match self.add_slot(WINDOWS_GPA + index * WINDOW, hva, len, !file.is_writable()) {
            Ok(slot) => slot,
            Err(e) => {
                log::warn!("kvm: no memory slot for {file:?} at {offset:#x}: {e}");
                if index < windows.list.len() as u64 {
                    windows.vacant.push(index);
                }
                return Err(Errno::ENOMEM);
            }
        };
        log::debug!("kvm: {:?} from {offset:#x} on lies at {:#x}", file.kind(), WINDOWS_GPA + index * WINDOW);
        let window = Some(Window { file: file.clone(), offset, len, slot });
        match windows.list.get_mut(index as usize) {
            Some(place) => *place = window,
            None => windows.list.push(window),
        }
        windows.by_file.insert(key, index);
        Ok(index)
    }

    /// Removes the windows of files that nobody but this table holds any more.
    fn close_unused(&self, windows: &mut Windows) {
        let mut held: HashMap<FileId, usize> = HashMap::new();
        for window in windows.list.iter().flatten() {
            *held.entry(window.file.id()).or_default() += 1;
        }
        for index in 0..windows.list.len() {
            let Some(window) = &windows.list[index] else { continue };
            if held.get(&window.file.id()) != Some(&Arc::strong_count(&window.file)) {
                continue;
            }
            let (slot, key) = (window.slot, (window.file.id(), window.offset / WINDOW));
            if let Err(e) = self.set_slot(slot, WINDOWS_GPA + index as u64 * WINDOW, 0, 0, false) {
                log::warn!("kvm: cannot remove memory slot {slot}: {e}");
                continue;
            }
            if let Some(n) = held.get_mut(&key.0) {
                *n -= 1;
            }
            windows.by_file.remove(&key);
            windows.list[index] = None;
            windows.vacant.push(index as u64);
            self.slots.lock().free.push(slot);
        }
    }

    /// The window that `gpa` lies in, and the offset in its file.
    pub fn frame_at(&self, gpa: u64) -> Option<(Window, u64)> {
        let at = gpa.checked_sub(WINDOWS_GPA)?;
        let windows = self.windows.read();
        let window = windows.list.get(usize::try_from(at / WINDOW).ok()?)?.clone()?;
        let offset = window.offset + at % WINDOW;
        (at % WINDOW < window.len).then_some((window, offset))
    }

    /// What KVM answers for a capability of this VM.
    pub fn capability(&self, cap: Cap) -> i32 {
        self.fd.check_extension_int(cap)
    }
}

/// Guest-physical place of the slot that [`Vm::forget_shadows`] removes and adds.
const FLUSH_GPA: u64 = 8 << 20;

fn max_windows(cpuid: &CpuId) -> u64 {
    let leaf = cpuid.as_slice().iter().find(|e| e.function == 0x8000_0008);
    let bits = leaf.map(|e| e.eax & 0xff).filter(|b| (36..=52).contains(b)).unwrap_or(36);
    ((1u64 << bits) - WINDOWS_GPA) / WINDOW
}
