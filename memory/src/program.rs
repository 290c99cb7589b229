//! The pages of our own program that an idle process need not keep mapped.

use abi::PAGE_SIZE;

/// Unmaps the program's own code and constants, and gives free heap back to the host. What is used next is mapped again
/// out of the page cache, 64 KiB a fault, so this is for a process with nothing to do: most of what it ran to get where it
/// is, it will not run again.
///
/// Segments that were ever writable stay. Free heap is returned where the C library can (`malloc_trim(3)`).
pub fn give_back() {
    // SAFETY: the callback has the form that dl_iterate_phdr(3) asks for and uses its arguments only within the call.
    unsafe { libc::dl_iterate_phdr(Some(unmap_program), std::ptr::null_mut()) };
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number and changes only what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Handles the first object listed, which is the program, and ends the listing.
unsafe extern "C" fn unmap_program(info: *mut libc::dl_phdr_info, _: usize, _: *mut libc::c_void) -> libc::c_int {
    // SAFETY: dl_iterate_phdr(3) passes a valid description, and program headers that stay mapped as long as the program.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
    };
    let constant = |h: &&libc::Elf64_Phdr| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_W == 0;
    for header in headers.iter().filter(constant) {
        let start = (base + header.p_vaddr) & !(PAGE_SIZE - 1);
        let end = base + header.p_vaddr + header.p_memsz;
        let len = usize::try_from(end - start).unwrap_or(0);
        // SAFETY: a private mapping of a file, of whole pages that nobody could write to: they hold what the file holds,
        // before and after. A failure leaves them mapped.
        unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED) };
    }
    1
}

#[cfg(test)]
mod tests {
    /// Resident file pages of this process, kB (`proc_pid_status(5)`).
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("RssFile:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn the_program_goes_on_with_less() {
        let before = resident();
        super::give_back();
        assert!(resident() < before, "{} kB before, {} kB after", before, resident());
    }
}
