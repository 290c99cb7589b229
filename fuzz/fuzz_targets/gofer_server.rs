//! The gofer on arbitrary messages of a hostile client: no panic, and nothing beside the served directory is touched.
//!
//! The input is split into messages: a length byte, then as many bytes. Those that decode are requests; so that they
//! reach something, ids are folded onto the first few and the handshake comes before them.
#![no_main]

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::LazyLock;

use gofer::{Options, Served, serve};
use gofer_proto::{Request, VERSION, encode_request};
use hostsys::SeqPacket;
use hostsys::opath::Magic;
use libfuzzer_sys::fuzz_target;

static PLACE: LazyLock<std::path::PathBuf> = LazyLock::new(|| {
    let place = std::env::temp_dir().join(format!("fuzz-gofer-{}", std::process::id()));
    fs::create_dir_all(place.join("served/dir")).unwrap();
    fs::write(place.join("secret"), "secret").unwrap();
    place
});

fuzz_target!(|input: &[u8]| {
    let (ours, theirs) = SeqPacket::pair().unwrap();
    let root: OwnedFd = fs::File::open(PLACE.join("served")).unwrap().into();
    let server = std::thread::spawn(move || {
        let options = Options { max_nodes: 64, squash_owner: true, ..Options::default() };
        serve(&theirs, vec![Served { root, readonly: false }], options, Magic::open().unwrap())
    });
    for request in [Request::Hello(VERSION), Request::Attach(0)] {
        let _ = ours.send(&encode_request(0, &request).unwrap(), &[]);
        let _ = ours.receive();
    }
    let mut rest = input;
    while let Some((len, tail)) = rest.split_first() {
        let (message, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        if message.is_empty() || ours.send(&[&[0; 8], message].concat(), &[]).is_err() {
            break;
        }
        while let Ok(Some(answer)) = ours.try_receive() {
            if answer.is_eof() {
                break;
            }
        }
    }
    drop(ours);
    let _ = server.join().unwrap();
    assert_eq!(fs::read(PLACE.join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(&*PLACE).unwrap().count(), 2);
});
