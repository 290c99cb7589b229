//! Memory: mmap and its kin.

use abi::{Errno, UserAddr};
use platform::{Access, Prot};

use crate::kernel::op::{SyscallResult, ok, ret};
use crate::kernel::task::CurrentTask;
use crate::mm::advise::{Advice, page_range};
use crate::mm::map::{MapRequest, Place};
use crate::mm::protect::Protect;
use crate::mm::remap::Remap;
use crate::mm::vma::{FileBacking, Vma, VmaFlags};
use crate::syscall_table;
use crate::vfs::mount::MountFlags;
use crate::vfs::{FdNum, OpenFlags};

syscall_table! {
    9 mmap(addr: u64, len: u64, prot: u32, flags: u32, fd: FdNum, offset: u64);
    10 mprotect(addr: u64, len: u64, prot: u32);
    11 munmap(addr: u64, len: u64);
    12 brk(addr: u64);
    25 mremap(old: u64, old_len: u64, new_len: u64, flags: u32, new: u64);
    26 msync(addr: u64, len: u64, flags: u32);
    27 mincore(addr: u64, len: u64, vec: UserAddr) Partial("pages count as resident once they are reserved together with a touched neighbour");
    28 madvise(addr: u64, len: u64, advice: i32) Partial("no swap, no page merging, no hardware poison; huge pages are a hint");
    149 mlock(addr: u64, len: u64);
    150 munlock(addr: u64, len: u64);
    151 mlockall(flags: u32);
    152 munlockall();
    325 mlock2(addr: u64, len: u64, flags: u32);
    329 pkey_mprotect(addr: u64, len: u64, prot: u32, pkey: i32);
    330 pkey_alloc(flags: u32, rights: u32) Partial("no keys: ENOSPC, as on a processor without them");
    331 pkey_free(pkey: i32);
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
    let mm = if flags & MAP_LOCKED == 0 { cx.mm()? } else { locking(cx)? };
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
            let mount = file.path.as_ref().map(|path| &path.mount);
            if mount.is_some_and(|mount| mount.flags().contains(MountFlags::NOEXEC)) {
                if prot_bits(prot).contains(Prot::EXEC) {
                    return Err(Errno::EPERM);
                }
                vma.max.remove(Prot::EXEC);
            }
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

/// mremap(2).
fn mremap(cx: &mut CurrentTask<'_>, old: u64, old_len: u64, new_len: u64, flags: u32, new: u64) -> SyscallResult {
    ret(cx.mm()?.mremap(Remap { old, old_len, new_len, flags, new })?)
}

/// msync(2).
fn msync(cx: &mut CurrentTask<'_>, addr: u64, len: u64, flags: u32) -> SyscallResult {
    let (asynchronous, invalidate, sync) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
    if flags & !7 != 0 || addr & abi::PAGE_MASK != 0 || (asynchronous && sync) {
        return Err(Errno::EINVAL);
    }
    let len = abi::page_up(len).ok_or(Errno::ENOMEM)?;
    let range = UserAddr(addr).range(len).ok_or(Errno::ENOMEM)?;
    if !range.is_empty() {
        cx.mm()?.msync(range, sync, invalidate)?;
    }
    ok()
}

/// Pages that `mincore` looks at under one lock.
const MINCORE_PIECE: u64 = 4096 << abi::PAGE_SHIFT;

/// mincore(2).
fn mincore(cx: &mut CurrentTask<'_>, addr: u64, len: u64, vec: UserAddr) -> SyscallResult {
    if addr & abi::PAGE_MASK != 0 {
        return Err(Errno::EINVAL);
    }
    let end = abi::page_up(len).and_then(|l| addr.checked_add(l)).filter(|e| *e <= platform::USER_END);
    let end = end.ok_or(Errno::ENOMEM)?;
    let mm = cx.mm()?;
    let mut at = addr;
    while at < end {
        let next = end.min(at.saturating_add(MINCORE_PIECE));
        let bytes = mm.mincore(abi::AddrRange::new(at, next))?;
        let to = vec.checked_add((at - addr) >> abi::PAGE_SHIFT).ok_or(Errno::EFAULT)?;
        mm.write_bytes(to, &bytes)?;
        at = next;
    }
    ok()
}

fn advice(number: i32) -> Result<Advice, Errno> {
    let none = VmaFlags::empty();
    let flags = |set, clear, anonymous| Ok(Advice::Flags { set, clear, anonymous });
    match number {
        libc::MADV_NORMAL => flags(none, VmaFlags::SEQUENTIAL | VmaFlags::RANDOM, false),
        libc::MADV_RANDOM => flags(VmaFlags::RANDOM, VmaFlags::SEQUENTIAL, false),
        libc::MADV_SEQUENTIAL => flags(VmaFlags::SEQUENTIAL, VmaFlags::RANDOM, false),
        libc::MADV_WILLNEED => Ok(Advice::Nothing),
        libc::MADV_DONTNEED => Ok(Advice::DontNeed { locked: false }),
        libc::MADV_FREE => Ok(Advice::Free),
        libc::MADV_REMOVE => Ok(Advice::Remove),
        libc::MADV_DONTFORK => flags(VmaFlags::DONTFORK, none, false),
        libc::MADV_DOFORK => flags(none, VmaFlags::DONTFORK, false),
        libc::MADV_MERGEABLE => flags(VmaFlags::MERGEABLE, none, false),
        libc::MADV_UNMERGEABLE => flags(none, VmaFlags::MERGEABLE, false),
        libc::MADV_HUGEPAGE => flags(VmaFlags::HUGEPAGE, VmaFlags::NOHUGEPAGE, false),
        libc::MADV_NOHUGEPAGE => flags(VmaFlags::NOHUGEPAGE, VmaFlags::HUGEPAGE, false),
        libc::MADV_DONTDUMP => flags(VmaFlags::DONTDUMP, none, false),
        libc::MADV_DODUMP => flags(none, VmaFlags::DONTDUMP, false),
        libc::MADV_WIPEONFORK => flags(VmaFlags::WIPEONFORK, none, true),
        libc::MADV_KEEPONFORK => flags(none, VmaFlags::WIPEONFORK, false),
        20 | 21 => Ok(Advice::Cold),
        22 => Ok(Advice::Populate(Access::READ)),
        23 => Ok(Advice::Populate(Access::WRITE)),
        24 => Ok(Advice::DontNeed { locked: true }),
        _ => Err(Errno::EINVAL),
    }
}

/// madvise(2).
fn madvise(cx: &mut CurrentTask<'_>, addr: u64, len: u64, number: i32) -> SyscallResult {
    let advice = advice(number)?;
    cx.mm()?.madvise(page_range(addr, len)?, advice)?;
    ok()
}

/// The pages that hold `addr..addr+len`.
fn touched(addr: u64, len: u64) -> Result<abi::AddrRange, Errno> {
    let start = abi::page_down(addr);
    let end = addr.checked_add(len).and_then(abi::page_up).ok_or(Errno::EINVAL)?;
    Ok(abi::AddrRange::new(start, if len == 0 { start } else { end }))
}

/// The address space of a caller who may lock memory, which its credentials and limits now decide (`can_do_mlock`).
fn locking(cx: &CurrentTask<'_>) -> Result<std::sync::Arc<crate::mm::Mm>, Errno> {
    let mm = cx.mm()?;
    let creds = cx.creds();
    let limits = cx.task.group.limits.lock().for_memory(&creds);
    mm.set_limits(limits);
    if limits.memlock == 0 { Err(Errno::EPERM) } else { Ok(mm) }
}

/// mlock(2).
fn mlock(cx: &mut CurrentTask<'_>, addr: u64, len: u64) -> SyscallResult {
    locking(cx)?.mlock(touched(addr, len)?, VmaFlags::LOCKED)?;
    ok()
}

/// mlock2(2).
fn mlock2(cx: &mut CurrentTask<'_>, addr: u64, len: u64, flags: u32) -> SyscallResult {
    let lock = match flags {
        0 => VmaFlags::LOCKED,
        1 => VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT,
        _ => return Err(Errno::EINVAL),
    };
    locking(cx)?.mlock(touched(addr, len)?, lock)?;
    ok()
}

/// munlock(2).
fn munlock(cx: &mut CurrentTask<'_>, addr: u64, len: u64) -> SyscallResult {
    cx.mm()?.mlock(touched(addr, len)?, VmaFlags::empty())?;
    ok()
}

/// mlockall(2).
fn mlockall(cx: &mut CurrentTask<'_>, flags: u32) -> SyscallResult {
    let (current, future, on_fault) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
    if flags & !7 != 0 || !(current || future) {
        return Err(Errno::EINVAL);
    }
    let lock = if on_fault { VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT } else { VmaFlags::LOCKED };
    locking(cx)?.mlockall(current.then_some(lock), if future { lock } else { VmaFlags::empty() })?;
    ok()
}

/// munlockall(2).
fn munlockall(cx: &mut CurrentTask<'_>) -> SyscallResult {
    cx.mm()?.mlockall(Some(VmaFlags::empty()), VmaFlags::empty())?;
    ok()
}

/// pkey_mprotect(2).
fn pkey_mprotect(cx: &mut CurrentTask<'_>, addr: u64, len: u64, prot: u32, pkey: i32) -> SyscallResult {
    let key = match pkey {
        -1 => None,
        key => Some(u8::try_from(key).map_err(|_| Errno::EINVAL)?),
    };
    cx.mm()?.mprotect(addr, len, protect(prot, key)?)?;
    ok()
}

/// pkey_alloc(2).
fn pkey_alloc(_cx: &mut CurrentTask<'_>, flags: u32, rights: u32) -> SyscallResult {
    if flags != 0 || rights & !3 != 0 {
        return Err(Errno::EINVAL);
    }
    Err(Errno::ENOSPC)
}

/// pkey_free(2).
fn pkey_free(_cx: &mut CurrentTask<'_>, _pkey: i32) -> SyscallResult {
    Err(Errno::EINVAL)
}
