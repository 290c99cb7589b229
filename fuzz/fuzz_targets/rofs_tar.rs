//! The ROFS builder on arbitrary tar streams: an image that verifies, or an error.
#![no_main]

use std::ops::ControlFlow;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rofs::build::from_tar;

fuzz_target!(|input: &[u8]| {
    let out = format!("/dev/shm/nanovisor-fuzz-{}.img", std::process::id());
    let mut progress = |_: &rofs::build::Progress<'_>| ControlFlow::Continue(());
    if from_tar(&mut &*input, Path::new("input"), out.as_ref(), &mut progress).is_ok() {
        let bytes = std::fs::read(&out).expect("the image was just built");
        let image = rofs::Image::open(bytes).expect("our own image opens");
        assert_eq!(rofs::verify(&image.reader()), []);
    }
    let _ = std::fs::remove_file(&out);
});
