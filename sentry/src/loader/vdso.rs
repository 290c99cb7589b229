//! The vDSO: the kernel's code in every program, which answers clocks without a system call.
//!
//! Its code is `sentry/vdso/vdso.c`; a page of numbers lies right below it, which the clock writes whenever it corrects itself.
//! Both are pages of one memory object, made once for the sandbox and mapped by every program.

use std::sync::{Arc, OnceLock};

use abi::{Errno, PAGE_SIZE};
use memory::Frame;
use platform::{Access, Prot};
use zerocopy::{Immutable, IntoBytes};

use crate::kernel::Kernel;
use crate::kernel::tsc::Params;
use crate::mm::Mm;
use crate::mm::map::{MapRequest, Place, name};
use crate::mm::mappable::{FileRange, Mappable};
use crate::mm::object::{MemoryObject, anonymous_key};
use crate::mm::vma::{FileBacking, Vma, VmaFlags};
use crate::vfs::IoSource;

static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vdso.so"));

/// `struct vvar` of vdso.c.
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
#[repr(C)]
struct Vvar {
    seq: u32,
    mode: u32,
    base_tsc: u64,
    mult: u64,
    base_ns: i64,
    real_offset: i64,
}

/// The vDSO of one kernel; made when the first program is loaded.
#[derive(Default)]
pub struct Vdso {
    object: OnceLock<Option<Arc<MemoryObject>>>,
}

/// Writes the numbers as a seqlock writer: stores become visible in program order on x86.
fn publish(page: &Frame, seq: &mut u32, params: Option<Params>) {
    let write = |at: u64, bytes: &[u8]| {
        // The page is ours and stays: a store that fails means that the host is out of memory, and old numbers stand.
        let _ = page.file.write(page.offset + at, bytes);
    };
    *seq = seq.wrapping_add(1) | 1;
    write(0, &seq.to_ne_bytes());
    let vvar = params.map_or_else(Vvar::default, |p| Vvar {
        seq: *seq,
        mode: 1,
        base_tsc: p.base_tsc,
        mult: p.mult,
        base_ns: p.base_ns,
        real_offset: p.real_offset,
    });
    write(4, &vvar.as_bytes()[4..]);
    *seq = seq.wrapping_add(1);
    write(0, &seq.to_ne_bytes());
}

fn build(kernel: &Kernel) -> Result<Arc<MemoryObject>, Errno> {
    let object = MemoryObject::new(kernel.memory.clone(), anonymous_key(), 0);
    object.write_at(&mut IoSource::kernel(Vvar::default().as_bytes()), 0)?;
    object.write_at(&mut IoSource::kernel(IMAGE), PAGE_SIZE)?;
    connect(kernel, &object)?;
    Ok(object)
}

/// The first page of the object, which takes stores.
fn data_page(object: &MemoryObject) -> Result<Frame, Errno> {
    let page = FileRange { start: 0, end: PAGE_SIZE };
    let frames = object.translate(page, page, Access::WRITE).map_err(|_| Errno::ENOMEM)?;
    frames.into_iter().find(|t| t.source.start == 0).map(|t| t.frame).ok_or(Errno::ENOMEM)
}

/// Lets the clock write its numbers into the page, where guests count the host's ticks.
fn connect(kernel: &Kernel, object: &Arc<MemoryObject>) -> Result<(), Errno> {
    let frame = data_page(object)?;
    let mut seq = [0; 4];
    frame.file.read(frame.offset, &mut seq).map_err(|_| Errno::EIO)?;
    let mut seq = u32::from_ne_bytes(seq);
    // What a snapshot says of the counter is another host's, or another time's.
    publish(&frame, &mut seq, None);
    if kernel.platform.tsc_is_hosts() {
        // The object keeps the page; it is never truncated. Kept by the closure, so that this holds.
        let (keep, seq) = (object.clone(), parking_lot::Mutex::new(seq));
        kernel.clock.tsc.subscribe(Box::new(move |params| {
            let _ = &keep;
            publish(&frame, &mut seq.lock(), params);
        }));
    }
    Ok(())
}

/// Where in the page the number of restores lies (`u64`): programs that keep random state of their own look at it.
const GENERATION: u64 = 64;

impl Vdso {
    /// The object, where a program was loaded.
    #[must_use]
    pub fn object(&self) -> Option<Arc<MemoryObject>> {
        self.object.get().cloned().flatten()
    }

    /// Takes over the object of a restored kernel, of which one generation more begins.
    ///
    /// # Errors
    /// `ENOMEM`; `EIO`.
    pub fn adopt(&self, kernel: &Kernel, object: Arc<MemoryObject>) -> Result<(), Errno> {
        connect(kernel, &object)?;
        let page = data_page(&object)?;
        let mut generation = [0; 8];
        page.file.read(page.offset + GENERATION, &mut generation).map_err(|_| Errno::EIO)?;
        let next = u64::from_ne_bytes(generation).wrapping_add(1);
        page.file.write(page.offset + GENERATION, &next.to_ne_bytes()).map_err(|_| Errno::EIO)?;
        let _ = self.object.set(Some(object));
        Ok(())
    }

    /// Maps it into `mm`; answers its address for AT_SYSINFO_EHDR. Programs do without where it cannot be had.
    pub fn map(&self, kernel: &Kernel, mm: &Mm) -> Option<u64> {
        let object = self.object.get_or_init(|| build(kernel).ok()).clone()?;
        let code_len = abi::page_up(IMAGE.len() as u64)?;
        let part = |label: &[u8], offset: u64, prot: Prot, max: Prot| Vma {
            prot,
            max,
            name: Some(name(label)),
            file: Some(FileBacking { mappable: object.clone(), offset, file: None }),
            ..Vma::anonymous(prot, VmaFlags::SPECIAL)
        };
        let data = part(b"[vvar]", 0, Prot::READ, Prot::READ);
        // Debuggers put breakpoints into private copies of the code.
        let code = part(b"[vdso]", PAGE_SIZE, Prot::READ | Prot::EXEC, Prot::all());
        let map = |place, len, vma| mm.mmap(MapRequest { place, len, vma, populate: false });
        let start = map(Place::Hint(0), PAGE_SIZE + code_len, data).ok()?;
        map(Place::Fixed(start + PAGE_SIZE), code_len, code).ok()
    }
}
