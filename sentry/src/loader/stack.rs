//! The initial stack: strings, vectors, auxiliary vector, laid out as `create_elf_tables` does.

use std::sync::Arc;

use abi::{AddrRange, Errno, page_down};
use platform::Prot;

use crate::loader::image::Images;
use crate::loader::{ExecIds, put};
use crate::mm::Mm;
use crate::mm::map::{MapRequest, Place};
use crate::mm::vma::VmaFlags;

/// Mapped below the strings at once; the rest grows on demand.
const ROOM: u64 = 128 << 10;

/// What the strings are.
pub struct Strings<'a> {
    /// AT_EXECFN.
    pub execfn: &'a [u8],
    /// Arguments.
    pub argv: &'a [Vec<u8>],
    /// Environment.
    pub envp: &'a [Vec<u8>],
}

/// What the auxiliary vector tells besides the program's own.
pub struct Facts {
    /// Identity.
    pub ids: ExecIds,
    /// AT_RANDOM.
    pub random: [u8; 16],
    /// Random displacement of the stack pointer; its low bits are used.
    pub offset: u64,
    /// AT_SYSINFO_EHDR.
    pub vdso: Option<u64>,
    /// AT_MINSIGSTKSZ.
    pub min_sigstack: u64,
}

/// A finished stack.
pub struct Stack {
    /// Stack pointer: where argc lies.
    pub sp: u64,
    /// The argument strings.
    pub args: AddrRange,
    /// The environment strings.
    pub env: AddrRange,
    /// The auxiliary vector.
    pub auxv: Vec<u64>,
}

/// CPUID leaf 1 EDX and HWCAP2 (bit 1: FSGSBASE), as the guest's own `cpuid` shows them.
fn hwcap() -> (u64, u64) {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let fsgsbase = __cpuid_count(7, 0).ebx & 1 != 0;
    (u64::from(__cpuid(1).edx), if fsgsbase { 2 } else { 0 })
}

fn auxv(facts: &Facts, images: &Images, platform: u64, random: u64, execfn: u64) -> Vec<u64> {
    let (hwcap, hwcap2) = hwcap();
    let ids = facts.ids;
    let mut entries = Vec::new();
    if let Some(vdso) = facts.vdso {
        entries.push((33, vdso));
    }
    entries.extend([
        (51, facts.min_sigstack),
        (libc::AT_HWCAP, hwcap),
        (libc::AT_PAGESZ, abi::PAGE_SIZE),
        (libc::AT_CLKTCK, 100),
        (libc::AT_PHDR, images.main.phdr),
        (libc::AT_PHENT, 56),
        (libc::AT_PHNUM, u64::from(images.main.phnum)),
        (libc::AT_BASE, images.interp_base),
        (libc::AT_FLAGS, 0),
        (libc::AT_ENTRY, images.main.entry),
        (libc::AT_UID, u64::from(ids.uid)),
        (libc::AT_EUID, u64::from(ids.euid)),
        (libc::AT_GID, u64::from(ids.gid)),
        (libc::AT_EGID, u64::from(ids.egid)),
        (libc::AT_SECURE, u64::from(ids.secure)),
        (libc::AT_RANDOM, random),
        (libc::AT_HWCAP2, hwcap2),
        (libc::AT_EXECFN, execfn),
        (libc::AT_PLATFORM, platform),
        (libc::AT_NULL, 0),
    ]);
    entries.into_iter().flat_map(|(tag, value)| [tag, value]).collect()
}

/// Appends NUL-terminated strings; answers their offsets in `out`.
fn append(out: &mut Vec<u8>, strings: &[Vec<u8>]) -> Vec<u64> {
    let mut offsets = Vec::with_capacity(strings.len());
    for s in strings {
        offsets.push(out.len() as u64);
        out.extend_from_slice(s);
        out.push(0);
    }
    offsets
}

/// Maps a stack and fills it.
///
/// # Errors
/// `ENOMEM` without room; `E2BIG` where the strings do not fit.
pub fn build(mm: &Arc<Mm>, strings: &Strings<'_>, facts: &Facts, images: &Images) -> Result<Stack, Errno> {
    let top = mm.vmas.read().layout.stack_top;
    let mut text = Vec::new();
    let argv = append(&mut text, strings.argv);
    let args_len = text.len() as u64;
    let envp = append(&mut text, strings.envp);
    let env_len = text.len() as u64 - args_len;
    let execfn = text.len() as u64;
    text.extend_from_slice(strings.execfn);
    // The string's NUL, and the word of zeros at the very end of every stack.
    text.extend_from_slice(&[0; 9]);
    let base = top.checked_sub(text.len() as u64).ok_or(Errno::E2BIG)?;

    // Below the strings: a random gap, the platform's name, the random bytes, then the vectors.
    let under = (base - facts.offset % 8192) & !15;
    let platform = (under - 7) & !15;
    let random = platform - 16;
    let auxv = auxv(facts, images, platform, random, base + execfn);
    let words = 1 + argv.len() + 1 + envp.len() + 1 + auxv.len();
    let sp = (random - words as u64 * 8) & !15;

    let mut vector = Vec::with_capacity(words);
    vector.push(argv.len() as u64);
    vector.extend(argv.iter().map(|o| base + o));
    vector.push(0);
    vector.extend(envp.iter().map(|o| base + o));
    vector.push(0);
    vector.extend(&auxv);

    let low = page_down(sp).checked_sub(ROOM).ok_or(Errno::E2BIG)?;
    let mut prot = Prot::READ | Prot::WRITE;
    prot.set(Prot::EXEC, images.exec_stack);
    mm.mmap(MapRequest::anonymous(Place::FixedNoReplace(low), top - low, prot, VmaFlags::GROWSDOWN))?;
    put(mm, base, &text)?;
    put(mm, platform, b"x86_64\0")?;
    put(mm, random, &facts.random)?;
    put(mm, sp, zerocopy::IntoBytes::as_bytes(vector.as_slice()))?;
    let args = AddrRange::new(base, base + args_len);
    Ok(Stack { sp, args, env: AddrRange::new(args.end, args.end + env_len), auxv })
}
