//! ELF64 headers, parsed from bytes and checked (`fs/binfmt_elf.c`). Nothing here touches memory or files.

use abi::{AddrRange, Errno, PAGE_SIZE, page_down, page_up};
use platform::{Prot, USER_END};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `Elf64_Ehdr`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are elf.h's")]
pub struct Ehdr {
    pub ident: [u8; 16],
    pub kind: u16,
    pub machine: u16,
    pub version: u32,
    pub entry: u64,
    pub phoff: u64,
    pub shoff: u64,
    pub flags: u32,
    pub ehsize: u16,
    pub phentsize: u16,
    pub phnum: u16,
    pub shentsize: u16,
    pub shnum: u16,
    pub shstrndx: u16,
}

/// `Elf64_Phdr`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are elf.h's")]
pub struct Phdr {
    pub kind: u32,
    pub flags: u32,
    pub offset: u64,
    pub vaddr: u64,
    pub paddr: u64,
    pub filesz: u64,
    pub memsz: u64,
    pub align: u64,
}

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const ELFCLASS64: u8 = 2;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;
/// Size of a program header.
pub const PHDR_SIZE: usize = 56;

/// Where the program headers lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Position-independent.
    pub is_dyn: bool,
    /// Entry point, before the load bias.
    pub entry: u64,
    /// File offset of the program headers.
    pub phoff: u64,
    /// How many there are.
    pub phnum: u16,
}

/// Parses a file's first bytes.
///
/// # Errors
/// `ENOEXEC` for anything but an x86-64 program.
pub fn parse_header(head: &[u8]) -> Result<Header, Errno> {
    let (header, _) = Ehdr::read_from_prefix(head).map_err(|_| Errno::ENOEXEC)?;
    let magic = header.ident.starts_with(b"\x7fELF") && header.ident[4] == ELFCLASS64;
    let kind = header.kind == ET_EXEC || header.kind == ET_DYN;
    let phnum = 1..=(65536 / PHDR_SIZE) as u16;
    let table = usize::from(header.phentsize) == PHDR_SIZE && phnum.contains(&header.phnum);
    if !(magic && kind && header.machine == EM_X86_64 && table) {
        return Err(Errno::ENOEXEC);
    }
    Ok(Header { is_dyn: header.kind == ET_DYN, entry: header.entry, phoff: header.phoff, phnum: header.phnum })
}

/// A piece of a file to be mapped. Addresses are before the load bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Whole pages that show the file; may be empty.
    pub file_pages: AddrRange,
    /// File offset of their first byte, page-aligned.
    pub offset: u64,
    /// Bytes after the file's, in the last of those pages, which become zero.
    pub tail: AddrRange,
    /// Whole pages of zeros behind.
    pub zero_pages: AddrRange,
    /// The exact bytes.
    pub bytes: AddrRange,
    /// Of which come from the file.
    pub filesz: u64,
    /// Access.
    pub prot: Prot,
}

/// What the program headers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// PT_LOAD, in file order.
    pub segments: Vec<Segment>,
    /// Whether the stack is executable.
    pub exec_stack: bool,
    /// From the first page to the last, before the load bias.
    pub span: AddrRange,
    /// The largest alignment asked for, at least a page.
    pub align: u64,
    /// Where the program headers lie in memory, before the load bias; 0 where no segment holds them.
    pub phdr: u64,
}

fn prot_of(flags: u32) -> Prot {
    let mut prot = Prot::empty();
    prot.set(Prot::EXEC, flags & 1 != 0);
    prot.set(Prot::WRITE, flags & 2 != 0);
    prot.set(Prot::READ, flags & 4 != 0);
    prot
}

fn segment(p: &Phdr) -> Result<Segment, Errno> {
    let end = p.vaddr.checked_add(p.memsz).filter(|e| *e <= USER_END).ok_or(Errno::EINVAL)?;
    if p.filesz > p.memsz {
        return Err(Errno::EINVAL);
    }
    let start = page_down(p.vaddr);
    let lead = p.vaddr - start;
    let file_end = p.vaddr + p.filesz;
    let file_pages_end = page_up(file_end).ok_or(Errno::EINVAL)?;
    let file_pages = if p.filesz == 0 { AddrRange::new(start, start) } else { AddrRange::new(start, file_pages_end) };
    let offset = p.offset.checked_sub(lead).filter(|o| o % PAGE_SIZE == 0);
    let offset = if p.filesz == 0 { 0 } else { offset.ok_or(Errno::EINVAL)? };
    offset.checked_add(file_pages.len()).filter(|e| *e <= i64::MAX as u64).ok_or(Errno::EINVAL)?;
    let has_bss = p.memsz > p.filesz;
    let tail = if has_bss && p.filesz > 0 { AddrRange::new(file_end, file_pages_end) } else { AddrRange::new(0, 0) };
    let zero_end = page_up(end).ok_or(Errno::EINVAL)?;
    Ok(Segment {
        file_pages,
        offset,
        tail,
        zero_pages: AddrRange::new(file_pages.end, zero_end.max(file_pages.end)),
        bytes: AddrRange::new(p.vaddr, end),
        filesz: p.filesz,
        prot: prot_of(p.flags),
    })
}

fn headers(header: &Header, table: &[u8]) -> impl Iterator<Item = Phdr> {
    let entries = table.chunks_exact(PHDR_SIZE).take(usize::from(header.phnum));
    entries.filter_map(|raw| Phdr::read_from_bytes(raw).ok())
}

/// File offset and length of the interpreter's name, its NUL included (the first PT_INTERP).
///
/// # Errors
/// `ENOEXEC` for a length that no name has.
pub fn interpreter(header: &Header, table: &[u8]) -> Result<Option<(u64, usize)>, Errno> {
    let Some(p) = headers(header, table).find(|p| p.kind == PT_INTERP) else { return Ok(None) };
    let len = usize::try_from(p.filesz).ok().filter(|l| (2..=4096).contains(l)).ok_or(Errno::ENOEXEC)?;
    Ok(Some((p.offset, len)))
}

/// What is to be mapped. A table without PT_LOAD is as good as another: its program dies at its first instruction.
///
/// # Errors
/// `EINVAL` for segments that cannot be mapped.
pub fn parse_segments(header: &Header, table: &[u8]) -> Result<Layout, Errno> {
    let mut layout = Layout { align: PAGE_SIZE, ..Layout::default() };
    // Without the header, x86-64 stacks are not executable (READ_IMPLIES_EXEC is for 32 bits).
    for p in headers(header, table) {
        match p.kind {
            PT_LOAD if p.memsz > 0 || p.filesz > 0 => add_segment(&mut layout, header, &p)?,
            PT_GNU_STACK => layout.exec_stack = p.flags & 1 != 0,
            _ => {}
        }
    }
    Ok(layout)
}

fn add_segment(layout: &mut Layout, header: &Header, p: &Phdr) -> Result<(), Errno> {
    let segment = segment(p)?;
    let start = page_down(segment.bytes.start);
    let end = segment.zero_pages.end;
    layout.span = if layout.segments.is_empty() {
        AddrRange::new(start, end)
    } else {
        AddrRange::new(layout.span.start.min(start), layout.span.end.max(end))
    };
    if p.align.is_power_of_two() && p.align <= 1 << 30 {
        layout.align = layout.align.max(p.align);
    }
    if (p.offset..p.offset.saturating_add(p.filesz)).contains(&header.phoff) {
        layout.phdr = p.vaddr.saturating_add(header.phoff - p.offset);
    }
    layout.segments.push(segment);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phdr(kind: u32, vaddr: u64, offset: u64, filesz: u64, memsz: u64) -> Phdr {
        Phdr { kind, flags: 6, offset, vaddr, paddr: 0, filesz, memsz, align: 0x1000 }
    }

    fn parse(phdrs: &[Phdr]) -> Result<Layout, Errno> {
        let header = Header { is_dyn: true, entry: 0, phoff: 64, phnum: phdrs.len() as u16 };
        parse_segments(&header, &phdrs.iter().flat_map(|p| p.as_bytes().to_vec()).collect::<Vec<_>>())
    }

    #[test]
    fn segments_are_checked() {
        let ok = parse(&[phdr(PT_LOAD, 0x1010, 0x10, 0x20, 0x3000)]).unwrap();
        let s = ok.segments[0];
        assert_eq!((s.file_pages, s.offset), (AddrRange::new(0x1000, 0x2000), 0));
        assert_eq!((s.tail, s.zero_pages), (AddrRange::new(0x1030, 0x2000), AddrRange::new(0x2000, 0x5000)));
        assert_eq!(ok.phdr, 0);
        assert_eq!(parse(&[]).unwrap().segments, []);
        assert_eq!(parse(&[phdr(PT_LOAD, 0x1010, 0x11, 1, 1)]), Err(Errno::EINVAL));
        assert_eq!(parse(&[phdr(PT_LOAD, 0x1010, 0x10, 2, 1)]), Err(Errno::EINVAL));
        assert_eq!(parse(&[phdr(PT_LOAD, u64::MAX - 1, 0x10, 1, 9)]), Err(Errno::EINVAL));
    }

    #[test]
    fn interpreters_are_checked() {
        let find = |lens: &[u64]| {
            let phdrs: Vec<u8> =
                lens.iter().flat_map(|len| phdr(PT_INTERP, 0, 5, *len, 0).as_bytes().to_vec()).collect();
            interpreter(&Header { is_dyn: true, entry: 0, phoff: 64, phnum: lens.len() as u16 }, &phdrs)
        };
        assert_eq!(find(&[]), Ok(None));
        assert_eq!(find(&[4096, 0]), Ok(Some((5, 4096))));
        for bad in [0, 1, 4097, u64::MAX] {
            assert_eq!(find(&[bad, 9]), Err(Errno::ENOEXEC));
        }
    }

    #[test]
    fn headers_are_checked() {
        let exe = std::fs::read("/proc/self/exe").unwrap();
        let header = parse_header(&exe).unwrap();
        let table = &exe[header.phoff as usize..][..usize::from(header.phnum) * PHDR_SIZE];
        assert!(!parse_segments(&header, table).unwrap().segments.is_empty());
        let mut foreign = exe[..256].to_vec();
        foreign[18] = 183;
        assert_eq!(parse_header(&foreign), Err(Errno::ENOEXEC));
        assert_eq!(parse_header(b"short"), Err(Errno::ENOEXEC));
    }
}
