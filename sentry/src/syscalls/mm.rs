//! Memory: mmap and its kin.

use abi::Errno;
use platform::Prot;

use crate::kernel::op::{SyscallResult, ok, ret};
use crate::kernel::task::CurrentTask;
use crate::mm::map::{MapRequest, Place};
use crate::mm::protect::Protect;
use crate::mm::vma::{FileBacking, Vma, VmaFlags};
use crate::syscall_table;
use crate::vfs::{FdNum, OpenFlags};

syscall_table! {
    9 mmap(addr: u64, len: u64, prot: u32, flags: u32, fd: FdNum, offset: u64);
    10 mprotect(addr: u64, len: u64, prot: u32);
    11 munmap(addr: u64, len: u64);
    12 brk(addr: u64);
}

const MAP_TYPE: u32 = 0x0f;
const MAP_SHARED_VALIDATE: u32 = 3;
const MAP_SHARED: u32 = libc::MAP_SHARED as u32;
const MAP_PRIVATE: u32 = libc::MAP_PRIVATE as u32;
const MAP_ANONYMOUS: u32 = libc::MAP_ANONYMOUS as u32;
const MAP_FIXED: u32 = libc::MAP_FIXED as u32;
const MAP_FIXED_NOREPLACE: u32 = libc::MAP_FIXED_NOREPLACE as u32;
const MAP_32BIT: u32 = libc::MAP_32BIT as u32;
const MAP_GROWSDOWN: u32 = libc::MAP_GROWSDOWN as u32;
const MAP_DENYWRITE: u32 = libc::MAP_DENYWRITE as u32;
const MAP_EXECUTABLE: u32 = libc::MAP_EXECUTABLE as u32;
const MAP_LOCKED: u32 = libc::MAP_LOCKED as u32;
const MAP_NORESERVE: u32 = libc::MAP_NORESERVE as u32;
const MAP_POPULATE: u32 = libc::MAP_POPULATE as u32;
const MAP_NONBLOCK: u32 = libc::MAP_NONBLOCK as u32;
const MAP_STACK: u32 = libc::MAP_STACK as u32;
const MAP_HUGETLB: u32 = libc::MAP_HUGETLB as u32;
/// The page size bits of MAP_HUGETLB.
const MAP_HUGE_MASK: u32 = 0x3f << 26;
/// What MAP_SHARED_VALIDATE accepts (`LEGACY_MAP_MASK`).
const LEGACY: u32 = MAP_SHARED
    | MAP_PRIVATE
    | MAP_FIXED
    | MAP_ANONYMOUS
    | MAP_DENYWRITE
    | MAP_EXECUTABLE
    | MAP_GROWSDOWN
    | MAP_LOCKED
    | MAP_NORESERVE
    | MAP_POPULATE
    | MAP_NONBLOCK
    | MAP_STACK
    | MAP_HUGETLB
    | MAP_32BIT
    | MAP_HUGE_MASK;

const PROT_GROWSDOWN: u32 = 0x0100_0000;
const PROT_GROWSUP: u32 = 0x0200_0000;
const PROT_SEM: u32 = 8;

/// Access bits of a `prot` argument; `mmap` ignores the rest.
fn prot_bits(prot: u32) -> Prot {
    Prot::from_bits_truncate((prot & 7) as u8)
}

fn vma_flags(flags: u32) -> VmaFlags {
    let mut out = VmaFlags::empty();
    out.set(VmaFlags::GROWSDOWN, flags & MAP_GROWSDOWN != 0);
    out.set(VmaFlags::LOCKED, flags & MAP_LOCKED != 0);
    out.set(VmaFlags::NORESERVE, flags & MAP_NORESERVE != 0);
    out
}

fn place(addr: u64, flags: u32) -> Place {
    if flags & MAP_FIXED_NOREPLACE != 0 {
        Place::FixedNoReplace(addr)
    } else if flags & MAP_FIXED != 0 {
        Place::Fixed(addr)
    } else if flags & MAP_32BIT != 0 {
        Place::Low(addr)
    } else {
        Place::Hint(addr)
    }
}

/// mmap(2).
fn mmap(cx: &mut CurrentTask<'_>, addr: u64, len: u64, prot: u32, flags: u32, fd: FdNum, offset: u64) -> SyscallResult {
    if offset & abi::PAGE_MASK != 0 {
        return Err(Errno::EINVAL);
    }
    let mm = cx.mm()?;
    let file = if flags & MAP_ANONYMOUS == 0 { Some(cx.fds()?.get(fd)?) } else { None };
    if file.as_ref().is_some_and(|f| f.flags().contains(OpenFlags::PATH)) {
        return Err(Errno::EBADF);
    }
    if flags & MAP_HUGETLB != 0 {
        // No huge page pool: as a host with nr_hugepages = 0 (a file that is not hugetlbfs is EINVAL).
        return Err(if file.is_some() { Errno::EINVAL } else { Errno::ENOMEM });
    }
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    let mut vma = Vma::anonymous(prot_bits(prot), vma_flags(flags));
    let shared = match flags & MAP_TYPE {
        MAP_PRIVATE => false,
        MAP_SHARED => true,
        MAP_SHARED_VALIDATE if file.is_some() => {
            if flags & !(LEGACY | MAP_FIXED_NOREPLACE) != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            true
        }
        _ => return Err(Errno::EINVAL),
    };
    vma.flags.set(VmaFlags::SHARED, shared);
    match file {
        Some(file) => {
            let open = file.flags();
            if !open.readable() || (shared && prot_bits(prot).contains(Prot::WRITE) && !open.writable()) {
                return Err(Errno::EACCES);
            }
            vma.max.set(Prot::WRITE, !shared || open.writable());
            if flags & MAP_GROWSDOWN != 0 {
                return Err(Errno::EINVAL);
            }
            let mappable = file.ops.mappable(&file)?;
            vma.file = Some(FileBacking { mappable, offset, file: Some(file) });
        }
        None if shared => {
            if flags & MAP_GROWSDOWN != 0 {
                return Err(Errno::EINVAL);
            }
            let size = abi::page_up(len).ok_or(Errno::ENOMEM)?;
            vma.file = Some(mm.shared_anonymous(size));
        }
        None => {}
    }
    let populate = flags & MAP_POPULATE != 0 && flags & MAP_NONBLOCK == 0;
    ret(mm.mmap(MapRequest { place: place(addr, flags), len, vma, populate })?)
}

/// The `prot` argument of mprotect and pkey_mprotect.
fn protect(prot: u32, pkey: Option<u8>) -> Result<Protect, Errno> {
    let grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP);
    // No stack grows up on x86, and both at once make no sense.
    if prot & !(7 | PROT_SEM | PROT_GROWSDOWN | PROT_GROWSUP) != 0 || grows & PROT_GROWSUP != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(Protect { prot: prot_bits(prot), pkey, grows_down: grows != 0 })
}

/// mprotect(2).
fn mprotect(cx: &mut CurrentTask<'_>, addr: u64, len: u64, prot: u32) -> SyscallResult {
    cx.mm()?.mprotect(addr, len, protect(prot, None)?)?;
    ok()
}

/// munmap(2).
fn munmap(cx: &mut CurrentTask<'_>, addr: u64, len: u64) -> SyscallResult {
    cx.mm()?.munmap(addr, len)?;
    ok()
}

/// brk(2).
fn brk(cx: &mut CurrentTask<'_>, addr: u64) -> SyscallResult {
    ret(cx.mm()?.brk(addr))
}
