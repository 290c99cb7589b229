//! The small grammars inside tar headers: numbers, PAX records, PAX times.

use std::io;

/// PAX records in their order: key and value.
pub(super) type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// A numeric field: octal digits, or GNU's signed base 256 when the first byte has its high bit set. Empty is 0.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Bit 6 is the sign of a two's complement number.
        let start = i64::from((first << 1).cast_signed() >> 1);
        return rest.iter().try_fold(start, |value, &byte| value.checked_mul(256)?.checked_add(i64::from(byte)));
    }
    let text = field.split(|&byte| byte == 0).next()?.trim_ascii();
    text.iter().try_fold(0i64, |value, &byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    })
}

/// Splits the data of a PAX header: records of `LENGTH KEY=VALUE\n`, where the length counts all of it.
pub(super) fn parse_records(mut bytes: &[u8]) -> io::Result<Records> {
    let mut records = Records::new();
    while !bytes.is_empty() && bytes.iter().any(|&byte| byte != 0) {
        let (key, value, rest) =
            record(bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "bad PAX record"))?;
        records.push((key.to_vec(), value.to_vec()));
        bytes = rest;
    }
    Ok(records)
}

fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|&byte| byte == b' ')?;
    let len: usize = std::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(len)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((record.get(..equals)?, record.get(equals + 1..)?, rest))
}

/// A PAX time, decimal seconds with an optional fraction, as seconds and nanoseconds (rounded towards the past).
pub(super) fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok().filter(|&whole| whole >= 0)? };
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    let finer = fraction.bytes().skip(9).any(|digit| digit != b'0');
    if !negative {
        return Some((whole, nanos));
    }
    match nanos + u32::from(finer) {
        0 => Some((-whole, 0)),
        nanos => Some(((-whole).checked_sub(1)?, 1_000_000_000 - nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000755\0"), Some(0o755));
        assert_eq!(number(b" 755 \0"), Some(0o755));
        assert_eq!(number(b"\0\0\0"), Some(0));
        assert_eq!(number(b"9\0"), None);
        assert_eq!(number(&[0x80, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xfe]), Some(-2));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn records() {
        let parsed = parse_records(b"12 path=a/b\n20 SCHILY.x=\n=b\0c\nd\n").unwrap();
        assert_eq!(parsed[0], (b"path".to_vec(), b"a/b".to_vec()));
        assert_eq!(parsed[1], (b"SCHILY.x".to_vec(), b"\n=b\0c\nd".to_vec()));
        for bad in [&b"5 a=b\n"[..], b"99 a=b\n", b"x a=b\n", b"6 abc\n", b"2 \n"] {
            assert!(parse_records(bad).is_err());
        }
    }

    #[test]
    fn times() {
        assert_eq!(parse_time(b"12"), Some((12, 0)));
        assert_eq!(parse_time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(parse_time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(parse_time(b"-2"), Some((-2, 0)));
        assert_eq!(parse_time(b"0.0000000019"), Some((0, 1)));
        assert_eq!(parse_time(b"-0.0000000019"), Some((-1, 999_999_998)));
        assert_eq!(parse_time(b"1.x"), None);
        assert_eq!(parse_time(b"--1"), None);
    }
}
