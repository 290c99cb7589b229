//! The snapshot container on arbitrary bytes: no panic, whatever it is given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snapshot::{Kind, PagesHeader, Reader};

fuzz_target!(|input: &[u8]| {
    let _ = PagesHeader::parse(input, input.len() as u64, &[0; 16]);
    if let Ok(reader) = Reader::new(input) {
        for kind in Kind::ALL {
            let _ = reader.section(kind);
        }
    }
});
