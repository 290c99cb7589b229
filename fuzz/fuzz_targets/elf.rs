//! The ELF and script parsers on whatever a guest executes: no panic, and what they let through can be mapped.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sentry::loader::{elf, script};

/// The end of user space (`TASK_SIZE_MAX`).
const USER_END: u64 = 0x7fff_ffff_f000;

fuzz_target!(|data: &[u8]| {
    let _ = script::parse(data);
    let Ok(header) = elf::parse_header(data) else { return };
    let start = usize::try_from(header.phoff).unwrap_or(usize::MAX).min(data.len());
    let table = &data[start..];
    if let Ok(Some((_, len))) = elf::interpreter(&header, table) {
        assert!((2..=4096).contains(&len));
    }
    let Ok(layout) = elf::parse_segments(&header, table) else { return };
    assert!(layout.align.is_power_of_two() && layout.align >= 4096);
    for s in &layout.segments {
        assert!(s.bytes.end <= USER_END && s.filesz <= s.bytes.len());
        assert!(s.file_pages.start % 4096 == 0 && s.file_pages.end % 4096 == 0 && s.offset % 4096 == 0);
        assert!(s.zero_pages.start == s.file_pages.end && s.zero_pages.end % 4096 == 0);
        assert!(s.tail.is_empty() || s.file_pages.covers(&s.tail));
        assert!(layout.span.covers(&s.bytes) || s.bytes.is_empty());
    }
});
