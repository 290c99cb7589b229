//! Address spaces on the test platform, with the test as the guest.

use std::sync::Arc;

use abi::{AddrRange, Errno};
use memory::Backing;
use platform::Prot;

use crate::mm::FaultSignal;
use crate::mm::map::{MapRequest, Place};
use crate::mm::mappable::Mappable;
use crate::mm::object::{MemoryObject, anonymous_key};
use crate::mm::protect::Protect;
use crate::mm::test_platform::{at, check_cache, load, new_mm, store};
use crate::mm::vma::{FileBacking, Vma, VmaFlags};
use crate::vfs::{IoSink, IoSource};

const RW: Prot = Prot::READ.union(Prot::WRITE);

fn anon(len: u64) -> MapRequest {
    MapRequest::anonymous(Place::Hint(0), len, RW, VmaFlags::empty())
}

fn protect(prot: Prot) -> Protect {
    Protect { prot, pkey: None, grows_down: false }
}

fn file(object: &Arc<MemoryObject>, len: u64, shared: bool) -> MapRequest {
    let flags = if shared { VmaFlags::SHARED } else { VmaFlags::empty() };
    let backing = FileBacking { mappable: object.clone(), offset: 0, file: None };
    let vma = Vma { file: Some(backing), ..Vma::anonymous(RW, flags) };
    MapRequest { place: Place::Hint(0), len, vma, populate: false }
}

#[test]
fn anonymous_memory_is_zero_and_private() {
    for backing in [Backing::Memfd, Backing::Anonymous] {
        let (platform, memory, mm) = new_mm(backing, 64 << 20);
        let a = mm.mmap(anon(1 << 20)).unwrap();
        assert_eq!(load(&mm, a + 5), Ok(0));
        store(&mm, a + 5, 7).unwrap();
        let child = mm.fork_on(&platform).unwrap();
        check_cache(&mm);
        store(&mm, a + 5, 8).unwrap();
        assert_eq!(load(&child, a + 5), Ok(7));
        store(&child, a + 6, 9).unwrap();
        assert_eq!((load(&mm, a + 5), load(&mm, a + 6)), (Ok(8), Ok(0)));
        check_cache(&mm);
        check_cache(&child);
        drop(child);
        store(&mm, a + 7, 1).unwrap();
        mm.munmap(a, 1 << 20).unwrap();
        assert_eq!(load(&mm, a), Err(FaultSignal::maperr()));
        assert_eq!(memory.used(), 0);
    }
}

#[test]
fn protections_hold_for_guest_and_copies() {
    let (_, _, mm) = new_mm(Backing::Memfd, 64 << 20);
    let a = mm.mmap(anon(3 * 4096)).unwrap();
    mm.write_bytes(at(a), &[1; 3 * 4096]).unwrap();
    mm.mprotect(a + 4096, 4096, protect(Prot::READ)).unwrap();
    assert_eq!(store(&mm, a + 4096, 2), Err(FaultSignal::accerr()));
    assert_eq!(mm.write_bytes(at(a + 4095), &[2, 2]), Err(Errno::EFAULT));
    assert_eq!(load(&mm, a + 4095), Ok(2));
    mm.mprotect(a + 4096, 4096, protect(Prot::empty())).unwrap();
    assert_eq!(load(&mm, a + 4096), Err(FaultSignal::accerr()));
    assert_eq!(mm.read_bytes(at(a + 4000), &mut [0; 200]), Err(Errno::EFAULT));
    assert_eq!(mm.read_partial(at(a + 4000), &mut [0; 200]), Ok(96));
    mm.mprotect(a, 3 * 4096, protect(RW)).unwrap();
    assert_eq!(mm.vmas.read().map.len(), 1);
    assert_eq!(load(&mm, a + 4096), Ok(1));
    check_cache(&mm);
    assert_eq!(mm.mprotect(a, 4 * 4096, protect(RW)), Err(Errno::ENOMEM));
}

#[test]
fn shared_objects_are_seen_by_all_and_truncation_takes_pages_away() {
    let (platform, memory, mm) = new_mm(Backing::Memfd, 64 << 20);
    let object = MemoryObject::new(memory.clone(), anonymous_key(), 8192);
    let shared = mm.mmap(file(&object, 8192, true)).unwrap();
    let private = mm.mmap(file(&object, 8192, false)).unwrap();
    store(&mm, shared, 5).unwrap();
    assert_eq!(load(&mm, private), Ok(5));
    store(&mm, private + 1, 6).unwrap();
    assert_eq!(load(&mm, shared + 1), Ok(0));
    let child = mm.fork_on(&platform).unwrap();
    store(&child, shared + 2, 7).unwrap();
    assert_eq!((load(&mm, shared + 2), load(&mm, private + 2)), (Ok(7), Ok(0)));
    let mut buf = [0; 3];
    assert_eq!(object.read_at(&mut IoSink::kernel(&mut buf), 0), Ok(3));
    assert_eq!(buf, [5, 0, 7]);
    store(&mm, shared + 4096, 9).unwrap();
    assert_eq!(load(&mm, private + 4096), Ok(9));
    object.truncate(4096).unwrap();
    assert_eq!(load(&mm, shared + 4096), Err(FaultSignal::bus_adrerr()));
    assert_eq!(load(&mm, private + 4096), Err(FaultSignal::bus_adrerr()));
    assert_eq!(load(&child, shared + 4096), Err(FaultSignal::bus_adrerr()));
    object.truncate(8192).unwrap();
    assert_eq!(load(&mm, shared + 4096), Ok(0));
    check_cache(&mm);
    drop(child);
    drop(mm);
    drop(object);
    assert_eq!(memory.used(), 0);
}

#[test]
fn objects_read_what_was_written() {
    let (_, memory, _mm) = new_mm(Backing::Memfd, 64 << 20);
    let object = MemoryObject::new(memory.clone(), anonymous_key(), 0);
    assert_eq!(object.write_at(&mut IoSource::kernel(b"hello"), 10_000), Ok(5));
    assert_eq!(object.size(), 10_005);
    let mut buf = vec![1u8; 20_000];
    assert_eq!(object.read_at(&mut IoSink::kernel(&mut buf), 9_998), Ok(7));
    assert_eq!(&buf[..7], b"\0\0hello");
    assert_eq!((object.seek(0, true), object.seek(8192, false)), (Ok(8192), Ok(10_005)));
    object.truncate(10_002).unwrap();
    object.truncate(10_005).unwrap();
    assert_eq!(object.read_at(&mut IoSink::kernel(&mut buf), 10_000), Ok(5));
    assert_eq!(&buf[..5], b"he\0\0\0");
    object.punch(0, 1 << 20).unwrap();
    assert_eq!((object.resident(), memory.used()), (0, 0));
    object.add_seals(crate::mm::object::SEAL_WRITE).unwrap();
    assert_eq!(object.write_at(&mut IoSource::kernel(b"x"), 0), Err(Errno::EPERM));
    let nobody = std::sync::Weak::new();
    assert_eq!(object.add_mapping(&nobody, AddrRange::new(0, 4096), 0, true), Err(Errno::EPERM));
}

#[test]
fn stacks_grow_and_heaps_move() {
    let (_, _, mm) = new_mm(Backing::Memfd, 64 << 20);
    let a = mm.mmap(MapRequest::anonymous(Place::Fixed(1 << 32), 8192, RW, VmaFlags::GROWSDOWN)).unwrap();
    store(&mm, a - 50_000, 1).unwrap();
    assert_eq!(store(&mm, a - (9 << 20), 1), Err(FaultSignal::maperr()));
    mm.write_bytes(at(a - (1 << 20)), b"x").unwrap();
    mm.set_brk_start(0x1000_0123);
    assert_eq!(mm.brk(0), 0x1000_0123);
    assert_eq!(mm.brk(0x1000_5000), 0x1000_5000);
    store(&mm, 0x1000_4fff, 3).unwrap();
    assert_eq!(mm.brk(0x1000_2000), 0x1000_2000);
    assert_eq!(load(&mm, 0x1000_4000), Err(FaultSignal::maperr()));
    assert_eq!(mm.brk(1 << 62), 0x1000_2000);
}

#[test]
fn the_limit_is_felt_by_the_toucher() {
    let (_, memory, mm) = new_mm(Backing::Memfd, 1 << 20);
    let a = mm.mmap(anon(8 << 20)).unwrap();
    let mut touched = 0;
    while store(&mm, a + touched * 4096, 1).is_ok() {
        touched += 1;
    }
    // All but the kernel's reserve and what the tables for it cost.
    assert!((224..=256 - memory.reserve_size() / 4096).contains(&touched), "{touched}");
    assert!(mm.take_oom());
    mm.munmap(a, 8 << 20).unwrap();
    assert_eq!(memory.used(), 0);
}

#[test]
fn fixed_mappings_replace_or_refuse() {
    let (_, _, mm) = new_mm(Backing::Memfd, 64 << 20);
    let a = mm.mmap(anon(3 * 4096)).unwrap();
    store(&mm, a + 4096, 1).unwrap();
    let req = |place| MapRequest::anonymous(place, 4096, RW, VmaFlags::empty());
    assert_eq!(mm.mmap(req(Place::FixedNoReplace(a + 4096))), Err(Errno::EEXIST));
    assert_eq!(mm.mmap(req(Place::Fixed(a + 4096))), Ok(a + 4096));
    assert_eq!(load(&mm, a + 4096), Ok(0));
    assert_eq!(mm.mmap(req(Place::Fixed(a + 1))), Err(Errno::EINVAL));
    assert_eq!(mm.mmap(req(Place::Fixed(0))), Err(Errno::EPERM));
    assert_eq!(mm.mmap(req(Place::Fixed(u64::MAX - 4095))), Err(Errno::ENOMEM));
    assert!(mm.mmap(req(Place::Low(0))).unwrap() < 1 << 31);
    check_cache(&mm);
}
