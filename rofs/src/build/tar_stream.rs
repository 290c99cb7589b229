//! Tar archives as a stream of entries: ustar, GNU and PAX headers, long names, sparse files of all four kinds.
//!
//! The `tar` crate supplies the header's shape. Its iterator is not used: it splits PAX records at newlines, which
//! breaks binary extended attributes, and it reads holes as zeros.

use std::io::{self, Read};

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::data::Source;
use super::tar_pax::{Records, number, parse_records, parse_time};

const BLOCK: u64 = 512;
/// The longest long name that is believed.
const MAX_NAME: u64 = 1 << 20;
/// The longest set of PAX records that is believed: many extended attributes of 64 KiB.
const MAX_PAX: u64 = 64 << 20;
/// The most pieces of a sparse file that are believed.
const MAX_PIECES: usize = 1 << 20;

/// One file of an archive. Its data, if any, comes next in the stream.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    /// Target of hard and symbolic links.
    pub(super) link: Vec<u8>,
    /// Type flag: `b'0'` for a regular file, and so on as in ustar.
    pub(super) kind: u8,
    pub(super) perm: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) device: (u64, u64),
    /// Size of the file, holes included.
    pub(super) size: u64,
    /// Full names and values.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Pieces (offset, length) that are in the archive; the rest is zeros.
    pieces: Vec<(u64, u64)>,
}

/// A tar archive being read.
pub(super) struct TarStream<'r> {
    input: &'r mut dyn Read,
    /// Bytes of the current entry's data not read yet, and of the padding behind it.
    left: u64,
    padding: u64,
    global: Records,
    started: bool,
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl<'r> TarStream<'r> {
    pub(super) fn new(input: &'r mut dyn Read) -> Self {
        Self { input, left: 0, padding: 0, global: Records::new(), started: false }
    }

    /// The next file, `None` behind the last. Skips what is left of the previous one's data.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let (mut long_path, mut long_link, mut local) = (None, None, Records::new());
        loop {
            self.skip(self.left.saturating_add(self.padding))?;
            let Some(header) = self.header()? else {
                // Let a writer at the other end of a pipe finish.
                io::copy(self.input, &mut io::sink())?;
                return Ok(None);
            };
            let kind = header.entry_type().as_byte();
            self.set_size(unsigned(&header.as_old().size, "size")?);
            match kind {
                b'L' => long_path = Some(self.text()?),
                b'K' => long_link = Some(self.text()?),
                b'x' | b'X' => local = parse_records(&self.all(MAX_PAX)?)?,
                b'g' => {
                    let records = parse_records(&self.all(MAX_PAX)?)?;
                    self.global.extend(records);
                }
                b'V' => {}
                _ => {
                    let records = self.global.iter().chain(&local).cloned().collect();
                    return self.entry(&header, kind, long_path, long_link, &Attributes(records)).map(Some);
                }
            }
        }
    }

    /// The data of the entry that [`TarStream::next`] returned last.
    pub(super) fn data<'s>(&'s mut self, entry: &'s Entry) -> TarData<'s, 'r> {
        TarData { stream: self, pieces: &entry.pieces, size: entry.size, next: 0 }
    }

    /// Reads a header; `None` at the end marker.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        if let Err(error) = self.input.read_exact(header.as_mut_bytes()) {
            return Err(match error.kind() {
                io::ErrorKind::UnexpectedEof => bad("the tar archive ends without its end marker: it is truncated"),
                _ => error,
            });
        }
        let bytes = header.as_bytes();
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        // The checksum field itself counts as spaces; old writers summed signed characters.
        let counted = || bytes.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { b' ' } else { byte });
        let unsigned_sum: i64 = counted().map(i64::from).sum();
        let signed_sum: i64 = counted().map(|byte| i64::from(byte.cast_signed())).sum();
        let stored = number(&header.as_old().cksum);
        if stored != Some(unsigned_sum) && stored != Some(signed_sum) {
            return Err(bad(if self.started { "damaged tar header (checksum mismatch)" } else { not_tar(bytes) }));
        }
        self.started = true;
        Ok(Some(header))
    }

    fn set_size(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: u8,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        pax: &Attributes,
    ) -> io::Result<Entry> {
        let old = header.as_old();
        if let Some(size) = pax.unsigned(b"size")? {
            self.set_size(size);
        }
        // These have no data, whatever their size says (as POSIX and Go's reader have it).
        if matches!(kind, b'1'..=b'6') {
            self.set_size(0);
        }
        let path = pax.text(b"GNU.sparse.name").or(pax.text(b"path")).or(long_path);
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = pax.text(b"linkpath").or(long_link);
        let link = link.or_else(|| header.link_name_bytes().map(|link| link.into_owned())).unwrap_or_default();
        // A regular file of the oldest format with a slash at its end is a directory.
        let kind = match kind {
            0 | b'0' if path.ends_with(b"/") => b'5',
            0 | b'7' => b'0',
            kind => kind,
        };
        let id = |value: u64| u32::try_from(value).map_err(|_| bad("owner above 32 bits"));
        let mtime = match pax.get(b"mtime") {
            Some(text) => parse_time(text).ok_or_else(|| bad("bad PAX time"))?,
            None => (number(&old.mtime).ok_or_else(|| bad("bad modification time"))?, 0),
        };
        let (uid, gid) = (pax.unsigned(b"uid")?, pax.unsigned(b"gid")?);
        let mut entry = Entry {
            path,
            link,
            kind,
            // The low 12 bits are permissions.
            perm: (unsigned(&old.mode, "mode")? & 0o7777) as u16,
            uid: id(uid.map_or_else(|| unsigned(&old.uid, "uid"), Ok)?)?,
            gid: id(gid.map_or_else(|| unsigned(&old.gid, "gid"), Ok)?)?,
            mtime,
            device: device(header)?,
            size: self.left,
            xattrs: pax.xattrs(),
            pieces: vec![(0, self.left)],
        };
        self.sparse(header, pax, &mut entry)?;
        Ok(entry)
    }

    /// Finds out about holes.
    fn sparse(&mut self, header: &Header, pax: &Attributes, entry: &mut Entry) -> io::Result<()> {
        let size;
        if entry.kind == b'S' {
            entry.kind = b'0';
            let gnu = header.as_gnu().ok_or_else(|| bad("sparse file without a GNU header"))?;
            size = unsigned(&gnu.realsize, "size of a sparse file")?;
            entry.pieces = gnu_pieces(&gnu.sparse)?;
            let mut more = gnu.is_extended();
            while more {
                let mut extension = GnuExtSparseHeader::new();
                self.input.read_exact(extension.as_mut_bytes())?;
                entry.pieces.extend(gnu_pieces(&extension.sparse)?);
                more = extension.is_extended();
                check_count(entry.pieces.len() as u64)?;
            }
        } else if let Some(major) = pax.unsigned(b"GNU.sparse.major")? {
            if major != 1 {
                return Err(bad("unknown version of the GNU sparse format"));
            }
            size = pax.unsigned(b"GNU.sparse.realsize")?.ok_or_else(|| bad("sparse file without a size"))?;
            entry.pieces = self.inline_map()?;
        } else if let Some(real) = pax.unsigned(b"GNU.sparse.size")? {
            size = real;
            entry.pieces = pax.sparse_map()?;
        } else {
            return Ok(());
        }
        entry.size = size;
        entry.pieces.retain(|piece| piece.1 > 0);
        let (mut end, mut stored) = (0u64, 0u64);
        for &(offset, len) in &entry.pieces {
            if offset < end {
                return Err(bad("pieces of a sparse file overlap"));
            }
            end =
                offset.checked_add(len).filter(|&end| end <= size).ok_or_else(|| bad("sparse file beyond its end"))?;
            stored += len;
        }
        if stored == self.left { Ok(()) } else { Err(bad("sparse file with more or less data than its map says")) }
    }

    /// The map of the PAX sparse format 1.0: decimal lines in front of the data, padded to a block.
    fn inline_map(&mut self) -> io::Result<Vec<(u64, u64)>> {
        let mut lines = Vec::new();
        let mut text = Vec::new();
        let mut expected = 1u64;
        while (lines.len() as u64) < expected {
            let mut block = [0; BLOCK as usize];
            self.read_data(&mut block)?;
            for byte in block {
                if byte != b'\n' {
                    text.push(byte);
                    continue;
                }
                if (lines.len() as u64) < expected {
                    let value = decimal(&text)?;
                    if lines.is_empty() {
                        check_count(value)?;
                        expected += 2 * value;
                    }
                    lines.push(value);
                }
                text.clear();
            }
            if text.len() as u64 > BLOCK {
                return Err(bad("bad map of a sparse file"));
            }
        }
        Ok(lines.get(1..).unwrap_or_default().as_chunks().0.iter().map(|&[offset, len]| (offset, len)).collect())
    }

    /// Reads data of the current entry.
    fn read_data(&mut self, buf: &mut [u8]) -> io::Result<()> {
        self.left = self.left.checked_sub(buf.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.input.read_exact(buf)
    }

    /// Reads all data of the current entry, at most `limit` bytes.
    fn all(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        if self.left > limit {
            return Err(bad("unreasonably long tar extension header"));
        }
        let mut bytes = Vec::new();
        (&mut *self.input).take(self.left).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != self.left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left = 0;
        Ok(bytes)
    }

    /// Reads a long name, which ends at its first NUL.
    fn text(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = self.all(MAX_NAME)?;
        bytes.truncate(bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()));
        Ok(bytes)
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut (&mut *self.input).take(count), &mut io::sink())?;
        if skipped == count {
            Ok(())
        } else {
            Err(bad("the tar archive ends in the middle of a file: it is truncated"))
        }
    }
}

/// Data of one entry, holes left out.
pub(super) struct TarData<'s, 'r> {
    stream: &'s mut TarStream<'r>,
    pieces: &'s [(u64, u64)],
    size: u64,
    /// Index of the first piece that is not read to its end.
    next: usize,
}

impl Source for TarData<'_, '_> {
    fn read_exact_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        let end = offset.saturating_add(buf.len() as u64);
        // Offsets ascend and units are read as a whole, so a piece goes on where the previous read stopped.
        while let Some(&(start, len)) = self.pieces.get(self.next) {
            let (from, to) = (start.max(offset), (start + len).min(end));
            if from < to {
                let part = buf.get_mut((from - offset) as usize..(to - offset) as usize);
                self.stream.read_data(part.unwrap_or_default())?;
            }
            if start + len > end {
                break;
            }
            self.next += 1;
        }
        Ok(())
    }

    fn next_data(&mut self, offset: u64) -> io::Result<u64> {
        Ok(self.pieces.get(self.next).map_or(self.size, |piece| piece.0.max(offset)))
    }
}

/// PAX records in force for an entry; later ones win.
struct Attributes(Records);

impl Attributes {
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let record = self.0.iter().rev().find(|(name, _)| name == key);
        // An empty value takes a global record back.
        record.map(|(_, value)| value.as_slice()).filter(|value| !value.is_empty())
    }

    fn text(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.get(key).map(<[u8]>::to_vec)
    }

    fn unsigned(&self, key: &[u8]) -> io::Result<Option<u64>> {
        self.get(key).map(decimal).transpose()
    }

    fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (key, value) in &self.0 {
            let Some(name) = key.strip_prefix(b"SCHILY.xattr.") else { continue };
            xattrs.retain(|(seen, _)| seen != name);
            xattrs.push((name.to_vec(), value.clone()));
        }
        xattrs
    }

    /// The map of the PAX sparse formats 0.0 (a record per number) and 0.1 (one record).
    fn sparse_map(&self) -> io::Result<Vec<(u64, u64)>> {
        let mut numbers = Vec::new();
        if let Some(map) = self.get(b"GNU.sparse.map") {
            for text in map.split(|&byte| byte == b',') {
                numbers.push(decimal(text)?);
            }
        } else {
            for (key, value) in &self.0 {
                if matches!(&key[..], b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
                    numbers.push(decimal(value)?);
                }
            }
        }
        check_count(numbers.len() as u64 / 2)?;
        let (pairs, rest) = numbers.as_chunks::<2>();
        if rest.is_empty() {
            Ok(pairs.iter().map(|&[offset, len]| (offset, len)).collect())
        } else {
            Err(bad("bad map of a sparse file"))
        }
    }
}

fn check_count(pieces: u64) -> io::Result<()> {
    if pieces <= MAX_PIECES as u64 { Ok(()) } else { Err(bad("sparse file in too many pieces")) }
}

fn gnu_pieces(pieces: &[GnuSparseHeader]) -> io::Result<Vec<(u64, u64)>> {
    let used = pieces.iter().filter(|piece| !piece.is_empty());
    used.map(|piece| Ok((unsigned(&piece.offset, "sparse offset")?, unsigned(&piece.numbytes, "sparse length")?)))
        .collect()
}

fn device(header: &Header) -> io::Result<(u64, u64)> {
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (ustar.dev_major, ustar.dev_minor),
        (None, Some(gnu)) => (gnu.dev_major, gnu.dev_minor),
        (None, None) => return Ok((0, 0)),
    };
    Ok((unsigned(&major, "device number")?, unsigned(&minor, "device number")?))
}

fn unsigned(field: &[u8], what: &str) -> io::Result<u64> {
    number(field).and_then(|value| u64::try_from(value).ok()).ok_or_else(|| bad(format!("bad {what} in a tar header")))
}

fn decimal(text: &[u8]) -> io::Result<u64> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(|| bad("bad number in a PAX record"))
}

/// What something that does not begin with a tar header seems to be.
fn not_tar(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x1f, 0x8b, ..] => "compressed with gzip: decompress it first (gzip -dc)",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "compressed with zstd: decompress it first (zstd -dc)",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "compressed with xz: decompress it first (xz -dc)",
        [b'B', b'Z', b'h', ..] => "compressed with bzip2: decompress it first (bzip2 -dc)",
        _ => "not a tar archive",
    }
}
