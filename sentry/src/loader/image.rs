//! ELF files into an address space.

use std::sync::Arc;

use abi::{AddrRange, Errno, page_down};
use platform::{Prot, USER_END, USER_START};

use crate::loader::elf::{self, Header, PHDR_SIZE, Segment};
use crate::loader::{OpenExec, read_at};
use crate::mm::extents::HUGE;
use crate::mm::map::{MapRequest, Place};
use crate::mm::vma::{FileBacking, Vma, VmaFlags};
use crate::mm::{Mm, layout};
use crate::vfs::FileDescription;

/// Where position-independent programs go (`ELF_ET_DYN_BASE`: two thirds of user space).
const DYN_BASE: u64 = (USER_END / 3 * 2) & !0xfff;

/// A mapped ELF file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mapped {
    /// Added to the file's addresses.
    pub bias: u64,
    /// Entry point.
    pub entry: u64,
    /// The program headers, in memory.
    pub phdr: u64,
    /// How many there are.
    pub phnum: u16,
    /// Text.
    pub code: AddrRange,
    /// Data.
    pub data: AddrRange,
    /// One past the last page.
    pub end: u64,
}

/// A program and, where it has one, its interpreter.
#[derive(Clone, Copy, Debug)]
pub struct Images {
    /// The program.
    pub main: Mapped,
    /// Load bias of the interpreter (AT_BASE), 0 without one.
    pub interp_base: u64,
    /// First instruction.
    pub entry: u64,
    /// Start of the heap.
    pub brk: u64,
    /// Whether the stack is executable.
    pub exec_stack: bool,
}

/// A file whose header and program headers have been read.
struct Binary {
    file: Arc<FileDescription>,
    header: Header,
    table: Vec<u8>,
}

/// A program and its interpreter, read and not yet mapped.
pub struct Program {
    main: Binary,
    interp: Option<Binary>,
}

/// What is to be mapped of a file.
struct Parsed {
    header: Header,
    layout: elf::Layout,
}

/// `what` for everything that is wrong with the file.
fn read_binary(file: &Arc<FileDescription>, head: &[u8], what: Errno) -> Result<Binary, Errno> {
    let header = elf::parse_header(head).map_err(|_| what)?;
    let mut table = vec![0u8; usize::from(header.phnum) * PHDR_SIZE];
    match read_at(file, header.phoff, &mut table) {
        Ok(n) if n == table.len() => Ok(Binary { file: file.clone(), header, table }),
        Err(Errno::EIOCBQUEUED) => Err(Errno::EIOCBQUEUED),
        _ => Err(what),
    }
}

impl Binary {
    fn parse(&self) -> Result<Parsed, Errno> {
        Ok(Parsed { header: self.header, layout: elf::parse_segments(&self.header, &self.table)? })
    }
}

fn interpreter_path(file: &Arc<FileDescription>, place: (u64, usize)) -> Result<Vec<u8>, Errno> {
    let mut path = vec![0u8; place.1];
    if read_at(file, place.0, &mut path)? != path.len() {
        return Err(Errno::EIO);
    }
    if path.pop() != Some(0) {
        return Err(Errno::ENOEXEC);
    }
    // C strings end at the first NUL.
    path.truncate(path.iter().position(|b| *b == 0).unwrap_or(path.len()));
    Ok(path)
}

/// Reads the program `file`, which starts with `head`, and its interpreter.
///
/// # Errors
/// `ENOEXEC`; `ELIBBAD`, `EIO` for the interpreter; what opening that says.
pub fn read_program(file: &Arc<FileDescription>, head: &[u8], open: OpenExec<'_>) -> Result<Program, Errno> {
    let main = read_binary(file, head, Errno::ENOEXEC)?;
    let interp = match elf::interpreter(&main.header, &main.table)? {
        Some(place) => {
            let interp = open(&interpreter_path(file, place)?)?;
            let mut head = [0; size_of::<elf::Ehdr>()];
            if read_at(&interp, 0, &mut head)? != head.len() {
                return Err(Errno::EIO);
            }
            Some(read_binary(&interp, &head, Errno::ELIBBAD)?)
        }
        None => None,
    };
    Ok(Program { main, interp })
}

/// Maps a program and its interpreter.
///
/// # Errors
/// What is wrong with their segments; `ENOMEM`. Linux finds these past the point of no return.
pub fn map_program(mm: &Arc<Mm>, program: &Program, random: [u64; 2]) -> Result<Images, Errno> {
    let (file, main) = (&program.main.file, program.main.parse()?);
    let interp = match &program.interp {
        Some(interp) => {
            let parsed = interp.parse()?;
            if parsed.layout.segments.is_empty() {
                // Of nothing (`load_elf_interp`); a program of nothing dies by itself.
                return Err(Errno::EINVAL);
            }
            Some((&interp.file, parsed))
        }
        None => None,
    };
    let base = interp.as_ref().map(|_| DYN_BASE.saturating_add((random[0] & 0xfff_ffff) << 12));
    let mapped = map_image(mm, file, &main, base, Replace::Own)?;
    let heap_rnd = (random[1] & 0x1fff) << 12;
    // A static PIE lies among the mmaps: its heap goes where programs usually lie (Linux 5.18).
    let heap = if main.header.is_dyn && interp.is_none() { DYN_BASE } else { mapped.end };
    let brk = heap.saturating_add(heap_rnd);
    let (interp_base, entry) = match interp {
        Some((interp, parsed)) => {
            let mapped = map_image(mm, interp, &parsed, None, Replace::All)?;
            (mapped.bias, mapped.entry)
        }
        None => (0, mapped.entry),
    };
    Ok(Images { main: mapped, interp_base, entry, brk, exec_stack: main.layout.exec_stack })
}

/// The load bias: fixed programs have none, others go to `base` or wherever there is room.
fn choose_bias(mm: &Mm, file: &Arc<FileDescription>, parsed: &Parsed, base: Option<u64>) -> Result<u64, Errno> {
    let (span, align) = (parsed.layout.span, parsed.layout.align);
    if !parsed.header.is_dyn {
        return Ok(0);
    }
    let huge = huge_placement(mm, file, parsed);
    let room = if huge.is_some() { HUGE } else { align };
    let len = span.len().checked_add(room - 4096).ok_or(Errno::ENOMEM)?;
    let mut vmas = mm.vmas.write();
    let start = match base {
        Some(base) if layout::is_free(&vmas.map, AddrRange::new(base, base.saturating_add(len))) => base,
        _ => vmas.find_free(0, len, false)?,
    };
    let start = match huge {
        Some(place) => start.checked_add(place.wrapping_sub(start) % HUGE).ok_or(Errno::ENOMEM)?,
        None => start.checked_next_multiple_of(align).ok_or(Errno::ENOMEM)?,
    };
    // The bias keeps alignment: both the place and the first page are rounded the same way.
    start.checked_sub(span.start & !(align - 1)).ok_or(Errno::EINVAL)
}

/// Where, modulo the size of a large page, large pages could show a program's long first segment.
fn huge_placement(mm: &Mm, file: &Arc<FileDescription>, parsed: &Parsed) -> Option<u64> {
    let (span, align) = (parsed.layout.span, parsed.layout.align);
    if align != 4096 || span.len() < HUGE || !mm.has_large_pages() {
        return None;
    }
    let first = parsed.layout.segments.first()?;
    let placement = file.ops.mappable(file).ok()?.placement(first.offset)?;
    (first.file_pages.start == span.start).then_some(placement)
}

/// What a fixed file's segments may replace: only their own kin, or (an interpreter's) the program as well.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Replace {
    Own,
    All,
}

fn map_image(
    mm: &Arc<Mm>,
    file: &Arc<FileDescription>,
    parsed: &Parsed,
    base: Option<u64>,
    replace: Replace,
) -> Result<Mapped, Errno> {
    let bias = choose_bias(mm, file, parsed, base)?;
    let mut mapped = Mapped { bias, phnum: parsed.header.phnum, ..Mapped::default() };
    let mut first = true;
    for segment in &parsed.layout.segments {
        map_segment(mm, file, segment, bias, parsed.header.is_dyn || !first || replace == Replace::All)?;
        first = false;
        let bytes = shift(segment.bytes, bias)?;
        if segment.prot.contains(Prot::EXEC) {
            mapped.code = if mapped.code.is_empty() { bytes } else { AddrRange::new(mapped.code.start, bytes.end) };
        }
        mapped.data = AddrRange::new(bytes.start, bytes.start.saturating_add(segment.filesz));
        mapped.end = mapped.end.max(shift(segment.zero_pages, bias)?.end);
    }
    mapped.entry = parsed.header.entry.wrapping_add(bias);
    mapped.phdr = if parsed.layout.phdr == 0 { 0 } else { parsed.layout.phdr.wrapping_add(bias) };
    Ok(mapped)
}

fn shift(range: AddrRange, bias: u64) -> Result<AddrRange, Errno> {
    match (range.start.checked_add(bias), range.end.checked_add(bias)) {
        (Some(start), Some(end)) if end <= USER_END => Ok(AddrRange::new(start, end)),
        _ => Err(Errno::EINVAL),
    }
}

/// Maps one segment. The first of a fixed program must not replace anything; later ones may overlap their own kin.
fn map_segment(
    mm: &Arc<Mm>,
    file: &Arc<FileDescription>,
    segment: &Segment,
    bias: u64,
    replace: bool,
) -> Result<(), Errno> {
    let place = |at: u64| if replace { Place::Fixed(at) } else { Place::FixedNoReplace(at) };
    let pages = shift(segment.file_pages, bias)?;
    if pages.start < USER_START && !(pages.is_empty() && segment.zero_pages.is_empty()) {
        return Err(Errno::EPERM);
    }
    if !pages.is_empty() {
        let mappable = file.ops.mappable(file)?;
        let backing = FileBacking { mappable, offset: segment.offset, file: Some(file.clone()) };
        let vma = Vma { file: Some(backing), ..Vma::anonymous(segment.prot, VmaFlags::empty()) };
        mm.mmap(MapRequest { place: place(pages.start), len: pages.len(), vma, populate: false })?;
    }
    let zeros = shift(segment.zero_pages, bias)?;
    if !zeros.is_empty() {
        if zeros.len() > mm.memory.limit() {
            // More than there is in all (`__vm_enough_memory`).
            return Err(Errno::ENOMEM);
        }
        // Writable whatever the segment says (`vm_brk_flags`).
        let prot = segment.prot | Prot::READ | Prot::WRITE;
        let request = MapRequest::anonymous(place(zeros.start), zeros.len(), prot, VmaFlags::empty());
        mm.mmap(request)?;
    }
    let tail = if segment.tail.is_empty() { segment.tail } else { shift(segment.tail, bias)? };
    if !tail.is_empty() && segment.prot.contains(Prot::WRITE) {
        let len = usize::try_from(tail.len()).map_err(|_| Errno::EINVAL)?;
        debug_assert!(page_down(tail.start) < tail.end);
        mm.zero_bytes(abi::UserAddr(tail.start), len)?;
    }
    Ok(())
}
