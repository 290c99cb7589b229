//! What the container promises, and that nothing it is given makes it panic.

use proptest::prelude::*;
use snapshot::{Error, Kind, PagesHeader, Reader, VERSION, Writer, decode, encode};

const ID: [u8; 16] = [7; 16];

fn sample(parts: &[(Kind, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(ID);
    parts.iter().for_each(|(kind, bytes)| writer.section(*kind, bytes.clone()));
    let mut out = Vec::new();
    writer.finish(&mut out).unwrap();
    out
}

fn usual() -> Vec<u8> {
    sample(&[(Kind::Kernel, vec![3; 1000]), (Kind::Features, vec![1; 10]), (Kind::Resources, vec![])])
}

#[test]
fn sections_come_back_features_first() {
    let bytes = usual();
    let reader = Reader::new(&bytes).unwrap();
    assert_eq!(reader.id(), ID);
    assert_eq!(reader.section(Kind::Features).unwrap(), [1; 10]);
    assert_eq!(reader.section(Kind::Resources).unwrap(), [0u8; 0]);
    assert_eq!(reader.section(Kind::Kernel).unwrap(), [3; 1000]);
    let features = bytes.windows(10).position(|w| w == [1; 10]).unwrap();
    assert!(features < bytes.windows(10).position(|w| w == [3; 10]).unwrap());
}

#[test]
fn each_defect_has_its_error() {
    let bytes = usual();
    assert_eq!(Reader::new(b"").unwrap_err(), Error::Magic("state"));
    assert!(matches!(Reader::new(&bytes[..20]), Err(Error::Length { .. })));
    assert!(matches!(Reader::new(&bytes[..bytes.len() - 1]), Err(Error::Length { .. })));
    assert!(matches!(Reader::new(&[bytes.clone(), vec![0]].concat()), Err(Error::Length { .. })));
    let mut other = bytes.clone();
    other[8] = 99;
    assert_eq!(Reader::new(&other).unwrap_err(), Error::Version { found: 99 });
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let reader = Reader::new(&flipped).unwrap();
    assert!(reader.section(Kind::Features).is_ok());
    assert_eq!(reader.section(Kind::Kernel), Err(Error::Checksum("kernel")));
    assert!(Reader::new(&sample(&[(Kind::Kernel, vec![])])).is_err(), "features must be there");
    assert!(Reader::new(&sample(&[(Kind::Features, vec![]), (Kind::Features, vec![])])).is_err());
    let lone = sample(&[(Kind::Features, vec![])]);
    assert_eq!(Reader::new(&lone).unwrap().section(Kind::Kernel), Err(Error::Missing("kernel")));
}

#[test]
fn typed_content_leaves_no_bytes_over() {
    let bytes = encode(Kind::Kernel, &(1u32, "x".to_owned())).unwrap();
    assert_eq!(decode::<(u32, String)>(Kind::Kernel, &bytes).unwrap(), (1, "x".to_owned()));
    assert!(decode::<u32>(Kind::Kernel, &bytes).is_err());
    assert!(decode::<(u32, String)>(Kind::Kernel, &bytes[..1]).is_err());
    // A length that the input does not have is not believed.
    assert!(decode::<Vec<u64>>(Kind::Kernel, &[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
}

#[test]
fn pages_belong_to_their_state() {
    let header = PagesHeader { id: ID, len: 3 * 4096 };
    let page = header.encode();
    assert_eq!(page.len(), 4096);
    assert_eq!(PagesHeader::parse(&page, 3 * 4096, &ID), Ok(header));
    assert_eq!(PagesHeader::parse(&page, 3 * 4096, &[0; 16]), Err(Error::OtherPages));
    assert!(matches!(PagesHeader::parse(&page, 2 * 4096, &ID), Err(Error::Length { .. })));
    assert!(PagesHeader::parse(&page[..30], 3 * 4096, &ID).is_err());
    let mut other = page.clone();
    other[8] = 0;
    assert_eq!(PagesHeader::parse(&other, 3 * 4096, &ID), Err(Error::Version { found: 0 }));
    assert_ne!(VERSION, 0);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Reader::new(&bytes);
        let _ = PagesHeader::parse(&bytes, 4096, &ID);
    }

    #[test]
    fn a_flipped_bit_is_noticed(at in 0usize..1130, bit in 0u8..8) {
        let mut bytes = usual();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let damaged = match Reader::new(&bytes) {
            Err(_) => true,
            Ok(reader) => Kind::ALL.into_iter().any(|kind| reader.section(kind).is_err()),
        };
        prop_assert!(damaged);
    }

    #[test]
    fn what_is_written_is_read(a in proptest::collection::vec(any::<u8>(), 0..300), b in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bytes = sample(&[(Kind::Features, a.clone()), (Kind::Kernel, b.clone())]);
        let reader = Reader::new(&bytes).unwrap();
        prop_assert_eq!(reader.section(Kind::Features).unwrap(), &a[..]);
        prop_assert_eq!(reader.section(Kind::Kernel).unwrap(), &b[..]);
    }
}
