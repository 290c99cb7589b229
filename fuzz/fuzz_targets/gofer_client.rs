//! The client on arbitrary answers of a hostile gofer: no panic, and every call comes to an end.
#![no_main]

use gofer_proto::message::{NodeId, OpenMode};
use gofer_proto::{Client, Reply, Request, VERSION, decode_request, encode_answer};
use hostsys::SeqPacket;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (ours, theirs) = SeqPacket::pair().unwrap();
    let input = input.to_vec();
    let server = std::thread::spawn(move || {
        let (id, _) = decode_request(&theirs.receive().unwrap().bytes).unwrap();
        let hello = Reply::Hello { version: VERSION, mounts: Vec::new() };
        let _ = theirs.send(&encode_answer(id, &Ok(hello)).unwrap(), &[]);
        let mut rest = input.as_slice();
        while let Ok(message) = theirs.receive() {
            let Ok((id, request)) = decode_request(&message.bytes) else { return };
            let Some((len, tail)) = rest.split_first().filter(|_| request.is_answered()) else { return };
            let (body, tail) = tail.split_at(usize::from(*len).min(tail.len()));
            rest = tail;
            let _ = theirs.send(&[&id.to_le_bytes(), body].concat(), &[]);
        }
    });
    let client = Client::connect(ours).unwrap();
    let (node, name) = (NodeId(1), b"a".to_vec());
    let _ = client.call(Request::Walk { node, names: vec![name.clone()] });
    let _ = client.call(Request::GetAttr(node));
    let _ = client.call(Request::ReadDir { node, cookie: 0, entries: true });
    let _ = client.call(Request::Open { node, mode: OpenMode::Read });
    let _ = client.call(Request::GetXattr { node, name });
    drop(client);
    server.join().unwrap();
});
